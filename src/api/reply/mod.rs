//! An answer as bytes: what every dialect's [`Letter`] is given, and what they share. A streamed
//! chunk costs copies of what is constant and one pass over its text.

pub(super) mod lmstudio;
pub(super) mod ollama;
pub(super) mod openai;
pub(super) mod tgi;

use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, BytesMut};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;

use super::accounting::Account;
use super::answer::sum;
use super::error::ApiError;
use crate::completion::{Event, FinishReason, Refusal, Route, TokenLogprob, Usage};
use crate::dispatch::Costs;
use crate::money::Money;

/// How a dialect writes an answer down. [`Letter::open`] is called once, before anything else;
/// after it either `whole`, or `begin`, `text` and `finish` for each choice and then `done` or
/// `failed`.
pub(super) trait Letter: Send + Sync {
    /// What is known when the first text is there.
    fn open(&mut self, heading: &Heading<'_>);

    /// Of a stream; a whole answer is JSON.
    fn stream_type(&self) -> &'static str {
        "text/event-stream"
    }

    /// Before the first text of a choice, and before the end of one that has none.
    fn begin(&mut self, _out: &mut BytesMut, _choice: u32) {}

    fn text(&mut self, out: &mut BytesMut, choice: u32, text: &str, tokens: &[TokenLogprob]);

    fn finish(&mut self, out: &mut BytesMut, choice: u32, reason: FinishReason);

    /// The end of a stream that ended well.
    fn done(&mut self, out: &mut BytesMut, summary: &Summary);

    /// The end of one that broke.
    fn failed(&mut self, out: &mut BytesMut, error: &ApiError);

    /// The answer as one object.
    fn whole(&mut self, collected: &Collected, summary: &Summary) -> Vec<u8>;

    /// What to answer, with 200, instead of saying that there is no room or no time; None: say it.
    /// For clients that show every error to whoever is typing.
    fn instead_of_overload(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// What every part of an answer may repeat.
pub(super) struct Heading<'a> {
    /// The id of the model that answers.
    pub model: &'a str,
    /// Unix seconds.
    pub created: u64,
    pub choices: usize,
    /// Whether the input was cut to fit.
    pub truncated: bool,
    /// Where it runs; of the first prompt.
    pub route: &'a Route,
}

impl<'a> Heading<'a> {
    pub(super) fn new(model: &'a str, choices: usize, truncated: bool, route: &'a Route) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        Self { model, created, choices, truncated, route }
    }
}

/// What an answer came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Summary {
    pub usage: Usage,
    /// Where a cloud with a price had a part in it.
    pub cost: Option<Money>,
    /// From the request's arrival to its first text; where there was none, to its end.
    pub first: Duration,
    /// From the request's arrival to its end.
    pub total: Duration,
}

impl Summary {
    pub(super) fn new(usage: Usage, costs: &[Costs], account: &Account) -> Self {
        let (first, total) = account.times();
        let cost = sum(costs, Costs::settled);
        Self { usage, cost, first: first.unwrap_or(total), total }
    }
}

/// What OpenAI writes for a probability of nothing; JSON has no infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// A token that is no whole text is named by its bytes, as OpenAI does.
pub(super) fn token_text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes
            .iter()
            .fold("bytes:".to_owned(), |name, byte| name + &format!("\\x{byte:02x}"))
            .into(),
    }
}

pub(super) fn finite(logprob: f32) -> f32 {
    logprob.max(LOGPROB_MIN)
}

pub(super) fn word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
    }
}

pub(super) fn list<T>(out: &mut BytesMut, all: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    for (nth, one) in all.iter().enumerate() {
        if nth > 0 {
            out.put_u8(b',');
        }
        put(out, one);
    }
}

pub(super) fn json(out: &mut BytesMut, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out.writer(), value).expect("plain data serialises into memory");
}

/// An answer that is not streamed.
pub(super) struct Collected {
    pub choices: Vec<Choice>,
    pub usage: Usage,
}

pub(super) struct Choice {
    pub text: String,
    pub tokens: Vec<TokenLogprob>,
    pub finish: FinishReason,
    /// Over the generated tokens only.
    logprob_sum: f64,
    logprob_count: u32,
}

impl Choice {
    /// Mean log-probability of what was generated.
    fn score(&self) -> f64 {
        self.logprob_sum / f64::from(self.logprob_count.max(1))
    }

    fn take_chunk(&mut self, text: &str, tokens: Vec<TokenLogprob>) {
        self.text.push_str(text);
        for logprob in tokens.iter().filter_map(|token| token.logprob) {
            self.logprob_sum += f64::from(finite(logprob));
            self.logprob_count += 1;
        }
        self.tokens.extend(tokens);
    }
}

impl Collected {
    /// Reads `events` to their end, calling `text` whenever a choice grows.
    pub(super) async fn gather(
        events: impl Stream<Item = Event>,
        choices: usize,
        mut text: impl FnMut(u32),
    ) -> Result<Self, Refusal> {
        let empty = || Choice {
            text: String::new(),
            tokens: Vec::new(),
            finish: FinishReason::Length,
            logprob_sum: 0.0,
            logprob_count: 0,
        };
        let mut choices: Vec<Choice> = std::iter::repeat_with(empty).take(choices).collect();
        let mut events = pin!(events);
        loop {
            match events.next().await.expect("ends with usage or failure") {
                Event::Prompt { choice, text, tokens } => {
                    choices[choice as usize].text.push_str(&text);
                    choices[choice as usize].tokens.extend(tokens);
                }
                Event::Chunk(chunk) => {
                    text(chunk.choice);
                    let choice = &mut choices[chunk.choice as usize];
                    let text = std::str::from_utf8(&chunk.text).expect("cut at characters");
                    choice.take_chunk(text, chunk.tokens);
                }
                Event::Finished { choice, reason } => choices[choice as usize].finish = reason,
                Event::Usage(usage) => return Ok(Self { choices, usage }),
                Event::Failed(refusal) => return Err(refusal),
            }
        }
    }

    /// Of every `best_of` choices in a row keeps the `n` likeliest, best first.
    pub(super) fn keep_best(&mut self, best_of: usize, n: usize) {
        if best_of == n {
            return;
        }
        for of_prompt in self.choices.chunks_mut(best_of) {
            of_prompt.sort_by(|a, b| b.score().total_cmp(&a.score()));
        }
        let mut nth = 0;
        self.choices.retain(|_| {
            nth += 1;
            (nth - 1) % best_of < n
        });
    }

    /// Roughly the bytes of the answer as JSON.
    pub(super) fn size(&self) -> usize {
        self.choices.iter().map(|choice| choice.text.len() + choice.tokens.len() * 64 + 128).sum()
    }
}
