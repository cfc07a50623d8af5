//! When a request that came now would have its first text.
//!
//! What is known of it is work: that ahead of it and its own. How long that takes in the end, with
//! steps that are shared and a first text that needs more than a first token, is learnt from the
//! requests before it: a line through the latest (work, time) pairs.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Weight of one more pair: the line follows a machine that changes its speed within some 50.
const WEIGHT: f64 = 0.04;
/// Pairs before the line is believed; until then time is work.
const PAIRS_MIN: u32 = 8;
/// A slope beyond these is noise.
const SLOPE: std::ops::RangeInclusive<f64> = 0.3..=3.0;
/// A pair further off than this, in multiples of what was predicted, says that something else
/// happened (the machine slept), and weighs as if it were not further.
const OFF_MAX: f64 = 4.0;
/// Slack of that bound for short times, in milliseconds.
const OFF_SLACK_MS: f64 = 50.0;

/// From milliseconds of work to milliseconds of time.
#[derive(Debug, Default)]
pub(crate) struct Predictor(Mutex<Line>);

/// Exponentially weighted means.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    pairs: u32,
    work: f64,
    time: f64,
    work_work: f64,
    work_time: f64,
}

impl Predictor {
    pub(crate) fn ms(&self, work_ms: f64) -> f64 {
        self.line().ms(work_ms)
    }

    /// A request with so much work had its first text after so long.
    pub(crate) fn observe(&self, work_ms: f64, took_ms: f64) {
        let mut line = self.line();
        let predicted = line.ms(work_ms);
        let most = predicted * OFF_MAX + OFF_SLACK_MS;
        line.take(work_ms, took_ms.min(most));
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn take(&mut self, work: f64, time: f64) {
        self.pairs = self.pairs.saturating_add(1);
        // The first ones are all that is known, and weigh alike.
        let weight = WEIGHT.max(1.0 / f64::from(self.pairs));
        let mean = |old: &mut f64, new: f64| *old += weight * (new - *old);
        mean(&mut self.work, work);
        mean(&mut self.time, time);
        mean(&mut self.work_work, work * work);
        mean(&mut self.work_time, work * time);
    }

    fn ms(&self, work: f64) -> f64 {
        if self.pairs < PAIRS_MIN {
            return work;
        }
        let spread = self.work_work - self.work * self.work;
        let shared = self.work_time - self.work * self.time;
        // Requests that are all alike tell a sum, and no slope: then the excess is not scaled.
        let told = spread > (0.05 * self.work).powi(2).max(1.0);
        let slope = if told { shared / spread } else { 1.0 };
        let slope = slope.clamp(*SLOPE.start(), *SLOPE.end());
        (self.time + slope * (work - self.work)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_a_line_and_follows_a_new_one() {
        let predictor = Predictor::default();
        assert_eq!(predictor.ms(100.0), 100.0, "nothing is known: time is work");
        for round in 0..400 {
            let work = f64::from(round % 10) * 30.0;
            predictor.observe(work, 12.0 + 1.4 * work);
        }
        assert!((predictor.ms(0.0) - 12.0).abs() < 2.0, "{}", predictor.ms(0.0));
        assert!((predictor.ms(200.0) - 292.0).abs() < 5.0, "{}", predictor.ms(200.0));
        for round in 0..200 {
            let work = f64::from(round % 10) * 30.0;
            predictor.observe(work, 30.0 + 2.0 * work);
        }
        assert!((predictor.ms(200.0) - 430.0).abs() < 10.0, "{}", predictor.ms(200.0));
    }

    #[test]
    fn one_bad_moment_does_not_spoil_it() {
        let predictor = Predictor::default();
        for _ in 0..100 {
            predictor.observe(50.0, 60.0);
        }
        predictor.observe(50.0, 60_000.0);
        assert!(predictor.ms(50.0) < 75.0, "{}", predictor.ms(50.0));
    }
}
