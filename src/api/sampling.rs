//! The fields that completions and chat share, and the ranges they must be in.

use std::ops::RangeInclusive;

use axum::http::HeaderMap;
use serde_json::Number;
use tokio::time::{Duration, Instant};

use super::ModelCard;
use super::error::ApiError;
use super::fields::{LogitBias, MaxTokens, StopIds, Stops, StreamOptions, body};
use crate::completion::{SamplingParams, StopRules};

/// Choices for one prompt.
const N_MAX: i64 = 16;
/// Choices of one request, all prompts together: half of what the engine's queue holds by default.
const CHOICES_MAX: usize = 128;
/// What each token that was there divides its score by.
pub(super) const REPETITION_PENALTY: RangeInclusive<f64> = 0.01..=10.0;
/// The longest a client may say it waits.
const DEADLINE_MS_MAX: u64 = 600_000;
/// Bytes of an edit session's name.
const SESSION_BYTES_MAX: usize = 128;

body! {
    /// What decides how tokens are drawn, how many, and how they come back.
    pub(super) struct SharedFields {
        model: String,
        n: i64,
        best_of: i64,
        max_tokens: MaxTokens,
        min_tokens: u32,
        temperature: f64,
        top_p: f64,
        top_k: i64,
        min_p: f64,
        presence_penalty: f64,
        frequency_penalty: f64,
        repetition_penalty: f64,
        logit_bias: LogitBias,
        seed: Number,
        stop: Stops,
        stop_token_ids: StopIds,
        ignore_eos: bool,
        stream: bool,
        stream_options: StreamOptions,
        user: String,
    }
}

impl SharedFields {
    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// The last chunk's usage, when streaming.
    pub(super) fn include_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false)
    }

    /// Choices to return and choices to generate, per prompt; `prompts` is at least 1.
    pub(super) fn choices(&self, prompts: usize) -> Result<(u32, u32), ApiError> {
        let n = integer("n", self.n, 1..=N_MAX)?.unwrap_or(1);
        let best_of = integer("best_of", self.best_of, 1..=N_MAX)?.unwrap_or(n);
        if best_of < n {
            return Err(ApiError::invalid("best_of", "`best_of` must be at least `n`"));
        }
        if best_of > n && self.streams() {
            let message = "`best_of` above `n` cannot be streamed";
            return Err(ApiError::invalid("best_of", message));
        }
        if best_of as usize * prompts > CHOICES_MAX {
            let message = format!("a request may ask for at most {CHOICES_MAX} choices in all");
            return Err(ApiError::invalid("n", message));
        }
        Ok((n, best_of))
    }

    pub(super) fn sampling(&mut self, model: &ModelCard) -> Result<SamplingParams, ApiError> {
        let off = SamplingParams::default();
        let logit_bias = self.logit_bias.take().unwrap_or_default().0;
        known_ids("logit_bias", logit_bias.iter().map(|&(id, _)| id), model)?;
        Ok(SamplingParams {
            temperature: number("temperature", self.temperature, 0.0..=2.0)?
                .unwrap_or(off.temperature),
            // -1 and 0 both mean all.
            top_k: integer("top_k", self.top_k, -1..=i64::from(u32::MAX))?
                .map_or(off.top_k, |k: i64| u32::try_from(k).unwrap_or(0)),
            top_p: number("top_p", self.top_p, 0.0..=1.0)?.unwrap_or(off.top_p),
            min_p: number("min_p", self.min_p, 0.0..=1.0)?.unwrap_or(off.min_p),
            repetition_penalty: number(
                "repetition_penalty",
                self.repetition_penalty,
                REPETITION_PENALTY,
            )?
            .unwrap_or(off.repetition_penalty),
            presence_penalty: number("presence_penalty", self.presence_penalty, -2.0..=2.0)?
                .unwrap_or(off.presence_penalty),
            frequency_penalty: number("frequency_penalty", self.frequency_penalty, -2.0..=2.0)?
                .unwrap_or(off.frequency_penalty),
            logit_bias,
            seed: self.seed.as_ref().map(seed).transpose()?.flatten(),
        })
    }

    /// `max_tokens` is what the request ends up with; None: as many as fit.
    pub(super) fn stop_rules(
        &mut self,
        max_tokens: Option<u32>,
        model: &ModelCard,
    ) -> Result<StopRules, ApiError> {
        let min_tokens = self.min_tokens.unwrap_or(0);
        if min_tokens > max_tokens.unwrap_or(model.context) {
            let message = "`min_tokens` must be at most `max_tokens`";
            return Err(ApiError::invalid("min_tokens", message));
        }
        let token_ids = self.stop_token_ids.take().unwrap_or_default().0;
        known_ids("stop_token_ids", token_ids.iter().copied(), model)?;
        Ok(StopRules {
            strings: self.stop.take().unwrap_or_default().0,
            token_ids,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            min_tokens,
        })
    }
}

