use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Request;
use serde::Deserialize;

use super::*;
use crate::cloud::aws::under;
use crate::config::Secret;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wires/aws/", $name))
    };
}

/// One request that botocore signed, see tests/oracles/aws.py.
#[derive(Deserialize)]
struct Case {
    service: String,
    region: String,
    authority: String,
    segments: Vec<String>,
    headers: BTreeMap<String, String>,
    body: String,
    key: String,
    secret: String,
    token: Option<String>,
    unix: u64,
    signed: String,
}

fn request(method: &str, uri: &str, headers: &BTreeMap<String, String>) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(()).unwrap().into_parts().0
}

fn sign(case: &Case, head: &mut Parts, unix: u64) -> String {
    let services = ["bedrock", "bedrock-mantle", "sagemaker"];
    let service = services.into_iter().find(|known| *known == case.service).unwrap();
    let scope = Scope { region: case.region.as_str().into(), service };
    let keys = AwsKeys {
        id: case.key.as_str().into(),
        secret: Secret::new(&case.secret),
        token: case.token.as_deref().map(Secret::new),
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(unix);
    scope.sign(head, case.body.as_bytes(), &keys, now).unwrap();
    head.headers["authorization"].to_str().unwrap().to_owned()
}

fn uri(case: &Case) -> String {
    let base = format!("https://{}", case.authority).parse().unwrap();
    let segments: Vec<&str> = case.segments.iter().map(String::as_str).collect();
    under(&base, &segments).unwrap().to_string()
}

#[test]
fn two_thousand_requests_are_signed_as_botocore_signs_them() {
    let cases: Vec<Case> = serde_json::from_str(fixture!("sigv4.json")).unwrap();
    assert_eq!(cases.len(), 2000);
    for case in &cases {
        let mut head = request("POST", &uri(case), &case.headers);
        head.headers.insert("user-agent", HeaderValue::from_static("not signed"));
        head.headers.insert("accept", HeaderValue::from_static("not signed"));
        let authorization = sign(case, &mut head, case.unix);
        let (_, signed) = authorization.split_once("SignedHeaders=").unwrap();
        assert_eq!(signed, case.signed, "{} {:?}", case.authority, case.segments);
        assert!(head.headers["authorization"].is_sensitive());
        let token = head.headers.get("x-amz-security-token");
        assert_eq!(token.map(|value| value.to_str().unwrap()), case.token.as_deref());
    }
}

#[test]
fn a_second_signature_is_as_if_there_had_been_none() {
    let cases: Vec<Case> = serde_json::from_str(fixture!("sigv4.json")).unwrap();
    for case in cases.iter().take(50) {
        let mut once = request("POST", &uri(case), &case.headers);
        let mut twice = once.clone();
        sign(case, &mut twice, case.unix - 1000);
        let expected = sign(case, &mut once, case.unix);
        assert_eq!(sign(case, &mut twice, case.unix), expected);
    }
}

/// AWS's published vectors.
#[derive(Deserialize)]
struct Vector {
    context: Context,
    request: String,
    signature: String,
}

#[derive(Deserialize)]
struct Context {
    credentials: Keyed,
    normalize: bool,
    sign_body: bool,
    #[serde(default)]
    omit_session_token: bool,
}

#[derive(Deserialize)]
struct Keyed {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
}

/// What of the suite is about requests that weir could send: one value a header, a URI that is one,
/// and no header signed but its own.
fn parsed(vector: &Vector) -> Option<(Parts, String)> {
    let (head, body) = vector.request.split_once("\n\n").unwrap_or((&vector.request, ""));
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?, first.next()?);
    let mut headers = BTreeMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let name = name.to_ascii_lowercase();
        let known = ["host", "content-type"].contains(&name.as_str()) || name.starts_with("x-amz");
        if !known || headers.insert(name, value.to_owned()).is_some() {
            return None;
        }
    }
    let uri: hyper::Uri = format!("https://{}{target}", headers.remove("host")?).parse().ok()?;
    let context = &vector.context;
    // The suite encodes a path once; twice, as these services ask, is what botocore's requests show.
    let once = uri.path().contains('%');
    let fits = !once && context.normalize && !context.sign_body && !context.omit_session_token;
    fits.then(|| (request(method, &uri.to_string(), &headers), body.to_owned()))
}

#[test]
fn the_published_vectors_hold() {
    let vectors: BTreeMap<String, Vector> =
        serde_json::from_str(fixture!("sigv4-vectors.json")).unwrap();
    let now = httpdate::parse_http_date("Sun, 30 Aug 2015 12:36:00 GMT").unwrap();
    let mut held = Vec::new();
    for (name, vector) in &vectors {
        let Some((mut head, body)) = parsed(vector) else { continue };
        let given = &vector.context.credentials;
        let keys = AwsKeys {
            id: given.access_key_id.as_str().into(),
            secret: Secret::new(&given.secret_access_key),
            token: given.token.as_deref().map(Secret::new),
        };
        let scope = Scope { region: "us-east-1".into(), service: "service" };
        scope.sign(&mut head, body.as_bytes(), &keys, now).unwrap();
        let authorization = head.headers["authorization"].to_str().unwrap();
        let signature = authorization.rsplit("Signature=").next().unwrap();
        assert_eq!(signature, vector.signature, "{name}");
        held.push(name.as_str());
    }
    for name in ["get-vanilla", "get-vanilla-with-session-token", "post-vanilla", "get-unreserved"]
    {
        assert!(held.contains(&name), "{name} of {held:?}");
    }
    assert!(held.len() >= 16, "{held:?}");
}
