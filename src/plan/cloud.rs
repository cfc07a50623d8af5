//! A cloud in simulated time: what it would answer, and when.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::speed::CloudSpeed;
use super::trace::Arrival;
use crate::completion::{CompletionRequest, Fault, Reason, Refusal, Usage};
use crate::dispatch::{Bounds, Quote};
use crate::money::{Asked, Money, Price};

/// Bytes of a token of code, for the worst case of a prompt whose text is not in the trace.
const BYTES_PER_TOKEN: u64 = 3;
/// A cloud that is over its limit says so as fast as it answers anything: this part of the time
/// to a first token.
const REFUSAL_PART: f64 = 0.5;
/// How far a normal variable's ninth of ten is from its middle, in standard deviations.
const P90_DEVIATIONS: f64 = 1.281_551_6;
const MINUTE_NS: u64 = 60_000_000_000;
const DAY_NS: u64 = 86_400_000_000_000;

/// A `[[cloud]]` row and how it answers.
#[derive(Clone, Debug)]
pub struct CloudRow {
    pub name: Arc<str>,
    pub price: Option<Price>,
    pub speed: CloudSpeed,
    /// Upper bound put on what a request asks for.
    pub max_tokens: u32,
    pub bounds: Bounds,
    pub first_token_timeout: Duration,
    /// Most that may be spent on a day; None: no bound.
    pub budget_day: Option<Money>,
}

/// A row during a replay.
pub(super) struct SimulatedCloud {
    row: CloudRow,
    purse: Rc<Purse>,
    in_flight: usize,
    requests: Limit,
    tokens: Limit,
    pub(super) tally: Tally,
}

/// What a row came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers.
    pub answered: u64,
    /// It had all the requests that it may have.
    pub busy: u64,
    /// It answered 429.
    pub limited: u64,
    /// No first token within `first_token_timeout`.
    pub late: u64,
    pub spent: Money,
}

/// What becomes of a request that is sent there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// Nothing was sent.
    Busy,
    Refused {
        at_ns: u64,
        why: Why,
    },
    First {
        at_ns: u64,
        end_ns: u64,
    },
}

/// Why a cloud that was asked gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    Limited { retry_after_ns: u64 },
    Late,
}

impl Why {
    /// As the dispatcher is told.
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Why::Limited { retry_after_ns } => {
                let throttled = Reason::Cloud(Fault::Throttled);
                Refusal::new(throttled, "the cloud is over its limit")
                    .with_retry_after(Duration::from_nanos(retry_after_ns))
            }
            Why::Late => Refusal::new(Reason::CloudTimeout, "the cloud is late"),
        }
    }
}

impl SimulatedCloud {
    pub(super) fn new(row: CloudRow) -> Self {
        let per_minute = |limit: Option<u32>| Limit::new(limit.map(f64::from));
        let purse = Rc::new(Purse::new(&row));
        Self {
            purse,
            in_flight: 0,
            requests: per_minute(row.speed.requests_per_minute),
            tokens: per_minute(row.speed.tokens_per_minute),
            tally: Tally::default(),
            row,
        }
    }

    pub(super) fn purse(&self) -> Rc<Purse> {
        Rc::clone(&self.purse)
    }

    pub(super) fn row(&self) -> &CloudRow {
        &self.row
    }

    /// `luck` draws the time to first token.
    pub(super) fn ask(
        &mut self,
        arrival: &Arrival,
        now_ns: u64,
        luck: &mut fastrand::Rng,
    ) -> Answer {
        if self.in_flight >= self.row.bounds.max_in_flight {
            self.tally.busy += 1;
            return Answer::Busy;
        }
        self.in_flight += 1;
        let ttft_ns = self.row.speed.draw_ns(luck);
        let up_front = arrival.prompt_tokens + arrival.max_tokens.min(self.row.max_tokens);
        if let Some(wait_ns) = self.over_limit(f64::from(up_front), now_ns) {
            self.tally.limited += 1;
            let at_ns = now_ns + (ttft_ns as f64 * REFUSAL_PART) as u64;
            return Answer::Refused { at_ns, why: Why::Limited { retry_after_ns: wait_ns } };
        }
        let timeout_ns = self.row.first_token_timeout.as_nanos() as u64;
        if ttft_ns > timeout_ns {
            self.tally.late += 1;
            return Answer::Refused { at_ns: now_ns + timeout_ns, why: Why::Late };
        }
        let rest = f64::from(self.output(arrival) - 1) / self.row.speed.tokens_per_second;
        let first_ns = now_ns + ttft_ns;
        Answer::First { at_ns: first_ns, end_ns: first_ns + (rest * 1e9) as u64 }
    }

    /// A request has its end, and a permit is free.
    pub(super) fn ended(&mut self) {
        self.in_flight -= 1;
    }

