//! Vertex: proofs that it verifies, and tokens that it has itself issued.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use weir::config::CloudService;
use weir::config::services::{GoogleCredentials, Vertex, VertexApi};

use super::leaving::{
    ask, clouds, complete, cursor, field, json_answer, leaving, refused, row, sse, text,
};
use crate::support::cloud::{Cloud, Seen, Step, status};

const KEY: &str = include_str!("../../fixtures/wires/google/service-account.json");
const PUBLIC_KEY: &str = include_str!("../../fixtures/wires/google/public-key.pem");
const GENERATED: &str = include_str!("../../fixtures/wires/google/generate.sse");
const CODESTRAL: &str = include_str!("../../fixtures/wires/google/raw-predict.sse");
const EMAIL: &str = "weir@project-of-the-test.iam.gserviceaccount.com";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const STREAM: &str = "/v1/projects/p/locations/us-central1/publishers/google/models/\
    gemini-2.5-flash:streamGenerateContent?alt=sse";

/// The claims of a token that the test's service account signed, by RFC 7515 and RFC 7519 and not
/// by the signer's code; None: it did not, or not now.
fn verified(token: &str) -> Option<Value> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { return None };
    let decoded = |part| URL_SAFE_NO_PAD.decode(part).ok();
    let read = |part| serde_json::from_slice::<Value>(&decoded(part)?).ok();
    let header =
        read(header).filter(|header| header["alg"] == "RS256" && header["typ"] == "JWT")?;
    header["kid"].as_str().filter(|id| KEY.contains(id))?;
    let base64: String = PUBLIC_KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, STANDARD.decode(base64).ok()?);
    let signed = token.rsplit_once('.')?.0;
    key.verify(signed.as_bytes(), &decoded(signature)?).ok()?;
    let claims = read(claims)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    let (issued, ends) = (claims["iat"].as_u64()?, claims["exp"].as_u64()?);
    let current = issued <= now && now < ends && ends - issued <= 3600;
    (current && claims["iss"] == EMAIL).then_some(claims)
}

fn token_of(seen: &Seen) -> &str {
    seen.header("authorization").and_then(|shown| shown.strip_prefix("Bearer ")).unwrap_or_default()
}

/// Vertex's side: a stream for whoever shows this token.
fn generated(seen: &Seen, token: &str) -> Vec<Step> {
    let asked = seen.body["contents"][0]["parts"][0]["text"].is_string();
    if token_of(seen) == token && asked { sse(GENERATED) } else { refused(401) }
}

fn granted(token: &str) -> Vec<Step> {
    json_answer(&json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}))
}

/// A file of credentials, private as the key in it.
fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(&file, text).expect("written");
    file
}

fn vertex(cloud: &Cloud, publisher: &str, more: &str) -> String {
    let at = format!("http://{}/v1/projects/p/locations/us-central1", cloud.address);
    format!("provider = \"vertex\"\nbase_url = \"{at}/publishers/{publisher}\"\n{more}")
}

fn gemini(cloud: &Cloud, file: &tempfile::NamedTempFile) -> String {
    let path = file.path().display().to_string();
    let more = format!("model = \"gemini-2.5-flash\"\nvertex.credentials_file = {path:?}\n");
    vertex(cloud, "google", &more)
}

