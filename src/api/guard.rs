//! Who may talk to us: programs on purpose, web pages only when the operator says so.
//!
//! A browser attaches Origin to whatever a page posts, and a page that rebinds its own name to
//! our address still sends that name as Host. So both are checked, on every route.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::{Service, live};
use crate::config::ServeConfig;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Bytes of a request id taken over from a client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What a page may read of our replies beside their bodies.
const EXPOSED: &str = "x-request-id, x-weir-route, x-weir-reason, x-weir-truncated, \
    x-weir-cost-usd, x-weir-cost-max-usd, x-weir-predicted-ttft-ms, retry-after, \
    x-should-retry";

/// Seconds a browser may remember that a page is allowed.
const PREFLIGHT_MAX_AGE: &str = "600";

/// The address of ours that a connection came in on.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalAddress(pub SocketAddr);

/// Where a connection came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAddress(pub SocketAddr);

/// The id of a request, the client's own or ours.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub Arc<str>);

pub(super) struct Guard {
    listen: Vec<SocketAddr>,
    /// Lower case; with a port or for all ports.
    allow_hosts: Vec<String>,
    /// Lower case.
    allow_origins: Vec<String>,
}

impl Guard {
    pub(super) fn new(config: &ServeConfig) -> Self {
        let lower = |all: &[String]| all.iter().map(|one| one.to_ascii_lowercase()).collect();
        Self {
            listen: config.listen.clone(),
            allow_hosts: lower(&config.allow_hosts),
            allow_origins: lower(&config.allow_origins),
        }
    }

    /// Every name the request calls us by must be ours.
    fn check_host(&self, request: &Request) -> Result<(), ApiError> {
        let hosts = request.headers().get_all(header::HOST).iter();
        let from_headers = hosts.map(|host| host.to_str().unwrap_or(""));
        let from_target = request.uri().authority().map(Authority::as_str);
        let local = request.extensions().get::<LocalAddress>().map(|local| local.0.ip());
        let mut named = false;
        for host in from_headers.chain(from_target) {
            named = true;
            if !self.is_ours(host, local) {
                return Err(ApiError::forbidden(
                    "this Host is not served here; add it to [serve] allow_hosts",
                ));
            }
        }
        if !named && request.version() == Version::HTTP_11 {
            return Err(ApiError::invalid(None, "the Host header is missing"));
        }
        Ok(())
    }

    fn is_ours(&self, host: &str, local: Option<IpAddr>) -> bool {
        let host = host.to_ascii_lowercase();
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if host.contains('@') {
            return false;
        }
        let name = authority.host().trim_end_matches('.');
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<IpAddr>().ok();
        let is_listen = address.is_some_and(|address| {
            local == Some(address)
                || self.listen.iter().any(|listen| listen.ip() == address)
                || (address.is_unspecified() && is_loopback(local))
        });
        name == "localhost"
            || address.is_some_and(|address| address.is_loopback())
            || is_listen
            || self.allow_hosts.iter().any(|allowed| *allowed == name || *allowed == host)
    }

    /// The page's origin when it is an allowed one; None for programs and for our own pages.
    fn check_origin<'r>(&self, request: &'r Request) -> Result<Option<&'r HeaderValue>, ApiError> {
        let headers = request.headers();
        let Some(origin) = headers.get(header::ORIGIN) else {
            // A page's image or script request carries no Origin, but says where it is from.
            return match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
                Some(b"cross-site" | b"same-site") => Err(foreign()),
                _ => Ok(None),
            };
        };
        let text = origin.to_str().unwrap_or("").to_ascii_lowercase();
        if text == "null" || headers.get_all(header::ORIGIN).iter().count() != 1 {
            return Err(foreign());
        }
        if self.allow_origins.contains(&text) {
            return Ok(Some(origin));
        }
        let own = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .or_else(|| request.uri().authority().map(Authority::as_str))
            .map(str::to_ascii_lowercase);
        match (text.strip_prefix("http://"), own) {
            (Some(origin), Some(own)) if origin == own => Ok(None),
            _ => Err(foreign()),
        }
    }
}

/// Whether a connection came in over the loopback. There `0.0.0.0`, which some editors have as their
/// default, means this machine; being no name, it cannot be rebound.
fn is_loopback(local: Option<IpAddr>) -> bool {
    local.is_some_and(|local| local.to_canonical().is_loopback())
}

fn foreign() -> ApiError {
    ApiError::forbidden("web pages of this origin may not use weir; see [serve] allow_origins")
}

/// The middleware around every route.
pub(super) async fn check<S: Service>(request: Request, next: Next) -> Response {
    let guard = &live::of::<S>(&request).guard;
    if let Err(error) = guard.check_host(&request) {
        return error.into_response();
    }
    let origin = match guard.check_origin(&request) {
        Ok(origin) => origin.cloned(),
        Err(error) => return error.into_response(),
    };
    let Some(origin) = origin else { return next.run(request).await };
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match preflight {
        true => preflight_reply(request.headers()),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    response
}

/// The page is trusted, so are the headers it wants to send.
fn preflight_reply(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_MAX_AGE));
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    if asked.contains_key("access-control-request-private-network") {
        let name = HeaderName::from_static("access-control-allow-private-network");
        headers.insert(name, HeaderValue::from_static("true"));
    }
    response
}

/// Puts an id on every request and its reply, whatever becomes of it.
pub(super) async fn name_request(mut request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| is_sane(id.as_bytes()))
        .cloned()
        .unwrap_or_else(generated);
    let text = Arc::from(id.to_str().expect("visible ASCII"));
    request.extensions_mut().insert(RequestId(text));
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn is_sane(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn generated() -> HeaderValue {
    let id = format!("req_{:032x}", fastrand::u128(..));
    HeaderValue::from_str(&id).expect("letters and digits")
}
