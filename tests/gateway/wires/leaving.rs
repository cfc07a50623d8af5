//! What leaves a weir whose every request leaves: an editor's request, weir, and a cloud on loopback
//! that speaks the wire and believes nobody whose proof it has not checked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use weir::cloud::providers;
use weir::completion::{Backend, CompletionRequest, Event, FimInput, Input};
use weir::config::{CloudConfig, Config, Overrides};

use crate::support::cloud::{Step, status};
use crate::support::http::{Reply, post};
use crate::support::weir::{Weir, clients};

/// Credentials are fetched behind the start; nothing here takes longer.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(20);

/// Where clouds run: a thread of their own, while the test's asks.
pub(super) fn clouds() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread")
}

/// A weir whose every request leaves for this row.
pub(super) fn leaving(row: &str) -> Weir {
    Weir::start(&format!(
        "overflow.anonymous_cloud = true\n[[path]]\npattern = \"only\"\npolicy = \"cloud-only\"\n\
         [[cloud]]\nname = \"far\"\nmax_tokens = 64\n{row}\n"
    ))
}

/// What an editor asks: `return |;`.
pub(super) fn cursor(stream: bool) -> Value {
    json!({"prompt": "return ", "suffix": ";\n}", "path": "only/a.rs", "max_tokens": 16, "code_stops": false,
        "stream": stream})
}

/// Asks until weir has credentials; then the answer is the cloud's.
pub(super) fn ask(weir: &Weir, body: &Value) -> Reply {
    let until = Instant::now() + CREDENTIALS_WAIT;
    clients().block_on(async {
        loop {
            let reply = post(weir.address, "/v1/completions", body).await;
            if reply.status != 503 || Instant::now() > until {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

/// The text of choice 0, whichever way it came.
pub(super) fn text(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-weir-route"), Some("cloud:far"));
    let said = |body: &Value| body["choices"][0]["text"].as_str().unwrap_or_default().to_owned();
    if reply.header("content-type") == Some("application/json") {
        return said(&reply.json());
    }
    let events = reply.events();
    let bodies = events.iter().filter_map(|data| serde_json::from_str::<Value>(data).ok());
    bodies.map(|body| said(&body)).collect()
}

/// The row that a file describes, before anything is started.
pub(super) fn row(toml: &str) -> CloudConfig {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(&file, format!("[[cloud]]\nname = \"far\"\n{toml}\n")).expect("written");
    let loaded = Config::load(Some(file.path()), Overrides::default());
    let (config, _) = loaded.unwrap_or_else(|said| panic!("{said:?}\n{toml}"));
    config.clouds.into_iter().next().expect("one row")
}

/// What a row completes a cursor to, once it has credentials.
pub(super) async fn complete(row: &CloudConfig) -> String {
    use futures_util::StreamExt;
    let provider = providers(std::slice::from_ref(row)).expect("a provider").remove(0);
    let fim = FimInput { prefix: "return ".into(), suffix: ";\n}".into(), ..FimInput::default() };
    let request = std::sync::Arc::new(CompletionRequest::greedy("req-1", Input::Fim(fim), 16));
    let until = Instant::now() + CREDENTIALS_WAIT;
    let mut stream = loop {
        match provider.complete(request.clone()).await {
            Ok(stream) => break stream,
            Err(refusal) if Instant::now() > until => panic!("{refusal:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let mut said = String::new();
    while let Some(event) = stream.events.next().await {
        match event {
            Event::Chunk(chunk) => said += chunk.as_str(),
            Event::Failed(refusal) => panic!("{refusal:?}"),
            _ => {}
        }
    }
    said
}

/// A whole answer with a content type.
pub(super) fn answer(kind: &str, body: &str) -> Vec<Step> {
    vec![Step::Send(status(200, &[&format!("content-type: {kind}")], body))]
}

pub(super) fn sse(body: &str) -> Vec<Step> {
    answer("text/event-stream", body)
}

pub(super) fn json_answer(body: &Value) -> Vec<Step> {
    answer("application/json", &body.to_string())
}

pub(super) fn refused(code: u16) -> Vec<Step> {
    let body = json!({"error": {"code": code.to_string(), "message": "who are you?"}});
    vec![Step::Send(status(code, &["content-type: application/json"], &body.to_string()))]
}

/// The field of a form, by the form's definition.
pub(super) fn field(form: &str, name: &str) -> String {
    let pair = form.split('&').filter_map(|pair| pair.split_once('='));
    let value = pair.filter(|(key, _)| *key == name).map(|(_, value)| value).next();
    let mut bytes = Vec::new();
    let mut rest = value.unwrap_or_default().as_bytes();
    while let Some((first, more)) = rest.split_first() {
        (rest, bytes) = match first {
            b'%' => {
                let digits = std::str::from_utf8(&more[..2]).expect("digits");
                bytes.push(u8::from_str_radix(digits, 16).expect("digits"));
                (&more[2..], bytes)
            }
            b'+' => (more, [&bytes[..], b" "].concat()),
            other => (more, [&bytes[..], &[*other]].concat()),
        };
    }
    String::from_utf8(bytes).expect("UTF-8")
}
