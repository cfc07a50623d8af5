//! Where a request runs: here, in a cloud, or nowhere.
//!
//! [`threshold`] says whether a request should leave, [`row`] which clouds are worth asking;
//! [`Dispatcher::dispatch`] asks them in turn and commits to the first that has content.

mod row;
mod threshold;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use row::{Row, not_allowed};
use threshold::{Placement, Threshold};
use tokio::time::{Instant, timeout_at};

use crate::completion::compliance::{Declared, RequestPolicy};
use crate::completion::{
    Backend, CompletionRequest, CompletionStream, Event, Reason, Refusal, Route,
};
use crate::config::OverflowConfig;
use crate::telemetry::Telemetry;

/// A shed client is asked back no earlier, so that a full queue is not also hammered.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How busy a backend is.
pub trait Load {
    /// Milliseconds of work ahead of a request that came now, its own prefill excluded.
    fn work_ahead_ms(&self) -> f64;
}

/// A decision, before anybody was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dispatch {
    Local,
    /// Index of the row to ask first.
    Cloud(usize),
    /// Nobody: the deadline has passed, or policy leaves no place.
    Shed(Reason),
}

/// A cloud row as it comes in.
pub struct Target<C> {
    pub name: Arc<str>,
    pub declared: Declared,
    pub backend: C,
}

/// An answer that has content, and where it comes from.
pub struct Dispatched {
    pub stream: CompletionStream,
    pub route: Route,
    /// Stable, lower case: `x-weir-reason`.
    pub reason: String,
}

/// A request nobody answered: why, and the route it is counted under (`local` when the request
/// itself is at fault, else `shed`).
pub type Rejected = (Refusal, Route);

/// Places every request on the local engine or on a cloud, in the order of the rows.
pub struct Dispatcher<L, C> {
    local: L,
    rows: Vec<Row<C>>,
    threshold: Mutex<Threshold>,
    objective: Duration,
    telemetry: Arc<Telemetry>,
}

impl<L: Backend + Load, C: Backend> Dispatcher<L, C> {
    pub fn new(
        local: L,
        clouds: Vec<Target<C>>,
        overflow: &OverflowConfig,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self {
            local,
            rows: clouds.into_iter().map(Row::new).collect(),
            threshold: Mutex::new(Threshold::new(overflow)),
            objective: overflow.ttft_objective,
            telemetry,
        }
    }

    pub fn local(&self) -> &L {
        &self.local
    }

    /// Work ahead of a new request over the objective for its first token; 1 is full.
    pub fn saturation(&self) -> f64 {
        self.local.work_ahead_ms() / (self.objective.as_secs_f64() * 1e3)
    }

    /// Whether excess requests leave. Ends by time alone, without a request to notice.
    pub fn active(&self) -> bool {
        let mut threshold = self.threshold();
        let active = threshold.active(Instant::now());
        self.count(&mut threshold);
        active
    }

    /// Finds `request` a backend and waits for its first content. Until then a backend that
    /// refuses, breaks or is late costs the client only time; after it nobody else is asked, and
    /// a break is the stream's own [`Event::Failed`]. Dropping the future cancels everything.
    pub async fn dispatch(&self, request: Arc<CompletionRequest>) -> Result<Dispatched, Rejected> {
        let (decision, why) = self.decide(&request);
        match decision {
            Dispatch::Shed(Reason::NotAllowed(code)) => Err((not_allowed(code), Route::Shed)),
            Dispatch::Shed(reason) => Err((late(reason), Route::Shed)),
            Dispatch::Cloud(first) => match self.ask_clouds(first, &request).await {
                Ok((stream, route)) => Ok(Dispatched { stream, route, reason: why.to_owned() }),
                Err(refusal) if refusal.reason == Reason::Deadline || !request.policy.here => {
                    Err(self.reject(refusal))
                }
                Err(refusal) => match self.ask_local(&request).await {
                    Ok(stream) => Ok(here(stream, refusal.reason.code())),
                    Err(refusal) => Err(self.reject(refusal)),
                },
            },
            Dispatch::Local => match self.ask_local(&request).await {
                Ok(stream) => Ok(here(stream, why.to_owned())),
                Err(refusal) if !is_excess(&refusal.reason) => Err(self.reject(refusal)),
                Err(refusal) => match self.ask_clouds(0, &request).await {
                    Ok((stream, route)) => {
                        Ok(Dispatched { stream, route, reason: refusal.reason.code() })
                    }
                    Err(_) => Err(self.reject(refusal)),
                },
            },
        }
    }

    /// Where to ask first, and the reason that counts if it answers.
    fn decide(&self, request: &CompletionRequest) -> (Dispatch, &'static str) {
        let now = Instant::now();
        if request.deadline.is_some_and(|deadline| deadline <= now) {
            return (Dispatch::Shed(Reason::Deadline), "deadline");
        }
        let policy = &request.policy;
        if !policy.here {
            return self.decide_away(policy, now);
        }
        let saturation = self.saturation();
        let mut threshold = self.threshold();
        if let Err(why) = self.may_leave(policy) {
            // It cannot leave, so there is no overflow for it to begin or prolong.
            let below = threshold.is_below(saturation);
            drop(threshold);
            if below {
                return (Dispatch::Local, "below_threshold");
            }
            self.count_refusals(policy);
            return (Dispatch::Local, why);
        }
        let placement = threshold.place(saturation, now);
        self.count(&mut threshold);
        drop(threshold);
        match placement {
            Placement::Stay => (Dispatch::Local, "below_threshold"),
            Placement::Leave => match self.first_row(policy, now) {
                Some(first) => (Dispatch::Cloud(first), "saturated"),
                None => (Dispatch::Local, "cloud_paused"),
            },
        }
    }

