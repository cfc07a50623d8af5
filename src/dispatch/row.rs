//! One cloud as the dispatcher sees it: its backend, and whether it is worth asking now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::Target;
use super::till::Till;
use crate::completion::compliance::{Declared, RequestPolicy};
use crate::completion::{CompletionStream, Event, Fault, Reason, Refusal};
use crate::ledger::Ledger;
use crate::policy::permits;

/// Failures in a row after which a cloud is paused.
const FAILURES_MAX: u32 = 3;
/// How long a failing cloud is left alone: long against a connect timeout, short against an outage.
const PAUSE: Duration = Duration::from_secs(5);
/// A wrong key or model does not mend itself; asking costs each request a round trip.
const PAUSE_MISCONFIGURED: Duration = Duration::from_secs(60);
/// Too much at once, and the cloud did not say for how long.
const PAUSE_THROTTLED: Duration = Duration::from_secs(1);
/// A quota that is used up is not back in a minute.
const PAUSE_QUOTA: Duration = Duration::from_secs(600);
/// A cloud's own wish to be left alone is believed this far.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Answers whose time to first token is remembered,
const TTFT_SAMPLES: usize = 32;
/// and how many say something.
const TTFT_SAMPLES_MIN: usize = 4;
/// How long what they say is believed. A cloud that was too slow gets another try then.
const TTFT_STALE: Duration = Duration::from_secs(10);

pub(super) struct Row<C> {
    pub(super) name: Arc<str>,
    pub(super) backend: C,
    /// What it costs, and who pays.
    pub(super) till: Till,
    declared: Declared,
    health: Arc<Health>,
}

impl<C> Row<C> {
    pub(super) fn new(target: Target<C>, ledger: Option<&Ledger>, tenants: &[Arc<str>]) -> Self {
        let Target { name, declared, terms, backend } = target;
        let till = Till::new(ledger.cloned(), tenants, &name, terms);
        Self { name, backend, till, declared, health: Arc::default() }
    }

    /// Time to first token that nine of ten recent answers kept to; None: there are none.
    pub(super) fn ttft(&self, now: Instant) -> Option<Duration> {
        self.health.state().ttft.p90(now)
    }

    /// Whether a request may be sent there at all; else the reason's code.
    pub(super) fn may_have(&self, policy: &RequestPolicy) -> Result<(), &'static str> {
        permits(policy, &self.declared)
    }

    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.health.state().paused_until.is_some_and(|until| now < until)
    }

    /// Whether to ask now. After a pause one request tries, and the others wait for its outcome.
    pub(super) fn admit(&self, now: Instant) -> bool {
        let mut state = self.health.state();
        match state.paused_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.paused_until = Some(now + PAUSE);
                state.probing = true;
                true
            }
        }
    }

    /// The cloud gave content, which ends a pause if this was the try at its end. (Another's
    /// answer does not: a cloud that limits our rate still answers what it took before.)
    pub(super) fn answered(&self, ttft: Duration, now: Instant) {
        let mut state = self.health.state();
        state.ttft.push(ttft, now);
        if std::mem::take(&mut state.probing) {
            state.paused_until = None;
        }
    }

    /// The cloud gave none.
    pub(super) fn refused(&self, refusal: &Refusal, now: Instant) {
        self.health.refused(refusal, now);
        let (cloud, reason) = (&*self.name, refusal.reason.code());
        match &refusal.reason {
            Reason::CloudCannot(_) | Reason::CloudBusy | Reason::Budget(_) | Reason::Deadline => {
                tracing::debug!(cloud, reason, "the request stays");
            }
            _ => {
                let cause = refusal.source.as_ref().map(tracing::field::display);
                tracing::warn!(cloud, reason, cause, "the cloud failed");
            }
        }
    }

    /// The stream, whose end counts for or against the cloud.
    pub(super) fn watch(&self, stream: CompletionStream) -> CompletionStream {
        let health = self.health.clone();
        let events = stream.events.inspect(move |event| match event {
            Event::Failed(refusal) => health.refused(refusal, Instant::now()),
            Event::Usage(_) => health.state().failures = 0,
            _ => {}
        });
        CompletionStream { events: Box::pin(events), ..stream }
    }
}

pub(super) fn not_allowed(code: &'static str) -> Refusal {
    Refusal::new(Reason::NotAllowed(code), "policy keeps this request from where it would run")
}

#[derive(Default)]
struct Health(Mutex<State>);

#[derive(Default)]
struct State {
    /// Failures since the last answer that ended well.
    failures: u32,
    paused_until: Option<Instant>,
    /// A request is out to see whether a pause may end.
    probing: bool,
    ttft: Ttft,
}

/// The times to first token of a cloud's latest answers.
#[derive(Default)]
struct Ttft {
    /// The oldest is overwritten.
    latest: [Duration; TTFT_SAMPLES],
    count: usize,
    /// When the last one came.
    at: Option<Instant>,
}

impl Ttft {
    fn push(&mut self, ttft: Duration, now: Instant) {
        if self.is_stale(now) {
            self.count = 0;
        }
        self.latest[self.count % TTFT_SAMPLES] = ttft;
        self.count += 1;
        self.at = Some(now);
    }

    /// None while there are too few to tell, or the last one is old: then it is worth a try.
    fn p90(&self, now: Instant) -> Option<Duration> {
        if self.count < TTFT_SAMPLES_MIN || self.is_stale(now) {
            return None;
        }
        let mut latest = self.latest;
        let latest = &mut latest[..self.count.min(TTFT_SAMPLES)];
        let place = (latest.len() * 9).div_ceil(10) - 1;
        Some(*latest.select_nth_unstable(place).1)
    }

    fn is_stale(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| now.duration_since(at) >= TTFT_STALE)
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, refusal: &Refusal, now: Instant) {
        let mut state = self.state();
        let probed = std::mem::take(&mut state.probing);
        let unsent = [Reason::CloudBusy, Reason::CloudUnproven].contains(&refusal.reason);
        if unsent || matches!(refusal.reason, Reason::CloudCannot(_) | Reason::Budget(_)) {
            // Nothing was sent, so nothing was learnt: the next request may try.
            if probed {
                state.paused_until = Some(now);
            }
            return;
        }
        if is_failure(&refusal.reason) {
            state.failures = state.failures.saturating_add(1);
        }
        let pause = match (&refusal.reason, refusal.retry_after) {
            (_, Some(wish)) => Some(wish.min(PAUSE_MAX)),
            (Reason::Cloud(Fault::Throttled), None) => Some(PAUSE_THROTTLED),
            (Reason::Cloud(Fault::Quota), None) => Some(PAUSE_QUOTA),
            (Reason::Cloud(Fault::Credentials | Fault::Clock | Fault::NotFound), None) => {
                Some(PAUSE_MISCONFIGURED)
            }
            _ => (state.failures >= FAILURES_MAX).then_some(PAUSE),
        };
        if let Some(pause) = pause {
            state.paused_until = state.paused_until.max(Some(now + pause));
        }
    }
}

/// Whether the cloud is at fault, and not the request or the client's patience.
fn is_failure(reason: &Reason) -> bool {
    match reason {
        Reason::CloudUnreachable | Reason::CloudTimeout | Reason::CloudGarbage => true,
        Reason::Cloud(fault) => *fault == Fault::Failed,
        _ => false,
    }
}
