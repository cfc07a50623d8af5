//! Prompts that are read before anybody asks for them, while there is nothing else to do.

use super::Scheduler;
use crate::engine::sequence::{Rank, Sequence, WARM_ENOUGH};

/// Warm-ups that wait. What a client has sent one for changes with the next key, so older ones are
/// worth less and less.
const WAITING_MAX: usize = 4;

impl Scheduler {
    /// Makes way for a sequence that arrives. Work ends all warm-ups; what they have read stays in
    /// the cache. A warm-up takes the place of the oldest of its tenant where too many wait;
    /// false: there is none.
    pub(super) fn gives_way(&mut self, arriving: &Sequence) -> bool {
        if !arriving.is_warm_up() {
            self.end_warm_ups();
            return true;
        }
        if self.warm_ups_waiting().count() < WAITING_MAX {
            return true;
        }
        let tenant = arriving.spec().tenant;
        let same = self.warm_ups_waiting().filter(|(_, other)| other.spec().tenant == tenant);
        let oldest = same.last().map(|(&rank, _)| rank);
        if let Some(oldest) = oldest {
            self.end_waiting(oldest, WARM_ENOUGH);
        }
        oldest.is_some()
    }

    /// Somebody has come, or is on his way.
    pub(super) fn end_warm_ups(&mut self) {
        for index in (0..self.running.len()).rev() {
            if self.running[index].is_warm_up() {
                self.end_running(index, WARM_ENOUGH);
            }
        }
        let newest = |scheduler: &Self| scheduler.warm_ups_waiting().next().map(|(&rank, _)| rank);
        while let Some(rank) = newest(self) {
            self.end_waiting(rank, WARM_ENOUGH);
        }
    }

    /// The newest first: by their rank they are behind all others.
    pub(super) fn warm_ups_waiting(&self) -> impl Iterator<Item = (&Rank, &Sequence)> {
        self.waiting.iter().rev().take_while(|(_, sequence)| sequence.is_warm_up())
    }
}