    /// Books an answer that began.
    pub(super) fn book(&mut self, arrival: &Arrival, now_ns: u64) -> Money {
        let usage = Usage {
            prompt_tokens: u64::from(arrival.prompt_tokens),
            cached_tokens: 0,
            completion_tokens: u64::from(self.output(arrival)),
        };
        let cost = self.row.price.as_ref().map_or(Money::ZERO, |price| price.actual(&usage));
        self.tally.answered += 1;
        self.tally.spent = self.tally.spent.saturating_add(cost);
        self.purse.take(cost, now_ns);
        cost
    }

    fn output(&self, arrival: &Arrival) -> u32 {
        arrival.output_tokens.min(self.row.max_tokens).max(1)
    }

    /// When there is room again, where there is none.
    fn over_limit(&mut self, tokens: f64, now_ns: u64) -> Option<u64> {
        let waits = [self.requests.wait_ns(1.0, now_ns), self.tokens.wait_ns(tokens, now_ns)];
        let wait = waits.into_iter().max().filter(|&wait| wait > 0);
        if wait.is_none() {
            self.requests.take(1.0);
            self.tokens.take(tokens);
        }
        wait
    }
}

impl CloudSpeed {
    fn draw_ns(&self, luck: &mut fastrand::Rng) -> u64 {
        let p90 = self.ttft_p90_ms.unwrap_or(self.ttft_ms);
        let deviation = (p90 / self.ttft_ms).ln() / P90_DEVIATIONS;
        let ms = self.ttft_ms * (deviation * normal(luck)).exp();
        (ms * 1e6) as u64
    }
}

/// Box and Muller's way to a normal variable.
fn normal(luck: &mut fastrand::Rng) -> f64 {
    let (radius, angle) = (1.0 - luck.f64(), luck.f64());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// So much a minute, as a bucket that fills evenly.
struct Limit {
    per_minute: Option<f64>,
    left: f64,
    at_ns: u64,
}

impl Limit {
    fn new(per_minute: Option<f64>) -> Self {
        Self { per_minute, left: per_minute.unwrap_or(0.0), at_ns: 0 }
    }

    /// Until so much is there; what is more than a whole minute's is let through when that is.
    fn wait_ns(&mut self, wanted: f64, now_ns: u64) -> u64 {
        let Some(most) = self.per_minute else { return 0 };
        let rate = most / MINUTE_NS as f64;
        self.left = (self.left + (now_ns - self.at_ns) as f64 * rate).min(most);
        self.at_ns = now_ns;
        ((wanted.min(most) - self.left) / rate).ceil().max(0.0) as u64
    }

    fn take(&mut self, wanted: f64) {
        self.left -= wanted;
    }
}

/// What a row has spent today, and what a request in hand would cost there.
pub(super) struct Purse {
    price: Option<Price>,
    max_tokens: u64,
    per_day: Option<Money>,
    day: Cell<u64>,
    today: RefCell<Money>,
    asked: Cell<Asked>,
    now_ns: Cell<u64>,
}

impl Purse {
    fn new(row: &CloudRow) -> Self {
        Self {
            price: row.price.clone(),
            max_tokens: u64::from(row.max_tokens),
            per_day: row.budget_day,
            day: Cell::new(0),
            today: RefCell::new(Money::ZERO),
            asked: Cell::new(Asked::default()),
            now_ns: Cell::new(0),
        }
    }

    /// The request that is quoted next.
    pub(super) fn hold(&self, arrival: &Arrival, now_ns: u64) {
        self.now_ns.set(now_ns);
        self.asked.set(Asked {
            bytes: u64::from(arrival.prompt_tokens) * BYTES_PER_TOKEN,
            messages: 0,
            max_tokens: u64::from(arrival.max_tokens).min(self.max_tokens),
            n: 1,
        });
    }

    fn take(&self, cost: Money, now_ns: u64) {
        self.turn(now_ns);
        let mut today = self.today.borrow_mut();
        *today = today.saturating_add(cost);
    }

    fn turn(&self, now_ns: u64) {
        if self.day.replace(now_ns / DAY_NS) != now_ns / DAY_NS {
            self.today.replace(Money::ZERO);
        }
    }

    fn affords(&self, asked: &Asked) -> bool {
        self.turn(self.now_ns.get());
        match (&self.price, self.per_day) {
            (Some(price), Some(cap)) => {
                self.today.borrow().saturating_add(price.worst(asked)) <= cap
            }
            _ => true,
        }
    }
}

/// The row as the dispatcher sees it.
pub(super) struct QuotedCloud(pub(super) Rc<Purse>);

impl Quote for QuotedCloud {
    fn quote(&self, _: &CompletionRequest) -> Result<Asked, Refusal> {
        let asked = self.0.asked.get();
        if self.0.affords(&asked) {
            return Ok(asked);
        }
        Err(Refusal::new(Reason::Budget("budget"), "the day's budget is spent"))
    }
}
