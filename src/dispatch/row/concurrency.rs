//! How many requests a cloud should have at once, found out from its times to first token.
//!
//! The gradient of Netflix's concurrency limits (`Gradient2Limit`): while first tokens come as fast
//! as they did in the long run the limit grows, when they take longer it shrinks by that much. It
//! is told times to first token and never whole answers, whose length says nothing of load.

use std::time::Duration;

/// What a limit grows by, beside what the gradient leaves of it.
const QUEUE: f64 = 4.0;
const SMOOTHING: f64 = 0.2;
/// Answers that the long run is made of.
const LONG_RUN: f64 = 600.0;
/// First tokens may take so much longer than in the long run.
const TOLERANCE: f64 = 1.5;
const GRADIENT_MIN: f64 = 0.5;
/// A long run that is so many times slower than now follows faster.
const RECOVERED: f64 = 2.0;
const RECOVERY: f64 = 0.95;
/// What is left of a limit when the cloud says that it is too much.
const THROTTLED: f64 = 0.9;

pub(super) struct Concurrency {
    limit: f64,
    max: f64,
    /// Mean time of the long run in seconds.
    long: f64,
    samples: f64,
}

impl Concurrency {
    /// `max`: what the row allows, and so what it begins with: a burst is what clouds are for.
    pub(super) fn new(max: usize) -> Self {
        let max = max as f64;
        Self { limit: max, max, long: 0.0, samples: 0.0 }
    }

    /// Begins at one request and grows from there, as for a cloud that nobody has tried yet.
    pub(super) fn ramp(&mut self) {
        self.limit = 1.0;
    }

    /// What the row allows has changed.
    pub(super) fn bound(&mut self, max: usize) {
        self.max = max as f64;
        self.limit = self.limit.min(self.max);
    }

    /// Whether one more fits beside so many.
    pub(super) fn allows(&self, in_flight: usize) -> bool {
        (in_flight as f64) + 1.0 <= self.limit
    }

    /// A first token came, with so many requests in flight.
    pub(super) fn answered(&mut self, ttft: Duration, in_flight: usize) {
        let short = ttft.as_secs_f64().max(1e-6);
        self.samples = (self.samples + 1.0).min(LONG_RUN);
        self.long += (short - self.long) / self.samples;
        if self.long > RECOVERED * short {
            self.long *= RECOVERY;
        }
        if (in_flight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * self.long / short).clamp(GRADIENT_MIN, 1.0);
        let wanted = self.limit * gradient + QUEUE;
        self.limit += SMOOTHING * (wanted - self.limit);
        self.limit = self.limit.clamp(1.0, self.max);
    }

    pub(super) fn throttled(&mut self) {
        self.limit = (self.limit * THROTTLED).max(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(100);

    #[test]
    fn it_grows_while_it_is_used_and_fast() {
        let mut limit = Concurrency::new(64);
        limit.ramp();
        for _ in 0..100 {
            limit.answered(FAST, 0);
        }
        assert!(limit.allows(0) && !limit.allows(1), "unused, it says nothing");
        for _ in 0..100 {
            limit.answered(FAST, 60);
        }
        assert!(limit.allows(63) && !limit.allows(64), "the row's own bound");
    }

    #[test]
    fn it_shrinks_where_waiting_begins_and_recovers() {
        let mut limit = Concurrency::new(64);
        for _ in 0..200 {
            limit.answered(FAST, 60);
        }
        for _ in 0..20 {
            limit.answered(FAST * 10, 60);
        }
        assert!(!limit.allows(20), "ten times slower");
        for _ in 0..200 {
            limit.answered(FAST, 60);
        }
        assert!(limit.allows(60));
        for _ in 0..200 {
            limit.throttled();
        }
        assert!(limit.allows(0) && !limit.allows(1));
    }

    #[test]
    fn a_cloud_nobody_has_tried_begins_at_one() {
        let mut limit = Concurrency::new(64);
        limit.ramp();
        assert!(limit.allows(0) && !limit.allows(1));
        for in_flight in 1..10 {
            limit.answered(FAST, in_flight);
        }
        assert!(limit.allows(5));
    }
}