#[test]
fn a_service_account_shows_its_own_proof() {
    let clouds = clouds();
    let cloud = clouds.block_on(Cloud::start(|seen| {
        let claims = verified(token_of(seen)).unwrap_or_default();
        let known = claims["sub"] == EMAIL && claims["aud"] == "https://aiplatform.googleapis.com/";
        let thinks = &seen.body["generationConfig"]["thinkingConfig"]["thinkingBudget"];
        match (seen.path() == STREAM, known) {
            (true, true) if *thinks == 0 => sse(GENERATED),
            (true, true) => refused(400),
            (true, false) => refused(401),
            (false, _) => refused(404),
        }
    }));
    let key = file(KEY);
    let weir = leaving(&format!("{}vertex.thinking_budget = 0", gemini(&cloud, &key)));
    let streamed = ask(&weir, &cursor(true));
    assert_eq!(text(&streamed), "a + b — ë;\n");
    let whole = ask(&weir, &cursor(false));
    assert_eq!(text(&whole), "a + b — ë;\n");
    let usage = &whole.json()["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(31), &json!(26)));
    let seen = cloud.seen();
    assert_eq!(seen.len(), 2, "no token service was asked");
    let token = token_of(&seen[0]);
    assert!(verified(token).is_some());
    let forged = token.replacen('.', "A.", 1);
    assert!(verified(&forged).is_none(), "the verifier can fail");
}

#[test]
fn a_proof_is_exchanged_where_that_was_said() {
    let clouds = clouds();
    let cloud = clouds.block_on(Cloud::start(|seen| {
        if seen.path() != "/token" {
            return generated(seen, "exchanged-by-the-test");
        }
        let claims = verified(&field(seen.text(), "assertion")).unwrap_or_default();
        let known =
            claims["scope"] == SCOPE && claims["aud"] == "https://oauth2.googleapis.com/token";
        let grant = field(seen.text(), "grant_type");
        match known && grant == "urn:ietf:params:oauth:grant-type:jwt-bearer" {
            true => granted("exchanged-by-the-test"),
            false => refused(400),
        }
    }));
    let here = format!("http://{}/token", cloud.address);
    let key = file(&KEY.replace("https://oauth2.googleapis.com/token", &here));
    let weir = leaving(&format!("{}vertex.token_exchange = true", gemini(&cloud, &key)));
    assert_eq!(text(&ask(&weir, &cursor(true))), "a + b — ë;\n");
    assert_eq!(cloud.seen().len(), 2);
}

#[test]
fn another_providers_token_becomes_a_service_account() {
    let clouds = clouds();
    let cloud = clouds.block_on(Cloud::start(|seen| match seen.path() {
        "/subject" if seen.header("x-of-the-test") == Some("y") => {
            json_answer(&json!({"id_token": "from.the.other"}))
        }
        "/v1/token" if field(seen.text(), "subject_token") == "from.the.other" => {
            assert_eq!(field(seen.text(), "audience"), "//iam.googleapis.com/pool");
            granted("federated-by-the-test")
        }
        "/impersonate" if token_of(seen) == "federated-by-the-test" => {
            assert_eq!(seen.body["scope"], json!([SCOPE]));
            let token = "impersonated-by-the-test";
            json_answer(&json!({"accessToken": token, "expireTime": "2126-11-21T13:00:00Z"}))
        }
        path if path == STREAM => generated(seen, "impersonated-by-the-test"),
        _ => refused(403),
    }));
    let at = |path: &str| format!("http://{}{path}", cloud.address);
    let account = file(
        &json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/pool",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": at("/v1/token"),
            "service_account_impersonation_url": at("/impersonate"),
            "credential_source": {
                "url": at("/subject"),
                "headers": {"X-Of-The-Test": "y"},
                "format": {"type": "json", "subject_token_field_name": "id_token"},
            },
        })
        .to_string(),
    );
    let weir = leaving(&gemini(&cloud, &account));
    assert_eq!(text(&ask(&weir, &cursor(true))), "a + b — ë;\n");
    assert_eq!(cloud.seen().len(), 4);
}

#[test]
fn a_machine_asks_its_metadata_server_and_codestral_fills_in() {
    let clouds = clouds();
    let cloud = clouds.block_on(Cloud::start(|seen| {
        let raw = "/v1/projects/p/locations/us-central1/publishers/mistralai/models/\
                   codestral-2501:streamRawPredict";
        match seen.path().split('?').next().unwrap_or_default() {
            "/computeMetadata/v1/instance/service-accounts/default/token"
                if seen.header("metadata-flavor") == Some("Google") =>
            {
                let body =
                    json!({"access_token": "of-the-machine", "expires_in": 3599}).to_string();
                vec![Step::Send(status(200, &["metadata-flavor: Google"], &body))]
            }
            path if path == raw && token_of(seen) == "of-the-machine" => {
                let true_fim = seen.body["prompt"] == "return " && seen.body["suffix"] == ";\n}";
                if true_fim { sse(CODESTRAL) } else { refused(400) }
            }
            _ => refused(401),
        }
    }));
    let more = "model = \"codestral-2501\"\nvertex.api = \"raw-predict\"";
    let mut row = row(&vertex(&cloud, "mistralai", more));
    let server = format!("http://{}", cloud.address).parse().expect("a URL");
    row.service = CloudService::Vertex(Arc::new(Vertex {
        api: VertexApi::RawPredict,
        thinking: None,
        credentials: GoogleCredentials::Metadata { server },
    }));
    assert_eq!(clouds.block_on(complete(&row)), "a + b");
    assert_eq!(cloud.seen().len(), 2);
}
