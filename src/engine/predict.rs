//! When a request that came now would have its first text.
//!
//! What is known of it is [`Work`]: prompts to be computed before it and its own, and sequences
//! that must end before it has a slot. How long that takes in the end, with steps that are shared,
//! waits that overlap and a first text that needs more than a first token, is learnt from the
//! requests before it: least squares over the latest of them, older ones forgotten bit by bit.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What of the old is kept with each new request: half of what is known dates from the last 35.
const KEPT: f64 = 0.98;
/// Requests before what was learnt is believed; until then time is work.
const REQUESTS_MIN: u32 = 8;
/// A request further off than this, in multiples of what was predicted, says that something else
/// happened (the machine slept), and weighs as if it were not further.
const OFF_MAX: f64 = 4.0;
/// Slack of that bound for short times, in milliseconds.
const OFF_SLACK_MS: f64 = 50.0;
/// Unit of all numbers in the sums, so that they are near 1.
const UNIT_MS: f64 = 100.0;
/// How little is known at the beginning: of a constant part, of a factor of prefill, and of one of
/// waiting for ends.
const UNKNOWN: [f64; N] = [0.25, 0.5, 0.5];
const N: usize = 3;

/// Milliseconds of work until a request's first text, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Work {
    /// Prompts before it, its own, and the step of its first token.
    pub(crate) prefill_ms: f64,
    /// Until enough sequences have ended.
    pub(crate) ends_ms: f64,
}

impl Work {
    pub(crate) fn total_ms(self) -> f64 {
        self.prefill_ms + self.ends_ms
    }

    fn terms(self) -> [f64; N] {
        [1.0, self.prefill_ms / UNIT_MS, self.ends_ms / UNIT_MS]
    }
}

/// From work to milliseconds of time.
#[derive(Debug, Default)]
pub(crate) struct Predictor(Mutex<Learnt>);

/// Recursive least squares: the factors, and how well each is known.
#[derive(Clone, Copy, Debug)]
struct Learnt {
    requests: u32,
    factors: [f64; N],
    /// Covariance of the factors, up to a scale.
    unknown: [[f64; N]; N],
}

impl Default for Learnt {
    /// Time is work.
    fn default() -> Self {
        let mut unknown = [[0.0; N]; N];
        for (place, much) in UNKNOWN.into_iter().enumerate() {
            unknown[place][place] = much;
        }
        Self { requests: 0, factors: [0.0, 1.0, 1.0], unknown }
    }
}

impl Predictor {
    pub(crate) fn ms(&self, work: Work) -> f64 {
        self.learnt().ms(work)
    }

    /// A request with so much work had its first text after so long.
    pub(crate) fn observe(&self, work: Work, took_ms: f64) {
        let mut learnt = self.learnt();
        let most = learnt.ms(work) * OFF_MAX + OFF_SLACK_MS;
        learnt.take(work.terms(), took_ms.min(most) / UNIT_MS);
    }

    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Learnt {
    fn ms(&self, work: Work) -> f64 {
        if self.requests < REQUESTS_MIN {
            return work.total_ms();
        }
        (dot(&self.factors, &work.terms()) * UNIT_MS).max(0.0)
    }

    fn take(&mut self, terms: [f64; N], time: f64) {
        self.requests = self.requests.saturating_add(1);
        let spread: [f64; N] = std::array::from_fn(|row| dot(&self.unknown[row], &terms));
        let scale = KEPT + dot(&spread, &terms);
        let error = time - dot(&self.factors, &terms);
        for (factor, gain) in self.factors.iter_mut().zip(spread) {
            *factor += gain / scale * error;
        }
        // What is forgotten without anything new to learn would grow without end: a factor is
        // never less known than at the beginning.
        for row in 0..N {
            for column in 0..N {
                let known = self.unknown[row][column] - spread[row] * spread[column] / scale;
                self.unknown[row][column] = known / KEPT;
            }
        }
        for place in 0..N {
            let too_much = self.unknown[place][place] / UNKNOWN[place];
            if too_much > 1.0 {
                let by = too_much.sqrt();
                for other in 0..N {
                    self.unknown[place][other] /= by;
                    self.unknown[other][place] /= by;
                }
            }
        }
    }
}

fn dot(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(prefill_ms: f64, ends_ms: f64) -> Work {
        Work { prefill_ms, ends_ms }
    }

    #[test]
    fn it_learns_what_each_kind_takes_and_follows_a_change() {
        let predictor = Predictor::default();
        assert_eq!(predictor.ms(work(60.0, 40.0)), 100.0, "nothing is known: time is work");
        let kinds = |round: u32| work(f64::from(round % 10) * 30.0, f64::from(round % 7) * 20.0);
        for round in 0..400 {
            let work = kinds(round);
            predictor.observe(work, 12.0 + 1.4 * work.prefill_ms + 0.6 * work.ends_ms);
        }
        let near = |of: Work, ms: f64| {
            let told = predictor.ms(of);
            assert!((told - ms).abs() < 3.0, "{of:?}: {told} for {ms}");
        };
        near(work(0.0, 0.0), 12.0);
        near(work(200.0, 0.0), 292.0);
        near(work(0.0, 100.0), 72.0);
        for round in 0..400 {
            let work = kinds(round);
            predictor.observe(work, 30.0 + 2.0 * work.prefill_ms + 0.9 * work.ends_ms);
        }
        near(work(200.0, 100.0), 520.0);
    }

    #[test]
    fn one_bad_moment_does_not_spoil_it() {
        let predictor = Predictor::default();
        for _ in 0..100 {
            predictor.observe(work(50.0, 0.0), 60.0);
        }
        predictor.observe(work(50.0, 0.0), 60_000.0);
        assert!(predictor.ms(work(50.0, 0.0)) < 90.0, "{}", predictor.ms(work(50.0, 0.0)));
    }

    #[test]
    fn what_never_varies_is_not_forgotten_into_noise() {
        let predictor = Predictor::default();
        for _ in 0..100_000 {
            predictor.observe(work(20.0, 0.0), 25.0);
        }
        let told = predictor.ms(work(40.0, 60.0));
        assert!((60.0..160.0).contains(&told), "{told} for what was never seen");
    }
}
