//! How many drafted tokens a step takes: as many as make the most tokens a millisecond.

use super::costs::{Costs, ROWS_MAX};

/// A step with drafts must promise so many times the tokens a millisecond of one without: what
/// is expected is not certain, and a draft that fails has only cost time.
const WORTH: f64 = 1.02;

/// A drafted token and how likely it and all before it in its draft are right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) chance: f32,
    /// Which sequence's.
    pub(crate) of: usize,
}

/// Sorts the candidates and returns how many of the first to take, beside one row for each of
/// `decodes` sequences, at most `most`. A sequence's candidates become no likelier from one to the
/// next, so the first of all candidates are the beginnings of the drafts.
pub(crate) fn choose(
    candidates: &mut [Candidate],
    decodes: usize,
    most: usize,
    costs: &Costs,
) -> usize {
    candidates.sort_unstable_by(|a, b| b.chance.total_cmp(&a.chance));
    let alone_ms = costs.ms(decodes);
    if alone_ms <= 0.0 {
        return 0;
    }
    let most = most.min(ROWS_MAX.saturating_sub(decodes));
    let mut tokens = decodes as f64;
    let mut best = (0, WORTH * tokens / alone_ms);
    for (index, candidate) in candidates.iter().take(most).enumerate() {
        tokens += f64::from(candidate.chance);
        let rate = tokens / costs.ms(decodes + index + 1);
        if rate > best.1 {
            best = (index + 1, rate);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(chances: &[f32], decodes: usize, costs: &Costs) -> usize {
        let mut candidates: Vec<_> =
            chances.iter().map(|&chance| Candidate { chance, of: 0 }).collect();
        choose(&mut candidates, decodes, usize::MAX, costs)
    }

    fn costs(of: impl Fn(usize) -> f64) -> Costs {
        let mut costs = Costs::default();
        (1..=ROWS_MAX).for_each(|rows| costs.record(rows, of(rows)));
        costs
    }

    #[test]
    fn free_rows_are_all_taken_and_dear_ones_only_when_they_are_sure() {
        let free = costs(|_| 10.0);
        assert_eq!(taken(&[0.9, 0.5, 0.1], 1, &free), 3);
        assert_eq!(taken(&[0.9; 30], 1, &free), ROWS_MAX - 1);
        assert_eq!(taken(&[0.9; 30], ROWS_MAX, &free), 0);
        let linear = costs(|rows| 10.0 * rows as f64);
        assert_eq!(taken(&[0.99, 0.98], 1, &linear), 0);
        let half = costs(|rows| 5.0 + 5.0 * rows as f64);
        assert_eq!(taken(&[0.8, 0.7, 0.2], 1, &half), 2);
        assert_eq!(taken(&[0.4, 0.3], 1, &half), 0);
    }

    #[test]
    fn a_step_in_price_is_stepped_over_or_not_at_all() {
        // tiles of four rows: the fifth costs a second tile
        let tiles = costs(|rows| 10.0 * rows.div_ceil(4) as f64);
        assert_eq!(taken(&[0.9, 0.85, 0.8, 0.75, 0.7], 1, &tiles), 3);
        let cheaper = costs(|rows| if rows <= 4 { 10.0 } else { 18.0 });
        assert_eq!(taken(&[1.0; 7], 1, &cheaper), 7);
        assert_eq!(taken(&[1.0; 4], 1, &cheaper), 3);
    }

    #[test]
    fn nothing_is_drafted_before_anything_is_known() {
        assert_eq!(taken(&[1.0], 1, &Costs::default()), 0);
    }
}
