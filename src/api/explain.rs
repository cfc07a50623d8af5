//! `POST /v1/route/explain`: where a completion would run and why, without running it.
//!
//! The body and the headers are those of `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::Instant;

use super::{Api, Service, answer, completions, live};
use crate::dispatch::Explanation;

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    /// One for each prompt.
    data: Vec<Explanation>,
}

pub(super) async fn post<S: Service>(State(api): State<Arc<Api<S>>>, request: Request) -> Response {
    let live = live::of::<S>(&request);
    let ask = match answer::receive((&api, &live), request, Instant::now(), completions::read).await
    {
        Ok((ask, _)) => ask,
        Err(failure) => return failure.error.into_response(),
    };
    let mut data = Vec::with_capacity(ask.requests.len());
    for request in &ask.requests {
        data.push(live.service.explain(request).await);
    }
    let body = serde_json::to_vec(&Answer { object: "list", data });
    let body = body.expect("strings and numbers serialise");
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
