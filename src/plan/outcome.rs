//! What a replay came to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cloud::Tally;
use super::local::Service;
use super::trace::Trace;
use crate::money::Money;

const HOUR_NS: u64 = 3_600_000_000_000;

/// Where a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    Local,
    /// The row's index.
    Cloud(usize),
    Shed,
}

/// One request's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    pub placement: Placement,
    /// Time to first token; the largest for what was shed.
    pub ttft_us: u32,
    /// What the box did for it.
    pub service: Service,
}

/// What a row came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudOutcome {
    pub name: Arc<str>,
    pub tally: Tally,
    /// Requests that should have left and that it was not asked for, by reason.
    pub kept: BTreeMap<String, u64>,
}

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In the order of the trace.
    pub fates: Vec<Fate>,
    /// Requests whose first token came within the objective.
    pub met: u64,
    pub local: u64,
    pub shed: u64,
    /// In the order of the rows.
    pub clouds: Vec<CloudOutcome>,
    pub spent: Money,
    /// In each hour of the trace.
    pub spent_hourly: Vec<Money>,
    /// When overflow began and ended, as far as a request came to notice.
    pub changes_ns: Vec<u64>,
    /// When a request last had to leave.
    pub last_left_ns: Option<u64>,
}

impl Outcome {
    pub fn requests(&self) -> u64 {
        self.fates.len() as u64
    }

    /// Of all requests, those within the objective; a shed one is not.
    pub fn attainment(&self) -> f64 {
        self.met as f64 / self.fates.len() as f64
    }

    pub fn left(&self) -> u64 {
        self.clouds.iter().map(|cloud| cloud.tally.answered).sum()
    }

    /// Of all requests, those that a cloud answered.
    pub fn overflow(&self) -> f64 {
        self.left() as f64 / self.fates.len() as f64
    }

    /// The time to first token that such a part of all requests kept to.
    pub fn ttft(&self, part: f64) -> Duration {
        let mut times: Vec<u32> = self.fates.iter().map(|fate| fate.ttft_us).collect();
        let place = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len()) - 1;
        Duration::from_micros(u64::from(*times.select_nth_unstable(place).1))
    }
}

/// An outcome in the making.
pub(super) struct Tallies {
    outcome: Outcome,
    objective_us: u32,
    /// Requests that have begun and those that have ended: none is lost, none comes twice.
    open: u64,
    ended: u64,
}

/// Nothing has become of it yet.
const OPEN: Fate = Fate {
    placement: Placement::Shed,
    ttft_us: 0,
    service: Service { prefill_ns: 0, decode_ns: 0 },
};

impl Tallies {
    pub(super) fn new(trace: &Trace, objective: Duration) -> Self {
        let hours = trace.span_ns() / HOUR_NS + 1;
        let outcome = Outcome {
            fates: vec![OPEN; trace.arrivals.len()],
            met: 0,
            local: 0,
            shed: 0,
            clouds: Vec::new(),
            spent: Money::ZERO,
            spent_hourly: vec![Money::ZERO; hours as usize],
            changes_ns: Vec::new(),
            last_left_ns: None,
        };
        let objective_us = u32::try_from(objective.as_micros()).unwrap_or(u32::MAX);
        Self { outcome, objective_us, open: trace.arrivals.len() as u64, ended: 0 }
    }

    pub(super) fn first(&mut self, request: u32, placement: Placement, ttft_ns: u64) {
        let ttft_us = u32::try_from(ttft_ns / 1_000).unwrap_or(u32::MAX);
        self.settle(request, Fate { placement, ttft_us, ..OPEN });
        self.outcome.met += u64::from(ttft_us <= self.objective_us);
        self.outcome.local += u64::from(placement == Placement::Local);
    }

    pub(super) fn shed(&mut self, request: u32) {
        self.settle(request, Fate { ttft_us: u32::MAX, ..OPEN });
        self.outcome.shed += 1;
        self.ended += 1;
    }

    fn settle(&mut self, request: u32, fate: Fate) {
        let settled = std::mem::replace(&mut self.outcome.fates[request as usize], fate);
        assert_eq!(settled, OPEN, "a request has one fate");
        self.open -= 1;
    }

    pub(super) fn ended(&mut self) {
        self.ended += 1;
    }

    /// The box has answered a request to its end.
    pub(super) fn served(&mut self, request: u32, service: Service) {
        self.outcome.fates[request as usize].service = service;
        self.ended();
    }

    pub(super) fn left(&mut self, now_ns: u64) {
        self.outcome.last_left_ns = Some(now_ns);
    }

    pub(super) fn changed(&mut self, now_ns: u64) {
        self.outcome.changes_ns.push(now_ns);
    }

    /// What is paid after the trace's last hour counts there.
    pub(super) fn paid(&mut self, now_ns: u64, cost: Money) {
        self.outcome.spent = self.outcome.spent.saturating_add(cost);
        let hours = &mut self.outcome.spent_hourly;
        let hour = ((now_ns / HOUR_NS) as usize).min(hours.len() - 1);
        hours[hour] = hours[hour].saturating_add(cost);
    }

    pub(super) fn outcome(self, clouds: Vec<CloudOutcome>) -> Outcome {
        assert_eq!(self.open, 0, "every request has a fate");
        assert_eq!(self.ended, self.outcome.requests(), "every request has one end");
        Outcome { clouds, ..self.outcome }
    }
}
