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
    ([(CONTENT_TYPE, PROMETHEUS)], api.telemetry.render()).into_response()
}
