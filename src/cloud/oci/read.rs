//! What Oracle's answers say, in either shape.

use serde::Deserialize;

use crate::cloud::fault::{garbage, in_stream};
use crate::cloud::frames::Message;
use crate::cloud::wires::{Part, Reader, Said};
use crate::completion::{FinishReason, Refusal, Usage};

/// Reads both shapes: their fields do not meet.
pub(super) struct Reading;

impl Reader for Reading {
    fn read(&mut self, message: &Message) -> Result<Said, Refusal> {
        if message.data == "[DONE]" {
            return Ok(Said::done());
        }
        let event: Event = serde_json::from_str(&message.data).map_err(|error| {
            // serde's message may quote the answer, which is the user's text.
            garbage(&format!("not an event at column {}", error.column()))
        })?;
        let Some(said) = event.said(true)? else {
            // What names an error must not pass for an event without text.
            let whole = serde_json::from_str(&message.data).unwrap_or_default();
            return Err(in_stream(&whole));
        };
        Ok(said)
    }

    fn whole(&mut self, body: &[u8]) -> Result<Said, Refusal> {
        let body: Whole = serde_json::from_slice(body)
            .map_err(|error| garbage(&format!("not an answer at column {}", error.column())))?;
        let mut said = Said::done();
        let usage = body.chat_response.usage.as_ref().map(Usage::from);
        for event in body.chat_response.events() {
            let part = event.said(false)?.ok_or_else(|| garbage("an error in an answer"))?;
            said.parts.extend(part.parts);
            said.usage = part.usage.or(said.usage);
        }
        said.usage = usage.or(said.usage);
        Ok(said)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    chat_response: Answer,
}

/// `choices` in the generic shape; the fields of one in Cohere's.
#[derive(Deserialize)]
struct Answer {
    choices: Option<Vec<Event>>,
    usage: Option<WireUsage>,
    #[serde(flatten)]
    own: Event,
}

impl Answer {
    fn events(self) -> Vec<Event> {
        self.choices.unwrap_or_else(|| vec![self.own])
    }
}

/// An event of a stream, or a choice of a whole answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(default)]
    index: u32,
    message: Option<Spoken>,
    /// Cohere's.
    text: Option<String>,
    finish_reason: Option<String>,
    usage: Option<WireUsage>,
    code: Option<serde_json::Value>,
    error: Option<serde_json::Value>,
}

/// A message; or, beside an error's `code`, a sentence.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spoken {
    Parts { content: Option<Vec<Content>> },
    Sentence(String),
}

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    cached_tokens: Option<u64>,
}

impl From<&WireUsage> for Usage {
    fn from(wire: &WireUsage) -> Self {
        let details = wire.prompt_tokens_details.as_ref();
        Self {
            prompt_tokens: wire.prompt_tokens.unwrap_or(0),
            cached_tokens: details.and_then(|details| details.cached_tokens).unwrap_or(0),
            completion_tokens: wire.completion_tokens.unwrap_or(0),
        }
    }
}

impl Event {
    /// None: it tells an error. The last event of a stream of Cohere's repeats the whole text.
    fn said(self, streamed: bool) -> Result<Option<Said>, Refusal> {
        let sentence = matches!(&self.message, Some(Spoken::Sentence(text)) if !text.is_empty());
        if sentence || self.code.is_some() || self.error.is_some() {
            return Ok(None);
        }
        let repeats = streamed && self.finish_reason.is_some();
        let mut text = self.text.filter(|_| !repeats).unwrap_or_default();
        if let Some(Spoken::Parts { content: Some(parts) }) = self.message {
            let is_text = |part: &Content| part.kind.as_deref().is_none_or(|kind| kind == "TEXT");
            let texts = parts.into_iter().filter(is_text).filter_map(|part| part.text);
            text.extend(texts);
        }
        let finish = self.finish_reason.as_deref().map(finish_reason).transpose()?;
        let usage = self.usage.as_ref().map(Usage::from);
        let part = Part { choice: self.index, text, tokens: Vec::new(), finish };
        Ok(Some(Said { parts: vec![part], usage, done: false }))
    }
}

fn finish_reason(name: &str) -> Result<FinishReason, Refusal> {
    match name {
        "length" | "max_tokens" | "MAX_TOKENS" => Ok(FinishReason::Length),
        "content_filter" | "ERROR_TOXIC" => Ok(FinishReason::ContentFilter),
        "error" | "ERROR" | "ERROR_LIMIT" | "USER_CANCEL" => {
            Err(garbage("the choice was given up"))
        }
        // stop, COMPLETE and the models' own words for a good end.
        _ => Ok(FinishReason::Stop),
    }
}
