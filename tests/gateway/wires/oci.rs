//! Oracle's own API. The server checks the signature as the specification says it: by the headers
//! that the proof itself lists.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

use super::recording::Recording;
use crate::support::cloud::{Cloud, Seen, Step, chunk, chunked_head, status};

/// What Oracle requires of a request with a body.
const REQUIRED: [&str; 6] =
    ["date", "(request-target)", "host", "content-length", "content-type", "x-content-sha256"];

/// Oracle's tolerance for clocks.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// Why a request is not accepted at `now`.
pub(super) fn verify(seen: &Seen, now: SystemTime) -> Result<(), String> {
    let proof = seen.header("authorization").ok_or("no Authorization")?;
    let proof = proof.strip_prefix("Signature ").ok_or("another scheme")?;
    let fields: HashMap<&str, &str> = proof
        .split(',')
        .filter_map(|field| field.split_once('='))
        .map(|(key, value)| (key, value.trim_matches('"')))
        .collect();
    let field = |name: &str| fields.get(name).copied().ok_or(format!("no {name}"));
    if (field("version")?, field("algorithm")?) != ("1", "rsa-sha256") {
        return Err("another version or algorithm".into());
    }
    if field("keyId")?.split('/').count() != 3 {
        return Err("a key without tenancy, user and fingerprint".into());
    }
    let signed: Vec<&str> = field("headers")?.split(' ').collect();
    if let Some(missing) = REQUIRED.iter().find(|name| !signed.contains(name)) {
        return Err(format!("{missing} is not signed"));
    }
    let mut lines = Vec::new();
    for name in signed {
        let value = match name {
            "(request-target)" => {
                let mut words = seen.head.split(' ');
                let method = words.next().unwrap_or_default().to_lowercase();
                format!("{method} {}", words.next().unwrap_or_default())
            }
            name => seen.header(name).ok_or(format!("no {name}"))?.to_owned(),
        };
        lines.push(format!("{name}: {value}"));
    }
    let pem = include_bytes!("../../fixtures/wires/oci/pkcs8.pem");
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem).unwrap();
    let pair = KeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
    // Base64 is padded with the very sign that ends a field's name.
    let signature = proof.split("signature=\"").nth(1).and_then(|rest| rest.split('"').next());
    let signature = STANDARD.decode(signature.ok_or("no signature")?).map_err(|e| e.to_string())?;
    key.verify(lines.join("\n").as_bytes(), &signature).map_err(|_| "another signature")?;
    let sum = STANDARD.encode(digest(&SHA256, &seen.raw));
    if seen.header("x-content-sha256") != Some(&*sum) {
        return Err("another body".into());
    }
    let date = httpdate::parse_http_date(seen.header("date").unwrap_or_default());
    let date = date.map_err(|e| e.to_string())?;
    let apart = now.duration_since(date).unwrap_or_else(|behind| behind.duration());
    if apart > SKEW { Err("the date is out of range".into()) } else { Ok(()) }
}

fn recordings() -> Vec<Recording> {
    Recording::all("oci")
}

#[tokio::test]
async fn each_reads_and_writes_as_documented_and_signs() {
    for recording in recordings() {
        let check = |seen: &Seen| assert_eq!(verify(seen, SystemTime::now()), Ok(()));
        recording.reads_and_writes_as_documented(check).await;
    }
}

/// A box whose clock is an hour behind signs again by Oracle's, once.
#[tokio::test]
async fn a_clock_that_is_wrong_is_set_by_theirs() {
    let recording = &recordings()[0];
    let there = SystemTime::now() + Duration::from_secs(3600);
    let (bytes, asked) = (recording.streamed(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let cloud = Cloud::start(move |seen| {
        count.fetch_add(1, Ordering::SeqCst);
        let answer = match verify(seen, there) {
            Ok(()) => [chunked_head(), chunk(&bytes), chunk(b"")].concat(),
            Err(wrong) => {
                assert_eq!(wrong, "the date is out of range");
                let date = format!("date: {}", httpdate::fmt_http_date(there));
                let body = r#"{"code":"NotAuthenticated","message":"Date 'x' is not within allowed clock skew. Current 'y'"}"#;
                status(401, &["content-type: application/json", &date], body)
            }
        };
        vec![Step::Send(answer)]
    })
    .await;
    recording.is_answered_by(&cloud).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2, "refused, and signed anew");
}

/// The verifier itself: what is changed on the way is refused.
#[tokio::test]
async fn a_changed_request_is_not_accepted() {
    let recording = &recordings()[0];
    let bytes = recording.streamed();
    let steps = vec![Step::Send([chunked_head(), chunk(&bytes), chunk(b"")].concat())];
    let cloud = Cloud::always(steps).await;
    recording.is_answered_by(&cloud).await;
    let seen = cloud.seen().remove(0);
    let now = SystemTime::now();
    assert_eq!(verify(&seen, now), Ok(()));
    let changed = |change: &dyn Fn(&mut Seen)| {
        let mut seen = seen.clone();
        change(&mut seen);
        verify(&seen, now)
    };
    assert!(changed(&|seen| seen.raw.push(b' ')).is_err());
    for (from, to) in [
        ("/20231130/", "/20231131/"),
        ("POST ", "PUT "),
        ("host: 127.0.0.1", "host: 127.0.0.2"),
        ("content-type: application/json", "content-type: text/plain"),
        ("content-length: ", "content-length: 1"),
        ("date: ", "date: Mon, 01 Jan 2001 00:00:00 GMT\r\nx: "),
        ("(request-target) ", ""),
    ] {
        let change = |seen: &mut Seen| {
            let head = seen.head.replacen(from, to, 1);
            assert_ne!(head, seen.head, "{from} is in {head}");
            seen.head = head;
        };
        assert!(changed(&change).is_err(), "{from}");
    }
    assert!(verify(&seen, now + SKEW * 2).is_err());
}
