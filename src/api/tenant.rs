//! Whose request this is, and what its headers ask of policy.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::routes::is_open;
use super::{Api, Service};
use crate::policy::asked::{self, Asked};
use crate::policy::peer::{self, HOPS, Instance, OVERFLOW, REQUIRE, REQUIRE_BYTES_MAX, Turned};

/// The tenant a request belongs to, by its index in the rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct TenantId(pub u32);

/// The middleware that lets nobody in without a key, where keys are asked for.
pub(super) async fn check<S: Service>(
    State(api): State<Arc<Api<S>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let keys = &api.rules.keys;
    let tenant = if keys.is_empty() || is_open(request.uri().path()) {
        Some(0)
    } else {
        key(request.headers()).and_then(|key| keys.find(key))
    };
    let Some(tenant) = tenant else {
        api.telemetry.unauthorized.increment(1);
        return ApiError::unauthorized().into_response();
    };
    request.extensions_mut().insert(TenantId(tenant));
    next.run(request).await
}

/// The first of the three headers that holds a key. An empty one holds none: some editors send
/// `api-key:` beside a real Authorization.
fn key(headers: &HeaderMap) -> Option<&str> {
    let bearer = text(headers, AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let others = ["x-api-key", "api-key"].into_iter().filter_map(|name| text(headers, name));
    bearer.into_iter().chain(others).find(|key| !key.is_empty())
}

/// A header that is there once; of two nobody can say which one counts.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.trim())
}

/// What the headers ask of policy. What cannot be read is refused, never passed over: it was meant
/// to tighten. What has come from another weir, one that `own` is not, goes no further.
pub(super) fn asked(headers: &HeaderMap, own: &Instance) -> Result<Asked, ApiError> {
    let mut all = Asked::default();
    let mut bytes = 0;
    for value in headers.get_all(REQUIRE) {
        bytes += value.len();
        let wrong = |message: &str| ApiError::invalid(REQUIRE, format!("`{REQUIRE}` {message}"));
        if bytes > REQUIRE_BYTES_MAX {
            return Err(wrong(&format!("must be at most {REQUIRE_BYTES_MAX} bytes")));
        }
        let text = value.to_str().map_err(|_| wrong("must be ASCII"))?;
        asked::require(text, &mut all.require).map_err(|message| wrong(&message))?;
    }
    for value in headers.get_all(OVERFLOW) {
        if value.as_bytes() != b"never" {
            let message = format!("`{OVERFLOW}` must be never: a request can only stay");
            return Err(ApiError::invalid(OVERFLOW, message));
        }
        all.stays_here = true;
    }
    if let Some(hops) = hops(headers)? {
        peer::arrived(hops, own).map_err(turned)?;
        all.stays_here = true;
    }
    Ok(all)
}

fn hops(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    if !headers.contains_key(HOPS) {
        return Ok(None);
    }
    text(headers, HOPS).map(Some).ok_or_else(|| turned(Turned::Malformed))
}

fn turned(why: Turned) -> ApiError {
    match why {
        Turned::Loop => ApiError::turned("loop", why.to_string()),
        Turned::Hops => ApiError::turned("hops", why.to_string()),
        Turned::Malformed => ApiError::invalid(HOPS, why.to_string()),
    }
}

/// What a request of another weir is told of how it was understood; None: it is a client's.
pub(super) fn acknowledgement(headers: &HeaderMap, own: &Instance) -> Option<HeaderValue> {
    hops(headers).ok()??;
    let text = peer::acknowledgement(&asked(headers, own).ok()?)?;
    HeaderValue::from_str(&text).ok()
}
