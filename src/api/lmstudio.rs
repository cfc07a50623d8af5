//! LM Studio's `/api/v0`: OpenAI's routes under another path, with more told of the model and of
//! how fast it answered.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::answer::{Ask, Caller, answer};
use super::error::ApiError;
use super::live::Live;
use super::models::{FAMILY, FORMAT, json};
use super::reply::lmstudio::{ModelInfo, Timed};
use super::{Api, ModelCard, Service, chat, completions};

/// Who published the model; LM Studio takes it from a repository that here nobody knows.
const PUBLISHER: &str = "weir";

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: [Model<'a>; 1],
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    publisher: &'static str,
    arch: &'static str,
    compatibility_type: &'static str,
    quantization: &'a str,
    state: &'static str,
    max_context_length: u32,
    loaded_context_length: u32,
}

impl<'a> From<&'a ModelCard> for Model<'a> {
    fn from(card: &'a ModelCard) -> Self {
        Self {
            id: &card.id,
            object: "model",
            kind: "llm",
            publisher: PUBLISHER,
            arch: FAMILY,
            compatibility_type: FORMAT,
            quantization: &card.weights,
            state: "loaded",
            max_context_length: card.context,
            loaded_context_length: card.context,
        }
    }
}

pub(super) async fn models<S: Service>(Extension(live): Extension<Arc<Live<S>>>) -> Response {
    json(&List { object: "list", data: [Model::from(live.service.model())] })
}

pub(super) async fn model<S: Service>(
    Extension(live): Extension<Arc<Live<S>>>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let card = live.service.model();
    match id {
        Ok(Path(id)) if *id == *card.id => json(&Model::from(card)),
        _ => ApiError::no_such_model().into_response(),
    }
}

pub(super) async fn completions<S: Service>(
    State(api): State<Arc<Api<S>>>,
    request: Request,
) -> Response {
    answer(api, request, |body, caller, model| {
        // LM Studio goes on until the model ends.
        completions::read_until(body, caller, model, None).map(|ask| timed(ask, model))
    })
    .await
}

pub(super) async fn chat<S: Service>(State(api): State<Arc<Api<S>>>, request: Request) -> Response {
    let read = |body: &[u8], caller: &Caller<'_>, model: &ModelCard| {
        chat::read(body, caller, model).map(|ask| timed(ask, model))
    };
    answer(api, request, read).await
}

fn timed(ask: Ask, model: &ModelCard) -> Ask {
    let stops = ask.requests.iter().any(|request| !request.stop.strings.is_empty());
    let about = ModelInfo {
        arch: FAMILY,
        quant: model.weights.to_string(),
        format: FORMAT,
        context_length: model.context,
    };
    Ask { letter: Box::new(Timed::new(ask.letter, about, stops)), ..ask }
}
