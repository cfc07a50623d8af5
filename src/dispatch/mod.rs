//! Where a request runs: here, in a cloud, or nowhere.
//!
//! [`threshold`] says whether a request should leave; [`candidates`] which clouds may have it, in
//! the order in which they are asked; [`row`] whether a cloud is well, [`till`] what it costs.
//! [`Dispatcher::dispatch`] asks them in turn and commits to the first that has content;
//! [`Dispatcher::explain`] tells what it would do and asks nobody.

mod candidates;
mod restore;
mod row;
mod simulated;
mod threshold;
mod till;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use candidates::Considered;
use candidates::{Candidate, Here, consider, order, told};
use futures_util::{StreamExt, stream};
use row::{Row, not_allowed};
use serde::Serialize;
pub(crate) use simulated::{Placed, Simulated};
use threshold::{Placement, Threshold};
use till::Stayed;
pub use till::{Cost, Terms};
use tokio::time::{Instant, timeout_at};

use crate::completion::compliance::{Declared, RequestPolicy};
use crate::completion::{
    Backend, CompletionRequest, CompletionStream, Event, Reason, Refusal, Route,
};
use crate::config::OverflowConfig;
use crate::ledger::{Ledger, Outcome};
use crate::money::Asked;
use crate::policy::redact::Cleared;
use crate::policy::secrets::Scanner;
use crate::telemetry::Telemetry;

/// A shed client is asked back no earlier, so that a full queue is not also hammered.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How busy a backend is.
pub trait Load {
    /// Milliseconds of work ahead of a request that came now, its own prefill excluded.
    fn work_ahead_ms(&self) -> f64;
}

/// A cloud that can say what a request would be there, before it is sent.
pub trait Quote {
    /// At most; or why the cloud cannot honour the request.
    fn quote(&self, request: &CompletionRequest) -> Result<Asked, Refusal>;
}

/// A cloud row as it comes in.
pub struct Target<C> {
    pub name: Arc<str>,
    pub declared: Declared,
    pub terms: Terms,
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
    /// Of a cloud that has a price.
    pub cost: Option<Cost>,
}

/// What would become of a request that came now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Who is asked first: `local`, `cloud:NAME` or `shed`.
    pub route: String,
    pub reason: String,
    /// Work ahead over the objective.
    pub saturation: f64,
    pub work_ahead_ms: f64,
    pub ttft_objective_ms: f64,
    pub overflow_active: bool,
    /// In the order of the rows.
    pub clouds: Vec<Considered>,
}

