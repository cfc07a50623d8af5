//! One cloud as the dispatcher sees it: its backend, and whether it is worth asking now.
//!
//! [`ttft`] is how fast it is, [`breaker`] whether it is broken, [`concurrency`] how much it should
//! have at once and [`quota`] how much in a minute.

mod breaker;
mod concurrency;
mod quota;
mod ttft;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use self::breaker::Breaker;
use self::concurrency::Concurrency;
use self::quota::Quota;
pub use self::quota::{Left, Rates};
pub(super) use self::ttft::Known;
use self::ttft::Ttft;
use super::till::Till;
use super::{Bounds, Target};
use crate::completion::compliance::{Declared, RequestPolicy};
use crate::completion::{CompletionStream, Event, Fault, Reason, Refusal};
use crate::ledger::Ledger;
use crate::money::Asked;
use crate::policy::permits;

/// While one request tries whether a pause may end, the others wait so long at most.
const PROBE: Duration = Duration::from_secs(5);
/// A wrong key or model does not mend itself; asking costs each request a round trip.
const PAUSE_MISCONFIGURED: Duration = Duration::from_secs(60);
/// A quota that is used up is not back in a minute.
const PAUSE_QUOTA: Duration = Duration::from_secs(600);
/// Too much at once, and the cloud did not say for how long; doubled each time,
const PAUSE_THROTTLED: Duration = Duration::from_secs(1);
/// up to this, as far as a cloud's own wish to be left alone is believed, too.
const PAUSE_MAX: Duration = Duration::from_secs(60);

pub(super) struct Row<C> {
    pub(super) name: Arc<str>,
    pub(super) backend: C,
    /// What it costs, and who pays.
    pub(super) till: Till,
    pub(super) bounds: Bounds,
    declared: Declared,
    health: Arc<Health>,
}

impl<C> Row<C> {
    pub(super) fn new(target: Target<C>, ledger: Option<&Ledger>, tenants: &[Arc<str>]) -> Self {
        let Target { name, declared, terms, bounds, backend } = target;
        let till = Till::new(ledger.cloned(), tenants, &name, terms);
        let health = Arc::new(Health::new(bounds.max_in_flight, bounds.rates));
        Self { name, backend, till, bounds, declared, health }
    }

    /// What its answers have told of its time to first token.
    pub(super) fn ttft(&self, now: Instant) -> Known {
        self.health.state().ttft.known(now)
    }

    /// Whether a request may be sent there at all; else the reason's code.
    pub(super) fn may_have(&self, policy: &RequestPolicy) -> Result<(), &'static str> {
        permits(policy, &self.declared)
    }

    /// What its answers have told of its time to first token, and whether it could be asked now;
    /// else the reason's code.
    pub(super) fn look(&self, wanted: Wanted<'_>) -> (Known, Result<(), &'static str>) {
        self.health.look(wanted)
    }

    /// Whether to ask now, and a place there. After a pause one request tries, and the others wait
    /// for its outcome.
    pub(super) fn admit(&self, wanted: Wanted<'_>) -> Option<Permit> {
        self.enter(wanted).then(|| Permit(self.health.clone()))
    }

    /// [`Row::admit`], for who remembers by himself to [`Row::leave`].
    pub(super) fn enter(&self, wanted: Wanted<'_>) -> bool {
        self.health.enter(wanted)
    }

    pub(super) fn leave(&self) {
        self.health.leave();
    }

    /// Leaves the cloud alone until told otherwise, or not any more.
    pub(super) fn hold(&self, hold: bool) {
        self.health.held.store(hold, Ordering::Relaxed);
    }

    pub(super) fn is_held(&self) -> bool {
        self.health.held.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.health.in_flight()
    }

    /// Begins at one request at a time, as is right for a cloud that has just been configured.
    pub(super) fn ramp(&self) {
        self.health.state().concurrency.ramp();
    }

    /// Takes over what is known of the same cloud from before a reload, under its own bounds.
    pub(super) fn inherit(&mut self, from: &Self) {
        self.health = from.health.clone();
        let mut state = self.health.state();
        state.concurrency.bound(self.bounds.max_in_flight);
        state.quota.bound(self.bounds.rates);
    }

    /// The cloud gave content, which ends a pause if this was the try at its end. (Another's
    /// answer does not: a cloud that limits our rate still answers what it took before.)
    pub(super) fn answered(&self, ttft: Duration, now: Instant) {
        self.health.answered(ttft, now);
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

    /// Nothing was sent after all, so nothing is learnt: the next request may try.
    pub(super) fn not_asked(&self, now: Instant) {
        self.health.not_asked(now);
    }

    /// An answer of the cloud came to its end.
    pub(super) fn ended_well(&self, now: Instant) {
        self.health.ended_well(now);
    }

    /// The stream, whose end counts for or against the cloud and gives the place back.
    pub(super) fn watch(&self, stream: CompletionStream, permit: Permit) -> CompletionStream {
        let health = self.health.clone();
        let events = stream.events.inspect(move |event| {
            let _held = &permit;
            match event {
                Event::Failed(refusal) => health.refused(refusal, Instant::now()),
                Event::Usage(_) => health.ended_well(Instant::now()),
                _ => {}
            }
        });
        CompletionStream { events: Box::pin(events), ..stream }
    }
}

