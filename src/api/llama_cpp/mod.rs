//! llama.cpp's own dialect, as its server speaks it and llama.vim, llama.vscode, Continue, twinny
//! and Tabby's server ask it: `POST /infill`, `POST /completion`.
//!
//! In reading order: this file reads a body, [`letter`] writes the answer down, [`props`] is what
//! those clients ask beside completions.

mod letter;
pub(super) mod props;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Number;

use self::letter::Letter;
use super::answer::{Ask, Caller, answer};
use super::error::ApiError;
use super::fields::{BIASES_MAX, Field, LogitBias, Prompts, Stops, body, parse};
use super::sampling::{integer, known_ids, number, seed};
use super::{Api, ModelCard, Service, raw};
use crate::completion::{
    CodeStops, CompletionRequest, ExtraFile, FimInput, Input, Priority, SamplingParams, StopRules,
    TimeLimits,
};

/// Tokens of an `/infill` that does not say how many: what llama.vim and llama.vscode ask.
const INFILL_TOKENS_DEFAULT: u32 = 128;
/// Choices of one request.
const N_MAX: i64 = 16;
/// llama.cpp's own default, where a text is to be continued and not a cursor.
const TEMPERATURE_DEFAULT: f32 = 0.8;
/// Of several choices at a cursor, which at 0 would all be one.
const TEMPERATURE_OF_MANY: f32 = 0.6;
/// Context files beside the cursor's own.
const EXTRA_FILES_MAX: usize = 64;
/// Fields of an answer that may be asked for by name; it has some forty.
const PATHS_MAX: usize = 64;
/// The longest a client may give a part of the work.
const TIME_MS_MAX: i64 = 600_000;

body! {
    struct InfillFields {
        input_prefix: String,
        input_suffix: String,
        input_extra: Extra,
        prompt: Prompts,
    }
}

body! {
    /// What `/infill` and `/completion` share.
    struct LlamaFields {
        n_predict: i64,
        max_tokens: i64,
        n_cmpl: i64,
        n_indent: i64,
        n_probs: i64,
        temperature: f64,
        top_k: i64,
        top_p: f64,
        min_p: f64,
        repeat_penalty: f64,
        presence_penalty: f64,
        frequency_penalty: f64,
        logit_bias: Biases,
        seed: Number,
        stop: Stops,
        ignore_eos: bool,
        stream: bool,
        t_max_prompt_ms: i64,
        t_max_predict_ms: i64,
        response_fields: Paths,
    }
}

pub(super) async fn infill<S: Service>(
    State(api): State<Arc<Api<S>>>,
    request: Request,
) -> Response {
    answer(api, request, read_infill).await
}

pub(super) async fn completion<S: Service>(
    State(api): State<Arc<Api<S>>>,
    request: Request,
) -> Response {
    answer(api, request, read_completion).await
}

fn read_infill(body: &[u8], caller: &Caller<'_>, model: &ModelCard) -> Result<Ask, ApiError> {
    let (mut own, fields): (InfillFields, LlamaFields) = parse(body)?;
    let extra = own.input_extra.take().unwrap_or_default().0;
    // llama.cpp has the text left of the cursor in two fields: whole lines, and the cursor's own.
    let mut prefix = own.input_prefix.take().unwrap_or_default();
    match own.prompt.take() {
        Some(Prompts::Texts(texts)) if texts.len() == 1 => prefix.push_str(&texts[0]),
        Some(_) => return Err(ApiError::invalid("prompt", "`prompt` must be a string here")),
        None => {}
    }
    let suffix = own.input_suffix.take().unwrap_or_default();
    let fim = FimInput { prefix, suffix, path: None, repository: None, extra };
    fields.ask(vec![Input::Fim(fim)], caller, model)
}

