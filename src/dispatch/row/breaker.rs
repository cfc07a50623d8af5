//! Whether a cloud is broken: an exact ratio over the last seconds, since an average hides a burst.

use std::time::Duration;

use tokio::time::Instant;

/// Seconds that are counted, each in a bucket of its own.
const BUCKETS: usize = 10;
const BUCKET: Duration = Duration::from_secs(1);
/// Ends from which on a ratio says something.
const ENDS_MIN: u32 = 20;
/// Failures in a row that need no ratio: a dead cloud is seen before twenty have tried it.
const IN_A_ROW_MAX: u32 = 3;
/// How long a broken cloud is left alone: long against a connect timeout, short against an outage.
/// Doubled each time that the try afterwards fails,
const OPEN_MIN: Duration = Duration::from_secs(5);
/// up to this.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// Counts how a cloud's answers end. It opens when half of them fail.
pub(super) struct Breaker {
    /// Ends that were good and bad, by second.
    buckets: [(u32, u32); BUCKETS],
    /// The bucket of now, and when it began.
    at: usize,
    began: Option<Instant>,
    in_a_row: u32,
    /// How long the next opening lasts.
    opens_for: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        let buckets = [(0, 0); BUCKETS];
        Self { buckets, at: 0, began: None, in_a_row: 0, opens_for: OPEN_MIN }
    }
}

impl Breaker {
    /// An answer ended well.
    pub(super) fn good(&mut self, now: Instant) {
        self.turn(now);
        self.buckets[self.at].0 += 1;
        self.in_a_row = 0;
    }

    /// It did not. Some: the cloud is left alone for so long.
    pub(super) fn bad(&mut self, now: Instant) -> Option<Duration> {
        self.turn(now);
        self.buckets[self.at].1 += 1;
        self.in_a_row += 1;
        let (good, bad) =
            self.buckets.iter().fold((0, 0), |(g, b), (good, bad)| (g + good, b + bad));
        let often = good + bad >= ENDS_MIN && bad >= good;
        if self.in_a_row < IN_A_ROW_MAX && !often {
            return None;
        }
        let open = self.opens_for;
        self.opens_for = (open * 2).min(OPEN_MAX);
        self.buckets = Default::default();
        Some(open)
    }

    /// The try after an opening gave content: what was counted before is over, and the next opening
    /// is short again.
    pub(super) fn closed(&mut self) {
        self.buckets = Default::default();
        self.in_a_row = 0;
        self.opens_for = OPEN_MIN;
    }

    fn turn(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let passed = now.duration_since(began).as_secs() / BUCKET.as_secs();
        for _ in 0..passed.min(BUCKETS as u64) {
            self.at = (self.at + 1) % BUCKETS;
            self.buckets[self.at] = (0, 0);
        }
        self.began = Some(began + BUCKET * u32::try_from(passed).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_twenty_open_it_and_the_window_forgets() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut breaker = Breaker::default();
        for n in 0..9 {
            breaker.good(at(n));
            assert_eq!(breaker.bad(at(n)), None);
        }
        breaker.good(at(10));
        assert_eq!(breaker.bad(at(11)), Some(OPEN_MIN), "ten of twenty");
        assert_eq!(breaker.bad(at(12)), None, "counted from the beginning");
        let mut slow = Breaker::default();
        for n in 0..100 {
            slow.good(at(n * 1200));
            assert_eq!(slow.bad(at(n * 1200)), None, "ten seconds hold eighteen");
        }
    }

    #[test]
    fn three_in_a_row_open_it_longer_each_time() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!((breaker.bad(now), breaker.bad(now)), (None, None));
        assert_eq!(breaker.bad(now), Some(OPEN_MIN));
        assert_eq!(breaker.bad(now), Some(OPEN_MIN * 2), "the try failed too");
        for _ in 0..5 {
            breaker.bad(now);
        }
        assert_eq!(breaker.bad(now), Some(OPEN_MAX));
        breaker.closed();
        assert_eq!((breaker.bad(now), breaker.bad(now)), (None, None));
        assert_eq!(breaker.bad(now), Some(OPEN_MIN));
    }
}
