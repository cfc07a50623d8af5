//! `POST /v1/fim/completions`, as Codestral has it: a cursor in, a chat-shaped answer out. Asked by
//! Continue, Zed, minuet, lsp-ai and Tabby's server.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Number;

use super::answer::{Ask, Caller, answer};
use super::error::ApiError;
use super::fields::{body, parse};
use super::reply::openai::{Kind, Shape};
use super::sampling::SharedFields;
use super::{Api, ModelCard, Service};
use crate::completion::{CompletionRequest, FimInput, Input, Priority};

body! {
    struct FimFields {
        prompt: String,
        suffix: String,
        random_seed: Number,
    }
}

pub(super) async fn post<S: Service>(State(api): State<Arc<Api<S>>>, request: Request) -> Response {
    answer(api, request, read).await
}

fn read(body: &[u8], caller: &Caller<'_>, model: &ModelCard) -> Result<Ask, ApiError> {
    let (own, mut shared): (FimFields, SharedFields) = parse(body)?;
    let prefix = own.prompt.ok_or_else(|| ApiError::invalid("prompt", "`prompt` is missing"))?;
    let fim = FimInput { prefix, suffix: own.suffix.unwrap_or_default(), ..FimInput::default() };
    shared.seed = shared.seed.take().or(own.random_seed);
    let (n, best_of) = shared.choices(1)?;
    if best_of > n {
        return Err(ApiError::invalid("best_of", "`best_of` is not for this route; use `n`"));
    }
    shared.temperature = shared.temperature.or(Some(0.0));
    let max_tokens = shared.max_tokens.and_then(|most| most.0);
    let request = CompletionRequest {
        n,
        max_tokens,
        sampling: shared.sampling(model)?,
        stop: shared.stop_rules(max_tokens, model)?,
        ..caller.request(Input::Fim(fim), Priority::Completion)
    };
    Ok(Ask {
        requests: vec![Arc::new(request)],
        letter: Box::new(Shape::new(Kind::Chat, None, shared.include_usage())),
        n,
        best_of,
        stream: shared.streams(),
    })
}
