//! How a row proves who it is.

#[cfg_attr(
    not(any(feature = "aws", feature = "azure", feature = "google")),
    allow(dead_code, reason = "no provider here fetches its credentials")
)]
pub(super) mod fetch;
pub(super) mod key;
#[cfg_attr(
    not(any(feature = "aws", feature = "azure", feature = "google")),
    allow(dead_code, reason = "no provider here fetches its credentials")
)]
pub(super) mod renewed;
#[cfg(any(feature = "azure", feature = "google"))]
pub(super) mod token;

use std::time::SystemTime;

use bytes::Bytes;
use hyper::http::request::Parts;

use crate::completion::Refusal;

/// Puts a proof on requests. Whatever it needs from elsewhere (a token, short-lived keys) it holds
/// already, or refuses: no request waits for a metadata service.
pub(super) trait Auth: Send + Sync {
    /// Signs a request that is otherwise whole. `now` is the time as the cloud sees it.
    fn sign(&self, head: &mut Parts, body: &Bytes, now: SystemTime) -> Result<(), Refusal>;

    /// The cloud did not accept the proof: a newer one is fetched behind, if there is any to fetch.
    fn rejected(&self) {}
}
