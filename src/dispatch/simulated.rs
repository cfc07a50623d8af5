//! The decision on somebody else's clock.
//!
//! `weir plan` and `weir bench spill` replay traffic in simulated time. What they replay is this
//! room's own decision, not a likeness of it: threshold, filters, order and the health of the
//! rows are those of [`super`]; only the backends' answers are played by the caller, who tells
//! what became of each.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::decide::Place;
use super::row::Wanted;
use super::{Dispatcher, Load, Quote, Safeguards, Target};
use crate::completion::{CompletionRequest, Refusal};
use crate::config::OverflowConfig;
use crate::policy::redact::Cleared;
use crate::policy::secrets::Scanner;
use crate::telemetry::Telemetry;

/// A dispatcher whose time is told and whose backends are played. Budgets are the caller's: there
/// is no ledger behind it.
pub(crate) struct Simulated<L, C> {
    dispatcher: Dispatcher<L, C>,
    /// For each row, how many requests that should leave it was not to have, by reason.
    kept: Vec<BTreeMap<String, u64>>,
}

/// Where a request goes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    Local,
    /// The rows that may be asked, in this order.
    Clouds(Vec<usize>),
    /// Nobody may have it.
    Shed,
}

impl From<Place> for Placed {
    fn from(place: Place) -> Self {
        match place {
            Place::Local => Placed::Local,
            Place::Clouds(rows) => Placed::Clouds(rows),
            Place::Shed(_) => Placed::Shed,
        }
    }
}

impl<L: Load, C: Quote> Simulated<L, C> {
    pub(crate) fn new(
        local: L,
        clouds: Vec<Target<C>>,
        overflow: &OverflowConfig,
        scanner: Scanner,
    ) -> Self {
        let safeguards = Safeguards { scanner, ledger: None, tenants: Vec::new() };
        Self::guarded(local, clouds, overflow, safeguards)
    }

    /// [`Simulated::new`] with a ledger behind it, whose budgets are looked at.
    pub(crate) fn guarded(
        local: L,
        clouds: Vec<Target<C>>,
        overflow: &OverflowConfig,
        safeguards: Safeguards,
    ) -> Self {
        let telemetry = Telemetry::new();
        let kept = vec![BTreeMap::new(); clouds.len()];
        let dispatcher = Dispatcher::new(local, clouds, overflow, safeguards, telemetry);
        Self { dispatcher, kept }
    }

    /// For each row, how many requests that should have left it was not to have, by reason.
    pub(crate) fn kept(&self) -> &[BTreeMap<String, u64>] {
        &self.kept
    }

    /// Decides, and lets the decision count. `predicted`: the time to first token on the box,
    /// which counts where it would be asked for.
    pub(crate) fn place(
        &mut self,
        request: &CompletionRequest,
        predicted: Duration,
        now: Instant,
    ) -> Placed {
        let counts = self.dispatcher.wants_prediction(request).then_some(predicted);
        let decision = self.dispatcher.decide(request, counts, now);
        self.dispatcher.commit(request, &decision, now);
        for (kept, candidate) in self.kept.iter_mut().zip(&decision.candidates) {
            if let Err(code) = &candidate.verdict {
                *kept.entry(code.to_string()).or_default() += 1;
            }
        }
        decision.place.into()
    }

    /// Decides, lets the decision count, and remembers nothing of it. The request is taken to hold
    /// no secret: a look for them has a benchmark of its own.
    pub(crate) fn place_unscanned(&self, request: &CompletionRequest, now: Instant) -> Placed {
        let no_secret = |_: &CompletionRequest| Ok(Cleared::default());
        let decision = self.dispatcher.decide_by(request, None, now, no_secret);
        self.dispatcher.commit(request, &decision, now);
        decision.place.into()
    }

    /// The rows for a request that the box has refused.
    pub(crate) fn rows_instead(&self, request: &CompletionRequest, now: Instant) -> Vec<usize> {
        self.dispatcher.open_rows(request, now).0
    }

    /// Whether overflow goes on.
    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.dispatcher.threshold().active(now)
    }

    /// Whether to ask a row now. A place there is taken until the row was told that it has
    /// [refused](Self::refused) or [ended](Self::ended_well).
    pub(crate) fn admit(&self, row: usize, request: &CompletionRequest, now: Instant) -> bool {
        let row = &self.dispatcher.rows[row];
        let asked = row.backend.quote(request);
        asked.is_ok_and(|asked| {
            let left = row.backend.left(now);
            row.enter(Wanted { asked: &asked, left, now, nowhere_else: false })
        })
    }

    /// A row that was asked gave content.
    pub(crate) fn answered(&self, row: usize, ttft: Duration, now: Instant) {
        self.dispatcher.rows[row].answered(ttft, now);
    }

    /// A row that was asked gave none.
    pub(crate) fn refused(&self, row: usize, refusal: &Refusal, now: Instant) {
        self.dispatcher.rows[row].refused(refusal, now);
        self.dispatcher.rows[row].leave();
    }

    /// An answer came to its end.
    pub(crate) fn ended_well(&self, row: usize, now: Instant) {
        self.dispatcher.rows[row].ended_well(now);
        self.dispatcher.rows[row].leave();
    }
}
