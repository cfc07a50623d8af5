//! A key in a header.

use std::time::SystemTime;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue, InvalidHeaderValue};
use hyper::http::request::Parts;

use super::Auth;
use crate::completion::Refusal;
use crate::config::Secret;

/// The same key with every request, or none.
pub(in crate::cloud) struct Key(Option<(HeaderName, HeaderValue)>);

impl Key {
    pub(in crate::cloud) fn none() -> Self {
        Self(None)
    }

    /// `Authorization: Bearer KEY`.
    pub(in crate::cloud) fn bearer(key: &Secret) -> Result<Self, InvalidHeaderValue> {
        Self::plain(hyper::header::AUTHORIZATION, &format!("Bearer {}", key.expose()))
    }

    /// A header of the cloud's own.
    pub(in crate::cloud) fn plain(
        name: HeaderName,
        value: &str,
    ) -> Result<Self, InvalidHeaderValue> {
        let mut value = HeaderValue::from_str(value)?;
        value.set_sensitive(true);
        Ok(Self(Some((name, value))))
    }
}

impl Auth for Key {
    fn sign(&self, head: &mut Parts, _body: &Bytes, _now: SystemTime) -> Result<(), Refusal> {
        if let Some((name, value)) = &self.0 {
            head.headers.insert(name, value.clone());
        }
        Ok(())
    }
}
