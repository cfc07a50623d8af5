//! `options`: Ollama's names and defaults for what decides how tokens are drawn.

use crate::api::ModelCard;
use crate::api::error::ApiError;
use crate::api::fields::{Section, Stops, body};
use crate::api::sampling::{REPETITION_PENALTY, SharedFields, integer, number};
use crate::completion::{SamplingParams, StopRules};

/// Ollama's own defaults. Its `repeat_penalty` of 1.1 looks back 64 tokens; weir's looks at all of
/// them, which suits no code, so without being asked for it is off.
const TEMPERATURE: f64 = 0.8;
const TOP_K: i64 = 40;
const TOP_P: f64 = 0.9;

body! {
    /// Others, such as `num_ctx` and `num_thread`, set up a model that here is there already.
    pub(super) struct Options {
        num_predict: i64,
        temperature: f64,
        top_k: i64,
        top_p: f64,
        min_p: f64,
        seed: serde_json::Number,
        stop: Stops,
        repeat_penalty: f64,
        presence_penalty: f64,
        frequency_penalty: f64,
    }
}

impl Section for Options {
    const NAME: &'static str = "options";
}

/// Options in their ranges.
pub(super) struct Settings {
    pub max_tokens: Option<u32>,
    pub sampling: SamplingParams,
    pub stop: StopRules,
}

impl Options {
    pub(super) fn settle(self, model: &ModelCard) -> Result<Settings, ApiError> {
        number("repeat_penalty", self.repeat_penalty, REPETITION_PENALTY)?;
        // -1 and -2 mean as many as fit.
        let max_tokens = integer("num_predict", self.num_predict, -2..=i64::from(u32::MAX))?
            .and_then(|count: i64| u32::try_from(count).ok());
        let mut shared = SharedFields {
            temperature: Some(self.temperature.unwrap_or(TEMPERATURE)),
            top_k: Some(self.top_k.unwrap_or(TOP_K)),
            top_p: Some(self.top_p.unwrap_or(TOP_P)),
            min_p: self.min_p,
            seed: self.seed,
            stop: self.stop,
            repetition_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            ..SharedFields::default()
        };
        let sampling = shared.sampling(model)?;
        Ok(Settings { max_tokens, sampling, stop: shared.stop_rules(max_tokens, model)? })
    }
}
