//! GitHub Copilot's ghost text: `POST /v1/engines/{engine}/completions`, and, where the operator
//! wants it, the routes at which its clients fetch a token.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Ask, Caller, answer};
use super::error::ApiError;
use super::fields::{Field, body, parse};
use super::guard::REQUEST_ID;
use super::live::Live;
use super::reply::openai::{Kind, Shape};
use super::sampling::SharedFields;
use super::{Api, ModelCard, Service};
use crate::completion::{CodeStops, CompletionRequest, ExtraFile, FimInput, Input, Priority};

/// A reply without it is taken for a proxy's.
const GITHUB_REQUEST_ID: HeaderName = HeaderName::from_static("x-github-request-id");
/// Copilot's own default.
const MAX_TOKENS_DEFAULT: u32 = 500;
/// Strings of context that are looked at.
const CONTEXT_MAX: usize = 64;
/// How long a token of ours is good for; then the client asks again.
const TOKEN_SECONDS: u64 = 30 * 60;

body! {
    struct GhostFields {
        prompt: String,
        suffix: String,
        extra: Extra,
        nwo: String,
    }
}

#[derive(Deserialize)]
struct Extra {
    trim_by_indentation: Option<bool>,
    /// What the prompt would otherwise begin with; the prompt is the cursor's file alone then.
    context: Option<Vec<String>>,
}

impl Field for Extra {
    const EXPECTED: &'static str = "an object";
}

pub(super) async fn post<S: Service>(State(api): State<Arc<Api<S>>>, request: Request) -> Response {
    answer(api, request, read).await
}

fn read(body: &[u8], caller: &Caller<'_>, model: &ModelCard) -> Result<Ask, ApiError> {
    let (own, mut shared): (GhostFields, SharedFields) = parse(body)?;
    let prefix = own.prompt.ok_or_else(|| ApiError::invalid("prompt", "`prompt` is missing"))?;
    let (n, best_of) = shared.choices(1)?;
    if best_of > n {
        return Err(ApiError::invalid("best_of", "`best_of` is not for this route; use `n`"));
    }
    let trims = own.extra.as_ref().and_then(|extra| extra.trim_by_indentation).unwrap_or(false);
    let context = own.extra.and_then(|extra| extra.context).unwrap_or_default();
    let file = |text| ExtraFile { path: String::new(), text };
    let fim = FimInput {
        prefix,
        suffix: own.suffix.unwrap_or_default(),
        path: None,
        repository: own.nwo,
        extra: context.into_iter().take(CONTEXT_MAX).map(file).collect(),
    };
    shared.temperature = shared.temperature.or(Some(0.0));
    let max_tokens = shared.max_tokens.map_or(Some(MAX_TOKENS_DEFAULT), |most| most.0);
    let request = CompletionRequest {
        n,
        max_tokens,
        sampling: shared.sampling(model)?,
        stop: shared.stop_rules(max_tokens, model)?,
        fit: Some(CodeStops { block: trims, ..CodeStops::default() }),
        ..caller.request(Input::Fim(fim), Priority::Completion)
    };
    Ok(Ask {
        requests: vec![Arc::new(request)],
        letter: Box::new(Shape::new(Kind::Text, None, shared.include_usage())),
        n,
        best_of,
        stream: shared.streams(),
    })
}

/// What every reply says, errors and all.
pub(super) fn sign(headers: &mut HeaderMap) {
    if let Some(id) = headers.get(REQUEST_ID).cloned() {
        headers.insert(GITHUB_REQUEST_ID, id);
    }
}

/// `GET /copilot_internal/v2/token`: what a client asks instead of GitHub, with weir's key where
/// there are keys. Says that completions are asked for here.
pub(super) async fn token<S: Service>(
    Extension(live): Extension<Arc<Live<S>>>,
    headers: HeaderMap,
) -> Response {
    if !live.copilot_token {
        return ApiError::no_such_path().into_response();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let here = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1:8012");
    let here = format!("http://{here}");
    json_of(&json!({
        "token": key(&headers).unwrap_or("weir"),
        "expires_at": now + TOKEN_SECONDS,
        "refresh_in": TOKEN_SECONDS - 60,
        "endpoints": { "api": here, "proxy": here, "origin-tracker": here, "telemetry": here },
        "individual": true,
        "sku": "weir",
        "chat_enabled": false,
        "telemetry": "disabled",
        "code_quote_enabled": false,
        "public_suggestions": "enabled",
        "snippy_load_test_enabled": false,
        "copilotignore_enabled": false,
    }))
}

/// `GET /copilot_internal/user`: who that is, as far as its client must know.
pub(super) async fn user<S: Service>(Extension(live): Extension<Arc<Live<S>>>) -> Response {
    if !live.copilot_token {
        return ApiError::no_such_path().into_response();
    }
    json_of(&json!({
        "login": "weir",
        "access_type_sku": "weir",
        "copilot_plan": "individual",
        "chat_enabled": false,
        "assigned_date": null,
        "can_signup_for_limited": false,
        "organization_list": [],
    }))
}

/// The key that the client brought, in whichever scheme.
fn key(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let key = value.split_once(' ').map_or(value, |(_, key)| key).trim();
    (!key.is_empty()).then_some(key)
}

fn json_of(value: &Value) -> Response {
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (json, value.to_string()).into_response()
}
