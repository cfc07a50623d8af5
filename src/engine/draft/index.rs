//! Where a text has been before: the places at which its last tokens occurred already.
//!
//! For each n-gram of a few lengths a table remembers the latest place that followed it. A table
//! has no buckets: another n-gram of the same hash takes the entry, and what is looked up is
//! compared with the text, so a collision costs a find and never a wrong one. Memory is
//! allocated once; a text that outgrows it forgets its beginning.

use std::array;

/// Lengths of the n-grams, in tokens.
const ORDERS: [usize; 6] = [1, 2, 3, 4, 6, 8];
/// Tokens compared at most; two places that agree in so many are equally good.
pub(super) const MATCH_MAX: u32 = 32;
/// Stands where a text ends and another begins. Nothing matches it and nothing is drafted past
/// it. No vocabulary is so large.
pub(super) const CUT: u32 = u32::MAX;
/// Tokens kept of one text at most: 1.8 MB. What was said longer ago is hardly said again.
const TOKENS_MAX: usize = 1 << 16;
/// Tokens kept at least, so that tables are not all collisions.
const TOKENS_MIN: usize = 64;
/// After so many tokens an index begins anew, long before positions overflow.
const POSITION_MAX: u32 = 1 << 31;

/// A place whose preceding tokens are a text's last ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Position of the token that follows.
    pub(super) next: u32,
    /// Tokens before it that are the same, 1 to [`MATCH_MAX`].
    pub(super) len: u32,
}

/// The hashes of a text's last tokens, one for each of [`ORDERS`]; None where a cut or the
/// beginning is nearer.
pub(super) type Grams = [Option<u32>; ORDERS.len()];

/// A text and its n-grams.
#[derive(Debug)]
pub(super) struct Index {
    /// A ring, a power of two long; position `p` is at `p % len`.
    tokens: Box<[u32]>,
    /// One table for each order, of twice as many entries as there are tokens: the position
    /// after the latest n-gram of a hash, or 0.
    latest: Box<[u32]>,
    /// Tokens pushed.
    end: u32,
}

impl Index {
    /// For texts of so many tokens; of a longer one the end is kept.
    pub(super) fn new(tokens: usize) -> Self {
        let tokens = tokens.clamp(TOKENS_MIN, TOKENS_MAX).next_power_of_two();
        let latest = vec![0; ORDERS.len() * 2 * tokens].into_boxed_slice();
        Self { tokens: vec![CUT; tokens].into_boxed_slice(), latest, end: 0 }
    }

    /// The token at a position, or a cut where there is none (any more).
    pub(super) fn token(&self, position: u32) -> u32 {
        let kept = position < self.end && (self.end - position) as usize <= self.tokens.len();
        if kept { self.tokens[self.slot(position)] } else { CUT }
    }

    /// The position after the last token.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    /// Appends a token; returns the place whose preceding tokens are the most like the end.
    pub(super) fn push(&mut self, token: u32) -> Option<Place> {
        if self.end == POSITION_MAX {
            self.latest.fill(0);
            self.end = 0;
        }
        let slot = self.slot(self.end);
        self.tokens[slot] = token;
        self.end += 1;
        let grams = self.grams();
        let mut candidates = [0; ORDERS.len()];
        for (order, gram) in grams.iter().enumerate() {
            if let &Some(gram) = gram {
                let entry = self.entry(order, gram);
                candidates[order] = std::mem::replace(&mut self.latest[entry], self.end);
            }
        }
        self.best(candidates, self)
    }

    /// The place in this text whose preceding tokens are the most like another text's end.
    pub(super) fn find(&self, text: &Self, grams: &Grams) -> Option<Place> {
        let candidate =
            |order: usize| grams[order].map_or(0, |gram| self.latest[self.entry(order, gram)]);
        self.best(array::from_fn(candidate), text)
    }