fn read_completion(body: &[u8], caller: &Caller<'_>, model: &ModelCard) -> Result<Ask, ApiError> {
    let (mut own, fields): (InfillFields, LlamaFields) = parse(body)?;
    let prompts =
        own.prompt.take().ok_or_else(|| ApiError::invalid("prompt", "`prompt` is missing"))?;
    let inputs = match prompts {
        Prompts::Texts(texts) => texts.into_iter().map(|text| raw::input(text, model)).collect(),
        Prompts::Tokens(lists) => {
            known_ids("prompt", lists.iter().flatten().copied(), model)?;
            lists.into_iter().map(Input::Tokens).collect()
        }
    };
    fields.ask(inputs, caller, model)
}

impl LlamaFields {
    fn ask(
        mut self,
        inputs: Vec<Input>,
        caller: &Caller<'_>,
        model: &ModelCard,
    ) -> Result<Ask, ApiError> {
        let infill = matches!(inputs[..], [Input::Fim(_)]);
        let n = self.choices()?;
        let max_tokens = self.max_tokens(infill);
        let sampling = self.sampling(infill, n, model)?;
        let time = self.time()?;
        let stop = StopRules {
            strings: self.stop.take().unwrap_or_default().0,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            ..StopRules::default()
        };
        // 0 and less say nothing.
        let indent_min = self.n_indent.and_then(|columns| u32::try_from(columns).ok());
        let indent_min = indent_min.filter(|columns| *columns > 0);
        let fit = infill.then_some(CodeStops { single_line: false, block: true, indent_min });
        let class = match max_tokens {
            // Nothing is to be written: the client warms the cache while nobody types.
            Some(0) => Priority::WarmUp,
            _ => Priority::Completion,
        };
        let request = |input| {
            Arc::new(CompletionRequest {
                n,
                max_tokens,
                sampling: sampling.clone(),
                stop: stop.clone(),
                fit,
                time,
                ..caller.request(input, class)
            })
        };
        let requests: Vec<_> = inputs.into_iter().map(request).collect();
        let many = n > 1 || requests.len() > 1;
        let fields = self.response_fields.take().map(|paths| paths.0);
        let stream = self.stream.unwrap_or(false);
        let letter = Letter::new(model, many, fields).with_empty_overload(infill && !stream);
        Ok(Ask { requests, letter: Box::new(letter), n, best_of: n, stream })
    }

    /// In the words that llama.vscode looks for.
    fn choices(&self) -> Result<u32, ApiError> {
        let n = self.n_cmpl.unwrap_or(1);
        u32::try_from(n).ok().filter(|_| (1..=N_MAX).contains(&n)).ok_or_else(|| {
            let message = format!("Field 'n_cmpl': Value must be between 1 and {N_MAX}");
            ApiError::invalid("n_cmpl", message)
        })
    }

    /// None: as many as fit, which llama.cpp calls -1.
    fn max_tokens(&self, infill: bool) -> Option<u32> {
        let default = infill.then_some(INFILL_TOKENS_DEFAULT);
        match self.n_predict.or(self.max_tokens) {
            Some(count) => u32::try_from(count).ok(),
            None => default,
        }
    }

    /// At a cursor the likeliest text is wanted unless the client asks for a temperature: llama.cpp
    /// would draw at 0.8, which its own editors leave to a sampler that weir has not.
    fn sampling(
        &mut self,
        infill: bool,
        n: u32,
        model: &ModelCard,
    ) -> Result<SamplingParams, ApiError> {
        let off = SamplingParams::default();
        let default = match (infill, n) {
            (true, 1) => 0.0,
            (true, _) => TEMPERATURE_OF_MANY,
            (false, _) => TEMPERATURE_DEFAULT,
        };
        let logit_bias = self.logit_bias.take().unwrap_or_default().0;
        known_ids("logit_bias", logit_bias.iter().map(|&(id, _)| id), model)?;
        // Below 0 is greedy, as there.
        let temperature = self.temperature.map(|temperature| temperature.max(0.0));
        Ok(SamplingParams {
            temperature: number("temperature", temperature, 0.0..=2.0)?.unwrap_or(default),
            top_k: integer("top_k", self.top_k, -1..=i64::from(u32::MAX))?
                .map_or(40, |k: i64| u32::try_from(k).unwrap_or(0)),
            top_p: number("top_p", self.top_p, 0.0..=1.0)?.unwrap_or(0.95),
            min_p: number("min_p", self.min_p, 0.0..=1.0)?.unwrap_or(0.05),
            repetition_penalty: number("repeat_penalty", self.repeat_penalty, 0.01..=10.0)?
                .unwrap_or(off.repetition_penalty),
            presence_penalty: number("presence_penalty", self.presence_penalty, -2.0..=2.0)?
                .unwrap_or(off.presence_penalty),
            frequency_penalty: number("frequency_penalty", self.frequency_penalty, -2.0..=2.0)?
                .unwrap_or(off.frequency_penalty),
            logit_bias,
            seed: self.seed.as_ref().map(seed).transpose()?.flatten(),
        })
    }

