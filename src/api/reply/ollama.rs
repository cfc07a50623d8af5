//! Ollama's answers: a JSON object for each part of the text, one a line, the last with `done`.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::{Collected, Heading, Letter, Summary, json};
use crate::api::error::{ApiError, Tongue};
use crate::completion::{FinishReason, TokenLogprob, Usage};
use crate::ledger::timestamp;

/// Which of the two routes is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Kind {
    /// The text is `response`.
    Generate,
    /// The text is `message.content`.
    Chat,
}

/// An answer of this dialect; it has one choice.
pub(in crate::api) struct Lines {
    kind: Kind,
    /// Why it ended. From the start it is what an answer says that nothing was asked of.
    reason: &'static str,
    /// `{"model":..,"created_at":..`
    head: Vec<u8>,
}

impl Lines {
    /// `unasked`: the `done_reason` of a request without a prompt.
    pub(in crate::api) fn new(kind: Kind, unasked: &'static str) -> Self {
        Self { kind, reason: unasked, head: Vec::new() }
    }

    fn put(&self, out: &mut BytesMut, text: &str) {
        out.put_slice(&self.head);
        match self.kind {
            Kind::Generate => {
                out.put_slice(br#","response":"#);
                json(out, text);
            }
            Kind::Chat => {
                out.put_slice(br#","message":{"role":"assistant","content":"#);
                json(out, text);
                out.put_u8(b'}');
            }
        }
    }

    /// The object that ends an answer, with `text`.
    fn put_last(&self, out: &mut BytesMut, text: &str, ending: Option<Ending>) {
        self.put(out, text);
        out.put_slice(br#","done":true,"done_reason":"#);
        json(out, self.reason);
        match ending {
            None => out.put_u8(b'}'),
            Some(ending) => {
                let mut counts = serde_json::to_vec(&ending).expect("numbers serialise");
                counts[0] = b',';
                out.put_slice(&counts);
            }
        }
    }
}

impl Letter for Lines {
    fn open(&mut self, heading: &Heading<'_>) {
        let unix_ms = i64::try_from(heading.created.saturating_mul(1000)).unwrap_or(i64::MAX);
        let head = Head { model: heading.model, created_at: timestamp(unix_ms) };
        self.head = serde_json::to_vec(&head).expect("strings serialise");
        self.head.pop();
    }

    fn stream_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn text(&mut self, out: &mut BytesMut, _choice: u32, text: &str, _tokens: &[TokenLogprob]) {
        self.put(out, text);
        out.put_slice(b",\"done\":false}\n");
    }

    fn finish(&mut self, _out: &mut BytesMut, _choice: u32, reason: FinishReason) {
        self.reason = word(reason);
    }

    fn done(&mut self, out: &mut BytesMut, summary: &Summary) {
        self.put_last(out, "", Some(Ending::new(&summary.usage, summary)));
        out.put_u8(b'\n');
    }

    fn failed(&mut self, out: &mut BytesMut, error: &ApiError) {
        out.put_slice(&error.to_json_in(Tongue::Ollama));
        out.put_u8(b'\n');
    }

    fn whole(&mut self, collected: &Collected, summary: &Summary) -> Vec<u8> {
        let mut out = BytesMut::with_capacity(self.head.len() + 512 + collected.size());
        match collected.choices.first() {
            None => self.put_last(&mut out, "", None),
            Some(choice) => {
                self.reason = word(choice.finish);
                let ending = Ending::new(&collected.usage, summary);
                self.put_last(&mut out, &choice.text, Some(ending));
            }
        }
        out.into()
    }
}

/// Ollama knows two.
fn word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::ContentFilter => "stop",
        FinishReason::Length => "length",
    }
}

#[derive(Serialize)]
struct Head<'a> {
    model: &'a str,
    created_at: String,
}

/// Counts, and durations in nanoseconds.
#[derive(Serialize)]
struct Ending {
    total_duration: u64,
    /// The model is loaded when weir starts, for no request.
    load_duration: u64,
    prompt_eval_count: u64,
    /// Until the first text, the wait for a slot included.
    prompt_eval_duration: u64,
    eval_count: u64,
    eval_duration: u64,
}

impl Ending {
    fn new(usage: &Usage, summary: &Summary) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            total_duration: nanos(summary.total),
            load_duration: 0,
            prompt_eval_count: usage.prompt_tokens,
            prompt_eval_duration: nanos(summary.first),
            eval_count: usage.completion_tokens,
            eval_duration: nanos(summary.total.saturating_sub(summary.first)),
        }
    }
}