    /// The hashes of the last tokens.
    pub(super) fn grams(&self) -> Grams {
        let mut grams = [None; ORDERS.len()];
        let mut hash = 0u64;
        let mut order = 0;
        for back in 0..ORDERS[ORDERS.len() - 1] {
            let token = self.back(back as u32);
            if token == CUT {
                break;
            }
            hash = (hash.rotate_left(5) ^ u64::from(token)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            if back + 1 == ORDERS[order] {
                grams[order] = Some((hash >> 32) as u32);
                order += 1;
            }
        }
        grams
    }

    /// The longest n-gram that is really there, and how much more of the text before it.
    fn best(&self, candidates: [u32; ORDERS.len()], text: &Self) -> Option<Place> {
        candidates.into_iter().zip(ORDERS).rev().find_map(|(next, order)| {
            let len = self.common(next, text);
            (len as usize >= order).then_some(Place { next, len })
        })
    }

    /// How many tokens before a position are the same as a text's last ones.
    fn common(&self, position: u32, text: &Self) -> u32 {
        let most = MATCH_MAX.min(position);
        let same = |&back: &u32| {
            let token = self.token(position - 1 - back);
            token != CUT && token == text.back(back)
        };
        (0..most).take_while(same).count() as u32
    }

    /// The token so far before the last one.
    fn back(&self, back: u32) -> u32 {
        if back < self.end { self.token(self.end - 1 - back) } else { CUT }
    }

    fn slot(&self, position: u32) -> usize {
        position as usize & (self.tokens.len() - 1)
    }

    fn entry(&self, order: usize, gram: u32) -> usize {
        let size = 2 * self.tokens.len();
        order * size + (gram as usize & (size - 1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The latest of the places that share the most tokens with the end, by looking at all.
    fn naive(text: &[u32]) -> Option<(usize, usize)> {
        let common = |next: usize| {
            let pairs = text[..next].iter().rev().zip(text.iter().rev());
            pairs.take_while(|(a, b)| a == b && **a != CUT).take(MATCH_MAX as usize).count()
        };
        let places = (1..text.len()).map(|next| (common(next), next));
        places.filter(|&(len, _)| len > 0).max().map(|(len, next)| (next, len))
    }

    fn order_within(len: usize) -> usize {
        ORDERS.into_iter().rev().find(|&order| order <= len).unwrap_or(0)
    }

    /// Texts over few tokens that repeat themselves, with cuts.
    fn texts() -> impl Strategy<Value = Vec<u32>> {
        let token = prop_oneof![20 => 0..12u32, 1 => Just(CUT)];
        let part = prop_oneof![
            prop::collection::vec(token, 1..20).prop_map(|fresh| (fresh, 0, 0)),
            (1..60usize, 1..40usize).prop_map(|(back, count)| (Vec::new(), back, count)),
        ];
        prop::collection::vec(part, 1..20).prop_map(|parts| {
            let mut text: Vec<u32> = Vec::new();
            for (fresh, back, count) in parts {
                text.extend(fresh);
                for _ in 0..if back <= text.len() { count } else { 0 } {
                    text.push(text[text.len() - back]);
                }
            }
            text
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_there_and_hardly_anything_is_longer(text in texts()) {
            let mut index = Index::new(TOKENS_MAX);
            let (mut asked, mut missed) = (0, 0);
            for at in 0..text.len() {
                let found = index.push(text[at]);
                let Some((_, longest)) = naive(&text[..=at]) else {
                    prop_assert_eq!(found, None);
                    continue;
                };
                asked += 1;
                let len = found.map_or(0, |place| place.len as usize);
                prop_assert!(len <= longest);
                // an n-gram whose entry another took is the only one that is missed
                missed += usize::from(len < order_within(longest));
                if let Some(place) = found {
                    let before = &text[..place.next as usize];
                    prop_assert!(before.ends_with(&text[at + 1 - len..=at]));
                    prop_assert!((place.next as usize) <= at, "a place is in the past");
                }
            }
            prop_assert!(missed * 50 <= asked + 49, "{missed} of {asked}");
        }
    }

    #[test]
    fn a_full_index_forgets_its_beginning() {
        let mut index = Index::new(64);
        for token in (0..10).chain(100..160) {
            assert_eq!(index.push(token), None, "nothing was said before");
        }
        assert_eq!(index.token(0), CUT);
        assert_eq!(index.push(0), None, "said too long ago");
        assert_eq!(index.push(140), Some(Place { next: 51, len: 1 }));
        assert_eq!(index.token(51), 141);
    }
}