/// What a request wants of a row.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) asked: &'a Asked,
    /// What the cloud says itself is left.
    pub(super) left: Left,
    pub(super) now: Instant,
    /// The box has refused it: what is found to be good for the cloud is no bound then, since
    /// nobody is better off if the request is shed. What the row was allowed still is.
    pub(super) nowhere_else: bool,
}

/// A place at a cloud; given back when dropped.
pub(super) struct Permit(Arc<Health>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

pub(super) fn not_allowed(code: &'static str) -> Refusal {
    Refusal::new(Reason::NotAllowed(code), "policy keeps this request from where it would run")
}

struct Health {
    state: Mutex<State>,
    in_flight: AtomicUsize,
    /// The operator's word.
    held: AtomicBool,
}

struct State {
    breaker: Breaker,
    paused_until: Option<Instant>,
    /// A request is out to see whether a pause may end.
    probing: bool,
    /// Times in a row that the cloud said it was too much.
    throttles: u32,
    ttft: Ttft,
    concurrency: Concurrency,
    quota: Quota,
}

impl Health {
    fn new(max_in_flight: usize, rates: Rates) -> Self {
        let state = State {
            breaker: Breaker::default(),
            paused_until: None,
            probing: false,
            throttles: 0,
            ttft: Ttft::default(),
            concurrency: Concurrency::new(max_in_flight),
            quota: Quota::new(rates),
        };
        Self {
            state: Mutex::new(state),
            in_flight: AtomicUsize::new(0),
            held: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    fn look(&self, wanted: Wanted<'_>) -> (Known, Result<(), &'static str>) {
        let state = self.state();
        let open = match self.held.load(Ordering::Relaxed) {
            true => Err("cloud_held"),
            false => state.is_open(wanted, self.in_flight()),
        };
        (state.ttft.known(wanted.now), open)
    }

    fn enter(&self, wanted: Wanted<'_>) -> bool {
        let mut state = self.state();
        let held = self.held.load(Ordering::Relaxed);
        if held || state.is_open(wanted, self.in_flight()).is_err() {
            return false;
        }
        let Wanted { asked, now, .. } = wanted;
        if state.paused_until.is_some() {
            state.paused_until = Some(now + PROBE);
            state.probing = true;
        }
        state.quota.take(asked, now);
        state.ttft.asked(now);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn answered(&self, ttft: Duration, now: Instant) {
        let in_flight = self.in_flight();
        let mut state = self.state();
        state.ttft.push(ttft, now);
        state.concurrency.answered(ttft, in_flight);
        state.throttles = 0;
        if std::mem::take(&mut state.probing) {
            state.paused_until = None;
            state.breaker.closed();
        }
    }

    fn ended_well(&self, now: Instant) {
        self.state().breaker.good(now);
    }

    fn not_asked(&self, now: Instant) {
        let mut state = self.state();
        state.ttft.refused();
        if std::mem::take(&mut state.probing) {
            state.paused_until = Some(now);
        }
    }

    fn refused(&self, refusal: &Refusal, now: Instant) {
        if was_not_sent(&refusal.reason) {
            return self.not_asked(now);
        }
        let mut state = self.state();
        state.probing = false;
        state.ttft.refused();
        if let Some(pause) = state.pause(refusal, now) {
            state.paused_until = state.paused_until.max(Some(now + pause));
        }
    }
}

impl State {
    fn is_open(&self, wanted: Wanted<'_>, in_flight: usize) -> Result<(), &'static str> {
        let Wanted { asked, left, now, nowhere_else } = wanted;
        if self.paused_until.is_some_and(|until| now < until) {
            return Err("cloud_paused");
        }
        if !self.quota.allows(asked, left, now) {
            return Err("cloud_rate");
        }
        if !nowhere_else && !self.concurrency.allows(in_flight) {
            return Err("cloud_limit");
        }
        Ok(())
    }

    /// How long a cloud is left alone that refused or failed.
    fn pause(&mut self, refusal: &Refusal, now: Instant) -> Option<Duration> {
        let opened = is_failure(&refusal.reason).then(|| self.breaker.bad(now)).flatten();
        let throttled = refusal.reason == Reason::Cloud(Fault::Throttled);
        if throttled {
            self.concurrency.throttled();
            self.throttles += 1;
        }
        match (&refusal.reason, refusal.retry_after) {
            (_, Some(wish)) => Some(wish.min(PAUSE_MAX)),
            (Reason::Cloud(Fault::Throttled), None) => {
                let doubled = 2u32.saturating_pow(self.throttles.min(8) - 1);
                Some((PAUSE_THROTTLED * doubled).min(PAUSE_MAX))
            }
            (Reason::Cloud(Fault::Quota), None) => Some(PAUSE_QUOTA),
            (Reason::Cloud(Fault::Credentials | Fault::Clock | Fault::NotFound), None) => {
                Some(PAUSE_MISCONFIGURED)
            }
            _ => opened,
        }
    }
}

/// Whether a row refused before anything left.
pub(super) fn was_not_sent(reason: &Reason) -> bool {
    matches!(reason, Reason::CloudCannot(_) | Reason::CloudBusy | Reason::Budget(_))
}

/// Whether the cloud is at fault, and not the request or the client's patience.
fn is_failure(reason: &Reason) -> bool {
    match reason {
        Reason::CloudUnreachable | Reason::CloudTimeout | Reason::CloudGarbage => true,
        Reason::Cloud(fault) => *fault == Fault::Failed,
        _ => false,
    }
}
