//! Access tokens: what a token service answers, and the header that shows one.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::Auth;
use super::renewed::{CredentialError, Fetched, Renewed, Source};
use crate::completion::Refusal;

/// Longest name of an error that is repeated in a log; names are words, messages are not.
const NAME_BYTES_MAX: usize = 64;

/// `Authorization: Bearer TOKEN` with a token that is renewed from behind.
pub(in crate::cloud) struct Bearer(Renewed<HeaderValue>);

impl Bearer {
    /// Begins to fetch. Needs a runtime.
    pub(in crate::cloud) fn start(
        cloud: std::sync::Arc<str>,
        source: impl Source<HeaderValue>,
    ) -> Self {
        Self(Renewed::start(cloud, source))
    }
}

impl Auth for Bearer {
    fn sign(&self, head: &mut Parts, _body: &Bytes, now: SystemTime) -> Result<(), Refusal> {
        let value = self.0.get(now)?;
        head.headers.insert(AUTHORIZATION, HeaderValue::clone(&value));
        Ok(())
    }

    fn rejected(&self) {
        self.0.rejected();
    }
}

/// The header's value for a token.
pub(in crate::cloud) fn bearer(token: &str) -> Result<HeaderValue, CredentialError> {
    let malformed = |_| CredentialError("the token has characters that no header can carry".into());
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(malformed)?;
    value.set_sensitive(true);
    Ok(value)
}

/// RFC 6749's answer. Services differ in whether seconds are a number or a text, and whether they
/// count from now or from 1970.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<Seconds>,
    expires_on: Option<Seconds>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    fn duration(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(seconds) => *seconds,
            Self::Text(text) => text.trim().parse().ok()?,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// The token in an answer, and when it ends.
pub(in crate::cloud) fn granted(
    answer: &Response<Bytes>,
    now: SystemTime,
) -> Result<Fetched<String>, CredentialError> {
    let granted: Granted = json(answer)?;
    if granted.access_token.is_empty() {
        return Err(CredentialError("the token service answered with an empty token".into()));
    }
    let ends = |from: SystemTime, seconds: Option<Seconds>| {
        seconds.and_then(|seconds| from.checked_add(seconds.duration()?))
    };
    let until =
        ends(now, granted.expires_in).or_else(|| ends(SystemTime::UNIX_EPOCH, granted.expires_on));
    Ok(Fetched { value: granted.access_token, until })
}

/// The token in an answer as a header's value.
pub(in crate::cloud) fn granted_bearer(
    answer: &Response<Bytes>,
) -> Result<Fetched<HeaderValue>, CredentialError> {
    let Fetched { value, until } = granted(answer, SystemTime::now())?;
    Ok(Fetched { value: bearer(&value)?, until })
}

/// A good answer's JSON; what is wrong with another, without a word of it that could be secret.
pub(in crate::cloud) fn json<T: for<'a> Deserialize<'a>>(
    answer: &Response<Bytes>,
) -> Result<T, CredentialError> {
    is_good(answer)?;
    serde_json::from_slice(answer.body()).map_err(|error| {
        let column = error.column();
        CredentialError(format!("the token service did not answer with a token (column {column})"))
    })
}

/// A good answer that is a token and nothing else.
#[cfg(feature = "google")]
pub(in crate::cloud) fn text(answer: &Response<Bytes>) -> Result<String, CredentialError> {
    is_good(answer)?;
    match std::str::from_utf8(answer.body()).map(str::trim) {
        Ok(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(CredentialError("the token service did not answer with a token".into())),
    }
}

fn is_good(answer: &Response<Bytes>) -> Result<(), CredentialError> {
    if answer.status() == StatusCode::OK {
        return Ok(());
    }
    let (status, name) = (answer.status().as_u16(), error_name(answer.body()));
    let name = name.map(|name| format!(", {name}")).unwrap_or_default();
    Err(CredentialError(format!("the token service refuses: status {status}{name}")))
}

/// `{"error": "invalid_client"}`, or Google's `{"error": {"status": "PERMISSION_DENIED"}}`.
fn error_name(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error")?;
    let name = error.as_str().or_else(|| error.get("status")?.as_str())?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    (name.len() <= NAME_BYTES_MAX && name.bytes().all(letter)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &'static str) -> Result<(String, Option<u64>), String> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let answer = Response::builder().status(status).body(Bytes::from_static(body.as_bytes()));
        let granted = granted(&answer.unwrap(), now).map_err(|error| error.to_string())?;
        let until = granted.until.map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        Ok((granted.value, until.map(|until| until.as_secs())))
    }

    #[test]
    fn the_end_is_read_in_every_spelling() {
        let cases = [
            (r#"{"access_token":"t","expires_in":3599,"token_type":"Bearer"}"#, Some(4599)),
            (r#"{"access_token":"t","expires_in":"3599","expires_on":"9"}"#, Some(4599)),
            (r#"{"access_token":"t","expires_on":"5000","not_before":"1"}"#, Some(5000)),
            (r#"{"access_token":"t","expires_on":5000}"#, Some(5000)),
            (r#"{"access_token":"t"}"#, None),
            (r#"{"access_token":"t","expires_in":-1}"#, None),
            (r#"{"access_token":"t","expires_in":1e300}"#, None),
            (r#"{"access_token":"t","expires_in":"soon"}"#, None),
        ];
        for (body, until) in cases {
            assert_eq!(read(200, body), Ok(("t".into(), until)), "{body}");
        }
    }

    #[test]
    fn a_refusal_tells_its_name_and_nothing_that_could_be_secret() {
        let cases = [
            (
                401,
                r#"{"error":"invalid_client","error_description":"AADSTS7000215: s3cret"}"#,
                "the token service refuses: status 401, invalid_client",
            ),
            (
                403,
                r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"s3cret"}}"#,
                "the token service refuses: status 403, PERMISSION_DENIED",
            ),
            (400, r#"{"error":"a s3cret text"}"#, "the token service refuses: status 400"),
            (500, "s3cret", "the token service refuses: status 500"),
            (302, "", "the token service refuses: status 302"),
            (200, r#"{"access_token":""}"#, "the token service answered with an empty token"),
        ];
        for (status, body, told) in cases {
            assert_eq!(read(status, body), Err(told.into()), "{body}");
        }
        for body in ["", "s3cret", "[]", r#"{"token":"t"}"#, r#"{"access_token":7}"#] {
            let told = read(200, body).unwrap_err();
            assert!(told.starts_with("the token service did not answer with a token"), "{told}");
            assert!(!told.contains("s3cret"));
        }
    }

    #[test]
    fn a_token_that_no_header_carries_is_refused() {
        assert_eq!(bearer("a.b-c").unwrap(), "Bearer a.b-c");
        assert!(bearer("a\nb").is_err());
    }
}
