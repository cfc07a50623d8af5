//! Azure's documented bytes, both ways.

use serde_json::json;

use super::*;
use crate::cloud::tests::row as any_row;
use crate::cloud::wires::Wire;
use crate::cloud::wires::recorded::{body, errors, streamed, whole};
use crate::completion::{ChatMessage, CompletionRequest, FimInput, Input};
use crate::config::CloudFim;
use crate::config::services::Dialect;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/wires/azure/", $name))
    };
}

fn row(base_url: &str) -> CloudConfig {
    CloudConfig { model: "my-deployment".into(), fim: CloudFim::Chat, ..any_row(base_url) }
}

fn azure(api_version: Option<&str>, dialect: Dialect) -> Azure {
    let api_version = api_version.map(Into::into);
    Azure { api_version, dialect: Arc::new(dialect), auth: AzureAuth::Key }
}

fn cursor() -> CompletionRequest {
    let fim = FimInput { prefix: "return ".into(), suffix: "\n}".into(), ..FimInput::default() };
    CompletionRequest::greedy("req-1", Input::Fim(fim), 16)
}

fn reasoning() -> Dialect {
    Dialect {
        max_completion_tokens: true,
        reasoning_effort: Some("minimal".into()),
        sampling: false,
        penalties: false,
        logprobs: None,
        ..Dialect::OPENAI
    }
}

#[test]
fn both_paths_are_azures() {
    let v1 = row("https://res.openai.azure.com/openai/v1");
    let wire_v1 = wire(&v1, &azure(None, Dialect::OPENAI)).unwrap();
    let rendered = wire_v1.render(&cursor(), &v1).unwrap();
    assert_eq!(rendered.uri, "https://res.openai.azure.com/openai/v1/chat/completions");
    assert_eq!(body(&rendered)["model"], "my-deployment");
    let below = row("https://res.openai.azure.us/openai/deployments/my-deployment");
    let wire_below = wire(&below, &azure(Some("2024-10-21"), Dialect::OPENAI)).unwrap();
    let rendered = wire_below.render(&cursor(), &below).unwrap();
    assert_eq!(
        rendered.uri,
        "https://res.openai.azure.us/openai/deployments/my-deployment/chat/completions\
         ?api-version=2024-10-21"
    );
}

#[test]
fn a_model_that_reasons_gets_its_own_fields() {
    let row = row("https://res.openai.azure.com/openai/v1");
    let wire = wire(&row, &azure(None, reasoning())).unwrap();
    let message = ChatMessage { role: "user".into(), content: "hello".into() };
    let mut request = CompletionRequest::greedy("req-1", Input::Chat(vec![message]), 16);
    request.stop.strings = vec!["\n".into()];
    request.sampling.seed = Some(7);
    let rendered = wire.render(&request, &row).unwrap();
    assert_eq!(
        body(&rendered),
        json!({
            "model": "my-deployment", "messages": [{"role": "user", "content": "hello"}],
            "max_completion_tokens": 16, "reasoning_effort": "minimal", "seed": 7, "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
    assert!(!wire.abilities(&row).penalties);
}

#[test]
fn answers_are_read_however_they_are_split() {
    let row = row("https://res.openai.azure.com/openai/v1");
    let wire = wire(&row, &azure(None, Dialect::OPENAI)).unwrap();
    let cases = [
        (fixture!("chat.sse"), "a + b|stop|31+4(16)"),
        (fixture!("chat-filtered.sse"), "a +|contentfilter|31+4(16)"),
        (fixture!("chat-error.sse"), "a +|cloud_failed"),
        (fixture!("chat-throttled.sse"), "|cloud_throttled"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(streamed(&wire, &row, &cursor(), bytes.as_bytes()), expected);
    }
    let json = fixture!("chat.json").as_bytes();
    assert_eq!(whole(&wire, &row, &cursor(), json), "a + b|length|31+4(16)");
}

#[tokio::test]
async fn errors_mean_what_azure_says() {
    errors(&row("https://res.openai.azure.com/openai/v1"), fixture!("errors.json")).await;
}
