//! Which drafted tokens a step verifies.

use models::step::DeviceLimits;

use super::Scheduler;
use crate::engine::draft::{Candidate, Costs, DRAFT_MAX, Drafter, Memories, ROWS_MAX, choose};
use crate::engine::sequence::Sequence;

/// What drafting needs beside the sequences.
pub(super) struct Drafts {
    memories: Memories,
    /// Reused.
    candidates: Vec<Candidate>,
}

impl Drafts {
    pub(super) fn new() -> Self {
        let candidates = Vec::with_capacity(ROWS_MAX * DRAFT_MAX);
        Self { memories: Memories::default(), candidates }
    }
}

impl Scheduler {
    /// Gives a sequence that is about to run what drafts for it need.
    pub(super) fn prepare_drafts(&self, sequence: &mut Sequence) {
        // The first token comes with the prompt; with a second one there is nothing to draft.
        if self.drafts.is_some() && sequence.spec().max_tokens > 2 {
            sequence.drafter = Some(Drafter::new(sequence.room()));
        }
    }

    /// Decides how many drafted tokens each decoding sequence verifies in this step. None beside
    /// a prefill: such a step is as long as it may be already.
    pub(super) fn plan_drafts(&mut self, costs: &Costs) {
        self.running.iter_mut().for_each(|sequence| sequence.drafted = 0);
        let Some(drafts) = &mut self.drafts else { return };
        let decodes = self.running.iter().filter(|sequence| sequence.decodes()).count();
        let most = rows_most(&self.limits).saturating_sub(decodes);
        if decodes == 0 || most == 0 || self.running.iter().any(Sequence::prefills) {
            return;
        }
        let Drafts { memories, candidates } = drafts;
        candidates.clear();
        let decoding = self.running.iter_mut().enumerate().filter(|(_, one)| one.decodes());
        for (of, sequence) in decoding {
            let memory = memories.of(sequence.spec().tenant);
            let chances = sequence.propose(most, memory, &self.tokenizer);
            candidates.extend(chances.iter().map(|&chance| Candidate { chance, of }));
        }
        let taken = choose(candidates, decodes, most, costs);
        for candidate in &candidates[..taken] {
            self.running[candidate.of].drafted += 1;
        }
    }

    /// Keeps the output of a sequence that ends, to draft from when it is asked for again.
    pub(super) fn remember(&mut self, sequence: &Sequence) {
        if let Some(drafts) = &mut self.drafts
            && sequence.generated() > 0
        {
            let spec = sequence.spec();
            let before = &spec.prompt[..spec.cursor];
            drafts.memories.of(spec.tenant).remember(before, sequence.output());
        }
    }
}

/// Most rows of a step with drafts in it: all are sampled.
fn rows_most(limits: &DeviceLimits) -> usize {
    ROWS_MAX.min(limits.rows_max).min(limits.samples_max)
}
