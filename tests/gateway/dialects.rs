//! Clients as they ask, each in its own dialect: bodies and headers as their published sources
//! build them, and of the replies what those sources read.
//!
//! Requests that are files were written by tests/fixtures/clients/build.py, which names their source.

mod connections;
mod continue_openai;
mod copilot;
mod llama_cpp;
mod lmstudio;
mod minuet;
mod mistral;
mod names;
mod ollama;
mod raw;
mod tabby;
mod tgi;

use std::path::Path;

use serde_json::Value;

use crate::support::http::{Reply, send};
use crate::support::server::Server;

/// Sends what a client sends.
async fn play(server: &Server, client: &str, name: &str) -> Reply {
    let request = recorded(client, name);
    let word = |key: &str| request[key].as_str().expect("a string");
    let headers: Vec<(&str, &str)> = request["headers"]
        .as_object()
        .expect("an object")
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().expect("a string")))
        .collect();
    let body = match &request["body"] {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    send(server.address, word("method"), word("path"), &headers, body.as_bytes()).await
}

/// One request of a client's file.
fn recorded(client: &str, name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clients");
    let path = folder.join(format!("{client}.json"));
    let text = std::fs::read_to_string(&path).expect("a file of this client's");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let requests = file["requests"].as_array().expect("a list");
    let found = requests.iter().find(|request| request["name"] == name);
    found.unwrap_or_else(|| panic!("{client} has no {name}")).clone()
}

/// The parts of a stream that is a JSON object on each line, none of them blank.
fn lines(reply: &Reply) -> Vec<Value> {
    let text = reply.text();
    assert!(text.ends_with('\n') && !text.contains("\n\n"), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

/// `TEXT` of a refusal that is `{"error":TEXT}` and more at most.
fn error_text(reply: &Reply) -> String {
    reply.json()["error"].as_str().unwrap_or_else(|| panic!("{:?}", reply.text())).to_owned()
}
