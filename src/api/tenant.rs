//! Whose request this is, and what its headers ask of policy.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::guard::PeerAddress;
use super::routes::is_open;
use super::{Api, Service, live};
use crate::policy::Asks;
use crate::policy::asked::{self, Asked};
use crate::policy::peer::{self, HOPS, Instance, OVERFLOW, REQUIRE, REQUIRE_BYTES_MAX, Turned};

/// Headers by which a proxy says that it asks for somebody else.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// The tenant a request belongs to, by its number in the rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct TenantId(pub u32);

/// The middleware that lets nobody in without a key, where keys are asked for.
pub(super) async fn check<S: Service>(
    State(api): State<Arc<Api<S>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let live = live::of::<S>(&request);
    let tenant = match &live.rules.asks {
        Asks::Nobody(anybody) => Some(*anybody),
        Asks::Key(keys) => key(request.headers()).and_then(|key| keys.find(key)),
    };
    match tenant {
        Some(tenant) => {
            request.extensions_mut().insert(TenantId(tenant));
        }
        // Nothing there asks whose it is.
        None if is_open(request.uri().path()) => {}
        None => {
            api.telemetry.unauthorized.increment(1);
            return ApiError::unauthorized().into_response();
        }
    }
    next.run(request).await
}

/// The middleware of the doors that are for whoever runs the box: a tenant whose row says so, or,
/// where nobody has a key, whoever sits at this machine.
pub(super) async fn admin<S: Service>(request: Request, next: Next) -> Response {
    let rules = &live::of::<S>(&request).rules;
    let tenant = request.extensions().get().map(|TenantId(tenant)| rules.tenant(*tenant));
    let may = match rules.asks {
        Asks::Nobody(_) => is_from_here(&request),
        Asks::Key(_) => tenant.is_some_and(|tenant| tenant.admin),
    };
    if !may {
        return ApiError::not_admin().into_response();
    }
    next.run(request).await
}

/// Whether a request came over the loopback, and no proxy says that it brought it there.
fn is_from_here(request: &Request) -> bool {
    let peer = request.extensions().get::<PeerAddress>();
    let headers = request.headers();
    peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback())
        && !FORWARDED.iter().any(|name| headers.contains_key(*name))
}

/// The first of the three headers that holds a key. An empty one holds none: some editors send
/// `api-key:` beside a real Authorization.
fn key(headers: &HeaderMap) -> Option<&str> {
    let bearer = text(headers, AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        // GitHub's clients fetch a token with a key of this scheme.
        let known = ["bearer", "token"].iter().any(|one| scheme.eq_ignore_ascii_case(one));
        known.then(|| key.trim())
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
