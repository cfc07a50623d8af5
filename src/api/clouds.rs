//! `GET /v1/clouds`, `POST /v1/clouds/{name}/pause` and `/resume`: for whoever runs the box.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Service;
use super::error::ApiError;
use super::live::Live;

#[derive(Serialize)]
struct List<T> {
    object: &'static str,
    data: T,
}

pub(super) async fn list<S: Service>(Extension(live): Extension<Arc<Live<S>>>) -> Response {
    json(&List { object: "list", data: live.service.clouds() })
}

pub(super) async fn pause<S: Service>(
    Extension(live): Extension<Arc<Live<S>>>,
    name: Result<Path<String>, PathRejection>,
) -> Response {
    hold(&live, name, true)
}

pub(super) async fn resume<S: Service>(
    Extension(live): Extension<Arc<Live<S>>>,
    name: Result<Path<String>, PathRejection>,
) -> Response {
    hold(&live, name, false)
}

/// Answers with how the cloud is then.
fn hold<S: Service>(
    live: &Live<S>,
    name: Result<Path<String>, PathRejection>,
    hold: bool,
) -> Response {
    let known = name.ok().filter(|Path(name)| live.service.hold_cloud(name, hold));
    let Some(Path(name)) = known else { return ApiError::no_such_cloud().into_response() };
    tracing::info!(cloud = name, held = hold, "the operator's word");
    let standing = live.service.clouds().into_iter().find(|standing| standing.cloud == name);
    json(&standing)
}

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("strings and numbers serialise");
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
