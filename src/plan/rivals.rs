//! Two routers that others ship, to be compared with: a fixed depth of the queue, and failures
//! with a time to cool down. Both know which cloud is the best one from the start, and ask it at
//! once for what the box has refused.

use std::time::Duration;

use tokio::time::Instant;

use super::router::{Router, Sight};
use super::trace::Arrival;
use crate::dispatch::Placed;

/// Sends away whatever meets a queue of so many, as it was when it was last looked at.
pub(super) struct QueueDepth {
    pub(super) most: usize,
    pub(super) cloud: usize,
    /// A router beside the engine asks it for its metrics now and then; zero: it always knows.
    pub(super) seen_every: Duration,
    pub(super) seen: Option<Instant>,
    pub(super) leaving: bool,
}

impl Router for QueueDepth {
    fn place(&mut self, _: &Arrival, sight: Sight) -> Placed {
        if self.seen.is_none_or(|seen| sight.now.duration_since(seen) >= self.seen_every) {
            self.seen = Some(sight.now);
            self.leaving = sight.queue_depth >= self.most;
        }
        if self.leaving { Placed::Clouds(vec![self.cloud]) } else { Placed::Local }
    }

    fn instead(&mut self, _: &Arrival, _: Sight) -> Vec<usize> {
        vec![self.cloud]
    }

    fn is_active(&mut self, _: Instant) -> bool {
        self.leaving
    }
}

/// Sends everything away for a time once the box was late, or refused.
pub(super) struct Cooldown {
    /// A first token after more than this is a failure.
    pub(super) late: Duration,
    pub(super) pause: Duration,
    pub(super) cloud: usize,
    pub(super) until: Option<Instant>,
}

impl Router for Cooldown {
    fn place(&mut self, _: &Arrival, sight: Sight) -> Placed {
        match self.is_active(sight.now) {
            true => Placed::Clouds(vec![self.cloud]),
            false => Placed::Local,
        }
    }

    fn instead(&mut self, _: &Arrival, sight: Sight) -> Vec<usize> {
        self.until = Some(sight.now + self.pause);
        vec![self.cloud]
    }

    fn local_first(&mut self, ttft: Duration, now: Instant) {
        if ttft > self.late && !self.is_active(now) {
            self.until = Some(now + self.pause);
        }
    }

    fn is_active(&mut self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}
