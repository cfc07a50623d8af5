//! Where a request runs: here, in a cloud, or nowhere.
//!
//! [`threshold`] says whether a request should leave; [`candidates`] which clouds may have it, in
//! the order in which they are asked; [`row`] whether a cloud is well, [`till`] what it costs; of
//! that [`decide`] makes a decision. [`Dispatcher::dispatch`] asks in turn ([`ask`]) and commits to
//! the first that has content; what breaks later is gone on with by [`resume`].
//! [`Dispatcher::explain`] tells what it would do and asks nobody.

mod allowance;
mod ask;
mod candidates;
mod decide;
mod fit;
mod hedge;
mod restore;
mod resume;
mod row;
mod simulated;
mod standing;
mod threshold;
mod till;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use allowance::Allowance;
use ask::Tries;
pub use candidates::Considered;
use candidates::{consider, told};
use decide::Place;
use hedge::Hedge;
use row::Row;
pub use row::{Left, Rates};
use serde::{Deserialize, Serialize};
pub(crate) use simulated::{Placed, Simulated};
pub use standing::Standing;
use threshold::Threshold;
use till::Stayed;
pub use till::{Costs, Terms};
use tokio::time::Instant;

use crate::completion::compliance::Declared;
use crate::completion::{Backend, CompletionRequest, CompletionStream, Reason, Refusal, Route};
use crate::config::{OverflowConfig, Placing};
use crate::ledger::{Ledger, Outcome};
use crate::money::Asked;
use crate::policy::secrets::Scanner;
use crate::telemetry::{Calibration, Telemetry};

/// A shed client is asked back no earlier, so that a full queue is not also hammered.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Second attempts at clouds, as a share of the requests that go there,
const RETRY_SHARE: f64 = 0.1;
/// and how many quiet times may save up.
const RETRIES_SAVED_MAX: f64 = 10.0;

/// How busy a backend is.
pub trait Load {
    /// Milliseconds of work ahead of a request that came now, its own prefill excluded.
    fn work_ahead_ms(&self) -> f64;
}

/// The backend on this box, which reads a request before it runs it and knows then how long its
/// first token will take.
pub trait Local: Backend + Load {
    /// A request that was read and has its place. Dropping it gives that back.
    type Prepared: Send + 'static;

    fn prepare(
        &self,
        request: Arc<CompletionRequest>,
    ) -> impl Future<Output = Result<Self::Prepared, Refusal>> + Send;

    /// From now to the first text.
    fn predicted_ttft(&self, prepared: &Self::Prepared) -> Duration;

    fn start(&self, prepared: Self::Prepared) -> Result<CompletionStream, Refusal>;

    /// The same as [`Local::predicted_ttft`] for a request that takes no place.
    fn estimate_ttft(
        &self,
        request: &Arc<CompletionRequest>,
    ) -> impl Future<Output = Result<Duration, Refusal>> + Send;
}

/// A cloud that can say what a request would be there, before it is sent.
pub trait Quote {
    /// At most; or why the cloud cannot honour the request.
    fn quote(&self, request: &CompletionRequest) -> Result<Asked, Refusal>;

    /// What it said itself is left of its quotas, as far as that holds at `now`.
    fn left(&self, _now: Instant) -> Left {
        Left::default()
    }

    /// The time to first token that it told by itself, as another weir does, for such a request.
    fn told_ttft(&self, _asked: &Asked) -> Option<Duration> {
        None
    }
}

impl<C: Quote> Quote for Arc<C> {
    fn quote(&self, request: &CompletionRequest) -> Result<Asked, Refusal> {
        C::quote(self, request)
    }

    fn left(&self, now: Instant) -> Left {
        C::left(self, now)
    }

    fn told_ttft(&self, asked: &Asked) -> Option<Duration> {
        C::told_ttft(self, asked)
    }
}

/// What a row may be asked.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub max_in_flight: usize,
    pub rates: Rates,
    /// Of rows that cost the same the one with more comes first.
    pub prefer: i64,
}

/// A cloud row as it comes in.
pub struct Target<C> {
    pub name: Arc<str>,
    pub declared: Declared,
    pub terms: Terms,
    pub bounds: Bounds,
    pub backend: C,
}

