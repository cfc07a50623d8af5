//! Oracle's request signature: version 1 of the signing draft by Cavage, with RSA and SHA-256.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Uri;
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, HeaderName, HeaderValue,
};
use hyper::http::request::Parts;

use crate::cloud::auth::Auth;
use crate::completion::{Fault, Reason, Refusal};
use crate::config::services::OciKey;

const DIGEST: HeaderName = HeaderName::from_static("x-content-sha256");
/// What is signed, in this order; Oracle asks all of it of a request with a body.
const SIGNED: &str = "date (request-target) host content-length content-type x-content-sha256";

/// Signs for one host.
pub(in crate::cloud) struct Signer {
    key_id: Arc<str>,
    pair: Arc<KeyPair>,
    /// As it is sent, so that what is signed is what arrives.
    host: HeaderValue,
}

impl Signer {
    /// None: the address names no host.
    pub(in crate::cloud) fn new(key: &OciKey, base: &Uri) -> Option<Self> {
        let usual = if base.scheme_str() == Some("https") { 443 } else { 80 };
        let host = match base.port_u16().filter(|port| *port != usual) {
            Some(port) => format!("{}:{port}", base.host()?),
            None => base.host()?.to_owned(),
        };
        let host = HeaderValue::from_str(&host).ok()?;
        Some(Self { key_id: key.id.clone(), pair: key.pair.clone(), host })
    }

    fn signature(&self, text: &str) -> Option<String> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        self.pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).ok()?;
        Some(STANDARD.encode(signature))
    }
}

impl Auth for Signer {
    fn sign(&self, head: &mut Parts, body: &Bytes, now: SystemTime) -> Result<(), Refusal> {
        let refused =
            || Refusal::new(Reason::Cloud(Fault::Credentials), "the request cannot be signed");
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| refused());
        let date = httpdate::fmt_http_date(now);
        let sum = STANDARD.encode(digest(&SHA256, body));
        let text = {
            let of = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
            let method = head.method.as_str().to_ascii_lowercase();
            let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
            let host = self.host.to_str().map_err(|_| refused())?;
            let (length, kind) = (body.len(), of(CONTENT_TYPE).ok_or_else(refused)?);
            format!(
                "date: {date}\n(request-target): {method} {target}\nhost: {host}\n\
                 content-length: {length}\ncontent-type: {kind}\nx-content-sha256: {sum}"
            )
        };
        let signature = self.signature(&text).ok_or_else(refused)?;
        let proof = format!(
            "Signature version=\"1\",keyId=\"{}\",algorithm=\"rsa-sha256\",headers=\"{SIGNED}\",\
             signature=\"{signature}\"",
            self.key_id
        );
        let mut proof = value(&proof)?;
        proof.set_sensitive(true);
        head.headers.insert(DATE, value(&date)?);
        head.headers.insert(HOST, self.host.clone());
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        head.headers.insert(DIGEST, value(&sum)?);
        head.headers.insert(AUTHORIZATION, proof);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use hyper::Request;
    use serde_json::Value;

    use super::*;

    const PKCS1: &str = include_str!("../../../tests/fixtures/wires/oci/pkcs1.pem");
    const PKCS8: &str = include_str!("../../../tests/fixtures/wires/oci/pkcs8.pem");
    const ORACLE: &str = include_str!("../../../tests/fixtures/wires/oci/signatures.json");

    fn parameters(header: &str) -> BTreeMap<&str, &str> {
        let rest = header.strip_prefix("Signature ").unwrap();
        rest.split("\",").map(|part| part.split_once("=\"").unwrap()).map(trimmed).collect()
    }

    fn trimmed<'h>((key, value): (&'h str, &'h str)) -> (&'h str, &'h str) {
        (key, value.trim_end_matches('"'))
    }

    /// Requests that Oracle's own SDK signed: tests/oracles/oracle_cloud.py.
    #[test]
    fn signatures_are_those_of_the_sdk() {
        let oracle: Value = serde_json::from_str(ORACLE).unwrap();
        let cases = oracle["requests"].as_array().unwrap();
        assert!(cases.len() >= 500);
        for case in cases {
            let text = |key: &str| case[key].as_str().unwrap();
            let pem = if text("key") == "pkcs1" { PKCS1 } else { PKCS8 };
            let key = OciKey::from_pem(text("key_id"), pem.as_bytes()).unwrap();
            let uri: Uri = text("url").parse().unwrap();
            let signer = Signer::new(&key, &uri).unwrap();
            let (mut head, ()) = Request::post(uri)
                .header(CONTENT_TYPE, text("content_type"))
                .body(())
                .unwrap()
                .into_parts();
            let body = Bytes::from(text("body").to_owned());
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(case["time"].as_u64().unwrap());
            signer.sign(&mut head, &body, now).unwrap();
            let got = |name: HeaderName| head.headers[name].to_str().unwrap();
            assert_eq!(got(DATE), text("date"));
            assert_eq!(got(DIGEST), text("x_content_sha256"));
            assert_eq!(parameters(got(AUTHORIZATION)), parameters(text("authorization")));
        }
    }

    #[test]
    fn what_is_no_key_says_why() {
        use crate::config::services::KeyError;
        let read = |pem: &str| OciKey::from_pem("a/b/c", pem.as_bytes()).map(|key| key.id);
        let label = |label: &str| format!("{PKCS8}\n{label}\n");
        assert!(read(&label("OCI_API_KEY")).is_ok(), "Oracle's downloads end with a label");
        let encrypted = PKCS8.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert_eq!(read(&encrypted), Err(KeyError::Encrypted));
        let public = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        assert_eq!(read(public), Err(KeyError::Public));
        assert_eq!(read(""), Err(KeyError::Malformed));
        assert_eq!(read(&PKCS8.replacen("MII", "MIJ", 1)), Err(KeyError::Malformed));
        let key = OciKey::from_pem("a/b/c", PKCS1.as_bytes()).unwrap();
        assert_eq!(format!("{key:?}"), "OciKey { id: \"a/b/c\", .. }");
    }
}
