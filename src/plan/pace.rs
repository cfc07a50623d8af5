//! How fast a box was while it worked, by what it publishes of itself: the same of a real one and of
//! a simulated one, so that the one can be made as fast as the other was.

use crate::engine::Saturation;

/// Milliseconds, as means over the time in which something ran.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Of a prompt token that waits.
    pub prompt_token_ms: f64,
    /// Between two generated tokens of any sequences.
    pub token_ms: f64,
}

/// A pace in the making.
#[derive(Clone, Copy, Debug, Default)]
pub struct PaceMeter {
    weight: f64,
    sums: Pace,
}

impl PaceMeter {
    /// The box was so for a time of this weight. An idle one has no pace.
    pub fn look(&mut self, at: &Saturation, weight: f64) {
        if at.running() == 0 {
            return;
        }
        self.weight += weight;
        self.sums.prompt_token_ms += weight * ms_of(at.prefill_rate());
        self.sums.token_ms += weight * ms_of(at.decode_rate());
    }

    /// None: it was idle all the time.
    pub fn pace(&self) -> Option<Pace> {
        let Pace { prompt_token_ms, token_ms } = self.sums;
        (self.weight > 0.0).then(|| Pace {
            prompt_token_ms: prompt_token_ms / self.weight,
            token_ms: token_ms / self.weight,
        })
    }
}

/// Of one of so many a second; nothing was measured: none.
fn ms_of(rate: f64) -> f64 {
    if rate > 0.0 { 1e3 / rate } else { 0.0 }
}
