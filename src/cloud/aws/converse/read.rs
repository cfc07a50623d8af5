//! What Converse answers.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cloud::fault::garbage;
use crate::cloud::frames::Message;
use crate::cloud::wires::{Part, Reader, Said};
use crate::completion::{FinishReason, Refusal, Usage};

/// Reads one answer; each event says all that is needed for it.
pub(super) struct Reading;

impl Reader for Reading {
    fn read(&mut self, message: &Message) -> Result<Said, Refusal> {
        match message.event.as_str() {
            "contentBlockDelta" => {
                let event: DeltaEvent = parsed(message.data.as_bytes())?;
                // Reasoning and tools come as deltas without a text.
                Ok(said(event.delta.text.unwrap_or_default(), None))
            }
            "messageStop" => {
                let event: StopEvent = parsed(message.data.as_bytes())?;
                Ok(said(String::new(), Some(finish_reason(&event.stop_reason)?)))
            }
            "metadata" => {
                let event: MetadataEvent = parsed(message.data.as_bytes())?;
                let usage = event.usage.as_ref().map(Usage::from);
                Ok(Said { usage, ..Said::done() })
            }
            _ => Ok(Said::default()),
        }
    }

    fn whole(&mut self, body: &[u8]) -> Result<Said, Refusal> {
        let body: Whole = parsed(body)?;
        let blocks = body.output.message.content.into_iter();
        let text = blocks.filter_map(|block| block.text).collect();
        let usage = body.usage.as_ref().map(Usage::from);
        Ok(Said { usage, done: true, ..said(text, Some(finish_reason(&body.stop_reason)?)) })
    }
}

fn said(text: String, finish: Option<FinishReason>) -> Said {
    let part = Part { choice: 0, text, tokens: Vec::new(), finish };
    Said { parts: vec![part], ..Said::default() }
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    // serde's message may quote the answer, which is the user's text.
    serde_json::from_slice(bytes)
        .map_err(|error| garbage(&format!("no event of Converse at column {}", error.column())))
}

fn finish_reason(name: &str) -> Result<FinishReason, Refusal> {
    match name {
        "max_tokens" | "model_context_window_exceeded" => Ok(FinishReason::Length),
        "content_filtered" | "guardrail_intervened" => Ok(FinishReason::ContentFilter),
        "malformed_model_output" | "malformed_tool_use" => {
            Err(garbage("the model's own output was malformed"))
        }
        // end_turn, stop_sequence, tool_use, and good ends that are newer than this.
        _ => Ok(FinishReason::Stop),
    }
}

#[derive(Deserialize)]
struct DeltaEvent {
    delta: Text,
}

#[derive(Deserialize)]
struct Text {
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StopEvent {
    stop_reason: String,
}

#[derive(Deserialize)]
struct MetadataEvent {
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    output: Output,
    stop_reason: String,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Output {
    message: Content,
}

#[derive(Deserialize)]
struct Content {
    content: Vec<Text>,
}

/// What was read from and written to the cache is not in `inputTokens`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    input_tokens: u64,
    output_tokens: u64,
    #[serde(default)]
    cache_read_input_tokens: u64,
    #[serde(default)]
    cache_write_input_tokens: u64,
}

impl From<&WireUsage> for Usage {
    fn from(wire: &WireUsage) -> Self {
        let cache = wire.cache_read_input_tokens.saturating_add(wire.cache_write_input_tokens);
        Self {
            prompt_tokens: wire.input_tokens.saturating_add(cache),
            cached_tokens: wire.cache_read_input_tokens,
            completion_tokens: wire.output_tokens,
        }
    }
}
