//! Where a request should run: a decision that changes nothing until it is committed.

use std::time::Duration;

use tokio::time::Instant;

use super::candidates::{Candidate, Here, consider, order};
use super::threshold::Placement;
use super::{Dispatcher, Load, Quote};
use crate::completion::compliance::RequestPolicy;
use crate::completion::{CompletionRequest, Reason};
use crate::config::Placing;
use crate::policy::redact::Cleared;

/// A decision, before anybody was asked.
pub(super) struct Decision {
    pub(super) place: Place,
    /// The reason that counts if the one asked first answers.
    pub(super) why: String,
    /// What policy and threshold made of it, still to be counted.
    pub(super) leaving: Leaving,
    /// Every row; empty where none was looked at.
    pub(super) candidates: Vec<Candidate>,
    /// What leaves, if it does.
    pub(super) cleared: Cleared,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Local,
    /// The rows that may be asked, in this order.
    Clouds(Vec<usize>),
    /// Nobody: the deadline has passed, or policy leaves no place.
    Shed(Reason),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leaving {
    /// It was held against the threshold, at this saturation.
    Weighed(f64),
    /// It would have left, but policy keeps it.
    Kept,
    /// The threshold is not asked.
    Unasked,
}

impl Decision {
    /// Whether the box alone would not have it now.
    pub(super) fn wants_to_leave(&self) -> bool {
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

impl<L: Load, C: Quote> Dispatcher<L, C> {
    /// Whether a request is to be read by the engine before it is decided on: with
    /// `place = "fastest"` its own prefill counts.
    pub(super) fn wants_prediction(&self, request: &CompletionRequest) -> bool {
        self.placing == Placing::Fastest && request.policy.here && !self.rows.is_empty()
    }

    /// Where to ask first. `predicted`: the time to first token here, where
    /// [`Dispatcher::wants_prediction`]. Changes nothing.
    pub(super) fn decide(
        &self,
        request: &CompletionRequest,
        predicted: Option<Duration>,
        now: Instant,
    ) -> Decision {
        self.decide_by(request, predicted, now, |request| self.clear(request))
    }

    /// [`Dispatcher::decide`], with the look for secrets that `clear` takes.
    pub(super) fn decide_by(
        &self,
        request: &CompletionRequest,
        predicted: Option<Duration>,
        now: Instant,
        clear: impl FnOnce(&CompletionRequest) -> Result<Cleared, Reason>,
    ) -> Decision {
        if request.deadline.is_some_and(|deadline| deadline <= now) {
            return Decision::simple(Place::Shed(Reason::Deadline), "deadline");
        }
        let policy = &request.policy;
        if !policy.here {
            return self.decide_away(request, now, clear);
        }
        let saturation = match predicted {
            Some(predicted) => predicted.as_secs_f64() / self.objective.as_secs_f64(),
            None => self.saturation(),
        };
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
                let here = self.here(request, predicted, now);
                let all = consider(&self.rows, request, here, now);
                let decision = leave(&all, || clear(request));
                (all, decision)
            }
        };
        decision.leaving = Leaving::Weighed(saturation);
        Decision { candidates, ..decision }
    }

    /// Where a request goes that must not run here.
    fn decide_away(
        &self,
        request: &CompletionRequest,
        now: Instant,
        clear: impl FnOnce(&CompletionRequest) -> Result<Cleared, Reason>,
    ) -> Decision {
        let policy = &request.policy;
        let nowhere = policy.away.is_err() || self.rows.is_empty();
        match self.may_leave(policy) {
            Ok(()) => {
                let candidates = consider(&self.rows, request, self.here(request, None, now), now);
                let cleared = match clear(request) {
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

    /// What leaves of a request. Scanned once for each that would otherwise leave, and only then.
    fn clear(&self, request: &CompletionRequest) -> Result<Cleared, Reason> {
        self.scanner.clear(request).map_err(Reason::Secret)
    }

    /// Lets a decision count.
    pub(super) fn commit(&self, request: &CompletionRequest, decision: &Decision, now: Instant) {
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

    /// What waiting here would be. `predicted`: the whole of it, where that is known.
    pub(super) fn here(
        &self,
        request: &CompletionRequest,
        predicted: Option<Duration>,
        now: Instant,
    ) -> Here {
        let patience = request.deadline.map(|deadline| deadline.saturating_duration_since(now));
        let ahead = || Duration::try_from_secs_f64(self.local.work_ahead_ms() / 1e3).ok();
        Here {
            wanted: patience.map_or(self.objective, |patience| patience.min(self.objective)),
            patience,
            wait: predicted.or_else(ahead).filter(|_| request.policy.here),
        }
    }

    /// The rows for a request that the box has refused, or is too slow with.
    pub(super) fn open_rows(
        &self,
        request: &CompletionRequest,
        now: Instant,
    ) -> (Vec<usize>, Cleared) {
        let nowhere_else = Here { wait: None, ..self.here(request, None, now) };
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
    pub(super) fn may_leave(&self, policy: &RequestPolicy) -> Result<(), &'static str> {
        let mut verdicts = self.rows.iter().map(|row| row.may_have(policy));
        let first = verdicts.next().unwrap_or(Err("no_cloud"));
        if verdicts.any(|verdict| verdict.is_ok()) { Ok(()) } else { first }
    }

    /// Counts each row that policy keeps from a request that would leave.
    pub(super) fn count_refusals(&self, policy: &RequestPolicy) {
        for row in &self.rows {
            if let Err(code) = row.may_have(policy) {
                self.telemetry.kept_from(&row.name, code);
            }
        }
    }
}

/// Where a request goes that should leave: to the clouds that are left, or nowhere else than here,
/// because of what it holds or for the reason of the first that policy would allow.
fn leave(candidates: &[Candidate], clear: impl FnOnce() -> Result<Cleared, Reason>) -> Decision {
    let rows: Vec<usize> = order(candidates).iter().map(|candidate| candidate.row).collect();
    if rows.is_empty() {
        return Decision::simple(Place::Local, why_none(candidates));
    }
    match clear() {
        Err(reason) => Decision::simple(Place::Local, &reason.code()),
        Ok(cleared) => Decision { cleared, ..Decision::simple(Place::Clouds(rows), "saturated") },
    }
}

/// Why nobody is left of those that policy would allow; the first one's reason.
fn why_none(candidates: &[Candidate]) -> &str {
    let is_policy = |why: &str| why.starts_with("compliance:") || why.starts_with("policy:");
    let mut refused = candidates.iter().filter_map(|candidate| candidate.verdict.as_ref().err());
    refused.find(|why| !is_policy(why)).map_or("cloud_paused", |why| why)
}
