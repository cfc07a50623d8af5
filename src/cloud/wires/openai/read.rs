//! What an OpenAI-shaped answer says.

use std::collections::HashMap;

use serde::Deserialize;

use super::Shape;
use crate::cloud::fault::{garbage, in_stream};
use crate::cloud::frames::Message;
use crate::cloud::wires::{self, Reader, Said};
use crate::completion::{FinishReason, Refusal, TokenLogprob, Usage};

/// Reads the answers of one route.
pub(super) struct Reading {
    shape: Shape,
    logprobs: bool,
}

impl Reading {
    pub(super) fn new(shape: Shape, logprobs: bool) -> Self {
        Self { shape, logprobs }
    }

    fn body(&self, text: &[u8]) -> Result<Said, Refusal> {
        // serde's message may quote the answer, which is the user's text.
        let body: Body = serde_json::from_slice(text)
            .map_err(|error| garbage(&format!("not a completion at column {}", error.column())))?;
        if body.error.is_some() || body.object.as_deref() == Some("error") {
            return Err(error(text, body.error));
        }
        let parts = body.choices.unwrap_or_default().into_iter().map(|part| self.part(part));
        Ok(Said {
            parts: parts.collect::<Result<_, _>>()?,
            usage: body.usage.as_ref().map(Usage::from),
            done: false,
        })
    }

    fn part(&self, part: Part) -> Result<wires::Part, Refusal> {
        let content = |of: Option<Content>| of.and_then(|content| content.content);
        let text = match self.shape {
            Shape::Completion => part.text,
            Shape::Chat => content(part.delta).or_else(|| content(part.message)),
        }
        .unwrap_or_default();
        let mut tokens = Vec::new();
        if self.logprobs && !text.is_empty() {
            let logprobs = part.logprobs.ok_or_else(|| garbage("no log-probabilities"))?;
            tokens = logprobs.tokens()?;
        }
        // TGI writes an empty one until there is one.
        let finish = part.finish_reason.as_deref().filter(|name| !name.is_empty());
        let finish = finish.map(finish_reason).transpose()?;
        Ok(wires::Part { choice: part.index, text, tokens, finish })
    }
}

impl Reader for Reading {
    fn read(&mut self, message: &Message) -> Result<Said, Refusal> {
        if message.data.trim() == "[DONE]" {
            return Ok(Said::done());
        }
        let said = self.body(message.data.as_bytes())?;
        if message.event == "error" {
            return Err(garbage("an error event"));
        }
        Ok(said)
    }

    fn whole(&mut self, body: &[u8]) -> Result<Said, Refusal> {
        Ok(Said { done: true, ..self.body(body)? })
    }
}

/// Most servers say `{"error":{..}}`; vLLM's kin say all of it at the top, and TGI says a sentence
/// with its kind beside it.
fn error(text: &[u8], error: Option<serde_json::Value>) -> Refusal {
    match error {
        Some(error) if error.is_object() => in_stream(&error),
        _ => in_stream(&serde_json::from_slice(text).unwrap_or_default()),
    }
}

fn finish_reason(name: &str) -> Result<FinishReason, Refusal> {
    match name {
        "length" | "max_tokens" => Ok(FinishReason::Length),
        "content_filter" => Ok(FinishReason::ContentFilter),
        "error" | "abort" | "cancelled" | "insufficient_system_resource" => {
            Err(garbage("the choice was given up"))
        }
        // stop, eos, eos_token, stop_sequence: every server has its own word for a good end.
        _ => Ok(FinishReason::Stop),
    }
}

#[derive(Deserialize)]
struct Body {
    choices: Option<Vec<Part>>,
    usage: Option<WireUsage>,
    object: Option<String>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    index: u32,
    text: Option<String>,
    delta: Option<Content>,
    message: Option<Content>,
    finish_reason: Option<String>,
    logprobs: Option<WireLogprobs>,
}

#[derive(Deserialize)]
struct Content {
    content: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    /// DeepSeek's.
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

impl From<&WireUsage> for Usage {
    fn from(wire: &WireUsage) -> Self {
        let cached = wire.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        Self {
            prompt_tokens: wire.prompt_tokens.unwrap_or(0),
            cached_tokens: cached.or(wire.prompt_cache_hit_tokens).unwrap_or(0),
            completion_tokens: wire.completion_tokens.unwrap_or(0),
        }
    }
}

#[derive(Deserialize)]
struct WireLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Option<Vec<Option<HashMap<String, f32>>>>,
}

impl WireLogprobs {
    fn tokens(self) -> Result<Vec<TokenLogprob>, Refusal> {
        if self.tokens.len() != self.token_logprobs.len() {
            return Err(garbage("log-probabilities that do not match their tokens"));
        }
        let mut top = self.top_logprobs.unwrap_or_default().into_iter();
        let tokens = self.tokens.iter().zip(self.token_logprobs).map(|(token, logprob)| {
            TokenLogprob {
                bytes: token_bytes(token),
                // A cloud's ids mean nothing here and are not on the wire.
                id: u32::MAX,
                logprob,
                top: top.next().flatten().map(best_first).unwrap_or_default(),
            }
        });
        Ok(tokens.collect())
    }
}

fn best_first(top: HashMap<String, f32>) -> Vec<(Vec<u8>, f32)> {
    let mut top: Vec<_> = top.iter().map(|(token, p)| (token_bytes(token), *p)).collect();
    top.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    top
}

/// A token that is no whole character travels as `bytes:\xe2\x96`.
fn token_bytes(token: &str) -> Vec<u8> {
    let escaped = token.strip_prefix("bytes:").and_then(|rest| {
        rest.split("\\x")
            .skip(1)
            .map(|hex| u8::from_str_radix(hex, 16).ok())
            .collect::<Option<Vec<u8>>>()
    });
    match escaped {
        Some(bytes) if !bytes.is_empty() => bytes,
        _ => token.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::Reason;

    #[test]
    fn a_token_is_its_bytes() {
        let cases: [(&str, &[u8]); 5] = [
            ("é", "é".as_bytes()),
            ("bytes:\\xe2\\x96", &[0xe2, 0x96]),
            ("bytes:", b"bytes:"),
            ("bytes:\\xzz", b"bytes:\\xzz"),
            ("bytes: 4", b"bytes: 4"),
        ];
        for (token, bytes) in cases {
            assert_eq!(token_bytes(token), bytes, "{token}");
        }
    }

    #[test]
    fn finish_reasons_are_ours() {
        assert_eq!(finish_reason("stop").unwrap(), FinishReason::Stop);
        assert_eq!(finish_reason("eos_token").unwrap(), FinishReason::Stop);
        assert_eq!(finish_reason("length").unwrap(), FinishReason::Length);
        assert_eq!(finish_reason("content_filter").unwrap(), FinishReason::ContentFilter);
        assert_eq!(finish_reason("error").unwrap_err().reason, Reason::CloudGarbage);
    }
}
