//! What an answer of Gemini's says.

use serde::Deserialize;
use serde_json::Value;

use crate::cloud::fault::{filtered, garbage, in_stream};
use crate::cloud::frames::Message;
use crate::cloud::wires::{self, Reader, Said};
use crate::completion::{FinishReason, Refusal, Usage};

/// Reads one answer.
pub(super) struct Reading {
    /// Candidates that have not ended.
    open: u32,
}

impl Reading {
    pub(super) fn new(n: u32) -> Self {
        Self { open: n }
    }

    fn body(&mut self, body: Body) -> Result<Said, Refusal> {
        if let Some(error) = &body.error {
            return Err(in_stream(error));
        }
        if let Some(reason) = body.prompt_feedback.and_then(|feedback| feedback.block_reason) {
            return Err(filtered(&reason));
        }
        let candidates = body.candidates.unwrap_or_default();
        let parts: Vec<_> = candidates.into_iter().map(part).collect::<Result<_, _>>()?;
        let ended = parts.iter().filter(|part| part.finish.is_some()).count();
        self.open = self.open.saturating_sub(u32::try_from(ended).unwrap_or(u32::MAX));
        // Every event counts what was used so far; only the last one's count is all of it.
        let usage = body.usage_metadata.filter(|usage| self.open == 0 && usage.is_a_count());
        Ok(Said { parts, usage: usage.as_ref().map(Usage::from), done: false })
    }
}

impl Reader for Reading {
    fn read(&mut self, message: &Message) -> Result<Said, Refusal> {
        // serde's message may quote the answer, which is the user's text.
        let body = serde_json::from_str(&message.data)
            .map_err(|error| garbage(&format!("no candidates at column {}", error.column())))?;
        let said = self.body(body)?;
        // Whatever else it holds, it must not pass for an event without text.
        match message.event.as_str() {
            "error" => Err(garbage("an error event")),
            _ => Ok(said),
        }
    }

    fn whole(&mut self, body: &[u8]) -> Result<Said, Refusal> {
        let body = serde_json::from_slice(body)
            .map_err(|error| garbage(&format!("no candidates at column {}", error.column())))?;
        Ok(Said { done: true, ..self.body(body)? })
    }
}

fn part(candidate: Candidate) -> Result<wires::Part, Refusal> {
    let finish = candidate.finish_reason.as_deref().map(finish_reason).transpose()?.flatten();
    let parts = candidate.content.and_then(|content| content.parts).unwrap_or_default();
    let said = parts.into_iter().filter(|part| !part.thought).filter_map(|part| part.text);
    Ok(wires::Part { choice: candidate.index, text: said.collect(), tokens: Vec::new(), finish })
}

/// None: it goes on.
fn finish_reason(name: &str) -> Result<Option<FinishReason>, Refusal> {
    match name {
        "FINISH_REASON_UNSPECIFIED" => Ok(None),
        "STOP" => Ok(Some(FinishReason::Stop)),
        "MAX_TOKENS" => Ok(Some(FinishReason::Length)),
        // Code that the model knows by heart ends with RECITATION.
        "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
        | "MODEL_ARMOR" => Ok(Some(FinishReason::ContentFilter)),
        // OTHER, MALFORMED_RESPONSE, and whatever is new.
        _ => Err(garbage("the candidate was given up")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    candidates: Option<Vec<Candidate>>,
    usage_metadata: Option<WireUsage>,
    prompt_feedback: Option<Feedback>,
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    #[serde(default)]
    index: u32,
    content: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    parts: Option<Vec<Part>>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
    /// What the model thought, which nobody asked for.
    #[serde(default)]
    thought: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    prompt_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
}

impl WireUsage {
    /// Events before the last may only name the kind of traffic.
    fn is_a_count(&self) -> bool {
        self.prompt_token_count.is_some()
    }
}

impl From<&WireUsage> for Usage {
    fn from(wire: &WireUsage) -> Self {
        let count = |tokens: Option<u64>| tokens.unwrap_or(0);
        Self {
            prompt_tokens: count(wire.prompt_token_count),
            cached_tokens: count(wire.cached_content_token_count),
            // Thoughts are billed as output.
            completion_tokens: count(wire.candidates_token_count)
                .saturating_add(count(wire.thoughts_token_count)),
        }
    }
}
