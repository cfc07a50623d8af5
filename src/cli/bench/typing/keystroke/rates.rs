//! How fast this machine reads and generates right now, by the passes of the other benches.

use std::time::Instant;

use models::model;

use super::super::super::passes::{Passes, Room, Sampled, prompt};
use crate::app::{LocalError, STEP_ROWS_MAX};
use crate::cli::Failure;
use crate::config::ModelConfig;

/// Tokens a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) prefill: f64,
    pub(super) decode: f64,
}

/// The model once more, driven by hand.
pub(super) struct Gauge {
    passes: Passes,
    prompt: Vec<u32>,
    tokens: usize,
}

impl Gauge {
    /// Reads `prompt` tokens and generates `tokens` after them.
    pub(super) fn load(
        config: &ModelConfig,
        prompt_tokens: usize,
        tokens: usize,
    ) -> Result<Self, Failure> {
        let loaded = model::load(&config.path.source(), config.quant, config.kv);
        let loaded = loaded.map_err(LocalError::from)?;
        let rows = STEP_ROWS_MAX.min(prompt_tokens);
        let room = Room { sequences: 1, tokens: prompt_tokens + tokens, rows, samples: 1 };
        let passes = Passes::new(&loaded, config, &room)?;
        let prompt = prompt(0, prompt_tokens, loaded.config.vocab);
        Ok(Self { passes, prompt, tokens })
    }

    pub(super) fn measure(&mut self) -> Rates {
        let began = Instant::now();
        let mut id = self.passes.read(0, &self.prompt, STEP_ROWS_MAX);
        let read = began.elapsed();
        let began = Instant::now();
        for at in 0..self.tokens {
            self.passes.clear();
            self.passes.push(0, self.prompt.len() + at, &[id], Sampled::Last);
            self.passes.run();
            id = self.passes.chosen().next().expect("the row chose a token");
        }
        Rates {
            prefill: self.prompt.len() as f64 / read.as_secs_f64(),
            decode: self.tokens as f64 / began.elapsed().as_secs_f64(),
        }
    }
}
