//! `GET /v1/models`: the one model there is.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::live::Live;
use super::{ModelCard, Service};

/// What Ollama puts behind a model's name where none of its versions is meant.
const LATEST: &str = ":latest";

/// Whether a request's body asks for this model. One that names none does; in a route that has no
/// `model` so does every one.
pub(super) fn is_named(body: &[u8], card: &ModelCard) -> bool {
    #[derive(Deserialize)]
    struct Named {
        model: Option<String>,
    }
    let Ok(Named { model: Some(name) }) = serde_json::from_slice(body) else { return true };
    name.is_empty() || *name.strip_suffix(LATEST).unwrap_or(&name) == *card.id
}

/// What dialects ask for as the family or architecture of a model, by which clients only look up
/// its context in what else they are told.
pub(super) const FAMILY: &str = "weir";
/// What its weights were read from.
pub(super) const FORMAT: &str = "safetensors";

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: [Model<'a>; 1],
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// vLLM's name; editors size their prompts by it.
    max_model_len: u32,
    /// llama.cpp's.
    meta: Meta,
}

#[derive(Serialize)]
struct Meta {
    n_vocab: u32,
    n_ctx_train: u32,
    n_params: u64,
    size: u64,
}

impl<'a> From<&'a ModelCard> for Model<'a> {
    fn from(card: &'a ModelCard) -> Self {
        Self {
            id: &card.id,
            object: "model",
            created: card.created,
            // llama.vscode asks for the context of a model whose owner is called so.
            owned_by: "llamacpp",
            max_model_len: card.context,
            meta: Meta {
                n_vocab: card.vocabulary,
                n_ctx_train: card.context,
                n_params: card.parameters,
                size: card.bytes,
            },
        }
    }
}

pub(super) async fn list<S: Service>(Extension(live): Extension<Arc<Live<S>>>) -> Response {
    json(&List { object: "list", data: [Model::from(live.service.model())] })
}

pub(super) async fn one<S: Service>(
    Extension(live): Extension<Arc<Live<S>>>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let card = live.service.model();
    match id {
        Ok(Path(id)) if *id == *card.id => json(&Model::from(card)),
        // An id that is no text is no model's either.
        _ => ApiError::no_such_model().into_response(),
    }
}

pub(super) fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("strings and numbers serialise");
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
