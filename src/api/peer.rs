//! `GET /v1/peer`: what another weir has to know before it sends something here.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::{Api, Service};
use crate::policy::peer::Status;

pub(super) async fn get<S: Service>(State(api): State<Arc<Api<S>>>) -> Response {
    let service = &api.live().service;
    let load = service.load();
    let status = Status {
        instance: api.instance.as_str().to_owned(),
        acknowledges: Status::ACKNOWLEDGES.map(str::to_owned).into(),
        ready: service.ready() && !api.lifecycle.draining.is_cancelled(),
        work_ahead_ms: load.work_ahead_ms,
        prefill_tokens_per_second: load.prefill_tokens_per_second,
    };
    let body = serde_json::to_vec(&status).expect("strings and numbers serialise");
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}
