//! What tabby-agent asks before it completes: whether anybody is there, and what it may send home.

use std::sync::Arc;

use axum::extract::Extension;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api::Service;
use crate::api::live::Live;

/// No version: the client takes the first number here for one of Tabby's, and asks servers older than
/// 0.9.0 for no settings.
const GIT_DESCRIBE: &str = "weir";

/// `GET` and `POST /v1/health`. `version.git_describe` is read unguarded there; `status` is
/// llama.cpp's.
pub(in crate::api) async fn health<S: Service>(
    Extension(live): Extension<Arc<Live<S>>>,
) -> Response {
    let card = live.service.model();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    answer(&json!({
        "status": "ok",
        "model": &*card.id,
        "models": { "completion": { "local": { "model_id": &*card.id } } },
        "device": "cpu",
        "cuda_devices": [],
        "arch": std::env::consts::ARCH,
        "cpu_info": std::env::consts::ARCH,
        "cpu_count": cores,
        "version": {
            "build_date": "", "build_timestamp": "", "git_sha": "",
            "git_describe": GIT_DESCRIBE,
        },
    }))
}

/// `GET /v1beta/server_setting`: without this the client tells its maker of each completion.
pub(in crate::api) async fn setting() -> Response {
    answer(&json!({ "disable_client_side_telemetry": true }))
}

fn answer(value: &Value) -> Response {
    let body = value.to_string();
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
