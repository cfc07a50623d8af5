//! What Text Generation Inference answers.

use serde::Deserialize;

use crate::cloud::fault::{garbage, in_stream};
use crate::cloud::frames::Message;
use crate::cloud::wires::{Part, Reader, Said};
use crate::completion::{FinishReason, Refusal, Usage};

pub(super) struct Reading;

impl Reader for Reading {
    fn read(&mut self, message: &Message) -> Result<Said, Refusal> {
        let event: Event = parsed(message.data.as_bytes())?;
        event.failure.check()?;
        // The tokens that end a text are not part of it.
        let text = event.token.filter(|token| !token.special).map(|token| token.text);
        Ok(said(text.unwrap_or_default(), event.details))
    }

    fn whole(&mut self, body: &[u8]) -> Result<Said, Refusal> {
        let whole = match parsed(body)? {
            Whole::One(whole) => whole,
            Whole::All(all) => {
                all.into_iter().next().ok_or_else(|| garbage("a list of no answers"))?
            }
        };
        whole.failure.check()?;
        let text = whole.generated_text.ok_or_else(|| garbage("no generated text"))?;
        let details = whole.details.ok_or_else(|| garbage("no reason to finish"))?;
        Ok(said(text, Some(details)))
    }
}

/// Details come with the last token, and nothing after them.
fn said(text: String, details: Option<Details>) -> Said {
    let finish = details.as_ref().map(|details| match details.finish_reason.as_str() {
        "length" => FinishReason::Length,
        _ => FinishReason::Stop,
    });
    let usage = details.as_ref().and_then(|details| {
        let prefill = details.prefill.as_ref().map(|tokens| tokens.len() as u64);
        // Without the prompt's length this is no count to settle on.
        let prompt_tokens = details.input_length.or(prefill.filter(|length| *length > 0))?;
        let completion_tokens = details.generated_tokens;
        Some(Usage { prompt_tokens, completion_tokens, cached_tokens: 0 })
    });
    let done = finish.is_some();
    let part = Part { choice: 0, text, tokens: Vec::new(), finish };
    Said { parts: vec![part], usage, done }
}

fn parsed<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| garbage(&format!("no generated text at column {}", error.column())))
}

#[derive(Deserialize)]
struct Event {
    token: Option<Token>,
    details: Option<Details>,
    #[serde(flatten)]
    failure: Failure,
}

#[derive(Deserialize)]
struct Token {
    text: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Details {
    finish_reason: String,
    generated_tokens: u64,
    input_length: Option<u64>,
    prefill: Option<Vec<serde::de::IgnoredAny>>,
}

/// Alone it stands in a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Whole {
    All(Vec<Generated>),
    One(Generated),
}

#[derive(Deserialize)]
struct Generated {
    generated_text: Option<String>,
    details: Option<Details>,
    #[serde(flatten)]
    failure: Failure,
}

#[derive(Deserialize)]
struct Failure {
    error: Option<serde_json::Value>,
    error_type: Option<String>,
}

impl Failure {
    fn check(&self) -> Result<(), Refusal> {
        match &self.error {
            None => Ok(()),
            Some(message) => {
                let kind = self.error_type.as_deref();
                Err(in_stream(&serde_json::json!({ "message": message, "type": kind })))
            }
        }
    }
}
