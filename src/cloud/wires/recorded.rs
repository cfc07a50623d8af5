//! Recorded bytes of a provider, for the tests of its wire: what a request is rendered to, what an
//! answer comes to however its bytes were split, what an error means.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use serde::Deserialize;
use serde_json::Value;

use super::{Rendered, Wire};
use crate::cloud::fault;
use crate::cloud::reply::{Progress, Reply};
use crate::completion::{CompletionRequest, Event, Refusal};
use crate::config::CloudConfig;

/// The body of a request as JSON.
pub(in crate::cloud) fn body(rendered: &Rendered) -> Value {
    serde_json::from_slice(&rendered.body).expect("JSON")
}

/// What an answer comes to in one line, as in `a + b|stop|31+4(16)` or `a +|cloud_failed`; the same
/// whatever way its bytes are split.
pub(in crate::cloud) fn streamed(
    wire: &dyn Wire,
    row: &CloudConfig,
    request: &CompletionRequest,
    bytes: &[u8],
) -> String {
    let told = |parts: &[&[u8]]| {
        let rendered = wire.render(request, row).expect("it can be rendered");
        read(rendered, request, parts)
    };
    let whole = told(&[bytes]);
    for at in 0..bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(told(&[first, second]), whole, "split at {at}");
    }
    let each: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(told(&each), whole, "byte by byte");
    whole
}

/// The same for an answer that is no stream.
pub(in crate::cloud) fn whole(
    wire: &dyn Wire,
    row: &CloudConfig,
    request: &CompletionRequest,
    bytes: &[u8],
) -> String {
    let rendered = wire.render(request, row).expect("it can be rendered");
    let Rendered { reader, stops, emulated, .. } = rendered;
    let mut reply = Reply::new(request, reader, &stops, emulated.as_ref());
    let mut events = VecDeque::new();
    let outcome = reply.whole(bytes, &mut events);
    told(&reply, events, outcome)
}

fn read(rendered: Rendered, request: &CompletionRequest, parts: &[&[u8]]) -> String {
    let Rendered { mut frames, reader, stops, emulated, .. } = rendered;
    let mut reply = Reply::new(request, reader, &stops, emulated.as_ref());
    let (mut messages, mut events) = (VecDeque::new(), VecDeque::new());
    let mut outcome = Ok(Progress::Nothing);
    for part in parts {
        frames.push(part, &mut messages).expect("well-formed frames");
        while let (Some(message), Ok(_)) = (messages.pop_front(), &outcome) {
            outcome = reply.message(&message, &mut events);
        }
    }
    told(&reply, events, outcome)
}

fn told(reply: &Reply, events: VecDeque<Event>, outcome: Result<Progress, Refusal>) -> String {
    let mut line = String::new();
    let mut last = 0;
    for event in events {
        match event {
            Event::Chunk(chunk) => {
                if std::mem::replace(&mut last, chunk.choice) != chunk.choice {
                    line.push('/');
                }
                line += chunk.as_str();
            }
            Event::Finished { reason, .. } => line += &format!("|{reason:?}").to_lowercase(),
            other => panic!("{other:?}"),
        }
    }
    match outcome {
        Err(refusal) => write!(line, "|{}", code(&refusal)),
        Ok(_) if !reply.is_finished() => write!(line, "|unfinished"),
        Ok(_) => {
            let usage = reply.usage();
            let (prompt, out) = (usage.prompt_tokens, usage.completion_tokens);
            let counted = if reply.has_usage() { "" } else { "?" };
            write!(line, "|{prompt}+{out}({}){counted}", usage.cached_tokens)
        }
    }
    .expect("memory");
    line
}

fn code(refusal: &Refusal) -> String {
    refusal.reason.code().to_string()
}

#[derive(Deserialize)]
struct RecordedError {
    name: String,
    status: u16,
    headers: std::collections::BTreeMap<String, String>,
    body: Value,
    fault: String,
    retry_after_ms: Option<u64>,
}

/// Holds every error of a fixture against what it is known to mean.
pub(in crate::cloud) async fn errors(row: &CloudConfig, fixture: &str) {
    let all: Vec<RecordedError> = serde_json::from_str(fixture).expect("a list of errors");
    assert!(!all.is_empty());
    for error in all {
        let mut answer = Response::builder().status(error.status);
        for (name, value) in &error.headers {
            answer = answer.header(name, value);
        }
        let body = Full::new(Bytes::from(error.body.to_string()));
        let refusal = fault::refusal(row, answer.body(body).expect("a response")).await;
        let after = error.retry_after_ms.map(Duration::from_millis);
        assert_eq!((code(&refusal), refusal.retry_after), (error.fault, after), "{}", error.name);
    }
}
