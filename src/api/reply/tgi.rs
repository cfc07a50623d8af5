//! TGI's answers: an object with the text, or an event for each part of it.

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::{Collected, Heading, Letter, Summary, finite, json, list, token_text};
use crate::api::error::{ApiError, Tongue};
use crate::completion::{FinishReason, TokenLogprob};

/// An answer of this dialect; it has one choice.
pub(in crate::api) struct Generated {
    /// Whether the client asked for more than the text.
    details: bool,
    /// Whether it named texts to stop at.
    stops: bool,
    /// Of a stream, which ends by saying all of it: the prompt, where that was asked for, and what
    /// came so far.
    text: String,
    tokens: u64,
    last_id: u32,
    reason: FinishReason,
}

impl Generated {
    /// `full_text`: the prompt, where it is part of the answer.
    pub(in crate::api) fn new(details: bool, stops: bool, full_text: Option<String>) -> Self {
        Self {
            details,
            stops,
            text: full_text.unwrap_or_default(),
            tokens: 0,
            last_id: 0,
            reason: FinishReason::Length,
        }
    }

    /// What stopped it is not told below; where texts to stop at were named, most likely they did.
    fn word(&self, reason: FinishReason) -> &'static str {
        match (reason, self.stops) {
            (FinishReason::Length, _) => "length",
            (FinishReason::Stop, true) => "stop_sequence",
            (FinishReason::Stop | FinishReason::ContentFilter, _) => "eos_token",
        }
    }
}

impl Letter for Generated {
    fn open(&mut self, _heading: &Heading<'_>) {}

    fn text(&mut self, out: &mut BytesMut, _choice: u32, text: &str, tokens: &[TokenLogprob]) {
        self.text.push_str(text);
        self.tokens += tokens.len() as u64;
        let (id, logprob) = tokens.last().map_or((0, None), |token| (token.id, token.logprob));
        self.last_id = id;
        let token = Token { id, text, logprob: logprob.map(finite), special: false };
        let (generated_text, details) = (None, None);
        event(out, &Part { index: self.tokens, token, generated_text, details });
    }

    fn finish(&mut self, _out: &mut BytesMut, _choice: u32, reason: FinishReason) {
        self.reason = reason;
    }

    /// The last event has no text of its own, as where TGI ends with the model's end of text; so
    /// no token has to wait until it is known to be the last.
    fn done(&mut self, out: &mut BytesMut, summary: &Summary) {
        let token = Token { id: self.last_id, text: "", logprob: Some(0.0), special: true };
        let details = Details {
            finish_reason: self.word(self.reason),
            generated_tokens: summary.usage.completion_tokens,
            input_length: summary.usage.prompt_tokens,
            seed: None,
        };
        let (generated_text, details) = (Some(self.text.as_str()), Some(details));
        event(out, &Part { index: self.tokens + 1, token, generated_text, details });
    }

    fn failed(&mut self, out: &mut BytesMut, error: &ApiError) {
        out.put_slice(b"data:");
        out.put_slice(&error.to_json_in(Tongue::Tgi));
        out.put_slice(b"\n\n");
    }

    fn whole(&mut self, collected: &Collected, _summary: &Summary) -> Vec<u8> {
        let mut out = BytesMut::with_capacity(256 + self.text.len() + collected.size());
        let choice = &collected.choices[0];
        self.text.push_str(&choice.text);
        out.put_slice(br#"{"generated_text":"#);
        json(&mut out, &self.text);
        if self.details {
            out.put_slice(br#","details":{"finish_reason":"#);
            json(&mut out, self.word(choice.finish));
            out.put_slice(br#","generated_tokens":"#);
            json(&mut out, &choice.tokens.len());
            out.put_slice(br#","seed":null,"prefill":[],"tokens":["#);
            list(&mut out, &choice.tokens, |out, token| {
                let text = token_text(&token.bytes);
                let logprob = token.logprob.map(finite);
                json(out, &Token { id: token.id, text: &text, logprob, special: false });
            });
            out.put_slice(b"]}");
        }
        out.put_u8(b'}');
        out.into()
    }
}

fn event(out: &mut BytesMut, part: &Part<'_>) {
    out.put_slice(b"data:");
    json(out, part);
    out.put_slice(b"\n\n");
}

#[derive(Serialize)]
struct Part<'a> {
    /// From 1.
    index: u64,
    token: Token<'a>,
    generated_text: Option<&'a str>,
    details: Option<Details>,
}

#[derive(Serialize)]
struct Token<'a> {
    id: u32,
    text: &'a str,
    logprob: Option<f32>,
    special: bool,
}

#[derive(Serialize)]
struct Details {
    finish_reason: &'static str,
    generated_tokens: u64,
    input_length: u64,
    seed: Option<u64>,
}