    /// Where a request goes that must not run here.
    fn decide_away(&self, policy: &RequestPolicy, now: Instant) -> (Dispatch, &'static str) {
        let nowhere = policy.away.is_err() || self.rows.is_empty();
        match self.may_leave(policy) {
            Ok(()) => (Dispatch::Cloud(self.first_row(policy, now).unwrap_or(0)), "cloud_only"),
            Err(_) if nowhere => (Dispatch::Shed(Reason::NotAllowed("policy:nowhere")), "shed"),
            Err(why) => {
                self.count_refusals(policy);
                (Dispatch::Shed(Reason::NotAllowed(why)), "shed")
            }
        }
    }

    /// Whether policy leaves a row for the request; else why the first has it not.
    fn may_leave(&self, policy: &RequestPolicy) -> Result<(), &'static str> {
        let mut verdicts = self.rows.iter().map(|row| row.may_have(policy));
        let first = verdicts.next().unwrap_or(Err("no_cloud"));
        if verdicts.any(|verdict| verdict.is_ok()) { Ok(()) } else { first }
    }

    fn first_row(&self, policy: &RequestPolicy, now: Instant) -> Option<usize> {
        self.rows.iter().position(|row| row.may_have(policy).is_ok() && !row.is_paused(now))
    }

    /// Counts each row that policy keeps from a request that would leave.
    fn count_refusals(&self, policy: &RequestPolicy) {
        for row in &self.rows {
            if let Err(code) = row.may_have(policy) {
                self.telemetry.kept_from(&row.name, code);
            }
        }
    }

    async fn ask_local(
        &self,
        request: &Arc<CompletionRequest>,
    ) -> Result<CompletionStream, Refusal> {
        first_content(&self.local, request).await
    }

    /// Asks the rows from `first` on, each that may have the request and is not paused once. The
    /// error is the last row's.
    async fn ask_clouds(
        &self,
        first: usize,
        request: &Arc<CompletionRequest>,
    ) -> Result<(CompletionStream, Route), Refusal> {
        let mut last = Refusal::new(Reason::CloudBusy, "no cloud can take the request now");
        self.count_refusals(&request.policy);
        for row in &self.rows[first..] {
            // First of all: whoever may not have the request is not asked, whatever else holds.
            if row.may_have(&request.policy).is_err() || !row.admit(Instant::now()) {
                continue;
            }
            match first_content(&row.backend, request).await {
                Ok(stream) => {
                    row.answered();
                    return Ok((row.watch(stream), Route::Cloud(row.name.clone())));
                }
                Err(refusal) => {
                    row.refused(&refusal, Instant::now());
                    let late = refusal.reason == Reason::Deadline;
                    last = refusal;
                    if late {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    /// A refusal as the client gets it, with a time to come back when it is not the client's fault.
    fn reject(&self, refusal: Refusal) -> Rejected {
        match refusal.reason {
            Reason::Invalid { .. } | Reason::ContextLength | Reason::Unsupported => {
                (refusal, Route::Local)
            }
            Reason::QueueFull => {
                let drained = || Duration::try_from_secs_f64(self.local.work_ahead_ms() / 1e3);
                let after = refusal.retry_after.or_else(|| drained().ok());
                let after =
                    after.unwrap_or(RETRY_AFTER_MAX).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
                (refusal.with_retry_after(after), Route::Shed)
            }
            _ => (refusal, Route::Shed),
        }
    }

    fn threshold(&self) -> MutexGuard<'_, Threshold> {
        self.threshold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, threshold: &mut Threshold) {
        self.telemetry.overflow_changes.increment(threshold.take_changes());
    }
}

fn here(stream: CompletionStream, reason: String) -> Dispatched {
    Dispatched { stream, route: Route::Local, reason }
}

fn late(reason: Reason) -> Refusal {
    Refusal::new(reason, "the deadline passed before the first token")
}

/// Whether the box, and not the request, is why it was refused: then a cloud may help.
fn is_excess(reason: &Reason) -> bool {
    matches!(reason, Reason::QueueFull | Reason::EngineFailed)
}

/// Starts the completion and waits, no longer than the deadline, until it has something to show.
async fn first_content<B: Backend>(
    backend: &B,
    request: &Arc<CompletionRequest>,
) -> Result<CompletionStream, Refusal> {
    let starting = async {
        let CompletionStream { model, truncated, mut events } =
            backend.complete(request.clone()).await?;
        match events.next().await {
            Some(Event::Failed(refusal)) => Err(refusal),
            Some(first) => {
                let events = Box::pin(stream::iter([first]).chain(events));
                Ok(CompletionStream { model, truncated, events })
            }
            None => Err(Refusal::new(Reason::EngineFailed, "the completion ended unanswered")),
        }
    };
    match request.deadline {
        None => starting.await,
        Some(deadline) => {
            timeout_at(deadline, starting).await.unwrap_or_else(|_| Err(late(Reason::Deadline)))
        }
    }
}

#[cfg(test)]
mod tests;