/// What stands between a request and the clouds that policy allows it.
pub struct Safeguards {
    /// Finds secrets: what holds one does not leave.
    pub scanner: Scanner,
    /// Who pays, and where it is written down. None: nothing costs anything that anybody said.
    pub ledger: Option<Ledger>,
    /// Names, by the tenants' indices.
    pub tenants: Vec<Arc<str>>,
}

/// An answer that has content, and where it comes from.
pub struct Dispatched {
    pub stream: CompletionStream,
    pub route: Route,
    /// Stable, lower case: `x-weir-reason`.
    pub reason: String,
    pub costs: Costs,
    /// From the request's arrival to its first text, as was thought when it was placed; None: of a
    /// cloud that has not answered lately.
    pub predicted_ttft: Option<Duration>,
}

/// What would become of a request that came now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who is asked first: `local`, `cloud:NAME` or `shed`.
    pub route: String,
    pub reason: String,
    /// Work ahead over the objective.
    pub saturation: f64,
    pub work_ahead_ms: f64,
    pub ttft_objective_ms: f64,
    /// Here, its own prefill included; null: it cannot run here.
    pub predicted_ttft_ms: Option<f64>,
    pub overflow_active: bool,
    /// In the order of the rows.
    pub clouds: Vec<Considered>,
}

/// A request nobody answered: why, and the route it is counted under (`local` when the request
/// itself is at fault, else `shed`).
pub type Rejected = (Refusal, Route);

/// Places every request on the local engine or on a cloud.
pub struct Dispatcher<L, C> {
    local: L,
    rows: Vec<Row<C>>,
    scanner: Scanner,
    stayed: Stayed,
    threshold: Mutex<Threshold>,
    objective: Duration,
    placing: Placing,
    /// None: no request is asked twice for its first token.
    hedge: Option<Arc<Hedge>>,
    retries: Arc<Allowance>,
    telemetry: Arc<Telemetry>,
    /// Of the box, and of each row.
    calibration: Calibration,
    calibrations: Vec<Calibration>,
}

