//! Azure: keys, and tokens that it has itself issued.

use std::sync::Arc;

use serde_json::json;
use weir::config::services::{Azure, AzureAuth, Dialect, Entra, EntraIdentity};
use weir::config::{CloudService, Secret};

use super::leaving::{
    answer, ask, clouds, complete, cursor, field, json_answer, leaving, refused, row, sse, text,
};
use crate::support::cloud::{Cloud, Seen, Step};

const CHAT: &str = include_str!("../../fixtures/wires/azure/chat.sse");
const WHOLE: &str = include_str!("../../fixtures/wires/azure/chat.json");
const FILTERED: &str = include_str!("../../fixtures/wires/azure/chat-filtered.sse");
const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const CLIENT: &str = "66666666-7777-8888-9999-000000000000";
const ISSUED: &str = "issued-by-the-test";
const SECRET: &str = "s3cr~t+of/the=test&more";

/// Azure's side of a chat, for whoever shows this header.
fn chat(seen: &Seen, header: &str, proof: &str, reply: &[Step]) -> Vec<Step> {
    let asked = seen.body["messages"].as_array().is_some_and(|messages| messages.len() == 2);
    match seen.header(header) {
        Some(shown) if shown == proof && asked => reply.to_vec(),
        _ => refused(401),
    }
}

fn granted() -> Vec<Step> {
    json_answer(&json!({"token_type": "Bearer", "expires_in": 3599, "access_token": ISSUED}))
}

fn key_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(&file, text).expect("written");
    file
}

#[test]
fn a_key_opens_both_paths_streamed_and_whole() {
    let clouds = clouds();
    let cloud = clouds.block_on(Cloud::start(|seen| {
        let below = "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21";
        match seen.path() {
            "/openai/v1/chat/completions" => chat(seen, "api-key", "k-1", &sse(CHAT)),
            path if path == below => {
                chat(seen, "api-key", "k-1", &answer("application/json", WHOLE))
            }
            _ => refused(404),
        }
    }));
    let key = key_file("k-1\n");
    let row = |path: &str, more: &str| {
        format!(
            "provider = \"azure\"\nmodel = \"my-deployment\"\napi_key_file = {:?}\n\
             base_url = \"http://{}/openai/{path}\"\n{more}",
            key.path().display().to_string(),
            cloud.address
        )
    };
    let weir = leaving(&row("v1", ""));
    assert_eq!(text(&ask(&weir, &cursor(true))), "a + b");
    assert_eq!(text(&ask(&weir, &cursor(false))), "a + b");
    let more = "stream = false\nazure.api_version = \"2024-10-21\"";
    let weir = leaving(&row("deployments/my-deployment", more));
    assert_eq!(text(&ask(&weir, &cursor(true))), "a + b");
    let seen = cloud.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()));
    assert_eq!(seen[0].body["model"], "my-deployment");
}

#[test]
fn a_client_secret_is_exchanged_for_a_token() {
    let clouds = clouds();
    let cloud = clouds.block_on(Cloud::start(|seen| {
        let form = |name| field(seen.text(), name);
        match seen.path() {
            "/openai/v1/chat/completions" => {
                chat(seen, "authorization", &format!("Bearer {ISSUED}"), &sse(FILTERED))
            }
            path if path == format!("/{TENANT}/oauth2/v2.0/token") => {
                let known = form("grant_type") == "client_credentials"
                    && form("client_id") == CLIENT
                    && form("client_secret") == SECRET
                    && form("scope") == "https://cognitiveservices.azure.us/.default";
                if known { granted() } else { refused(401) }
            }
            _ => refused(404),
        }
    }));
    let secret = key_file(SECRET);
    let weir = leaving(&format!(
        "provider = \"azure\"\nmodel = \"my-deployment\"\n\
         base_url = \"http://{0}/openai/v1\"\n\
         azure.auth = \"client-secret\"\nazure.partition = \"azure-us-gov\"\n\
         azure.authority = \"http://{0}\"\nazure.tenant_id = \"{TENANT}\"\n\
         azure.client_id = \"{CLIENT}\"\nazure.client_secret_file = {1:?}",
        cloud.address,
        secret.path().display().to_string(),
    ));
    let reply = ask(&weir, &cursor(false));
    assert_eq!(text(&reply), "a +");
    assert_eq!(reply.json()["choices"][0]["finish_reason"], "content_filter");
    assert_eq!(text(&ask(&weir, &cursor(true))), "a +");
    let tokens = cloud.seen().iter().filter(|seen| seen.path().ends_with("/token")).count();
    assert_eq!(tokens, 1, "one token serves them all");
}

#[test]
fn machines_and_pods_show_what_they_are_given() {
    let clouds = clouds();
    let cloud = clouds.block_on(Cloud::start(|seen| {
        let has = |part: &str| seen.path().contains(part);
        let resource = has("resource=https%3A%2F%2Fcognitiveservices.azure.com");
        let known = match seen.path().split('?').next().unwrap_or_default() {
            "/openai/v1/chat/completions" => {
                return chat(seen, "authorization", &format!("Bearer {ISSUED}"), &sse(CHAT));
            }
            "/metadata/identity/oauth2/token" => {
                has("api-version=2018-02-01") && seen.header("metadata") == Some("true")
            }
            "/msi/token" => {
                has("api-version=2019-08-01")
                    && has("client_id=66666666-")
                    && seen.header("x-identity-header") == Some("h-1")
            }
            "/t/oauth2/v2.0/token" => {
                let assertion = field(seen.text(), "client_assertion");
                return if assertion == "from.kubernetes.x" { granted() } else { refused(401) };
            }
            _ => false,
        };
        if known && resource { granted() } else { refused(400) }
    }));
    let token_file = key_file("from.kubernetes.x\n");
    let at = |path: &str| format!("http://{}{path}", cloud.address).parse().expect("a URL");
    let managed =
        |path: &str, header: Option<&str>, client_id: Option<&str>| EntraIdentity::Managed {
            endpoint: at(path),
            header: header.map(Secret::new),
            client_id: client_id.map(Into::into),
        };
    let identities = [
        managed("/metadata/identity/oauth2/token", None, None),
        managed("/msi/token", Some("h-1"), Some(CLIENT)),
        EntraIdentity::Workload {
            tokens: at("/t/oauth2/v2.0/token"),
            client_id: CLIENT.into(),
            token_file: token_file.path().to_owned(),
        },
    ];
    let url = format!("base_url = \"http://{}/openai/v1\"", cloud.address);
    let mut row = row(&format!("model = \"m\"\nfim = \"chat\"\n{url}"));
    for identity in identities {
        let entra = Entra { resource: "https://cognitiveservices.azure.com".into(), identity };
        row.service = CloudService::Azure(Arc::new(Azure {
            api_version: None,
            dialect: Arc::new(Dialect::OPENAI),
            auth: AzureAuth::Entra(entra),
        }));
        assert_eq!(clouds.block_on(complete(&row)), "a + b");
    }
    assert_eq!(cloud.seen().len(), 6, "a token and a completion each");
}
