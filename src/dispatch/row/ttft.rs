//! A cloud's times to first token.

use std::time::Duration;

use tokio::time::Instant;

/// Answers whose time is remembered,
const SAMPLES: usize = 32;
/// and how many say something.
const SAMPLES_MIN: usize = 4;
/// How long what they say is believed. A cloud that was too slow gets another try then.
const STALE: Duration = Duration::from_secs(10);

/// The times of a cloud's latest answers.
#[derive(Default)]
pub(super) struct Ttft {
    /// The oldest is overwritten.
    latest: [Duration; SAMPLES],
    count: usize,
    /// When the last one came.
    at: Option<Instant>,
}

impl Ttft {
    pub(super) fn push(&mut self, ttft: Duration, now: Instant) {
        if self.is_stale(now) {
            self.count = 0;
        }
        self.latest[self.count % SAMPLES] = ttft;
        self.count += 1;
        self.at = Some(now);
    }

    /// None while there are too few to tell, or the last one is old: then it is worth a try.
    pub(super) fn p90(&self, now: Instant) -> Option<Duration> {
        if self.count < SAMPLES_MIN || self.is_stale(now) {
            return None;
        }
        let mut latest = self.latest;
        let latest = &mut latest[..self.count.min(SAMPLES)];
        let place = (latest.len() * 9).div_ceil(10) - 1;
        Some(*latest.select_nth_unstable(place).1)
    }

    fn is_stale(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| now.duration_since(at) >= STALE)
    }
}