impl<L: Load, C: Quote> Dispatcher<L, C> {
    pub fn new(
        local: L,
        clouds: Vec<Target<C>>,
        overflow: &OverflowConfig,
        safeguards: Safeguards,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let Safeguards { scanner, ledger, tenants } = safeguards;
        let row = |target| Row::new(target, ledger.as_ref(), &tenants);
        let rows: Vec<Row<C>> = clouds.into_iter().map(row).collect();
        let of = |row: &Row<C>| telemetry.calibration(&Route::Cloud(row.name.clone()));
        Self {
            local,
            calibration: telemetry.calibration(&Route::Local),
            calibrations: rows.iter().map(of).collect(),
            rows,
            stayed: Stayed::new(ledger.clone(), &tenants),
            scanner,
            threshold: Mutex::new(Threshold::new(overflow)),
            objective: overflow.ttft_objective,
            placing: overflow.placing,
            hedge: overflow.hedge.then(Arc::default),
            retries: Arc::new(Allowance::new(RETRY_SHARE, RETRIES_SAVED_MAX)),
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

    fn count(&self, threshold: &mut Threshold) {
        self.telemetry.overflow_changes.increment(threshold.take_changes());
    }
}

impl<L: Local, C: Backend + Quote> Dispatcher<L, C> {
    /// Finds `request` a backend and waits for its first content. Until then a backend that
    /// refuses, breaks or is late costs the client only time. After it the stream ends honestly
    /// when it breaks, or goes on elsewhere from the text that was given out, where that is exact.
    /// Dropping the future, or the stream, cancels everything.
    pub async fn dispatch(
        self: &Arc<Self>,
        request: Arc<CompletionRequest>,
    ) -> Result<Dispatched, Rejected> {
        let mut tries = Tries::new();
        let placed = self.dispatch_once(&request, &mut tries).await?;
        Ok(self.resumable(request, placed, tries))
    }

    async fn dispatch_once(
        &self,
        request: &Arc<CompletionRequest>,
        tries: &mut Tries,
    ) -> Result<Dispatched, Rejected> {
        let prepared = match self.wants_prediction(request) {
            // Whatever is wrong with it shows again where it is placed.
            true => self.prepare(request).await.ok(),
            false => None,
        };
        let now = Instant::now();
        let predicted = prepared.as_ref().map(|prepared| self.local.predicted_ttft(prepared));
        let decision = self.decide(request, predicted, now);
        self.commit(request, &decision, now);
        let wanted = decision.wants_to_leave();
        let placed = self.place(request, decision, prepared, tries).await;
        // What the box itself refused wanted to leave as well, where there was somewhere to go.
        let excess = |refusal: &Refusal| !self.rows.is_empty() && ask::is_excess(&refusal.reason);
        if wanted || placed.as_ref().is_err_and(|(refusal, _)| excess(refusal)) {
            self.note(request, &placed);
        }
        placed
    }

    /// Writes down a request that wanted to leave and did not.
    fn note(&self, request: &CompletionRequest, placed: &Result<Dispatched, Rejected>) {
        match placed {
            Ok(Dispatched { route: Route::Local, reason, .. }) => {
                self.stayed.note(request, Outcome::Kept, reason);
            }
            // It left and has rows of its own, or was wrong wherever it runs.
            Ok(_) | Err((_, Route::Local)) => {}
            Err((refusal, _)) => self.stayed.note(request, Outcome::Shed, &refusal.reason.code()),
        }
    }

    /// What [`Dispatcher::dispatch`] would decide now. Nobody is asked, nothing is counted, no
    /// money is set aside.
    pub async fn explain(&self, request: &Arc<CompletionRequest>) -> Explanation {
        let here = request.policy.here;
        let estimate = if here { self.local.estimate_ttft(request).await.ok() } else { None };
        let now = Instant::now();
        let counts = estimate.filter(|_| self.wants_prediction(request));
        let decision = self.decide(request, counts, now);
        let route = match &decision.place {
            Place::Local => Route::Local.to_string(),
            Place::Clouds(rows) => Route::Cloud(self.rows[rows[0]].name.clone()).to_string(),
            Place::Shed(_) => Route::Shed.to_string(),
        };
        let candidates = match decision.candidates.is_empty() {
            true => consider(&self.rows, request, self.here(request, counts, now), now),
            false => decision.candidates,
        };
        Explanation {
            route,
            reason: decision.why,
            saturation: self.saturation(),
            work_ahead_ms: self.local.work_ahead_ms(),
            ttft_objective_ms: self.objective.as_secs_f64() * 1e3,
            predicted_ttft_ms: estimate.map(|ttft| ttft.as_secs_f64() * 1e3),
            overflow_active: self.active(),
            clouds: told(&self.rows, &candidates),
        }
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
}

impl<L, C> Dispatcher<L, C> {
    /// Takes over what `before` knows, when the configuration has changed: the state of overflow,
    /// what may be tried twice, and of each row that is the same (by `is_same`) its health and what
    /// it has in flight. A row that is new begins with one request at a time, and one that only has
    /// the name of another is held where that was: names are what the operator holds.
    pub fn succeed(&mut self, before: &Self, is_same: impl Fn(&C, &C) -> bool) {
        self.threshold().succeed(&before.threshold());
        self.retries = before.retries.clone();
        if let (Some(hedge), Some(before)) = (&mut self.hedge, &before.hedge) {
            *hedge = before.clone();
        }
        for row in &mut self.rows {
            let namesake = before.rows.iter().find(|known| known.name == row.name);
            match namesake.filter(|known| is_same(&known.backend, &row.backend)) {
                Some(known) => row.inherit(known),
                None => {
                    row.ramp();
                    row.hold(namesake.is_some_and(Row::is_held));
                }
            }
        }
    }

    fn threshold(&self) -> MutexGuard<'_, Threshold> {
        self.threshold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a cloud alone until told otherwise, or not any more. False: there is none of that
    /// name.
    pub fn hold(&self, cloud: &str, hold: bool) -> bool {
        let row = self.rows.iter().find(|row| *row.name == *cloud);
        row.map(|row| row.hold(hold)).is_some()
    }
}

#[cfg(test)]
mod tests;
