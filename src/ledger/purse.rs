//! The part of a budget that may be spent without asking the disk.
//!
//! The writer puts in what it has made durable as granted; a reservation takes out by one
//! compare-and-swap. A purse has a cell for the period that runs and one for its neighbour, so
//! that midnight finds money waiting. The period's tag shares a word with the amount: nothing of
//! one day can be drawn from, or given back to, another.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::budget::{CAP_MAX, Scope};
use super::calendar::Moment;
use crate::money::Money;

/// Bits of a cell's word that hold nano-dollars; the others hold the period's tag.
const AMOUNT_BITS: u32 = 56;
const AMOUNT_MAX: u64 = (1 << AMOUNT_BITS) - 1;
const _: () = assert!(CAP_MAX.nano() <= AMOUNT_MAX, "a whole cap fits into a cell");
/// Tags of open cells are below this one. A reservation would have to live for 255 periods to
/// meet its tag again.
const CLOSED: u64 = u64::MAX >> AMOUNT_BITS;

/// One budget as reservations see it.
pub(super) struct Purse {
    pub(super) scope: Scope,
    cells: [Cell; 2],
    /// The largest reservation that was asked for; the writer keeps room for it.
    largest: AtomicU64,
    /// Something was drawn since the writer last looked.
    touched: AtomicBool,
}

struct Cell {
    /// Tag of the period (8 bits), nano-dollars (56 bits).
    word: AtomicU64,
    /// Below this the writer is to be woken.
    low: AtomicU64,
    /// Of the cap, what the writer has not granted yet.
    ungranted: AtomicU64,
}

/// What drawing left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drawn {
    Enough,
    /// It is time to put more in.
    Low,
}

/// Why nothing was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    /// The cap has no room for it.
    Spent,
    /// The cap has, but nothing so large was granted yet; the writer is to be woken.
    Ungranted,
}

impl Purse {
    pub(super) fn new(scope: Scope) -> Self {
        let cell = || Cell {
            word: AtomicU64::new(CLOSED << AMOUNT_BITS),
            low: AtomicU64::new(0),
            ungranted: AtomicU64::new(0),
        };
        Self {
            scope,
            cells: [cell(), cell()],
            largest: AtomicU64::new(0),
            touched: AtomicBool::new(false),
        }
    }

    fn cell(&self, period: i64) -> &Cell {
        &self.cells[usize::from(period & 1 == 1)]
    }

    pub(super) fn draw(&self, moment: Moment, amount: Money) -> Result<Drawn, Empty> {
        let period = moment.number(self.scope.period);
        let (cell, amount) = (self.cell(period), amount.nano());
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
        self.learn(Money::from_nano(amount));
        match change(&cell.word, period, |has| has.checked_sub(amount)) {
            Ok(has) if has - amount < cell.low.load(Ordering::Relaxed) => Ok(Drawn::Low),
            Ok(_) => Ok(Drawn::Enough),
            Err(None) => Err(Empty::Ungranted),
            Err(Some(has)) => Err(cell.short_of(amount, has)),
        }
    }

    /// What [`Purse::draw`] would say now.
    pub(super) fn peek(&self, moment: Moment, amount: Money) -> Result<(), Empty> {
        let period = moment.number(self.scope.period);
        let cell = self.cell(period);
        match unpack(cell.word.load(Ordering::Acquire)) {
            (tag, _) if tag != tag_of(period) => Err(Empty::Ungranted),
            (_, has) if has < amount.nano() => Err(cell.short_of(amount.nano(), has)),
            _ => Ok(()),
        }
    }

    /// Somebody wants so much: the writer is to keep room for it.
    pub(super) fn learn(&self, amount: Money) {
        if self.largest.load(Ordering::Relaxed) < amount.nano() {
            self.largest.fetch_max(amount.nano(), Ordering::Relaxed);
        }
    }

    /// Puts back what was drawn, or in what was granted. False: that period is over, and the
    /// amount stays granted and unspent.
    pub(super) fn put(&self, period: i64, amount: Money) -> bool {
        let more = |has: u64| Some(has.saturating_add(amount.nano()).min(AMOUNT_MAX));
        change(&self.cell(period).word, period, more).is_ok()
    }

    /// Takes out as much of `amount` as there is.
    pub(super) fn take(&self, period: i64, amount: Money) -> Money {
        let less = |has: u64| Some(has.saturating_sub(amount.nano()));
        let had = change(&self.cell(period).word, period, less).unwrap_or(0);
        Money::from_nano(had.min(amount.nano()))
    }

    /// Money that may be drawn; none in a period whose cell is closed.
    pub(super) fn available(&self, period: i64) -> Money {
        let (tag, amount) = unpack(self.cell(period).word.load(Ordering::Acquire));
        Money::from_nano(if tag == tag_of(period) { amount } else { 0 })
    }

    /// Opens the cell for `period`, empty. Nothing else may be open in it.
    pub(super) fn open(&self, period: i64) {
        self.cell(period).word.store(tag_of(period) << AMOUNT_BITS, Ordering::Release);
    }

    /// Ends whatever period the cell of `period` is open for, and hands out what it still held.
    pub(super) fn close(&self, period: i64) -> Money {
        let before = self.cell(period).word.swap(CLOSED << AMOUNT_BITS, Ordering::AcqRel);
        let (tag, amount) = unpack(before);
        Money::from_nano(if tag == CLOSED { 0 } else { amount })
    }

    /// What the writer last knew, for the decisions above.
    pub(super) fn advise(&self, period: i64, low: Money, ungranted: Money) {
        let cell = self.cell(period);
        cell.low.store(low.nano(), Ordering::Relaxed);
        cell.ungranted.store(ungranted.nano(), Ordering::Relaxed);
    }

