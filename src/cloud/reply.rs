//! The answer of an OpenAI-shaped stream, from events of the wire to events of ours. No socket
//! and no clock: what the bytes mean.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use super::choice::Choice;
use super::sse::Message;
use super::wire::{Rendered, Shape};
use crate::completion::{
    CompletionRequest, Event, FinishReason, Reason, Refusal, TokenLogprob, Usage,
};

/// What one wire event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing a client waits for: a role, an empty delta.
    Nothing,
    /// Text or the end of a choice.
    Content,
    /// The stream said that it is over.
    Done,
}

/// Reads one answer.
pub(super) struct Reply {
    shape: Shape,
    choices: Vec<Choice>,
    logprobs: bool,
    usage: Option<Usage>,
    /// Deltas with text: the count of tokens when the cloud reports none.
    deltas: u64,
}

impl Reply {
    pub(super) fn new(request: &CompletionRequest, rendered: &Rendered) -> Self {
        let choice = |index| Choice::new(index, &rendered.stops, rendered.emulated.as_ref());
        Self {
            shape: rendered.shape,
            choices: (0..request.n).map(choice).collect(),
            logprobs: request.logprobs.is_some(),
            usage: None,
            deltas: 0,
        }
    }

    /// Whether every choice has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.choices.iter().all(Choice::is_finished)
    }

    /// What the cloud counted; without that, one token per delta and an unknown prompt as 0.
    pub(super) fn usage(&self) -> Usage {
        self.usage.unwrap_or(Usage { completion_tokens: self.deltas, ..Usage::default() })
    }

    pub(super) fn has_usage(&self) -> bool {
        self.usage.is_some()
    }

    /// Gives out what was held back, for a stream that broke.
    pub(super) fn flush(&mut self, out: &mut VecDeque<Event>) {
        for choice in &mut self.choices {
            choice.flush(out);
        }
    }

    /// Takes one wire event and appends what it means.
    pub(super) fn message(
        &mut self,
        message: &Message,
        out: &mut VecDeque<Event>,
    ) -> Result<Progress, Refusal> {
        if message.data.trim() == "[DONE]" {
            return Ok(Progress::Done);
        }
        let body: Body = serde_json::from_str(&message.data).map_err(|error| {
            // serde's message may quote the answer, which is the user's text.
            garbage(&format!("not a completion chunk at column {}", error.column()))
        })?;
        if let Some(error) = &body.error {
            return Err(error.refusal());
        }
        if message.event == "error" {
            return Err(garbage("an error event"));
        }
        if let Some(usage) = &body.usage {
            self.usage = Some(usage.into());
        }
        let mut progress = Progress::Nothing;
        for part in body.choices.unwrap_or_default() {
            if self.part(part, out)? {
                progress = Progress::Content;
            }
        }
        Ok(progress)
    }

    fn part(&mut self, part: Part, out: &mut VecDeque<Event>) -> Result<bool, Refusal> {
        let choice = self
            .choices
            .get_mut(part.index as usize)
            .ok_or_else(|| garbage("a choice that was not asked for"))?;
        let text = match self.shape {
            Shape::Completion => part.text,
            Shape::Chat => part.delta.and_then(|delta| delta.content),
        }
        .unwrap_or_default();
        let mut tokens = Vec::new();
        if self.logprobs && !text.is_empty() {
            let logprobs = part.logprobs.ok_or_else(|| garbage("no log-probabilities"))?;
            tokens = logprobs.tokens()?;
        }
        let content = !text.is_empty() || part.finish_reason.is_some();
        if !text.is_empty() {
            self.deltas += 1;
            choice.push(&text, tokens, out);
        }
        if let Some(reason) = part.finish_reason {
            choice.finish(finish_reason(&reason)?, out);
        }
        Ok(content)
    }
}

fn finish_reason(name: &str) -> Result<FinishReason, Refusal> {
    match name {
        "length" | "max_tokens" => Ok(FinishReason::Length),
        "content_filter" => Ok(FinishReason::ContentFilter),
        "error" | "abort" | "cancelled" => Err(garbage("the choice was given up")),
        // stop, eos, eos_token, stop_sequence: every server has its own word for a good end.
        _ => Ok(FinishReason::Stop),
    }
}

/// A refusal for an answer that is no completion; `what` is for the log.
pub(super) fn garbage(what: &str) -> Refusal {
    Refusal::new(Reason::CloudGarbage, "the cloud did not answer with a completion")
        .with_source(std::io::Error::other(what.to_owned()))
}

#[derive(Deserialize)]
struct Body {
    choices: Option<Vec<Part>>,
    usage: Option<WireUsage>,
    error: Option<WireError>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    index: u32,
    text: Option<String>,
    delta: Option<Delta>,
    finish_reason: Option<String>,
    logprobs: Option<WireLogprobs>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
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
            cached_tokens: cached.unwrap_or(0),
            completion_tokens: wire.completion_tokens.unwrap_or(0),
        }
    }
}

/// An error inside a stream that began with 200; servers disagree on its shape.
#[derive(Deserialize)]
#[serde(untagged)]
enum WireError {
    Coded { code: u16 },
    Other(serde::de::IgnoredAny),
}

impl WireError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Coded { code } if (400..600).contains(code) => {
                Refusal::new(Reason::CloudStatus(*code), "the cloud broke off with an error")
            }
            Self::Coded { .. } | Self::Other(_) => garbage("an error object in the stream"),
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
