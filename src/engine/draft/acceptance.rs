//! How often a match of so many tokens says the right next one.
//!
//! Every generated token is compared with what the match before it said, whether or not a draft
//! was made of it. So the numbers stay true while nothing is drafted, and learning is free.

use super::index::MATCH_MAX;

/// Where a match was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// In the sequence's own text: prompt and output.
    Own = 0,
    /// In recent outputs.
    Recent = 1,
}

/// What part of a tally is left after one more prediction of its kind: half after 34 of them.
const SEQUENCE_KEEPS: f32 = 0.98;
/// Half after 346.
const MEMORY_KEEPS: f32 = 0.998;
/// How many predictions of a sequence's own count as much as those of all before it together.
const WEIGHT: f32 = 6.0;
/// Lengths of matches that are told apart: up to these.
const LENGTHS: [u32; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, MATCH_MAX];
/// Before anything is known. Lower than what code comes to, so that a draft is earned.
const FIRST: [f32; LENGTHS.len()] = [0.05, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9];

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    right: f32,
    tried: f32,
}

impl Tally {
    fn count(&mut self, right: bool, keeps: f32) {
        self.right = keeps * self.right + f32::from(right);
        self.tried = keeps * self.tried + 1.0;
    }

    /// The part that was right, were `expected` the part of [`WEIGHT`] more.
    fn part(self, expected: f32) -> f32 {
        (self.right + WEIGHT * expected) / (self.tried + WEIGHT)
    }
}

/// Predictions by source and length of the match, right ones and all, the old ones fading.
#[derive(Clone, Debug, Default)]
pub(super) struct Acceptance {
    tallies: [[Tally; LENGTHS.len()]; 2],
}

impl Acceptance {
    /// Counts a prediction of one sequence, here and among those of all.
    pub(super) fn count(&mut self, all: &mut Self, source: Source, len: u32, right: bool) {
        let kind = kind(len);
        self.tallies[source as usize][kind].count(right, SEQUENCE_KEEPS);
        all.tallies[source as usize][kind].count(right, MEMORY_KEEPS);
    }

    /// How likely the next prediction is right.
    pub(super) fn chance(&self, all: &Self, source: Source, len: u32) -> f32 {
        let kind = kind(len);
        let expected = all.tallies[source as usize][kind].part(FIRST[kind]);
        self.tallies[source as usize][kind].part(expected)
    }
}

fn kind(len: u32) -> usize {
    LENGTHS.partition_point(|&most| most < len).min(LENGTHS.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_come_to_what_happens() {
        let (mut own, mut all) = (Acceptance::default(), Acceptance::default());
        for step in 0..400 {
            own.count(&mut all, Source::Own, 7, step % 4 != 0);
            own.count(&mut all, Source::Own, 2, false);
        }
        let chance = |own: &Acceptance, len| own.chance(&all, Source::Own, len);
        assert!((chance(&own, 8) - 0.75).abs() < 0.05, "{}", chance(&own, 8));
        assert!(chance(&own, 2) < 0.01);
        let fresh = Acceptance::default();
        assert!((chance(&fresh, 8) - 0.75).abs() < 0.05, "a new sequence expects what is usual");
        assert_eq!(fresh.chance(&all, Source::Recent, 8), FIRST[5], "sources are told apart");
        for _ in 0..30 {
            own.count(&mut all, Source::Own, 7, false);
        }
        assert!(own.chance(&all, Source::Own, 7) < 0.5, "what changes is noticed");
    }
}
