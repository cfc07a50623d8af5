//! Refusals as HTTP: a status and an object in the words of the dialect that was spoken.
//!
//! An [`ApiError`] is written as OpenAI writes it and travels with its response; [`translate`]
//! writes it anew where the path is of another [`Tongue`].

use std::any::Any;
use std::borrow::Cow;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::completion::{Reason, Refusal};

/// The OpenAI clients repeat a 503 at once unless this says no; Retry-After tells everybody else.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Retry-After where whoever refused knew none.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// How a dialect writes its errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tongue {
    /// `{"error":{"message","type","param","code"}}`
    #[default]
    OpenAi,
    /// `{"error":{"code","message","type"}}`, the code being the status.
    LlamaCpp,
    /// `{"error":"text"}`
    Ollama,
    /// `{"error":"text","error_type":"word"}`
    Tgi,
    /// `{"object":"error","message","type","param","code"}`
    Mistral,
}

/// An error as the client sees it.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub status: StatusCode,
    kind: &'static str,
    code: Option<Cow<'static, str>>,
    param: Option<&'static str>,
    pub message: Cow<'static, str>,
    retry_after: Option<Duration>,
}

impl ApiError {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (code, message) = (Some(Cow::Borrowed(code)), message.into());
        Self { status, kind, code, param: None, message, retry_after: None }
    }

    /// 400: the field `param` is wrong; without one, the body as a whole.
    pub(super) fn invalid(
        param: impl Into<Option<&'static str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: INVALID_REQUEST,
            code: None,
            param: param.into(),
            message: message.into(),
            retry_after: None,
        }
    }

    pub(super) fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "request_too_large", message)
    }

    /// 400: the request goes no further on its way from weir to weir.
    pub(super) fn turned(code: &'static str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, code, message)
    }

    pub(super) fn media_type() -> Self {
        let message = "send the body as application/json";
        let code = "unsupported_media_type";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, code, message)
    }

    pub(super) fn slow_body() -> Self {
        let message = "the request body took too long to arrive";
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID_REQUEST, "body_timeout", message)
    }

    pub(super) fn forbidden(message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, PERMISSION, "forbidden", message)
    }

    /// 403: the door is for whoever runs the box.
    pub(super) fn not_admin() -> Self {
        let message = "this is for a tenant whose row says admin, or where nobody has a key for \
                       whoever asks from this machine";
        Self::new(StatusCode::FORBIDDEN, PERMISSION, "not_admin", message)
    }

    /// 401: the key is missing or nobody's.
    pub(super) fn unauthorized() -> Self {
        let message = "send the key of a tenant as Authorization: Bearer, x-api-key or api-key";
        let code = "invalid_api_key";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", code, message)
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "unknown_url", "no such path")
    }

    pub(super) fn no_such_model() -> Self {
        let message = "no such model; see /v1/models";
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "model_not_found", message)
    }

    pub(super) fn no_such_cloud() -> Self {
        let message = "no such cloud is in use; see /v1/clouds";
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "cloud_not_found", message)
    }

    pub(super) fn wrong_method() -> Self {
        // Without its name, which a client may have made up.
        let message = "this method is not supported here";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, INVALID_REQUEST, "method_not_allowed", message)
    }

    pub(super) fn not_ready(message: &'static str) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, SERVER_ERROR, "not_ready", message)
    }

    /// 500: what was asked for is there and cannot be read.
    pub(super) fn unreadable(message: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER_ERROR, "internal", message)
    }

    /// One word for `x-weir-reason` and the metrics: the code, from a closed list like it.
    pub(super) fn reason(&self) -> Cow<'static, str> {
        self.code.clone().unwrap_or(Cow::Borrowed("invalid"))
    }

    /// `{"error":{..}}`
    pub(super) fn to_json(&self) -> Vec<u8> {
        self.to_json_in(Tongue::OpenAi)
    }

    pub(super) fn to_json_in(&self, tongue: Tongue) -> Vec<u8> {
        let object = Object {
            message: &self.message,
            kind: self.kind,
            param: self.param,
            code: self.code.as_deref(),
        };
        let body = match tongue {
            Tongue::OpenAi => serde_json::to_vec(&Envelope { error: object }),
            Tongue::LlamaCpp => serde_json::to_vec(&Envelope { error: self.in_llama_cpp() }),
            Tongue::Ollama => serde_json::to_vec(&Envelope { error: &self.message }),
            Tongue::Tgi => {
                serde_json::to_vec(&TgiObject { error: &self.message, error_type: self.tgi_type() })
            }
            Tongue::Mistral => {
                serde_json::to_vec(&MistralObject { object: "error", error: object })
            }
        };
        body.expect("strings serialise")
    }

    fn in_llama_cpp(&self) -> LlamaCppObject<'_> {
        let kind = match (self.code.as_deref(), self.status) {
            (Some("context_length_exceeded"), _) => "exceed_context_size_error",
            (Some("unsupported"), _) => "not_supported_error",
            (_, StatusCode::NOT_FOUND) => "not_found_error",
            (_, StatusCode::SERVICE_UNAVAILABLE) => "unavailable_error",
            _ => self.kind,
        };
        LlamaCppObject { code: self.status.as_u16(), message: &self.message, kind }
    }

    fn tgi_type(&self) -> &'static str {
        match self.status {
            _ if self.code.as_deref() == Some("engine_failed") => "generation",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded",
            status if status.is_client_error() => "validation",
            _ => "generation",
        }
    }
}

