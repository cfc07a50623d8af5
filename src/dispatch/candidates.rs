//! Which clouds a request might go to, and in which order they are asked.
//!
//! Each filter has a stable code; of what is left the cheapest that is fast enough comes first.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Quote;
use super::ask::known;
use super::row::{Known, Row, Wanted};
use crate::completion::CompletionRequest;
use crate::ledger::Moment;
use crate::money::{Asked, Money};

/// A cloud that is too slow for the objective must promise a first token in this part of the time
/// that it would take here, or the request is better off waiting.
const FASTER: f64 = 0.8;

/// How a request would be served here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here {
    /// The time to first token that is wanted: the objective, or a shorter patience.
    pub(super) wanted: Duration,
    /// When the client will have given up; None: never.
    pub(super) patience: Option<Duration>,
    /// Work ahead of the request; None: it must not run here.
    pub(super) wait: Option<Duration>,
}

/// One row, as a request sees it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The row's index.
    pub(super) row: usize,
    /// At most.
    pub(super) cost: Money,
    /// Breaks ties, the larger first.
    prefer: i64,
    /// How long it takes to a first token, as far as is known.
    known: Known,
    /// Whether the objective is out of its reach.
    slow: bool,
    /// The code of the first filter that it failed.
    pub(super) verdict: Result<(), Cow<'static, str>>,
}

/// A row as an operator is told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Considered {
    pub cloud: String,
    /// `ok`, or why it is not asked.
    pub verdict: String,
    /// Place in which it is asked, from 1 on.
    pub place: Option<usize>,
    /// Time to first token of its recent answers, the ninth of ten; none is recent: null.
    pub predicted_ttft_ms: Option<f64>,
    /// The most that it may cost, in dollars.
    pub cost_max_usd: String,
}

/// Every row, held against a request.
pub(super) fn consider<C: Quote>(
    rows: &[Row<C>],
    request: &CompletionRequest,
    here: Here,
    now: Instant,
) -> Vec<Candidate> {
    let moment = rows.first().and_then(|row| row.till.moment());
    let asking = Asking { request, here, now, moment };
    rows.iter().enumerate().map(|(index, row)| candidate(index, row, asking)).collect()
}

fn candidate<C: Quote>(index: usize, row: &Row<C>, asking: Asking<'_>) -> Candidate {
    let mut candidate = Candidate {
        row: index,
        cost: Money::ZERO,
        prefer: row.bounds.prefer,
        known: Known::Nothing,
        slow: false,
        verdict: Ok(()),
    };
    candidate.verdict = match row.backend.quote(asking.request) {
        Ok(asked) => candidate.weigh(row, &asked, asking).map_err(Cow::Borrowed),
        // What policy says of it is worse to get wrong.
        Err(refusal) => match row.may_have(&asking.request.policy) {
            Ok(()) => Err(refusal.reason.code().into()),
            Err(code) => Err(code.into()),
        },
    };
    candidate
}

/// Who asks, and when.
#[derive(Clone, Copy)]
struct Asking<'a> {
    request: &'a CompletionRequest,
    here: Here,
    now: Instant,
    /// The same in the budgets' calendar; None: there are none.
    moment: Option<Moment>,
}

impl Candidate {
    /// Learns what is known of the row, and holds it against the filters, in the order of what is
    /// worse to get wrong: policy, ability, health, speed, money.
    fn weigh<C: Quote>(
        &mut self,
        row: &Row<C>,
        asked: &Asked,
        asking: Asking<'_>,
    ) -> Result<(), &'static str> {
        let Asking { request, here, now, moment } = asking;
        let left = row.backend.left(now);
        let nowhere_else = here.wait.is_none();
        let (showed, open) = row.look(Wanted { asked, left, now, nowhere_else });
        self.known = known(showed, row, asked);
        self.slow = is_slow(self.known, here.wanted, now);
        row.may_have(&request.policy)?;
        self.cost = row.till.worst(asked);
        open?;
        if is_too_late(self.known.ttft(), here.patience) {
            return Err("cloud_late");
        }
        if self.slow && !is_worth_a_try(self.known, here.wait) {
            return Err("cloud_slow");
        }
        row.till.check(request.tenant, self.cost, moment)
    }
}

/// Whether the objective is out of its reach.
fn is_slow(cloud: Known, wanted: Duration, now: Instant) -> bool {
    match cloud {
        Known::Nothing => false,
        Known::Awaited(asked) => now.duration_since(asked) > wanted,
        Known::Answers { ttft, .. } => ttft > wanted,
    }
}

/// Whether the client will have given up before the first token.
fn is_too_late(cloud: Option<Duration>, patience: Option<Duration>) -> bool {
    cloud.is_some_and(|cloud| patience.is_some_and(|patience| cloud > patience))
}

/// Whether waiting for the cloud is shorter by a margin than waiting here, if that can be, or too
/// little is known to tell.
fn is_worth_a_try(cloud: Known, here: Option<Duration>) -> bool {
    match (cloud, here) {
        (Known::Answers { ttft, enough: true }, Some(here)) => ttft <= here.mul_f64(FASTER),
        _ => true,
    }
}

/// Which rows come first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// It meets the objective, or is worth a try: by what it costs.
    Meets(Money),
    /// Its first answer is awaited and not late yet.
    Awaited(Money),
    /// By how long it takes; least of all what has not answered in time.
    Slow(Duration),
}

impl Candidate {
    fn turn(&self) -> Turn {
        match self.known {
            Known::Awaited(_) if self.slow => Turn::Slow(Duration::MAX),
            Known::Awaited(_) => Turn::Awaited(self.cost),
            Known::Answers { ttft, .. } if self.slow => Turn::Slow(ttft),
            Known::Answers { .. } | Known::Nothing => Turn::Meets(self.cost),
        }
    }
}

/// The rows that may be asked: those that meet the objective by what they cost, then those that
/// have not answered yet, then the others by how long they take. Of equal ones what is preferred
/// comes first, then the order of the rows.
pub(super) fn order(candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut order: Vec<&Candidate> =
        candidates.iter().filter(|candidate| candidate.verdict.is_ok()).collect();
    order.sort_by_cached_key(|candidate| (candidate.turn(), Reverse(candidate.prefer)));
    order
}

/// For the operator.
pub(super) fn told<C>(rows: &[Row<C>], candidates: &[Candidate]) -> Vec<Considered> {
    let order = order(candidates);
    let told = |candidate: &Candidate| Considered {
        cloud: rows[candidate.row].name.to_string(),
        verdict: candidate.verdict.clone().err().unwrap_or(Cow::Borrowed("ok")).into_owned(),
        place: order.iter().position(|next| next.row == candidate.row).map(|place| place + 1),
        predicted_ttft_ms: candidate.known.ttft().map(|ttft| ttft.as_secs_f64() * 1e3),
        cost_max_usd: candidate.cost.to_string(),
    };
    candidates.iter().map(told).collect()
}