/// Negative seeds are seeds too, except -1, which some clients send for "any".
pub(super) fn seed(number: &Number) -> Result<Option<u64>, ApiError> {
    match (number.as_u64(), number.as_i64()) {
        (Some(seed), _) => Ok(Some(seed)),
        (None, Some(-1)) => Ok(None),
        (None, Some(seed)) => Ok(Some(seed.cast_unsigned())),
        (None, None) => Err(ApiError::invalid("seed", "`seed` must be an integer of 64 bits")),
    }
}

/// A number in its range; f32 is what the sampler computes in.
pub(super) fn number(
    field: &'static str,
    value: Option<f64>,
    range: RangeInclusive<f64>,
) -> Result<Option<f32>, ApiError> {
    match value {
        Some(value) if !range.contains(&value) => {
            let (low, high) = range.into_inner();
            let message = format!("`{field}` must be between {low} and {high}");
            Err(ApiError::invalid(field, message))
        }
        value => Ok(value.map(|value| value as f32)),
    }
}

/// An integer in its range.
pub(super) fn integer<T: TryFrom<i64>>(
    field: &'static str,
    value: Option<i64>,
    range: RangeInclusive<i64>,
) -> Result<Option<T>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    match T::try_from(value) {
        Ok(fitting) if range.contains(&value) => Ok(Some(fitting)),
        _ => {
            let (low, high) = range.into_inner();
            let message = format!("`{field}` must be an integer from {low} to {high}");
            Err(ApiError::invalid(field, message))
        }
    }
}

/// Ids the model has.
pub(super) fn known_ids(
    field: &'static str,
    mut ids: impl Iterator<Item = u32>,
    model: &ModelCard,
) -> Result<(), ApiError> {
    if ids.all(|id| id < model.vocabulary) {
        return Ok(());
    }
    let last = model.vocabulary - 1;
    Err(ApiError::invalid(field, format!("token ids in `{field}` must be from 0 to {last}")))
}

/// `x-weir-deadline-ms`: when the client stops waiting, counted from `arrival`.
pub(super) fn deadline(headers: &HeaderMap, arrival: Instant) -> Result<Option<Instant>, ApiError> {
    let Some(value) = headers.get("x-weir-deadline-ms") else { return Ok(None) };
    let ms = value.to_str().ok().and_then(|text| text.parse().ok());
    match ms {
        Some(ms @ 1..=DEADLINE_MS_MAX) => Ok(Some(arrival + Duration::from_millis(ms))),
        _ => {
            let name = "x-weir-deadline-ms";
            let message = format!("`{name}` must be an integer from 1 to {DEADLINE_MS_MAX}");
            Err(ApiError::invalid(name, message))
        }
    }
}

/// `x-weir-session`, or what Copilot's clients call it: whose edit session this is.
pub(super) fn session(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let name = "x-weir-session";
    let Some(value) = headers.get(name) else {
        // Not ours to find wrong.
        let other = headers.get("vscode-sessionid").and_then(|value| value.to_str().ok());
        return Ok(other.filter(|text| (1..=SESSION_BYTES_MAX).contains(&text.len())));
    };
    match value.to_str() {
        Ok(text) if (1..=SESSION_BYTES_MAX).contains(&text.len()) => Ok(Some(text)),
        _ => {
            let message =
                format!("`{name}` must be 1 to {SESSION_BYTES_MAX} visible ASCII characters");
            Err(ApiError::invalid(name, message))
        }
    }
}
