//! A budget as the writer sees it: how much of it to grant ahead of need.
//!
//! What is granted and not yet reserved is what a crash costs, so it is little while little is
//! asked for, doubles with every commit while more is, and never passes a hundredth of the cap
//! (or one request, where a request costs more than that). What nobody drew on for a while, and
//! what reservations gave back beyond that, is taken out again.

use std::sync::Arc;

use super::books::{BooksError, Page, Standing};
use super::calendar::Moment;
use super::purse::Purse;
use crate::money::Money;

/// The most that is granted ahead, as a part of the cap.
const AHEAD_MAX_PART: u64 = 100;
/// What is granted ahead when nobody has asked yet, as a part of the cap.
const AHEAD_MIN_PART: u64 = 1_000;
/// Of the largest requests seen, how many find room at once after a quiet time.
const REQUESTS_AHEAD: u64 = 4;
/// Quiet for so long, a purse goes back to little.
const IDLE_MS: i64 = 10_000;
/// The largest request is remembered for one to two of these.
const LATELY_MS: u64 = 60_000;

/// One budget and its standing in the periods that are near.
pub(super) struct Fund {
    pub(super) purse: Arc<Purse>,
    cap: Money,
    /// What should be in the purse.
    ahead: Money,
    /// When it was last found to have been drawn on.
    drawn_ms: i64,
    /// The largest request of the last full span of [`LATELY_MS`], and when that ended.
    largest_before: Money,
    looked_ms: i64,
    open: Vec<Standing>,
    /// Its budget is gone from the configuration: it ends with its last period.
    pub(super) retired: bool,
}

/// What a transaction changes in one period of one fund, to be done in memory once it is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    standing: Standing,
    /// The purse's cell is to be opened first.
    opens: bool,
    grant: Money,
    /// Already out of the purse.
    released: Money,
}

impl Fund {
    pub(super) fn new(purse: Arc<Purse>, cap: Money) -> Self {
        Self {
            purse,
            cap,
            ahead: Money::ZERO,
            drawn_ms: 0,
            largest_before: Money::ZERO,
            looked_ms: 0,
            open: Vec::new(),
            retired: false,
        }
    }

    pub(super) fn set_cap(&mut self, cap: Money) {
        self.cap = cap;
    }

    /// Ends periods that are over, begins those that are `near`, and fills or trims the purse.
    /// What it changes is added to `changes`, also where it fails half-way; nothing is granted in
    /// memory before [`Fund::done`].
    pub(super) fn tend(
        &mut self,
        page: &mut Page<'_>,
        (near, now_ms): (&[Moment], i64),
        changes: &mut Vec<Change>,
    ) -> Result<(), BooksError> {
        let kind = self.purse.scope.period;
        let mut periods: Vec<i64> = near.iter().map(|moment| moment.number(kind)).collect();
        periods.dedup();
        if self.retired {
            periods.clear();
        }
        self.end_others(page, &periods)?;
        if self.purse.take_touched() {
            self.drawn_ms = now_ms;
        }
        if now_ms.abs_diff(self.looked_ms) >= LATELY_MS {
            self.looked_ms = now_ms;
            self.largest_before = self.purse.take_largest();
        }
        for (&period, moment) in periods.iter().zip(near) {
            match self.open.iter().position(|standing| standing.period == period) {
                Some(open) => self.adjust(page, (open, now_ms), changes)?,
                None => {
                    let standing = page.begin(&self.purse.scope, period, moment.day)?;
                    self.ahead = self.least();
                    let grant = self.ahead.min(self.cap.saturating_sub(standing.granted));
                    self.write(page, period, grant, Money::ZERO)?;
                    changes.push(Change { standing, opens: true, grant, released: Money::ZERO });
                }
            }
        }
        Ok(())
    }

    /// Closes the cells of periods that are not in `near`. If the transaction fails, what was in
    /// them stays granted: too much counted, never too little.
    fn end_others(&mut self, page: &mut Page<'_>, near: &[i64]) -> Result<(), BooksError> {
        let (open, over): (Vec<_>, Vec<_>) =
            self.open.iter().partition(|standing| near.contains(&standing.period));
        self.open = open;
        for Standing { period, .. } in over {
            let released = self.purse.close(period);
            self.write(page, period, Money::ZERO, released)?;
        }
        Ok(())
    }

