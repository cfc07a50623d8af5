//! `weir bench prefill`: reading a prompt, in one pass and in the steps an engine makes of it.
//!
//! The two alternate, and must choose the same token: the bits of a row do not depend on where a
//! prompt is cut.

use std::time::{Duration, Instant};

use models::config::DecoderConfig;
use serde::Serialize;

use super::figures::{median, spread};
use super::passes::{Passes, Room, Sampled, hash, prompt};
use super::subject::{Circumstances, Subject};
use super::{Common, Failure, Measured, measure};
use crate::app::STEP_ROWS_MAX;
use crate::config::ModelConfig;
use crate::engine::{Rates, Span, StepRows};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PrefillArgs {
    #[command(flatten)]
    common: Common,
}

pub(super) fn prefill(args: &PrefillArgs, config: &ModelConfig) -> Result<(), Failure> {
    measure(Prefill::new(args, config)?, &args.common)
}

struct Prefill {
    subject: Subject,
    passes: Passes,
    prompt: Vec<u32>,
    /// What an engine on this machine would have learnt by now.
    rates: Rates,
    step_ms_max: u32,
    /// Which of the two goes first changes from run to run.
    chunks_first: bool,
}

struct Run {
    whole: Duration,
    chunked: Duration,
    /// Passes that the engine's budget made of the prompt.
    chunks: usize,
    first: u32,
}

impl Prefill {
    fn new(args: &PrefillArgs, config: &ModelConfig) -> Result<Self, Failure> {
        let subject = Subject::load(&args.common, config, 0)?;
        let context = subject.context;
        let room = Room { sequences: 1, tokens: context, rows: context, samples: 1 };
        Ok(Self {
            passes: Passes::new(&subject.model, config, &room)?,
            prompt: prompt(0, context, subject.model.config.vocab),
            rates: Rates::new(config.step_ms_max),
            step_ms_max: config.step_ms_max,
            chunks_first: false,
            subject,
        })
    }

    fn whole(&mut self) -> (Duration, u32) {
        let started = Instant::now();
        let first = self.passes.read(0, &self.prompt, self.prompt.len());
        (started.elapsed(), first)
    }

    /// As an engine with somebody else to serve would: each step as many rows as its budget has
    /// room for.
    fn chunked(&mut self) -> (Duration, u32, usize) {
        let (mut position, mut chunks) = (0, 0);
        let started = Instant::now();
        while position < self.prompt.len() {
            let budget = self.rates.prefill_rows(0, Span::Step).min(STEP_ROWS_MAX);
            let end = (position + budget).min(self.prompt.len());
            let is_last = end == self.prompt.len();
            let step = Instant::now();
            self.passes.clear();
            let sampled = if is_last { Sampled::Last } else { Sampled::None };
            self.passes.push(0, position, &self.prompt[position..end], sampled);
            self.passes.run();
            let rows = StepRows { prefills: end - position, ..StepRows::default() };
            self.rates.record(rows, step.elapsed());
            position = end;
            chunks += 1;
        }
        let first = self.passes.chosen().next().expect("the last row chose a token");
        (started.elapsed(), first, chunks)
    }
}

impl Measured for Prefill {
    type Run = Run;
    type Report = Report;

    fn run(&mut self) -> Run {
        self.chunks_first = !self.chunks_first;
        let before = (!self.chunks_first).then(|| self.whole());
        let (chunked, first, chunks) = self.chunked();
        let (whole, same) = before.unwrap_or_else(|| self.whole());
        assert_eq!(first, same, "where a prompt is cut changes no bit");
        Run { whole, chunked, chunks, first }
    }

    fn reports(&self, runs: &[Run]) -> Vec<Report> {
        let tokens = self.prompt.len() as f64;
        let whole = |run: &Run| tokens / run.whole.as_secs_f64();
        let chunked = |run: &Run| tokens / run.chunked.as_secs_f64();
        let tokens_per_second = median(runs.iter().map(whole));
        let operations = operations(&self.subject.model.config, self.prompt.len());
        vec![Report {
            circumstances: self.passes.circumstances(&self.subject, runs.len()),
            tokens_per_second,
            tokens_per_second_spread: spread(runs.iter().map(whole)),
            ms_per_token: 1e3 / tokens_per_second,
            gops: operations / tokens * tokens_per_second / 1e9,
            step_ms_max: self.step_ms_max,
            chunks: median(runs.iter().map(|run| run.chunks as f64)),
            chunked_tokens_per_second: median(runs.iter().map(chunked)),
            chunked_share: median(runs.iter().map(|run| chunked(run) / whole(run))),
            token_hash: format!("{:016x}", hash([runs[0].first])),
        }]
    }
}

/// Multiplications and additions of the matrices and of attention, for a prompt of so many
/// tokens; the head runs once.
fn operations(config: &DecoderConfig, tokens: usize) -> f64 {
    let head = (config.vocab * config.hidden) as f64;
    let embeddings = if config.tied { head } else { 2.0 * head };
    // Norms and biases are counted with the matrices: they are a thousandth of them.
    let layers = config.parameters() as f64 - embeddings;
    let tokens = tokens as f64;
    let seen = tokens * (tokens + 1.0) / 2.0;
    let attention = 2.0 * seen * (config.layers * config.q_width()) as f64;
    2.0 * (tokens * layers + head + attention)
}

/// Medians over the runs; a spread is (lowest, highest).
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    circumstances: Circumstances,
    /// In one pass.
    tokens_per_second: f64,
    tokens_per_second_spread: (f64, f64),
    ms_per_token: f64,
    /// Billions of multiplications and additions per second, in one pass.
    gops: f64,
    step_ms_max: u32,
    chunks: f64,
    /// In steps of what `step_ms_max` has room for.
    chunked_tokens_per_second: f64,
    /// Of the rate in one pass.
    chunked_share: f64,
    token_hash: String,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.circumstances)?;
        let (low, high) = self.tokens_per_second_spread;
        writeln!(f, "prefill    {:.0} tokens/s ({low:.0} to {high:.0})", self.tokens_per_second)?;
        writeln!(f, "           {:.3} ms/token, {:.1} GOP/s", self.ms_per_token, self.gops)?;
        writeln!(
            f,
            "in steps   {:.0} tokens/s, {:.0}% of that, in {} steps of at most {} ms",
            self.chunked_tokens_per_second,
            self.chunked_share * 1e2,
            self.chunks,
            self.step_ms_max
        )?;
        writeln!(f, "ids        {}", self.token_hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_those_of_the_shape() {
        let config = DecoderConfig::of_shape("qwen2.5-coder-0.5b").unwrap();
        // q|k|v, o, gate|up, down with their biases and norms.
        let layer = (896 + 256) * 897 + 896 * 896 + 3 * 896 * 4864 + 2 * 896;
        let matrices = 24 * layer + 896;
        let attention = 2 * 24 * 896;
        let expected = 2 * (matrices + 896 * 151_936 + attention);
        assert_eq!(operations(&config, 1), expected as f64);
    }
}