    /// The largest amount that was asked for since [`Purse::take_largest`].
    pub(super) fn largest(&self) -> Money {
        Money::from_nano(self.largest.load(Ordering::Relaxed))
    }

    /// The same, and forgets it.
    pub(super) fn take_largest(&self) -> Money {
        Money::from_nano(self.largest.swap(0, Ordering::Relaxed))
    }

    /// Whether anything was drawn since this was last asked.
    pub(super) fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }
}

impl Cell {
    /// Why `has` is not enough for `amount`.
    fn short_of(&self, amount: u64, has: u64) -> Empty {
        let ungranted = self.ungranted.load(Ordering::Relaxed);
        if amount <= has.saturating_add(ungranted) { Empty::Ungranted } else { Empty::Spent }
    }
}

/// Changes the amount in one step, whatever others do meanwhile, and returns what it was. An
/// error holds the amount that `to` would not change, or None where the cell is for another period.
fn change(
    word: &AtomicU64,
    period: i64,
    to: impl Fn(u64) -> Option<u64>,
) -> Result<u64, Option<u64>> {
    let mut seen = word.load(Ordering::Acquire);
    loop {
        let (tag, has) = unpack(seen);
        if tag != tag_of(period) {
            return Err(None);
        }
        let next = (tag << AMOUNT_BITS) | to(has).ok_or(Some(has))?;
        match word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(has),
            Err(now) => seen = now,
        }
    }
}

fn unpack(word: u64) -> (u64, u64) {
    (word >> AMOUNT_BITS, word & AMOUNT_MAX)
}

fn tag_of(period: i64) -> u64 {
    period.rem_euclid(i64::from(u8::MAX)).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::calendar::Period;

    const TODAY: Moment = Moment { day: 20_000, month: 24_322 };
    const TOMORROW: Moment = Moment { day: 20_001, month: 24_322 };

    fn purse() -> Purse {
        Purse::new(Scope { tenant: None, cloud: None, period: Period::Day })
    }

    fn nano(amount: u64) -> Money {
        Money::from_nano(amount)
    }

    #[test]
    fn a_closed_purse_gives_nothing() {
        let purse = purse();
        assert_eq!(purse.draw(TODAY, nano(0)), Err(Empty::Ungranted));
        assert_eq!(purse.peek(TODAY, nano(0)), Err(Empty::Ungranted));
        assert!(!purse.put(TODAY.day, nano(5)));
        assert_eq!(purse.close(TODAY.day), Money::ZERO);
    }

    #[test]
    fn it_gives_what_was_put_in_and_no_more() {
        let purse = purse();
        purse.open(TODAY.day);
        assert!(purse.put(TODAY.day, nano(10)));
        purse.advise(TODAY.day, nano(4), nano(3));
        assert_eq!(purse.peek(TODAY, nano(10)), Ok(()));
        assert_eq!(purse.draw(TODAY, nano(6)), Ok(Drawn::Enough));
        assert_eq!(purse.peek(TODAY, nano(7)), Err(Empty::Ungranted));
        assert_eq!(purse.peek(TODAY, nano(8)), Err(Empty::Spent));
        assert_eq!(purse.draw(TODAY, nano(7)), Err(Empty::Ungranted), "4 and 3 that may come");
        assert_eq!(purse.draw(TODAY, nano(8)), Err(Empty::Spent));
        assert_eq!(purse.draw(TODAY, nano(4)), Ok(Drawn::Low));
        assert_eq!(purse.available(TODAY.day), Money::ZERO);
        assert_eq!(purse.largest(), nano(8));
        assert!(purse.take_touched());
        assert!(!purse.take_touched());
    }

    #[test]
    fn days_do_not_mix() {
        let purse = purse();
        purse.open(TODAY.day);
        purse.open(TOMORROW.day);
        purse.put(TODAY.day, nano(10));
        assert_eq!(purse.draw(TOMORROW, nano(1)), Err(Empty::Spent));
        assert_eq!(purse.draw(TODAY, nano(3)), Ok(Drawn::Enough));
        assert_eq!(purse.close(TODAY.day), nano(7));
        assert!(!purse.put(TODAY.day, nano(3)), "yesterday's money is not given back");
        // The day after tomorrow lives in the same cell as today.
        purse.open(TODAY.day + 2);
        assert!(!purse.put(TODAY.day, nano(3)));
        assert_eq!(purse.available(TODAY.day + 2), Money::ZERO);
        assert_eq!(purse.take(TODAY.day + 2, nano(1)), Money::ZERO);
    }

    #[test]
    fn a_whole_cap_fits() {
        let purse = purse();
        purse.open(TODAY.day);
        assert!(purse.put(TODAY.day, CAP_MAX));
        assert_eq!(purse.take(TODAY.day, nano(u64::MAX)), CAP_MAX);
    }

    /// Eight threads draw and put back at random: what is out and what is in is what was put in.
    #[test]
    fn nothing_is_made_or_lost_between_threads() {
        const GRANTED: u64 = 1_000_000;
        let purse = purse();
        purse.open(TODAY.day);
        purse.put(TODAY.day, nano(GRANTED));
        let spent: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|seed| {
                    let purse = &purse;
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(seed);
                        let mut spent = 0;
                        for _ in 0..20_000 {
                            let amount = random.u64(..GRANTED / 4);
                            if purse.draw(TODAY, nano(amount)).is_ok() {
                                let cost = random.u64(..=amount.min(20));
                                assert!(purse.put(TODAY.day, nano(amount - cost)));
                                spent += cost;
                            }
                        }
                        spent
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(purse.available(TODAY.day).nano() + spent, GRANTED);
    }
}
