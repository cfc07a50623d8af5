//! A second try for a first token: when the box takes longer than it nearly always does, a cloud
//! is asked beside it, and whoever is first has the request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::allowance::Allowance;

/// Of all requests, this share may be asked twice.
const SHARE: f64 = 0.05;
/// Hedges that quiet times may save up.
const SAVED_MAX: f64 = 20.0;
/// First tokens of the box that are remembered,
const SAMPLES: usize = 128;
/// and how many say what is unusual.
const SAMPLES_MIN: usize = 20;
/// Nothing is unusual before this: a hedge that saves less is not worth its money.
const DELAY_MIN: Duration = Duration::from_millis(50);
/// What nine of ten first tokens keep to (stalls of one in twenty do not move it), and what was predicted for this one, may be off by these
/// before it counts as stalled: what is only slow must not use up the share of what stands still.
const OFF_USUAL: f64 = 1.5;
const OFF_PREDICTED: f64 = 2.0;

/// When to hedge, and whether.
pub(super) struct Hedge {
    allowance: Allowance,
    latest: Mutex<Latest>,
}

struct Latest {
    times: [Duration; SAMPLES],
    count: usize,
}

impl Default for Hedge {
    fn default() -> Self {
        let latest = Latest { times: [Duration::ZERO; SAMPLES], count: 0 };
        Self { allowance: Allowance::new(SHARE, SAVED_MAX), latest: Mutex::new(latest) }
    }
}

impl Hedge {
    /// A request came; how long its first token may take, predicted so, before it is hedged.
    pub(super) fn delay(&self, predicted: Duration, objective: Duration) -> Duration {
        self.allowance.pay_in();
        let usual = self.latest().p90().unwrap_or(objective);
        usual.mul_f64(OFF_USUAL).max(predicted.mul_f64(OFF_PREDICTED)).max(DELAY_MIN)
    }

    pub(super) fn allowed(&self) -> bool {
        self.allowance.take()
    }

    /// The box gave a first token.
    pub(super) fn answered(&self, ttft: Duration) {
        let mut latest = self.latest();
        let place = latest.count % SAMPLES;
        latest.times[place] = ttft;
        latest.count += 1;
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latest {
    fn p90(&self) -> Option<Duration> {
        if self.count < SAMPLES_MIN {
            return None;
        }
        let mut times = self.times;
        let times = &mut times[..self.count.min(SAMPLES)];
        let place = (times.len() * 9).div_ceil(10) - 1;
        Some(*times.select_nth_unstable(place).1)
    }
}