/// Writes the error that a response is in other words.
pub(super) fn translate(response: Response, tongue: Tongue) -> Response {
    let Some(error) = response.extensions().get::<ApiError>() else { return response };
    if tongue == Tongue::OpenAi {
        return response;
    }
    let body = error.to_json_in(tongue);
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, body.into())
}

const INVALID_REQUEST: &str = "invalid_request_error";
const PERMISSION: &str = "permission_error";
const SERVER_ERROR: &str = "server_error";

#[derive(Serialize)]
struct Envelope<E> {
    error: E,
}

#[derive(Serialize)]
struct LlamaCppObject<'a> {
    code: u16,
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct TgiObject<'a> {
    error: &'a str,
    error_type: &'static str,
}

#[derive(Serialize)]
struct MistralObject<'a> {
    object: &'static str,
    #[serde(flatten)]
    error: Object<'a>,
}

#[derive(Serialize)]
struct Object<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'a str>,
}

impl From<&Refusal> for ApiError {
    fn from(refusal: &Refusal) -> Self {
        let status = status(&refusal.reason);
        let param = match refusal.reason {
            Reason::Invalid { param } => param,
            Reason::CloudCannot(field) => Some(field),
            _ => None,
        };
        let code = match refusal.reason {
            Reason::Invalid { .. } => None,
            _ => Some(Cow::Owned(refusal.reason.code())),
        };
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE)
            .then(|| refusal.retry_after.unwrap_or(RETRY_AFTER_DEFAULT));
        Self {
            status,
            kind: kind(status),
            code,
            param,
            message: Cow::Owned(refusal.message.clone()),
            retry_after,
        }
    }
}

fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => PERMISSION,
        status if status.is_client_error() => INVALID_REQUEST,
        _ => SERVER_ERROR,
    }
}

fn status(reason: &Reason) -> StatusCode {
    match reason {
        Reason::NotAllowed(_) | Reason::Secret(_) => StatusCode::FORBIDDEN,
        Reason::Invalid { .. } | Reason::ContextLength | Reason::Unsupported => {
            StatusCode::BAD_REQUEST
        }
        Reason::QueueFull
        | Reason::Draining
        | Reason::EngineFailed
        | Reason::CloudCannot(_)
        | Reason::CloudBusy
        | Reason::CloudUnproven
        | Reason::CloudElsewhere => StatusCode::SERVICE_UNAVAILABLE,
        Reason::Deadline | Reason::CloudTimeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::Budget(_) => StatusCode::SERVICE_UNAVAILABLE,
        Reason::CloudUnreachable | Reason::Cloud(_) | Reason::CloudGarbage => {
            StatusCode::BAD_GATEWAY
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut response = (self.status, [json], self.to_json()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status.is_server_error() {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(after) = self.retry_after {
            // Rounded up: asking earlier is asking in vain.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The reply when a handler panicked; what it said stays in the log.
pub(super) fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("of another type"), "a handler panicked");
    let message = "something broke in weir; the log says what";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER_ERROR, "internal", message)
        .into_response()
}
