//! Batch jobs that sit out the steps of completions.
//!
//! Where a row makes a step dearer, on a CPU, whoever waits at a cursor pays for the rows of jobs
//! that nobody waits for. So these pause while completions run, each for so many steps in a row at
//! most: a box that is never without completions still ends its jobs.

use super::Scheduler;
use crate::completion::Priority;
use crate::engine::draft::Costs;
use crate::engine::sequence::Sequence;

/// Steps in a row that a job sits out. Behind steps of 2 ms it goes on eight times a second.
const SITS_OUT_MAX: u32 = 64;
/// A row that makes a step longer by less than such a part costs nobody anything.
const ROW_PART_FREE: f64 = 0.02;

impl Scheduler {
    /// Decides which batch jobs sit out the next step.
    pub(super) fn seat(&mut self, costs: &Costs) {
        let completes = |other: &&Sequence| other.spec().priority == Priority::Completion;
        let completions = self.running.iter().filter(completes).count();
        let alone_ms = costs.ms(completions.max(1));
        let dear = costs.ms(completions.max(1) + 1) > alone_ms * (1.0 + ROW_PART_FREE);
        for sequence in &mut self.running {
            let is_job = sequence.spec().priority == Priority::Batch;
            let costly = dear || sequence.is_prefilling();
            let sits = completions > 0 && is_job && costly && sequence.sat_out < SITS_OUT_MAX;
            sequence.sat_out = if sits { sequence.sat_out + 1 } else { 0 };
        }
    }
}