/// A decision, before anybody was asked.
struct Decision {
    place: Place,
    /// The reason that counts if the one asked first answers.
    why: String,
    /// What policy and threshold made of it, still to be counted.
    leaving: Leaving,
    /// Every row; empty where none was looked at.
    candidates: Vec<Candidate>,
    /// What leaves, if it does.
    cleared: Cleared,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Local,
    /// The rows that may be asked, in this order.
    Clouds(Vec<usize>),
    /// Nobody: the deadline has passed, or policy leaves no place.
    Shed(Reason),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaving {
    /// It was held against the threshold, at this saturation.
    Weighed(f64),
    /// It would have left, but policy keeps it.
    Kept,
    /// The threshold is not asked.
    Unasked,
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
    telemetry: Arc<Telemetry>,
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
        Self {
            local,
            rows: clouds.into_iter().map(row).collect(),
            stayed: Stayed::new(ledger.clone(), &tenants),
            scanner,
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
}

impl<L: Backend + Load, C: Backend + Quote> Dispatcher<L, C> {
    /// Finds `request` a backend and waits for its first content. Until then a backend that
    /// refuses, breaks or is late costs the client only time; after it nobody else is asked, and
    /// a break is the stream's own [`Event::Failed`]. Dropping the future cancels everything.
    pub async fn dispatch(&self, request: Arc<CompletionRequest>) -> Result<Dispatched, Rejected> {
        let now = Instant::now();
        let decision = self.decide(&request, now);
        self.commit(&request, &decision, now);
        let wanted = decision.wants_to_leave();
        let placed = self.place(&request, decision).await;
        // What the box itself refused wanted to leave as well, where there was somewhere to go.
        let excess = |refusal: &Refusal| !self.rows.is_empty() && is_excess(&refusal.reason);
        if wanted || placed.as_ref().is_err_and(|(refusal, _)| excess(refusal)) {
            self.note(&request, &placed);
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

    async fn place(
        &self,
        request: &Arc<CompletionRequest>,
        decision: Decision,
    ) -> Result<Dispatched, Rejected> {
        let Decision { place, why, cleared, .. } = decision;
        match place {
            Place::Shed(Reason::NotAllowed(code)) => Err((not_allowed(code), Route::Shed)),
            Place::Shed(reason @ Reason::Secret(_)) => {
                let message = "it holds a secret and may not run here";
                Err((Refusal::new(reason, message), Route::Shed))
            }
            Place::Shed(reason) => Err((late(reason), Route::Shed)),
            Place::Clouds(rows) => match self.ask_clouds(&rows, request, &cleared, &why).await {
                Ok(dispatched) => Ok(dispatched),
                Err(refusal) if refusal.reason == Reason::Deadline || !request.policy.here => {
                    Err(self.reject(refusal))
                }
                Err(refusal) => match self.ask_local(request).await {
                    Ok(stream) => Ok(here(stream, refusal.reason.code())),
                    Err(refusal) => Err(self.reject(refusal)),
                },
            },
            Place::Local => match self.ask_local(request).await {
                Ok(stream) => Ok(here(stream, why)),
                Err(refusal) if !is_excess(&refusal.reason) => Err(self.reject(refusal)),
                Err(refusal) => {
                    let (rows, cleared) = self.open_rows(request, Instant::now());
                    let why = refusal.reason.code();
                    let asked = self.ask_clouds(&rows, request, &cleared, &why).await;
                    asked.map_err(|_| self.reject(refusal))
                }
            },
        }
    }
}

impl<L: Load, C: Quote> Dispatcher<L, C> {
    /// What [`Dispatcher::dispatch`] would decide now. Nobody is asked, nothing is counted, no
    /// money is set aside.
    pub fn explain(&self, request: &CompletionRequest) -> Explanation {
        let now = Instant::now();
        let decision = self.decide(request, now);
        let route = match &decision.place {
            Place::Local => Route::Local.to_string(),
            Place::Clouds(rows) => Route::Cloud(self.rows[rows[0]].name.clone()).to_string(),
            Place::Shed(_) => Route::Shed.to_string(),
        };
        let candidates = match decision.candidates.is_empty() {
            true => consider(&self.rows, request, self.here(request, now), now),
            false => decision.candidates,
        };
        Explanation {
            route,
            reason: decision.why,
            saturation: self.saturation(),
            work_ahead_ms: self.local.work_ahead_ms(),
            ttft_objective_ms: self.objective.as_secs_f64() * 1e3,
            overflow_active: self.active(),
            clouds: told(&self.rows, &candidates),
        }
    }

    /// Where to ask first. Changes nothing.
    fn decide(&self, request: &CompletionRequest, now: Instant) -> Decision {
        if request.deadline.is_some_and(|deadline| deadline <= now) {
            return Decision::simple(Place::Shed(Reason::Deadline), "deadline");
        }
        let policy = &request.policy;
        if !policy.here {
            return self.decide_away(request, now);
        }
        let saturation = self.saturation();
        if let Err(why) = self.may_leave(policy) {
            // It cannot leave, so there is no overflow for it to begin or prolong.
            if self.threshold().is_below(saturation) {
                return Decision::simple(Place::Local, "below_threshold");
            }
            return Decision { leaving: Leaving::Kept, ..Decision::simple(Place::Local, why) };
        }
        let placement = self.threshold().would(saturation, now);
        let (candidates, mut decision) = match placement {
            Placement::Stay => (Vec::new(), Decision::simple(Place::Local, "below_threshold")),
            Placement::Leave => {
                let all = consider(&self.rows, request, self.here(request, now), now);
                let decision = self.leave(request, &all);
                (all, decision)
            }
        };
        decision.leaving = Leaving::Weighed(saturation);
        Decision { candidates, ..decision }
    }

    /// Where a request goes that must not run here.
    fn decide_away(&self, request: &CompletionRequest, now: Instant) -> Decision {
        let policy = &request.policy;
        let nowhere = policy.away.is_err() || self.rows.is_empty();
        match self.may_leave(policy) {
            Ok(()) => {
                let candidates = consider(&self.rows, request, self.here(request, now), now);
                let cleared = match self.clear(request) {
                    Ok(cleared) => cleared,
                    Err(reason) => {
                        let why = reason.code();
                        let shed = Decision::simple(Place::Shed(reason), &why);
                        return Decision { candidates, ..shed };
                    }
                };
                let mut rows: Vec<usize> = order(&candidates).iter().map(|next| next.row).collect();
                if rows.is_empty() {
                    // There is nowhere else: whoever policy allows is asked, and says why not.
                    let allowed = |row: &usize| self.rows[*row].may_have(policy).is_ok();
                    rows = (0..self.rows.len()).filter(allowed).collect();
                }
                let simple = Decision::simple(Place::Clouds(rows), "cloud_only");
                Decision { candidates, cleared, ..simple }
            }
            Err(_) if nowhere => Decision::simple(
                Place::Shed(Reason::NotAllowed("policy:nowhere")),
                "policy:nowhere",
            ),
            Err(why) => {
                let shed = Decision::simple(Place::Shed(Reason::NotAllowed(why)), why);
                Decision { leaving: Leaving::Kept, ..shed }
            }
        }
    }

    /// Where a request goes that should leave: to the clouds that are left, or nowhere else than
    /// here, because of what it holds or for the reason of the first that policy would allow.
    fn leave(&self, request: &CompletionRequest, candidates: &[Candidate]) -> Decision {
        let rows: Vec<usize> = order(candidates).iter().map(|candidate| candidate.row).collect();
        if rows.is_empty() {
            return Decision::simple(Place::Local, why_none(candidates));
        }
        match self.clear(request) {
            Err(reason) => Decision::simple(Place::Local, &reason.code()),
            Ok(cleared) => {
                Decision { cleared, ..Decision::simple(Place::Clouds(rows), "saturated") }
            }
        }
    }

    /// What leaves of a request. Scanned once for each that would otherwise leave, and only then.
    fn clear(&self, request: &CompletionRequest) -> Result<Cleared, Reason> {
        self.scanner.clear(request).map_err(Reason::Secret)
    }

    /// Lets a decision count.
    fn commit(&self, request: &CompletionRequest, decision: &Decision, now: Instant) {
        if let Some(rule) = decision.why.strip_prefix("secret:") {
            self.telemetry.secret(rule);
        }
        match decision.leaving {
            Leaving::Unasked => {}
            Leaving::Kept => self.count_refusals(&request.policy),
            Leaving::Weighed(saturation) => {
                let mut threshold = self.threshold();
                threshold.place(saturation, now);
                self.count(&mut threshold);
            }
        }
    }

    /// What waiting here would be.
    fn here(&self, request: &CompletionRequest, now: Instant) -> Here {
        let patience = request.deadline.map(|deadline| deadline.saturating_duration_since(now));
        let wait = Duration::try_from_secs_f64(self.local.work_ahead_ms() / 1e3);
        Here {
            wanted: patience.map_or(self.objective, |patience| patience.min(self.objective)),
            wait: wait.ok().filter(|_| request.policy.here),
        }
    }

    /// The rows for a request that the box has refused.
    fn open_rows(&self, request: &CompletionRequest, now: Instant) -> (Vec<usize>, Cleared) {
        let nowhere_else = Here { wait: None, ..self.here(request, now) };
        let cleared = match self.scanner.clear(request) {
            Ok(cleared) => cleared,
            Err(rule) => {
                self.telemetry.secret(&rule);
                return Default::default();
            }
        };
        let candidates = consider(&self.rows, request, nowhere_else, now);
        (order(&candidates).iter().map(|candidate| candidate.row).collect(), cleared)
    }

    /// Whether policy leaves a row for the request; else why the first has it not.
    fn may_leave(&self, policy: &RequestPolicy) -> Result<(), &'static str> {
        let mut verdicts = self.rows.iter().map(|row| row.may_have(policy));
        let first = verdicts.next().unwrap_or(Err("no_cloud"));
        if verdicts.any(|verdict| verdict.is_ok()) { Ok(()) } else { first }
    }

    /// Counts each row that policy keeps from a request that would leave.
    fn count_refusals(&self, policy: &RequestPolicy) {
        for row in &self.rows {
            if let Err(code) = row.may_have(policy) {
                self.telemetry.kept_from(&row.name, code);
            }
        }
    }
}

impl<L: Backend + Load, C: Backend + Quote> Dispatcher<L, C> {
    async fn ask_local(
        &self,
        request: &Arc<CompletionRequest>,
    ) -> Result<CompletionStream, Refusal> {
        first_content(&self.local, request).await
    }

    /// Asks the rows in this order, each once. The error is the last row's.
    async fn ask_clouds(
        &self,
        rows: &[usize],
        request: &Arc<CompletionRequest>,
        cleared: &Cleared,
        why: &str,
    ) -> Result<Dispatched, Refusal> {
        let mut last = Refusal::new(Reason::CloudBusy, "no cloud can take the request now");
        self.count_refusals(&request.policy);
        let request = cleared.request.as_ref().unwrap_or(request);
        let mut uncounted = cleared.redaction.as_ref();
        for row in rows.iter().map(|&row| &self.rows[row]) {
            // First of all: whoever may not have the request is not asked, whatever else holds.
            if row.may_have(&request.policy).is_err() || !row.admit(Instant::now()) {
                continue;
            }
            if let Some(redaction) = uncounted.take() {
                redaction.rules.iter().for_each(|rule| self.telemetry.redacted(rule));
            }
            match ask(row, request, why).await {
                Ok(dispatched) => return Ok(self.restored(dispatched, cleared, request.n)),
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
}

impl<L: Load, C: Quote> Dispatcher<L, C> {
    /// An answer with the secrets back in it.
    fn restored(&self, dispatched: Dispatched, cleared: &Cleared, n: u32) -> Dispatched {
        let Some(redaction) = &cleared.redaction else { return dispatched };
        let damaged = self.telemetry.placeholders_damaged.clone();
        let stream = restore::answer(dispatched.stream, redaction, n, damaged);
        Dispatched { stream, ..dispatched }
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

impl Decision {
    /// Whether the box alone would not have it now.
    fn wants_to_leave(&self) -> bool {
        self.leaving == Leaving::Kept || !self.candidates.is_empty()
    }

    fn simple(place: Place, why: &str) -> Self {
        Self {
            place,
            why: why.to_owned(),
            leaving: Leaving::Unasked,
            candidates: Vec::new(),
            cleared: Cleared::default(),
        }
    }
}

/// Why nobody is left of those that policy would allow; the first one's reason.
fn why_none(candidates: &[Candidate]) -> &str {
    let is_policy = |why: &&String| why.starts_with("compliance:") || why.starts_with("policy:");
    let mut refused = candidates.iter().filter_map(|candidate| candidate.verdict.as_ref().err());
    refused.find(|why| !is_policy(why)).map_or("cloud_paused", String::as_str)
}

/// Asks one row, with its worst case set aside.
async fn ask<C: Backend + Quote>(
    row: &Row<C>,
    request: &Arc<CompletionRequest>,
    why: &str,
) -> Result<Dispatched, Refusal> {
    let worst = row.till.worst(&row.backend.quote(request)?);
    let charge = row.till.charge(request, worst, why)?;
    let began = Instant::now();
    match first_content(&row.backend, request).await {
        Ok(stream) => {
            let now = Instant::now();
            row.answered(now.duration_since(began), now);
            let cost = charge.cost();
            let stream = charge.watch(row.watch(stream));
            let route = Route::Cloud(row.name.clone());
            Ok(Dispatched { stream, route, reason: why.to_owned(), cost })
        }
        Err(refusal) => {
            charge.refused(&refusal);
            Err(refusal)
        }
    }
}

fn here(stream: CompletionStream, reason: String) -> Dispatched {
    Dispatched { stream, route: Route::Local, reason, cost: None }
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
