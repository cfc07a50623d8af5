//! What Ollama tells of its models, of the one there is.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::Extension;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::api::live::Live;
use crate::api::models::{self, FAMILY, FORMAT};
use crate::api::{ModelCard, Service};
use crate::ledger::timestamp;

/// The version of Ollama whose API this is; editors ask for at least 0.6.4.
const VERSION: &str = "0.12.0";
/// What probes look for.
const ALIVE: &str = "Ollama is running";
/// The model is not unloaded, which Ollama says by a time that nobody lives to see.
const NEVER: &str = "2318-01-01T00:00:00Z";

/// `GET /` and `HEAD /`: that there is an Ollama to talk to, and nothing else.
pub(in crate::api) async fn alive() -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], ALIVE).into_response()
}

pub(in crate::api) async fn version() -> Response {
    models::json(&json!({ "version": VERSION }))
}

pub(in crate::api) async fn tags<S: Service>(Extension(live): Extension<Arc<Live<S>>>) -> Response {
    let model = Model::new(live.service.model());
    models::json(&json!({ "models": [model] }))
}

/// What runs: the same model, with where and for how long.
pub(in crate::api) async fn ps<S: Service>(Extension(live): Extension<Arc<Live<S>>>) -> Response {
    let card = live.service.model();
    let running = Running {
        model: Model::new(card),
        expires_at: NEVER,
        size_vram: 0,
        context_length: card.context,
    };
    models::json(&json!({ "models": [running] }))
}

/// Of whichever model the body names: every name means the one there is, so none is read.
pub(in crate::api) async fn show<S: Service>(Extension(live): Extension<Arc<Live<S>>>) -> Response {
    let card = live.service.model();
    let mut capabilities = vec!["completion"];
    capabilities.extend(card.fim.then_some("insert"));
    let parameters = format!("{:<30} {}", "num_ctx", card.context);
    let mut info = serde_json::Map::new();
    info.insert("general.architecture".into(), FAMILY.into());
    info.insert("general.parameter_count".into(), card.parameters.into());
    info.insert(format!("{FAMILY}.context_length"), card.context.into());
    info.insert(format!("{FAMILY}.vocab_size"), card.vocabulary.into());
    models::json(&json!({
        "modelfile": format!("FROM {}\nPARAMETER {parameters}\n", card.id),
        "parameters": parameters,
        "template": template(card),
        "details": Details::new(card),
        "model_info": info,
        "capabilities": capabilities,
        "modified_at": started(card),
    }))
}

/// What clients look into it for. The model's own words are put in by weir, not by a template.
fn template(card: &ModelCard) -> &'static str {
    match (card.fim, card.chat) {
        (false, false) => "{{ .Prompt }}",
        (true, false) => {
            "{{ if .Suffix }}{{ .Prompt }}{{ .Suffix }}{{ else }}{{ .Prompt }}{{ end }}"
        }
        (false, true) => "{{ range .Messages }}{{ .Role }}{{ .Content }}{{ end }}",
        (true, true) => {
            "{{ if .Suffix }}{{ .Prompt }}{{ .Suffix }}{{ else }}\
             {{ range .Messages }}{{ .Role }}{{ .Content }}{{ end }}{{ end }}"
        }
    }
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    model: &'a str,
    modified_at: String,
    /// Of its weights in memory.
    size: u64,
    digest: String,
    details: Details<'a>,
}

#[derive(Serialize)]
struct Running<'a> {
    #[serde(flatten)]
    model: Model<'a>,
    expires_at: &'static str,
    size_vram: u64,
    context_length: u32,
}

#[derive(Serialize)]
struct Details<'a> {
    parent_model: &'static str,
    format: &'static str,
    family: &'static str,
    families: [&'static str; 1],
    parameter_size: String,
    quantization_level: &'a str,
}

impl<'a> Model<'a> {
    fn new(card: &'a ModelCard) -> Self {
        Self {
            name: &card.id,
            model: &card.id,
            modified_at: started(card),
            size: card.bytes,
            digest: fingerprint(card),
            details: Details::new(card),
        }
    }
}

impl<'a> Details<'a> {
    fn new(card: &'a ModelCard) -> Self {
        Self {
            parent_model: "",
            format: FORMAT,
            family: FAMILY,
            families: [FAMILY],
            parameter_size: count(card.parameters),
            quantization_level: &card.weights,
        }
    }
}

/// Tells models apart as far as what is told of them does: nobody reads weights to answer this.
fn fingerprint(card: &ModelCard) -> String {
    let told = format!("{}\n{}\n{}\n{}", card.id, card.parameters, card.bytes, card.weights);
    let digest = digest(&SHA256, told.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn started(card: &ModelCard) -> String {
    timestamp(i64::try_from(card.created.saturating_mul(1000)).unwrap_or(i64::MAX))
}

/// Parameters as people say them: `494.0M`, `7.6B`.
fn count(parameters: u64) -> String {
    let number = parameters as f64;
    match parameters {
        1_000_000_000.. => format!("{:.1}B", number / 1e9),
        1_000_000.. => format!("{:.1}M", number / 1e6),
        1_000.. => format!("{:.1}K", number / 1e3),
        _ => parameters.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_said_as_people_say_them() {
        let said = [0, 999, 1_500, 6_543_210, 494_032_768, 7_615_616_512].map(count);
        assert_eq!(said, ["0", "999", "1.5K", "6.5M", "494.0M", "7.6B"]);
    }
}
