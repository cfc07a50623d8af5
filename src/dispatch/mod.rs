//! Where a request runs: here, in a cloud, or nowhere.
//!
//! [`threshold`] says whether a request should leave, [`row`] which clouds are worth asking;
//! [`Dispatcher::dispatch`] asks them in turn and commits to the first that has content.

mod row;
mod threshold;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use row::Row;
use threshold::{Placement, Threshold};
use tokio::time::{Instant, timeout_at};

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
    /// Nobody: the deadline has passed.
    Shed(Reason),
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
        clouds: Vec<(Arc<str>, C)>,
        overflow: &OverflowConfig,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self {
            local,
            rows: clouds.into_iter().map(|(name, backend)| Row::new(name, backend)).collect(),
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
            Dispatch::Shed(reason) => Err((late(reason), Route::Shed)),
            Dispatch::Cloud(first) => match self.ask_clouds(first, &request).await {
                Ok((stream, route)) => Ok(Dispatched { stream, route, reason: why.to_owned() }),
                Err(refusal) if refusal.reason == Reason::Deadline => Err(self.reject(refusal)),
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
        let saturation = self.saturation();
        let mut threshold = self.threshold();
        if self.rows.is_empty() {
            // Nothing can leave, so there is no overflow to be in.
            let below = threshold.is_below(saturation);
            return (Dispatch::Local, if below { "below_threshold" } else { "no_cloud" });
        }
        let placement = threshold.place(saturation, now);
        self.count(&mut threshold);
        drop(threshold);
        match placement {
            Placement::Stay => (Dispatch::Local, "below_threshold"),
            Placement::Leave => match self.rows.iter().position(|row| !row.is_paused(now)) {
                Some(first) => (Dispatch::Cloud(first), "saturated"),
                None => (Dispatch::Local, "cloud_paused"),
            },
        }
    }

    async fn ask_local(
        &self,
        request: &Arc<CompletionRequest>,
    ) -> Result<CompletionStream, Refusal> {
        first_content(&self.local, request).await
    }

    /// Asks the rows from `first` on, each that is not paused once. The error is the last row's.
    async fn ask_clouds(
        &self,
        first: usize,
        request: &Arc<CompletionRequest>,
    ) -> Result<(CompletionStream, Route), Refusal> {
        let mut last = Refusal::new(Reason::CloudBusy, "no cloud can take the request now");
        for row in &self.rows[first..] {
            if !row.admit(Instant::now()) {
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
