//! Who gets a free slot.

use std::time::Instant;

use models::step::BlockCopy;

use super::{Scheduler, to_compute};
use crate::engine::message::SequenceId;
use crate::engine::prefix::{Lease, common};
use crate::engine::sequence::{End, Rank, Sequence, Wait};

/// Waiting sequences considered for admission in one step: several times the slots.
const ADMISSION_SCAN_MAX: usize = 64;
/// Of those, how many are looked up in the prefix cache. For the longest prompts so many lookups
/// take about a millisecond; the rest has its turn in the next step.
const LOOKUPS_MAX: usize = 16;
/// Sequences admitted past one that there is no room for, before all behind it wait until there
/// is. Two full batches of 8 slots.
const PASSED_BY_MAX: u32 = 16;

/// What came of the attempt to admit a waiting sequence.
enum Admission {
    Admitted,
    Waits(Wait),
    /// Nobody reads its answer; it is not waiting any more.
    Gone,
}

impl Scheduler {
    /// Fills free slots from the line. What there is no room for lets others past, but not for
    /// ever. A warm-up runs when nothing else runs or waits, and one at a time: it is over sooner.
    pub(super) fn admit(&mut self, now: Instant) {
        let mut candidates = std::mem::take(&mut self.candidates);
        let work = self.waiting.iter().filter(|(_, sequence)| !sequence.is_warm_up());
        candidates.extend(work.map(|(&rank, _)| rank).take(ADMISSION_SCAN_MAX));
        if candidates.is_empty() && self.running.is_empty() {
            candidates.extend(self.waiting.first_key_value().map(|(&rank, _)| rank));
        }
        let mut first_without_room = None;
        let mut lookups = 0;
        for rank in candidates.drain(..) {
            if self.running.len() == self.slots || lookups == LOOKUPS_MAX {
                break;
            }
            let admission = if self.still_waits(rank) {
                Admission::Waits(self.waiting[&rank].wait)
            } else {
                lookups += 1;
                self.try_admit(rank, now)
            };
            match admission {
                Admission::Gone | Admission::Waits(Wait::No | Wait::Follows { .. }) => {}
                Admission::Admitted => self.count_passing(first_without_room),
                Admission::Waits(Wait::NoRoom(_)) => {
                    first_without_room.get_or_insert(rank);
                    if self.waiting[&rank].passed_by >= PASSED_BY_MAX {
                        break;
                    }
                }
            }
        }
        self.candidates = candidates;
    }

    /// Whether what a sequence waits for has not come yet.
    fn still_waits(&self, rank: Rank) -> bool {
        match self.waiting[&rank].wait {
            Wait::No => false,
            Wait::NoRoom(releases) => releases == self.releases,
            Wait::Follows { leader, reach } => {
                let leader = self.running.iter().find(|other| other.rank.id == leader);
                leader.is_some_and(|leader| leader.computed < reach)
            }
        }
    }

    fn count_passing(&mut self, first_without_room: Option<Rank>) {
        if let Some(first) = first_without_room.and_then(|rank| self.waiting.get_mut(&rank)) {
            first.passed_by += 1;
        }
    }

    fn try_admit(&mut self, rank: Rank, now: Instant) -> Admission {
        let mut sequence = self.take_waiting(rank);
        if sequence.nobody_reads() {
            self.retire(sequence, End::Cancelled);
            return Admission::Gone;
        }
        let tenant = sequence.spec().tenant;
        sequence.cached = self.kv.peek(tenant, sequence.reusable());
        if let Some((leader, reach)) = self.leader(&sequence) {
            sequence.cached = reach;
            return self.put_back(sequence, Wait::Follows { leader, reach });
        }
        match self.kv.lease(tenant, sequence.reusable(), sequence.room()) {
            None => self.put_back(sequence, Wait::NoRoom(self.releases)),
            Some(lease) => {
                self.start(sequence, lease, now);
                Admission::Admitted
            }
        }
    }

    fn put_back(&mut self, mut sequence: Sequence, wait: Wait) -> Admission {
        sequence.wait = wait;
        self.waiting_tokens += to_compute(&sequence);
        self.waiting.insert(sequence.rank, sequence);
        Admission::Waits(wait)
    }

    /// The running sequence that is about to compute enough of this one's prompt to wait for it,
    /// and up to where: a whole block more than is cached, or all that is missing. It is never
    /// one of a lower class, whose work may pause.
    fn leader(&self, sequence: &Sequence) -> Option<(SequenceId, usize)> {
        let prompt = sequence.reusable();
        let missing = prompt.len() - sequence.cached;
        let enough = self.limits.block_tokens.min(missing).max(1);
        self.running
            .iter()
            .filter(|other| other.is_prefilling() && other.spec().tenant == sequence.spec().tenant)
            .filter(|other| other.spec().priority >= sequence.spec().priority)
            .map(|other| (other, common(other.prompt(), prompt)))
            .filter(|&(other, reach)| other.computed < reach && reach >= sequence.cached + enough)
            .max_by_key(|&(_, reach)| reach)
            .map(|(other, reach)| (other.rank.id, reach))
    }

    fn start(&mut self, mut sequence: Sequence, lease: Lease, now: Instant) {
        let Lease { shared, copy, promised } = lease;
        sequence.published = shared.len();
        sequence.computed = shared.len() * self.limits.block_tokens;
        sequence.blocks.reserve_exact(shared.len() + promised);
        sequence.blocks.extend(shared);
        sequence.promised = promised;
        if let Some((from, tokens)) = copy {
            let to = self.kv.draw();
            sequence.promised -= 1;
            sequence.blocks.push(to);
            self.step.copies.push(BlockCopy { from, to, tokens: tokens as u32 });
            self.sources.push(from);
            sequence.computed += tokens;
        }
        sequence.cached = sequence.computed;
        sequence.begin(now);
        self.record_start(&sequence, now);
        self.prepare_drafts(&mut sequence);
        self.running.push(sequence);
    }

    fn record_start(&self, sequence: &Sequence, now: Instant) {
        if !sequence.is_warm_up() {
            let waited = now.saturating_duration_since(sequence.submitted());
            self.telemetry.queue_seconds.record(waited.as_secs_f64());
        }
        let (prompt, cached) = (sequence.prompt().len() as u64, sequence.cached as u64);
        if !sequence.spec().rules.scores_prompt() {
            self.telemetry.prefix_cache_queries.increment(prompt);
            self.telemetry.prefix_cache_hits.increment(cached);
        }
        // A prompt is one prompt, however many choices continue it.
        if sequence.spec().choice == 0 {
            self.telemetry.tokens_prompt.increment(prompt);
            self.telemetry.tokens_cached.increment(cached);
        }
    }
}
