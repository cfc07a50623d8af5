//! LM Studio's answers: another dialect's, and whole ones end with what they took.

use bytes::BytesMut;
use serde::Serialize;

use super::{Collected, Heading, Letter, Summary};
use crate::api::error::ApiError;
use crate::completion::{FinishReason, TokenLogprob};

/// An answer of OpenAI's shape that says how fast it was.
pub(in crate::api) struct Timed {
    inner: Box<dyn Letter>,
    about: ModelInfo,
    /// Whether the client named texts to stop at.
    stops: bool,
}

/// What an answer says of its model.
#[derive(Serialize)]
pub(in crate::api) struct ModelInfo {
    pub arch: &'static str,
    pub quant: String,
    pub format: &'static str,
    pub context_length: u32,
}

impl Timed {
    pub(in crate::api) fn new(inner: Box<dyn Letter>, about: ModelInfo, stops: bool) -> Self {
        Self { inner, about, stops }
    }
}

impl Letter for Timed {
    fn open(&mut self, heading: &Heading<'_>) {
        self.inner.open(heading);
    }

    fn stream_type(&self) -> &'static str {
        self.inner.stream_type()
    }

    fn begin(&mut self, out: &mut BytesMut, choice: u32) {
        self.inner.begin(out, choice);
    }

    fn text(&mut self, out: &mut BytesMut, choice: u32, text: &str, tokens: &[TokenLogprob]) {
        self.inner.text(out, choice, text, tokens);
    }

    fn finish(&mut self, out: &mut BytesMut, choice: u32, reason: FinishReason) {
        self.inner.finish(out, choice, reason);
    }

    fn done(&mut self, out: &mut BytesMut, summary: &Summary) {
        self.inner.done(out, summary);
    }

    fn failed(&mut self, out: &mut BytesMut, error: &ApiError) {
        self.inner.failed(out, error);
    }

    fn whole(&mut self, collected: &Collected, summary: &Summary) -> Vec<u8> {
        let mut body = self.inner.whole(collected, summary);
        let reason = collected.choices.first().map_or(FinishReason::Stop, |choice| choice.finish);
        let told = Told {
            stats: Stats::new(summary, reason, self.stops),
            model_info: &self.about,
            runtime: Runtime { name: "weir", version: env!("CARGO_PKG_VERSION") },
        };
        let mut told = serde_json::to_vec(&told).expect("strings and numbers serialise");
        told[0] = b',';
        body.pop();
        body.append(&mut told);
        body
    }
}

#[derive(Serialize)]
struct Told<'a> {
    stats: Stats,
    model_info: &'a ModelInfo,
    runtime: Runtime,
}

#[derive(Serialize)]
struct Runtime {
    name: &'static str,
    version: &'static str,
}

/// Times in seconds.
#[derive(Serialize)]
struct Stats {
    tokens_per_second: f64,
    time_to_first_token: f64,
    generation_time: f64,
    stop_reason: &'static str,
}

impl Stats {
    fn new(summary: &Summary, reason: FinishReason, stops: bool) -> Self {
        let generation = summary.total.saturating_sub(summary.first).as_secs_f64();
        let tokens = summary.usage.completion_tokens as f64;
        Self {
            // The first token was there when the time began to run.
            tokens_per_second: match generation > 0.0 {
                true => (tokens - 1.0).max(0.0) / generation,
                false => 0.0,
            },
            time_to_first_token: summary.first.as_secs_f64(),
            generation_time: generation,
            stop_reason: match (reason, stops) {
                (FinishReason::Length, _) => "maxPredictedTokensReached",
                (_, true) => "stopStringFound",
                (_, false) => "eosFound",
            },
        }
    }
}
