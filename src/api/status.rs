//! How we are: alive, ready, and the numbers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::{Api, Service};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// The process answers; says nothing of the model.
pub(super) async fn health() -> Response {
    ([(CONTENT_TYPE, JSON)], r#"{"status":"ok"}"#).into_response()
}

/// Green once the device generated a token, until the way down begins.
pub(super) async fn ready<S: Service>(State(api): State<Arc<Api<S>>>) -> Response {
    if api.lifecycle.draining.is_cancelled() {
        return ApiError::not_ready("weir is going down").into_response();
    }
    if !api.live().service.ready() {
        return ApiError::not_ready("the model has not generated a token").into_response();
    }
    ([(CONTENT_TYPE, JSON)], r#"{"status":"ready"}"#).into_response()
}

pub(super) async fn metrics<S: Service>(State(api): State<Arc<Api<S>>>) -> Response {
    api.live().service.publish(&api.telemetry);
    let mut text = api.telemetry.render();
    text.push_str(&aliases(&text));
    ([(CONTENT_TYPE, PROMETHEUS)], text).into_response()
}

/// The names under which llama.cpp's dashboards look for the same numbers.
const ALIASES: [(&str, &str, &str); 6] = [
    ("prompt_tokens_total", "counter", "weir_tokens_total{kind=\"prompt\"}"),
    ("tokens_predicted_total", "counter", "weir_tokens_total{kind=\"generated\"}"),
    ("requests_processing", "gauge", "weir_sequences_running"),
    ("requests_deferred", "gauge", "weir_sequences_waiting"),
    ("spec_decode_num_draft_tokens_total", "counter", "weir_draft_tokens_total"),
    ("spec_decode_num_accepted_tokens_total", "counter", "weir_draft_accepted_total"),
];

fn aliases(text: &str) -> String {
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let mut more = String::new();
    for (alias, kind, name) in ALIASES {
        if let Some(value) = value(name) {
            more += &format!("# TYPE llamacpp:{alias} {kind}\nllamacpp:{alias} {value}\n");
        }
    }
    more
}
