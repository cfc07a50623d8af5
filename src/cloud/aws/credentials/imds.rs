//! The metadata service of EC2, version 2: a token first, then the role's name, then its keys.
//! Version 1 is not asked: it hands keys to whoever makes a program send one GET.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Uri};

use super::{document, good};
use crate::cloud::auth::fetch::Fetch;
use crate::cloud::auth::renewed::{CredentialError, Fetched};
use crate::config::services::aws::AwsKeys;

const WHOSE: &str = "the metadata service";
/// Seconds that the token is good for: it serves this one fetch.
const TOKEN_TTL_S: &str = "60";
/// Longest name of a role, and what its letters are beside those of any word.
const ROLE_MAX: usize = 64;
const ROLE_SIGNS: &[u8] = b"+=,.@_-";

pub(super) async fn ask(
    endpoint: &Uri,
    fetch: &impl Fetch,
) -> Result<Fetched<AwsKeys>, CredentialError> {
    const KEYS: &str = "/latest/meta-data/iam/security-credentials/";
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL_S);
    let asked = request(endpoint, Method::PUT, "/latest/api/token", ttl)?;
    let token = text(good(WHOSE, fetch.call(asked).await?)?.body())?;
    let shown = ("x-aws-ec2-metadata-token", token.as_str());
    let asked = request(endpoint, Method::GET, KEYS, shown)?;
    let roles = text(good(WHOSE, fetch.call(asked).await?)?.body())?;
    let role = roles.lines().next().unwrap_or_default().trim();
    let letter = |b: u8| b.is_ascii_alphanumeric() || ROLE_SIGNS.contains(&b);
    if role.is_empty() || role.len() > ROLE_MAX || !role.bytes().all(letter) {
        return Err(CredentialError("the machine has no role".into()));
    }
    let asked = request(endpoint, Method::GET, &format!("{KEYS}{role}"), shown)?;
    document(&good(WHOSE, fetch.call(asked).await?)?)
}

fn request(
    endpoint: &Uri,
    method: Method,
    path: &str,
    (name, value): (&str, &str),
) -> Result<Request<Full<Bytes>>, CredentialError> {
    let uri = format!("{}{path}", endpoint.to_string().trim_end_matches('/'));
    let request = Request::builder().method(method).uri(uri).header(name, value);
    request
        .body(Full::default())
        .map_err(|_| CredentialError("the metadata service's token is none".into()))
}

fn text(body: &Bytes) -> Result<String, CredentialError> {
    let text = std::str::from_utf8(body).map(str::trim);
    Ok(text.map_err(|_| CredentialError("the metadata service's answer is no text".into()))?.into())
}