    fn time(&self) -> Result<TimeLimits, ApiError> {
        let limit = |field, ms| -> Result<_, ApiError> {
            // -1 and 0: none.
            let ms: Option<i64> = integer(field, ms, -1..=TIME_MS_MAX)?;
            let ms = ms.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
            Ok(ms.map(Duration::from_millis))
        };
        Ok(TimeLimits {
            prompt: limit("t_max_prompt_ms", self.t_max_prompt_ms)?,
            predict: limit("t_max_predict_ms", self.t_max_predict_ms)?,
        })
    }
}

/// `[{"filename": .., "text": .., ..}]`, the oldest first.
#[derive(Default)]
struct Extra(Vec<ExtraFile>);

impl Field for Extra {
    const EXPECTED: &'static str = "a list of at most 64 objects with `text` and `filename`";
}

#[derive(Deserialize)]
struct ExtraText {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    filename: Option<String>,
}

impl<'de> Deserialize<'de> for Extra {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Vec::<ExtraText>::deserialize(deserializer)?;
        if all.len() > EXTRA_FILES_MAX {
            // The newest are the nearest to what is being typed.
            all.drain(..all.len() - EXTRA_FILES_MAX);
        }
        let file = |one: ExtraText| {
            let text = one.text.filter(|text| !text.is_empty())?;
            Some(ExtraFile { path: one.filename.unwrap_or_default(), text })
        };
        Ok(Self(all.into_iter().filter_map(file).collect()))
    }
}

/// `[[id, bias], ..]`, or an object as OpenAI has it; `false` for never.
#[derive(Default)]
struct Biases(Vec<(u32, f32)>);

impl Field for Biases {
    const EXPECTED: &'static str =
        "at most 1024 of [token id, number from -100 to 100 or false], or an object of the same";
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AnyBiases {
    Pairs(Vec<(u32, Bias)>),
    Object(LogitBias),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Bias {
    Number(f32),
    Flag(bool),
}

impl<'de> Deserialize<'de> for Biases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = |bias| match bias {
            Bias::Number(number) => number.clamp(-100.0, 100.0),
            Bias::Flag(false) => -100.0,
            Bias::Flag(true) => 0.0,
        };
        Ok(Self(match AnyBiases::deserialize(deserializer)? {
            AnyBiases::Pairs(pairs) if pairs.len() > BIASES_MAX => {
                return Err(D::Error::custom(Self::EXPECTED));
            }
            AnyBiases::Pairs(pairs) => {
                pairs.into_iter().map(|(id, bias)| (id, value(bias))).collect()
            }
            AnyBiases::Object(object) => object.0,
        }))
    }
}

/// Which fields of the answer are wanted: `["content", "timings/prompt_n"]`.
struct Paths(Vec<String>);

impl Field for Paths {
    const EXPECTED: &'static str = "a list of at most 64 strings";
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let paths = Vec::<String>::deserialize(deserializer)?;
        if paths.len() > PATHS_MAX {
            return Err(D::Error::custom(Self::EXPECTED));
        }
        Ok(Self(paths))
    }
}
