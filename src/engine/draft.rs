//! Speculative decoding without a second model: what a sequence may say next, guessed from
//! where its last tokens stood before.
//!
//! Code repeats itself: the open file, the text after the cursor, other files, the suggestion
//! that was just typed over. A [`Drafter`] follows one sequence and knows where its last tokens
//! occurred in its own text, or in the recent outputs of its tenant ([`Memory`]); what followed
//! there is the draft. The device runs the draft's rows in the same pass as the last token, and
//! the engine accepts a drafted token only if it is the very one that the sampler chooses at that
//! place: a token's uniform number depends on its index alone, so greedy or drawn, the output is
//! the same, bit by bit, with and without drafts. A wrong draft costs time and nothing else, and
//! what time is worth is measured: [`Costs`] knows what a step of so many rows takes,
//! `acceptance` how often a match of such a length is right, and [`choose`] takes as many tokens
//! of all drafts as make the most of the step, often none.
//!
//! Whoever drives a device by hand drafts like this:
//!
//! ```text
//! let (mut memory, mut costs) = (Memory::new(), Costs::default());
//! costs.record(rows, ms)                        for a few passes of 1, 2, 4, 8 and 16 rows
//! let mut drafter = Drafter::new(room);
//! drafter.read(prompt, cursor, &memory, is_control);
//! loop {
//!     let draft = drafter.draft(most, 0, &memory, &costs);    tokens to verify, maybe none
//!     run 1 + draft.len() rows; costs.record(1 + draft.len(), ms)
//!     drafter.push(token, &mut memory)          for each token that was generated, in order
//! }
//! memory.remember(text before the cursor, output)
//! ```
//!
//! Nothing here allocates after `new`, and a token costs some 0.2 to 0.4 microseconds.

mod acceptance;
mod choice;
mod costs;
mod index;
mod memory;
#[cfg(test)]
mod tests;

pub(crate) use self::choice::{Candidate, choose};
pub(crate) use self::costs::{Costs, ROWS_MAX};
pub(crate) use self::memory::{Memories, Memory};

use self::acceptance::{Acceptance, Source};
use self::index::{CUT, Index, MATCH_MAX, Place};

/// Most drafted tokens of one sequence in a step.
pub(crate) const DRAFT_MAX: usize = ROWS_MAX - 1;
/// A draft ends where it is less likely than this to be right so far.
const CHANCE_MIN: f32 = 0.02;

/// Follows one sequence and drafts what comes next.
#[derive(Debug)]
pub(crate) struct Drafter {
    /// Prompt and output.
    text: Index,
    own: Option<Place>,
    recent: Option<Place>,
    acceptance: Acceptance,
    draft: [u32; DRAFT_MAX],
    /// How likely each of `draft` and all before it are right; never ascending.
    chances: [f32; DRAFT_MAX],
    /// How many of `draft` there are.
    drafted: usize,
}

impl Drafter {
    /// For a sequence that comes to so many tokens.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            text: Index::new(room),
            own: None,
            recent: None,
            acceptance: Acceptance::default(),
            draft: [0; DRAFT_MAX],
            chances: [0.0; DRAFT_MAX],
            drafted: 0,
        }
    }

    /// Takes in the prompt. The output goes on from `prompt[..cursor]`, wherever in the prompt
    /// that is: what follows the cursor there is read first, so that the text before the cursor
    /// and the output are one. Control tokens are cuts: nothing is drafted across them.
    pub(crate) fn read(
        &mut self,
        prompt: &[u32],
        cursor: usize,
        memory: &Memory,
        is_control: impl Fn(u32) -> bool,
    ) {
        let (before, after) = prompt.split_at(cursor);
        for &token in after.iter().chain([&CUT]).chain(before) {
            self.own = self.text.push(if is_control(token) { CUT } else { token });
        }
        self.recent = memory.recent.find(&self.text, &self.text.grams());
    }

    /// Takes in the next generated token, and whether it was expected.
    pub(crate) fn push(&mut self, token: u32, memory: &mut Memory) {
        let score = |place: Option<Place>, text: &Index| {
            let place = place?;
            let expected = text.token(place.next);
            let right = expected == token;
            (expected != CUT).then_some((place.len, right))
        };
        let (own, recent) = (score(self.own, &self.text), score(self.recent, &memory.recent));
        for (source, scored) in [(Source::Own, own), (Source::Recent, recent)] {
            if let Some((len, right)) = scored {
                self.acceptance.count(&mut memory.acceptance, source, len, right);
            }
        }
        let found = self.text.push(token);
        self.own = longer(follow(self.own, own), found);
        let grams = self.text.grams();
        self.recent = longer(follow(self.recent, recent), memory.recent.find(&self.text, &grams));
    }

    /// Guesses up to `most` next tokens; returns how likely each and all before it are right.
    pub(crate) fn propose(&mut self, most: usize, memory: &Memory) -> &[f32] {
        self.drafted = 0;
        let chance = |source, len: u32| {
            self.acceptance.chance(&memory.acceptance, source, len.min(MATCH_MAX))
        };
        let of = |source, place: Option<Place>, text: &Index| {
            let place = place.filter(|place| text.token(place.next) != CUT)?;
            Some((chance(source, place.len), source, place))
        };
        let own = of(Source::Own, self.own, &self.text);
        let recent = of(Source::Recent, self.recent, &memory.recent);
        let best = match (own, recent) {
            (Some(own), Some(recent)) if recent.0 > own.0 => Some(recent),
            (own, recent) => own.or(recent),
        };
        let Some((_, source, place)) = best else { return &[] };
        let text = if source == Source::Own { &self.text } else { &memory.recent };
        let mut all_right = 1.0;
        for ahead in 0..most.min(DRAFT_MAX) {
            all_right *= chance(source, place.len + ahead as u32);
            let at = place.next + ahead as u32;
            // a text that repeats itself goes on in the draft
            let token = match (at.checked_sub(text.end()), source) {
                (Some(beyond), Source::Own) => self.draft[beyond as usize],
                _ => text.token(at),
            };
            if token == CUT || all_right < CHANCE_MIN {
                break;
            }
            self.draft[ahead] = token;
            self.chances[ahead] = all_right;
            self.drafted = ahead + 1;
        }
        &self.chances[..self.drafted]
    }

    /// The first `len` tokens of what was proposed.
    pub(crate) fn tokens(&self, len: usize) -> &[u32] {
        &self.draft[..len]
    }

    /// The tokens worth verifying in the next step, up to `most`, when so many others each have a
    /// row in it.
    pub(crate) fn draft(
        &mut self,
        most: usize,
        others: usize,
        memory: &Memory,
        costs: &Costs,
    ) -> &[u32] {
        let mut candidates = [Candidate { chance: 0.0, of: 0 }; DRAFT_MAX];
        let chances = self.propose(most, memory);
        let count = chances.len();
        for (candidate, &chance) in candidates.iter_mut().zip(chances) {
            candidate.chance = chance;
        }
        let len = choose(&mut candidates[..count], 1 + others, most, costs);
        self.tokens(len)
    }
}

/// The place after one that was right.
fn follow(place: Option<Place>, scored: Option<(u32, bool)>) -> Option<Place> {
    let (place, (_, right)) = (place?, scored?);
    right.then(|| Place { next: place.next + 1, len: (place.len + 1).min(MATCH_MAX) })
}

/// The longer match, among equals the one found last.
fn longer(followed: Option<Place>, found: Option<Place>) -> Option<Place> {
    match (followed, found) {
        (Some(followed), Some(found)) if followed.len > found.len => Some(followed),
        (followed, found) => found.or(followed),
    }
}
