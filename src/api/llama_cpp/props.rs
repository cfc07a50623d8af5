//! What llama.cpp's clients ask beside completions: properties, slots, ids of a text and back, a
//! conversation as text.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::Uri;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::chat::Messages;
use crate::api::error::ApiError;
use crate::api::fields::{Field, body, parse};
use crate::api::live::{self, Live};
use crate::api::{Api, Service, body as whole};
use crate::completion::{Reason, Refusal};

/// Ids of one list; a body holds more, but no prompt does.
const IDS_MAX: usize = 1 << 20;

pub(in crate::api) async fn props<S: Service>(
    Extension(live): Extension<Arc<Live<S>>>,
) -> Response {
    let card = live.service.model();
    answer(&json!({
        "default_generation_settings": {
            "id": 0, "id_task": -1, "n_ctx": card.context, "speculative": true,
            "is_processing": live.service.load().running > 0,
            "params": { "n_predict": -1, "temperature": 0.8, "top_k": 40, "top_p": 0.95,
                        "min_p": 0.05, "stream": false },
        },
        "total_slots": card.slots,
        "model_path": &*card.id,
        "model_alias": &*card.id,
        "modalities": { "vision": false, "audio": false },
        "chat_template": "",
        "build_info": concat!("weir ", env!("CARGO_PKG_VERSION")),
        "is_sleeping": false,
    }))
}

/// As many rows as there are slots; which sequence has which is the engine's own business, so those
/// that are taken come first. `?fail_on_no_slot=1`: 503 when none is free.
pub(in crate::api) async fn slots<S: Service>(
    Extension(live): Extension<Arc<Live<S>>>,
    uri: Uri,
) -> Response {
    let (card, running) = (live.service.model(), live.service.load().running);
    let fails = uri.query().is_some_and(|query| query.split('&').any(|one| one == FAIL));
    if fails && running >= card.slots as usize {
        return ApiError::from(&Refusal::new(Reason::QueueFull, "no slot available"))
            .into_response();
    }
    let slot = |id: u32| {
        let busy = (id as usize) < running;
        json!({ "id": id, "id_task": -1, "n_ctx": card.context, "speculative": true,
                "is_processing": busy, "next_token": { "has_next_token": busy } })
    };
    answer(&(0..card.slots).map(slot).collect::<Vec<Value>>())
}

const FAIL: &str = "fail_on_no_slot=1";

body! {
    struct TokenizeFields {
        content: String,
        parse_special: bool,
        with_pieces: bool,
        tokens: Ids,
        messages: Messages,
    }
}

#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Ids(Vec<u32>);

impl Field for Ids {
    const EXPECTED: &'static str = "a list of token ids";
}

async fn read<S: Service>(api: &Api<S>, request: Request) -> Result<TokenizeFields, ApiError> {
    let (_, whole) = whole::read(request, &api.body_room, api.limits.body_read).await?;
    let (fields, ()) = parse(&whole.bytes)?;
    Ok(fields)
}

/// `{"content", "parse_special", "with_pieces"}` to `{"tokens": [..]}`.
pub(in crate::api) async fn tokenize<S: Service>(
    State(api): State<Arc<Api<S>>>,
    request: Request,
) -> Response {
    let live = live::of::<S>(&request);
    let fields = match read(&api, request).await {
        Ok(fields) => fields,
        Err(error) => return error.into_response(),
    };
    let special = fields.parse_special.unwrap_or(true);
    let ids = live.service.tokenize(fields.content.unwrap_or_default(), special).await;
    let ids = match ids {
        Ok(ids) => ids,
        Err(refusal) => return ApiError::from(&refusal).into_response(),
    };
    if !fields.with_pieces.unwrap_or(false) {
        return answer(&json!({ "tokens": ids }));
    }
    let piece = |id: u32| match String::from_utf8(live.service.token_bytes(id)) {
        Ok(text) => json!({ "id": id, "piece": text }),
        Err(error) => json!({ "id": id, "piece": error.as_bytes() }),
    };
    answer(&json!({ "tokens": ids.into_iter().map(piece).collect::<Vec<_>>() }))
}

/// `{"tokens": [..]}` to `{"content"}`.
pub(in crate::api) async fn detokenize<S: Service>(
    State(api): State<Arc<Api<S>>>,
    request: Request,
) -> Response {
    let live = live::of::<S>(&request);
    let fields = match read(&api, request).await {
        Ok(fields) => fields,
        Err(error) => return error.into_response(),
    };
    let Ids(ids) = fields.tokens.unwrap_or(Ids(Vec::new()));
    if ids.len() > IDS_MAX || ids.iter().any(|id| *id >= live.service.model().vocabulary) {
        return ApiError::invalid("tokens", "`tokens` must be ids of the vocabulary")
            .into_response();
    }
    let bytes: Vec<u8> = ids.into_iter().flat_map(|id| live.service.token_bytes(id)).collect();
    answer(&json!({ "content": String::from_utf8_lossy(&bytes) }))
}

/// `{"messages": [..]}` to `{"prompt"}`.
pub(in crate::api) async fn apply_template<S: Service>(
    State(api): State<Arc<Api<S>>>,
    request: Request,
) -> Response {
    let live = live::of::<S>(&request);
    let fields = match read(&api, request).await {
        Ok(fields) => fields,
        Err(error) => return error.into_response(),
    };
    let Some(messages) = fields.messages.filter(|messages| !messages.0.is_empty()) else {
        return ApiError::invalid("messages", "`messages` is missing or empty").into_response();
    };
    match live.service.render_chat(&messages.0) {
        Ok(prompt) => answer(&json!({ "prompt": prompt })),
        Err(refusal) => ApiError::from(&refusal).into_response(),
    }
}

fn answer(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("plain data serialises");
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