    fn adjust(
        &mut self,
        page: &mut Page<'_>,
        (open, now_ms): (usize, i64),
        changes: &mut Vec<Change>,
    ) -> Result<(), BooksError> {
        let standing = self.open[open];
        let available = self.purse.available(standing.period);
        let idle = now_ms.saturating_sub(self.drawn_ms) > IDLE_MS;
        if idle {
            self.ahead = self.least();
        } else if available < self.low() {
            self.ahead = self.ahead.saturating_add(self.ahead);
        }
        self.ahead = self.ahead.min(self.most()).max(self.least());
        let enough = if idle { self.ahead } else { self.most() };
        let past_the_cap = standing.granted.saturating_sub(self.cap);
        let surplus = available.saturating_sub(enough).max(past_the_cap.min(available));
        let (mut grant, mut released) = (Money::ZERO, Money::ZERO);
        if !surplus.is_zero() {
            released = self.purse.take(standing.period, surplus);
        } else if available < self.low() {
            let ungranted = self.cap.saturating_sub(standing.granted);
            grant = self.ahead.saturating_sub(available).min(ungranted);
        }
        self.advise(standing);
        changes.push(Change { standing, opens: false, grant, released });
        self.write(page, standing.period, grant, released)
    }

    fn write(
        &self,
        page: &mut Page<'_>,
        period: i64,
        grant: Money,
        released: Money,
    ) -> Result<(), BooksError> {
        // Most commits find a purse as it should be.
        if grant == released || page.grant(&self.purse.scope, period, grant, released)? {
            Ok(())
        } else {
            Err(BooksError::Replaced)
        }
    }

    /// The change is durable.
    pub(super) fn done(&mut self, change: &Change) {
        let period = change.standing.period;
        if change.opens {
            self.purse.open(period);
            self.open.push(change.standing);
        }
        self.purse.put(period, change.grant);
        if let Some(standing) = self.open.iter_mut().find(|standing| standing.period == period) {
            let granted = standing.granted.saturating_add(change.grant);
            standing.granted = granted.saturating_sub(change.released);
            let standing = *standing;
            self.advise(standing);
        }
    }

    /// The change did not come to be.
    pub(super) fn undo(&self, change: &Change) {
        self.purse.put(change.standing.period, change.released);
    }

    /// Rows cost more than was reserved for them: so much was granted without being asked.
    pub(super) fn went_beyond(&mut self, period: i64, beyond: Money) {
        if let Some(standing) = self.open.iter_mut().find(|standing| standing.period == period) {
            standing.granted = standing.granted.saturating_add(beyond);
        }
    }

    /// Those rows did not come to be.
    pub(super) fn came_back(&mut self, period: i64, beyond: Money) {
        if let Some(standing) = self.open.iter_mut().find(|standing| standing.period == period) {
            standing.granted = standing.granted.saturating_sub(beyond);
        }
    }

    /// Takes everything back, at the end of the process.
    pub(super) fn close(&mut self, page: &mut Page<'_>) -> Result<(), BooksError> {
        self.end_others(page, &[])
    }

    fn advise(&self, standing: Standing) {
        let ungranted = self.cap.saturating_sub(standing.granted);
        self.purse.advise(standing.period, self.low(), ungranted);
    }

    /// With less than this in the purse it is time to grant more.
    fn low(&self) -> Money {
        Money::from_nano(self.ahead.nano() / 2).max(self.largest())
    }

    fn least(&self) -> Money {
        let requests = self.largest().nano().saturating_mul(REQUESTS_AHEAD);
        let requests = Money::from_nano(requests).min(self.most());
        Money::from_nano(self.cap.nano() / AHEAD_MIN_PART).max(requests)
    }

    fn most(&self) -> Money {
        Money::from_nano(self.cap.nano() / AHEAD_MAX_PART).max(self.largest())
    }

    /// The largest request lately; one that the whole cap has no room for is not waited for.
    fn largest(&self) -> Money {
        self.purse.largest().max(self.largest_before).min(self.cap)
    }
}
