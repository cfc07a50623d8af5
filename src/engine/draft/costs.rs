//! What a step of so many rows costs on this machine, measured.
//!
//! Two things change: how fast the machine is at the moment (its other work, the length of the
//! contexts), which all steps share, and how much dearer more rows are. The first is learned
//! from every step and mostly from those of one row, the second from steps of so many rows. So a
//! price that was not seen for a while is still right when the machine has become slower.

/// Most rows of a step with drafts in it; the kernels for few rows end here.
pub(crate) const ROWS_MAX: usize = 16;

/// Weight of a step that took longer than expected.
const WEIGHT_UP: f64 = 0.1;
/// Weight of one that took less: interruptions make steps longer, and nothing makes one shorter
/// than it is.
const WEIGHT_DOWN: f64 = 0.3;
/// A measurement so many times what was expected, or such a part of it, counts as that.
const SURPRISE_MAX: f64 = 2.0;
/// A row beside the first costs such a part of it until it was measured: little, so that it is.
const ROW_PART_FIRST: f64 = 0.1;
/// What part of its distance to the next lower measured price a price keeps for each step in
/// which it was not seen: half after 1400. One that is too high would never be looked at again.
const KEEPS: f64 = 0.9995;

/// Milliseconds of a decode step by its number of rows, 1 to [`ROWS_MAX`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Costs {
    /// Of one row, in milliseconds; 0 before any measurement.
    one_ms: f64,
    /// So many rows in units of one, at least 1; 0 where not measured.
    ratios: [f64; ROWS_MAX + 1],
}

impl Costs {
    /// Drafted rows cost nothing.
    pub(crate) fn free() -> Self {
        Self { one_ms: 1.0, ratios: [1.0; ROWS_MAX + 1] }
    }

    /// Takes in how long a step of so many rows took. One of more than [`ROWS_MAX`] rows says
    /// nothing here.
    pub(crate) fn record(&mut self, rows: usize, took_ms: f64) {
        if !(1..=ROWS_MAX).contains(&rows) || took_ms <= 0.0 {
            return;
        }
        if self.one_ms == 0.0 || self.ratios[rows] == 0.0 {
            return self.set(rows, took_ms);
        }
        let expected = self.one_ms * self.ratios[rows];
        let surprise = (took_ms / expected).clamp(SURPRISE_MAX.recip(), SURPRISE_MAX) - 1.0;
        let change = surprise * if surprise > 0.0 { WEIGHT_UP } else { WEIGHT_DOWN };
        if rows == 1 {
            self.one_ms *= 1.0 + change;
        } else {
            // Nobody sees whether the machine or the rows are to blame; steps of one row will.
            self.one_ms *= 1.0 + change / 2.0;
            self.ratios[rows] = (self.ratios[rows] * (1.0 + change / 2.0)).max(1.0);
        }
        self.forget_slowly(rows);
    }

    /// Takes in the least that a step of so many rows was seen to take on a quiet machine; of one
    /// row first.
    pub(crate) fn set(&mut self, rows: usize, took_ms: f64) {
        if rows == 1 || self.one_ms == 0.0 {
            self.one_ms = took_ms / self.ratio(rows);
        }
        self.ratios[1] = 1.0;
        self.ratios[rows] = (took_ms / self.one_ms).max(1.0);
    }

    /// Milliseconds of a step of so many rows, known or guessed from those of fewer and more; 0
    /// before any measurement.
    pub(crate) fn ms(&self, rows: usize) -> f64 {
        self.one_ms * self.ratio(rows)
    }

    fn ratio(&self, rows: usize) -> f64 {
        // no step is without rows
        let rows = rows.max(1);
        let (below, ratio) = self.below(rows + 1);
        let beyond = (rows - below) as f64;
        match (rows..=ROWS_MAX).find(|&above| self.ratios[above] > 0.0) {
            Some(above) if above > below => {
                ratio + (self.ratios[above] - ratio) * beyond / (above - below) as f64
            }
            Some(_) => ratio,
            None => ratio + ratio * ROW_PART_FIRST * beyond,
        }
    }

    /// The next lower number of rows that was measured, and its ratio.
    fn below(&self, rows: usize) -> (usize, f64) {
        let measured = (2..rows.min(ROWS_MAX + 1)).rev().find(|&below| self.ratios[below] > 0.0);
        measured.map_or((1, 1.0), |below| (below, self.ratios[below]))
    }

    fn forget_slowly(&mut self, seen: usize) {
        for rows in 2..=ROWS_MAX {
            let (_, fewer) = self.below(rows);
            let ratio = self.ratios[rows];
            if rows != seen && ratio > fewer {
                self.ratios[rows] = fewer + KEEPS * (ratio - fewer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_is_interpolated_and_what_lies_beyond_is_cheap() {
        let mut costs = Costs::default();
        assert_eq!(costs.ms(3), 0.0);
        costs.record(1, 10.0);
        assert!((costs.ms(4) - 13.0).abs() < 1e-9);
        costs.record(5, 18.0);
        assert!((costs.ms(3) - 14.0).abs() < 1e-9);
        assert!((costs.ms(5) - 18.0).abs() < 1e-9);
        costs.record(17, 1e9);
        assert!(costs.ms(16) < 60.0, "a prefill is no decode");
    }

    #[test]
    fn prices_follow_the_machine_and_one_interruption_does_not_matter() {
        let mut costs = Costs::default();
        costs.record(1, 10.0);
        costs.record(8, 20.0);
        costs.record(1, 500.0);
        assert!(costs.ms(1) <= 12.0);
        for _ in 0..200 {
            costs.record(1, 30.0);
        }
        assert!((costs.ms(1) - 30.0).abs() < 1.0);
        assert!((costs.ms(8) - 60.0).abs() < 4.0, "a slower machine is slower for all");
        for _ in 0..100 {
            costs.record(1, 30.0);
            costs.record(8, 90.0);
        }
        assert!((costs.ms(1) - 30.0).abs() < 2.0 && (costs.ms(8) - 90.0).abs() < 5.0);
    }

    #[test]
    fn a_price_that_was_wrong_is_forgotten() {
        let mut costs = Costs::default();
        costs.record(1, 10.0);
        costs.record(8, 1000.0);
        for _ in 0..20_000 {
            costs.record(1, 10.0);
        }
        assert!(costs.ms(8) < 20.0, "{}", costs.ms(8));
    }
}
