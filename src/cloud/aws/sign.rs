//! Signature Version 4, by AWS's own signer.

use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_lc_rs::digest::{SHA256, digest};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;

use super::credentials::Keys;
use crate::cloud::auth::Auth;
use crate::completion::{Fault, Reason, Refusal};
use crate::config::services::aws::AwsKeys;

/// What a signature is good for, beside its day.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) region: Arc<str>,
    pub(super) service: &'static str,
}

/// Signs with what the row's keys are now.
pub(super) struct SigV4 {
    scope: Scope,
    keys: Keys,
}

impl SigV4 {
    pub(super) fn new(scope: Scope, keys: Keys) -> Self {
        Self { scope, keys }
    }
}

impl Auth for SigV4 {
    fn sign(&self, head: &mut Parts, body: &Bytes, now: SystemTime) -> Result<(), Refusal> {
        let keys = self.keys.get(now)?;
        self.scope.sign(head, body, &keys, now).map_err(|error| {
            Refusal::new(Reason::Cloud(Fault::Credentials), "the request cannot be signed")
                .with_source(error)
        })
    }

    fn rejected(&self) {
        self.keys.rejected();
    }
}

/// What a key or a header has in it that no header carries.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct SignError(&'static str);

impl Scope {
    /// Puts date, token and signature on a request. Signed are its host, type and whatever begins
    /// with `x-amz`: nothing that a proxy on the way may change.
    pub(super) fn sign(
        &self,
        head: &mut Parts,
        body: &[u8],
        keys: &AwsKeys,
        now: SystemTime,
    ) -> Result<(), SignError> {
        let token = keys.token.as_ref().map(|token| token.expose().to_owned());
        let secret = keys.secret.expose();
        let identity = Credentials::new(&*keys.id, secret, token, None, "weir").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(now)
            // Paths are encoded a second time before they are signed, as all services but S3 ask.
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| SignError("the signature's scope is not whole"))?;
        let signed = {
            let uri = head.uri.to_string();
            let headers = signed_headers(&head.headers)?;
            // The digest in the body's place: the signer has no business with prompts, and its
            // trace shows what it is given.
            let body = SignableBody::Precomputed(hex(digest(&SHA256, body).as_ref()));
            let request =
                SignableRequest::new(head.method.as_str(), uri, headers.into_iter(), body)
                    .map_err(|_| SignError("the address cannot be signed"))?;
            sign(request, &params.into()).map_err(|_| SignError("a header cannot be signed"))?
        };
        for header in signed.into_parts().0.into_parts().0 {
            let mut value = HeaderValue::from_str(header.value())
                .map_err(|_| SignError("a key has characters that no header can carry"))?;
            value.set_sensitive(header.sensitive() || header.name() == "authorization");
            head.headers.insert(header.name(), value);
        }
        Ok(())
    }
}

fn signed_headers(headers: &HeaderMap) -> Result<Vec<(&str, &str)>, SignError> {
    let signed = headers
        .iter()
        .filter(|(name, _)| **name == header::CONTENT_TYPE || name.as_str().starts_with("x-amz"));
    // What an earlier signature left is made anew.
    let own = ["x-amz-date", "x-amz-security-token"];
    signed
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect::<Option<_>>()
        .ok_or(SignError("a header is no text"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
