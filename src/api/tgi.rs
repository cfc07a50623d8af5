//! Text Generation Inference: `POST /generate` and `POST /generate_stream`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::answer::{Ask, Caller, answer};
use super::error::ApiError;
use super::fields::{Nested, Section, Stops, body, parse};
use super::reply::tgi::Generated;
use super::sampling::SharedFields;
use super::{Api, ModelCard, Service, raw};
use crate::completion::{CompletionRequest, Priority};

/// TGI's own default.
const MAX_NEW_TOKENS_DEFAULT: u32 = 100;

body! {
    struct GenerateFields {
        inputs: String,
    }
}

body! {
    struct Parameters {
        max_new_tokens: u32,
        temperature: f64,
        top_p: f64,
        top_k: i64,
        stop: Stops,
        do_sample: bool,
        return_full_text: bool,
        seed: serde_json::Number,
        repetition_penalty: f64,
        frequency_penalty: f64,
        best_of: i64,
        details: bool,
    }
}

impl Section for Parameters {
    const NAME: &'static str = "parameters";
}

pub(super) async fn generate<S: Service>(
    State(api): State<Arc<Api<S>>>,
    request: Request,
) -> Response {
    answer(api, request, |body, caller, model| read(body, caller, model, false)).await
}

pub(super) async fn generate_stream<S: Service>(
    State(api): State<Arc<Api<S>>>,
    request: Request,
) -> Response {
    answer(api, request, |body, caller, model| read(body, caller, model, true)).await
}

fn read(
    body: &[u8],
    caller: &Caller<'_>,
    model: &ModelCard,
    stream: bool,
) -> Result<Ask, ApiError> {
    let (own, Nested(parameters)): (GenerateFields, Nested<Parameters>) = parse(body)?;
    let parameters = parameters.unwrap_or_default();
    let prompt = own.inputs.ok_or_else(|| ApiError::invalid("inputs", "`inputs` is missing"))?;
    let details = parameters.details.unwrap_or(false);
    let stops = parameters.stop.as_ref().is_some_and(|stops| !stops.0.is_empty());
    let full_text = parameters.return_full_text.unwrap_or(false);
    let letter = Generated::new(details, stops, full_text.then(|| prompt.clone()));
    let max_tokens = Some(parameters.max_new_tokens.unwrap_or(MAX_NEW_TOKENS_DEFAULT));
    let mut shared = parameters.shared(stream);
    let (n, best_of) = shared.choices(1)?;
    let input = raw::input(prompt, model);
    let request = CompletionRequest {
        n: best_of,
        max_tokens,
        sampling: shared.sampling(model)?,
        stop: shared.stop_rules(max_tokens, model)?,
        // A stream's events name the tokens; the best of several is found by their probabilities.
        logprobs: (stream || details || best_of > n).then_some(0),
        ..caller.request(input, Priority::Completion)
    };
    let requests = vec![Arc::new(request)];
    Ok(Ask { requests, letter: Box::new(letter), n, best_of, stream })
}

impl Parameters {
    /// TGI draws when it is told to, or told how; else it takes the likeliest token.
    fn shared(self, stream: bool) -> SharedFields {
        let is_told_how = self.temperature.is_some_and(|temperature| temperature != 1.0)
            || self.top_p.is_some_and(|p| p < 1.0)
            || self.top_k.is_some_and(|k| k > 0);
        let draws = self.do_sample.unwrap_or(false) || is_told_how;
        SharedFields {
            temperature: if draws { self.temperature } else { Some(0.0) },
            top_p: self.top_p,
            top_k: self.top_k,
            stop: self.stop,
            seed: self.seed,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            best_of: self.best_of,
            stream: Some(stream),
            ..SharedFields::default()
        }
    }
}
