//! How long the passes of a model take on this machine, for `weir plan`.

use std::time::{Duration, Instant};

use models::model;

use super::Failure;
use super::figures::median;
use super::passes::{Passes, Room, Sampled, prompt};
use crate::app::{LocalError, STEP_ROWS_MAX};
use crate::config::ModelConfig;
use crate::plan::BoxSpeed;

/// Sequences that decode together, up to the slots, and prompt rows of a pass.
const DECODES: [usize; 6] = [1, 2, 4, 8, 16, 32];
const PREFILLS: [usize; 5] = [1, 16, 64, 256, STEP_ROWS_MAX];
/// Passes of each kind; the median counts.
const RUNS: usize = 7;
/// No further pass of a kind begins after so long: a slow model is not worth minutes.
const KIND_MAX: Duration = Duration::from_secs(3);

/// Loads the model and measures it, where requests such as those of a trace use it: decoding after
/// `prompt` tokens, and reading in the middle between `cached` tokens and the prompt's end.
pub(in crate::cli) fn box_speed(
    config: &ModelConfig,
    (prompt_tokens, cached): (usize, usize),
) -> Result<BoxSpeed, Failure> {
    let loaded = model::load(&config.path.source(), config.quant, config.kv);
    let loaded = loaded.map_err(LocalError::from)?;
    let context = prompt_tokens.clamp(1, loaded.config.context / 2);
    let rows = STEP_ROWS_MAX.min(loaded.config.context - context - 1);
    let room = Room {
        sequences: config.slots,
        tokens: context + rows + 1,
        rows: rows.max(context).max(config.slots),
        samples: config.slots,
    };
    let mut calibration = Calibration {
        passes: Passes::new(&loaded, config, &room)?,
        prompts: (0..config.slots)
            .map(|sequence| prompt(sequence, context + rows, loaded.config.vocab))
            .collect(),
        context,
        middle: usize::midpoint(cached, prompt_tokens),
    };
    calibration.read();
    let measured = |counts: &[usize], most: usize| -> Vec<usize> {
        let below = counts.iter().copied().filter(|&count| count < most);
        below.chain([most]).collect()
    };
    Ok(BoxSpeed {
        decode_ms: calibration.table(&measured(&DECODES, config.slots), Calibration::decode),
        prefill_ms: calibration.table(&measured(&PREFILLS, rows), Calibration::prefill),
        draft_gain: 1.0,
        overhead_ms: 0.0,
    })
}

struct Calibration {
    passes: Passes,
    /// `[slots][context + rows]`
    prompts: Vec<Vec<u32>>,
    context: usize,
    /// Where prompts are read, on average.
    middle: usize,
}

impl Calibration {
    /// Gives every sequence its context.
    fn read(&mut self) {
        for (sequence, prompt) in self.prompts.iter().enumerate() {
            self.passes.read(sequence, &prompt[..self.context], self.context);
        }
    }

    fn table(&mut self, counts: &[usize], pass: fn(&mut Self, usize)) -> Vec<(u32, f64)> {
        let mut timed = |count: usize| {
            pass(self, count);
            let began = Instant::now();
            let mut times = Vec::with_capacity(RUNS);
            while times.len() < RUNS && (times.is_empty() || began.elapsed() < KIND_MAX) {
                let started = Instant::now();
                pass(self, count);
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
            (count as u32, median(times))
        };
        counts.iter().map(|&count| timed(count)).collect()
    }

    fn decode(&mut self, sequences: usize) {
        self.passes.clear();
        for sequence in 0..sequences {
            let next = self.context..self.context + 1;
            let ids = &self.prompts[sequence][next];
            self.passes.push(sequence, self.context, ids, Sampled::Last);
        }
        self.passes.run();
    }

    fn prefill(&mut self, rows: usize) {
        self.passes.clear();
        let first = self.middle.saturating_sub(rows / 2).min(self.context);
        let ids = &self.prompts[0][first..first + rows];
        self.passes.push(0, first, ids, Sampled::None);
        self.passes.run();
    }
}
