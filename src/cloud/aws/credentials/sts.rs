//! The token service: keys for a role, by other keys or by a token that somebody else signed.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};

use super::super::sign::Scope;
use super::end;
use crate::cloud::auth::fetch::{Fetch, post_form, token_file};
use crate::cloud::auth::renewed::{CredentialError, Fetched};
use crate::config::Secret;
use crate::config::services::aws::{AwsKeys, AwsRole};

const VERSION: (&str, &str) = ("Version", "2011-06-15");
/// Seconds that keys are asked for: what every role allows.
const DURATION_S: (&str, &str) = ("DurationSeconds", "3600");

pub(super) struct Sts<'c, F> {
    pub(super) uri: &'c Uri,
    pub(super) region: &'c Arc<str>,
    pub(super) fetch: &'c F,
}

impl<F: Fetch> Sts<'_, F> {
    /// The pod's or the workflow's own token for keys. The file rotates.
    pub(super) async fn assume_by_web_identity(
        &self,
        role: &AwsRole,
        file: &Path,
    ) -> Result<Fetched<AwsKeys>, CredentialError> {
        let token = token_file(file).await?;
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            VERSION,
            ("RoleArn", &role.arn),
            ("RoleSessionName", &role.session),
            DURATION_S,
            ("WebIdentityToken", &token),
        ];
        keys(self.fetch.call(self.form(&fields)).await?)
    }

    /// Keys for keys.
    pub(super) async fn assume(
        &self,
        role: &AwsRole,
        by: &AwsKeys,
    ) -> Result<Fetched<AwsKeys>, CredentialError> {
        let mut fields = vec![
            ("Action", "AssumeRole"),
            VERSION,
            ("RoleArn", &*role.arn),
            ("RoleSessionName", &role.session),
            DURATION_S,
        ];
        fields.extend(role.external_id.as_deref().map(|id| ("ExternalId", id)));
        let (mut head, body) = self.form(&fields).into_parts();
        let body = body.collect().await.expect("a body in memory").to_bytes();
        let scope = Scope { region: self.region.clone(), service: "sts" };
        scope
            .sign(&mut head, &body, by, SystemTime::now())
            .map_err(|error| CredentialError(error.to_string()))?;
        keys(self.fetch.call(Request::from_parts(head, Full::new(body))).await?)
    }

    fn form(&self, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
        let mut request = post_form(self.uri, fields);
        // Its own format: what it says to others is nowhere written down.
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/xml"));
        request
    }
}

pub(super) fn keys(answer: Response<Bytes>) -> Result<Fetched<AwsKeys>, CredentialError> {
    let xml = std::str::from_utf8(answer.body()).unwrap_or_default();
    if answer.status() != StatusCode::OK {
        return Err(refused(answer.status(), xml));
    }
    let part = |tag: &str| {
        element(xml, tag)
            .ok_or_else(|| CredentialError(format!("the token service's answer has no {tag}")))
    };
    Ok(Fetched {
        value: AwsKeys {
            id: part("AccessKeyId")?.into(),
            secret: Secret::new(part("SecretAccessKey")?),
            token: Some(Secret::new(part("SessionToken")?)),
        },
        until: Some(end(part("Expiration")?)?),
    })
}

/// Only the error's name is told: its message may quote the token.
fn refused(status: StatusCode, xml: &str) -> CredentialError {
    let name = element(xml, "Code").filter(|name| {
        name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
    });
    let name = name.unwrap_or("no name");
    CredentialError(format!("the token service answered {}: {name}", status.as_u16()))
}

/// The text of the first element of this name. Keys, tokens, times and names hold no `&` and no
/// `<`, so what does is none of them.
fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text.trim();
    (!text.is_empty() && !text.contains(['&', '<'])).then_some(text)
}
