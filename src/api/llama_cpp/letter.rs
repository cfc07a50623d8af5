//! An answer in llama.cpp's words: `{"content", .., "timings"}`, or its events.

use std::collections::HashSet;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::ModelCard;
use crate::api::error::{ApiError, Tongue};
use crate::api::reply::{self, Collected, Heading, Summary, json as put};
use crate::completion::{FinishReason, TokenLogprob};

pub(super) struct Letter {
    context: u32,
    /// Whether the answer is a list of objects.
    many: bool,
    /// Paths of the fields that are wanted; None: all.
    fields: Option<Vec<String>>,
    /// Whether overload is answered by no text instead of an error, which llama.vscode shows in a
    /// window for every key.
    empty_overload: bool,
    model: String,
    truncated: bool,
    /// One for each choice of a stream.
    ends: Vec<End>,
}

/// What a stream remembers of a choice until its last event.
#[derive(Clone, Default)]
struct End {
    has_new_line: bool,
    reason: Option<FinishReason>,
}

/// One event of a stream.
#[derive(Serialize)]
struct Part<'a> {
    index: u32,
    content: &'a str,
    tokens: [u32; 0],
    stop: bool,
    id_slot: i32,
}

impl Letter {
    pub(super) fn new(model: &ModelCard, many: bool, fields: Option<Vec<String>>) -> Self {
        Self {
            context: model.context,
            many,
            fields,
            empty_overload: false,
            model: model.id.to_string(),
            truncated: false,
            ends: Vec::new(),
        }
    }

    pub(super) fn with_empty_overload(mut self, empty: bool) -> Self {
        self.empty_overload = empty;
        self
    }

    /// The whole object of one choice.
    fn object(&self, index: usize, content: &str, end: &End, summary: &Summary) -> Value {
        let usage = &summary.usage;
        let stop_type = match end.reason {
            Some(FinishReason::Stop | FinishReason::ContentFilter) => "eos",
            Some(FinishReason::Length) => "limit",
            None => "none",
        };
        let whole = json!({
            "index": index,
            "content": content,
            "tokens": [],
            "id_slot": 0,
            "stop": true,
            "model": self.model,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "tokens_cached": usage.prompt_tokens + usage.completion_tokens,
            "generation_settings": { "n_ctx": self.context, "model": self.model },
            "prompt": "",
            "has_new_line": end.has_new_line,
            "truncated": self.truncated,
            "stop_type": stop_type,
            "stopping_word": "",
            "timings": timings(summary),
        });
        match &self.fields {
            Some(paths) => chosen(&whole, paths),
            None => whole,
        }
    }
}

/// What was computed, and how fast.
fn timings(summary: &Summary) -> Value {
    let usage = &summary.usage;
    let computed = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
    let (prompt_ms, prompt_each, prompt_rate) = pace(computed, summary.first);
    let writing = summary.total.saturating_sub(summary.first);
    let (ms, each, rate) = pace(usage.completion_tokens, writing);
    json!({
        "cache_n": usage.cached_tokens,
        "prompt_n": computed,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_each,
        "prompt_per_second": prompt_rate,
        "predicted_n": usage.completion_tokens,
        "predicted_ms": ms,
        "predicted_per_token_ms": each,
        "predicted_per_second": rate,
    })
}

/// Milliseconds in all and for each, and how many in a second; 0 where there is nothing to divide.
fn pace(count: u64, time: Duration) -> (f64, f64, f64) {
    let ms = time.as_secs_f64() * 1e3;
    let over = |above: f64, below: f64| if below > 0.0 { above / below } else { 0.0 };
    (ms, over(ms, count as f64), over(count as f64 * 1e3, ms))
}

/// Only what these paths lead to, each under its whole path: llama.vim asks for `timings/prompt_n`
/// and looks for a key of that name.
fn chosen(whole: &Value, paths: &[String]) -> Value {
    let mut few = Map::new();
    for path in paths {
        let found = path.split('/').try_fold(whole, |value, key| value.get(key));
        if let Some(value) = found {
            few.insert(path.clone(), value.clone());
        }
    }
    Value::Object(few)
}

impl reply::Letter for Letter {
    fn open(&mut self, heading: &Heading<'_>) {
        heading.model.clone_into(&mut self.model);
        self.truncated = heading.truncated;
        self.ends = vec![End::default(); heading.choices];
    }

    fn text(&mut self, out: &mut BytesMut, choice: u32, text: &str, _tokens: &[TokenLogprob]) {
        self.ends[choice as usize].has_new_line |= text.contains('\n');
        let part = Part { index: choice, content: text, tokens: [], stop: false, id_slot: 0 };
        event(out, &part);
    }

    /// The last event of a choice holds what only the end of all is known of.
    fn finish(&mut self, _out: &mut BytesMut, choice: u32, reason: FinishReason) {
        self.ends[choice as usize].reason = Some(reason);
    }

    fn done(&mut self, out: &mut BytesMut, summary: &Summary) {
        for (index, end) in self.ends.iter().enumerate() {
            event(out, &self.object(index, "", end, summary));
        }
    }

    fn failed(&mut self, out: &mut BytesMut, error: &ApiError) {
        out.put_slice(b"data: ");
        out.put_slice(&error.to_json_in(Tongue::LlamaCpp));
        out.put_slice(b"\n\n");
    }

    fn whole(&mut self, collected: &Collected, summary: &Summary) -> Vec<u8> {
        let mut seen = HashSet::new();
        let mut objects = Vec::with_capacity(collected.choices.len());
        for (index, choice) in collected.choices.iter().enumerate() {
            // Whoever asks for several chooses among them.
            if self.many && !seen.insert(choice.text.as_str()) {
                continue;
            }
            let has_new_line = choice.text.contains('\n');
            let end = End { has_new_line, reason: Some(choice.finish) };
            objects.push(self.object(index, &choice.text, &end, summary));
        }
        let value = if self.many { Value::Array(objects) } else { objects.swap_remove(0) };
        serde_json::to_vec(&value).expect("plain data serialises")
    }

    fn instead_of_overload(&mut self) -> Option<Vec<u8>> {
        self.empty_overload.then(|| {
            let object = self.object(0, "", &End::default(), &Summary::default());
            let value = if self.many { Value::Array(vec![object]) } else { object };
            serde_json::to_vec(&value).expect("plain data serialises")
        })
    }
}

fn event(out: &mut BytesMut, value: &impl Serialize) {
    out.put_slice(b"data: ");
    put(out, value);
    out.put_slice(b"\n\n");
}
