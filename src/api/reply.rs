//! The two shapes of an answer, text completion and chat, written straight to bytes: a streamed
//! chunk costs copies of what is constant and one pass over its text.

use std::pin::pin;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, BytesMut};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;

use super::answer::Ask;
use crate::completion::{Event, FinishReason, Refusal, TokenLogprob, Usage};
use crate::money::Money;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Chat,
}

/// What OpenAI writes for a probability of nothing; JSON has no infinity.
const LOGPROB_MIN: f32 = -9999.0;

/// Everything about a reply that is the same for all of its chunks.
pub(super) struct Shape {
    kind: Kind,
    /// From `{"id":` to `"choices":[`, of a chunk and of a whole answer.
    chunk_head: Vec<u8>,
    whole_head: Vec<u8>,
    /// As the client asked.
    logprobs: Option<u32>,
    include_usage: bool,
}

/// Where a choice stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Of the tokens so far; the next one's `text_offset`.
    characters: usize,
    /// Whether the role was sent (chat).
    begun: bool,
}

impl Shape {
    pub(super) fn new(ask: &Ask, model: &str) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let id = fastrand::u128(..);
        let (id, whole, chunk) = match ask.kind {
            Kind::Text => (format!("cmpl-{id:032x}"), "text_completion", "text_completion"),
            Kind::Chat => {
                (format!("chatcmpl-{id:032x}"), "chat.completion", "chat.completion.chunk")
            }
        };
        let head = |object: &'static str| {
            let head = Head { id: &id, object, created, model };
            let mut head = serde_json::to_vec(&head).expect("strings serialise");
            head.pop();
            head.extend_from_slice(br#","choices":["#);
            head
        };
        Self {
            kind: ask.kind,
            chunk_head: head(chunk),
            whole_head: head(whole),
            logprobs: ask.logprobs,
            include_usage: ask.include_usage,
        }
    }

    /// The role that begins every chat choice.
    pub(super) fn begin(&self, out: &mut BytesMut, choice: u32, cursor: &mut Cursor) {
        if self.kind == Kind::Text || std::mem::replace(&mut cursor.begun, true) {
            return;
        }
        self.data(out, |out| {
            out.put_slice(br#"{"index":"#);
            json(out, &choice);
            out.put_slice(br#","delta":{"role":"assistant","content":""},"#);
            out.put_slice(br#""logprobs":null,"finish_reason":null}"#);
        });
    }

    pub(super) fn text(
        &self,
        out: &mut BytesMut,
        choice: u32,
        text: &str,
        tokens: &[TokenLogprob],
        cursor: &mut Cursor,
    ) {
        self.data(out, |out| {
            match self.kind {
                Kind::Text => {
                    out.put_slice(br#"{"text":"#);
                    json(out, text);
                    out.put_slice(br#","index":"#);
                    json(out, &choice);
                }
                Kind::Chat => {
                    out.put_slice(br#"{"index":"#);
                    json(out, &choice);
                    out.put_slice(br#","delta":{"content":"#);
                    json(out, text);
                    out.put_u8(b'}');
                }
            }
            out.put_slice(br#","logprobs":"#);
            self.put_logprobs(out, tokens, cursor);
            out.put_slice(br#","finish_reason":null}"#);
        });
    }

    pub(super) fn finish(&self, out: &mut BytesMut, choice: u32, reason: FinishReason) {
        self.data(out, |out| {
            match self.kind {
                Kind::Text => out.put_slice(br#"{"text":"","index":"#),
                Kind::Chat => out.put_slice(br#"{"delta":{},"index":"#),
            }
            json(out, &choice);
            out.put_slice(br#","logprobs":null,"finish_reason":"#);
            json(out, word(reason));
            out.put_u8(b'}');
        });
    }

    /// The end of a stream that ended well, and what it cost where that is known.
    pub(super) fn done(&self, out: &mut BytesMut, usage: &Usage, cost: Option<Money>) {
        if self.include_usage {
            out.put_slice(b"data: ");
            out.put_slice(&self.chunk_head);
            out.put_slice(br#"],"usage":"#);
            json(out, &UsageObject::new(usage, cost));
            out.put_slice(b"}\n\n");
        }
        out.put_slice(b"data: [DONE]\n\n");
    }

    /// One event with one choice, which `choice` writes.
    fn data(&self, out: &mut BytesMut, choice: impl FnOnce(&mut BytesMut)) {
        out.put_slice(b"data: ");
        out.put_slice(&self.chunk_head);
        choice(out);
        out.put_u8(b']');
        if self.include_usage {
            out.put_slice(br#","usage":null"#);
        }
        out.put_slice(b"}\n\n");
    }

    /// The answer as one object.
    pub(super) fn whole(&self, collected: &Collected, cost: Option<Money>) -> Vec<u8> {
        let mut out = BytesMut::with_capacity(self.whole_head.len() + collected.size());
        out.put_slice(&self.whole_head);
        for (index, choice) in collected.choices.iter().enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            match self.kind {
                Kind::Text => out.put_slice(br#"{"text":"#),
                Kind::Chat => out.put_slice(br#"{"message":{"role":"assistant","content":"#),
            }
            json(&mut out, &choice.text);
            if self.kind == Kind::Chat {
                out.put_slice(br#","refusal":null}"#);
            }
            out.put_slice(br#","index":"#);
            json(&mut out, &index);
            out.put_slice(br#","logprobs":"#);
            self.put_logprobs(&mut out, &choice.tokens, &mut Cursor::default());
            out.put_slice(br#","finish_reason":"#);
            json(&mut out, word(choice.finish));
            out.put_u8(b'}');
        }
        out.put_slice(br#"],"usage":"#);
        json(&mut out, &UsageObject::new(&collected.usage, cost));
        out.put_u8(b'}');
        out.into()
    }

    fn put_logprobs(&self, out: &mut BytesMut, tokens: &[TokenLogprob], cursor: &mut Cursor) {
        let Some(top) = self.logprobs else { return out.put_slice(b"null") };
        match self.kind {
            Kind::Text => put_text_logprobs(out, tokens, top > 0, cursor),
            Kind::Chat => put_chat_logprobs(out, tokens),
        }
    }
}

/// `{"tokens":[..],"token_logprobs":[..],"top_logprobs":[{..}],"text_offset":[..]}`
fn put_text_logprobs(
    out: &mut BytesMut,
    tokens: &[TokenLogprob],
    with_top: bool,
    cursor: &mut Cursor,
) {
    out.put_slice(br#"{"tokens":["#);
    list(out, tokens, |out, token| json(out, &token_text(&token.bytes)));
    out.put_slice(br#"],"token_logprobs":["#);
    list(out, tokens, |out, token| json(out, &token.logprob.map(finite)));
    out.put_slice(br#"],"top_logprobs":"#);
    match with_top {
        false => out.put_slice(b"null"),
        true => {
            out.put_u8(b'[');
            list(out, tokens, put_top);
            out.put_u8(b']');
        }
    }
    out.put_slice(br#","text_offset":["#);
    list(out, tokens, |out, token| {
        json(out, &cursor.characters);
        // Bytes that begin a character, so that a character split over tokens counts once.
        cursor.characters += token.bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
    });
    out.put_slice(b"]}");
}

/// The alternatives, and the chosen token where it is none of them.
fn put_top(out: &mut BytesMut, token: &TokenLogprob) {
    let Some(logprob) = token.logprob else { return out.put_slice(b"null") };
    let chosen = (&token.bytes, logprob);
    let missing = !token.top.iter().any(|(bytes, _)| *bytes == token.bytes);
    let top = token.top.iter().map(|(bytes, logprob)| (bytes, *logprob));
    out.put_u8(b'{');
    for (nth, (bytes, logprob)) in top.chain(missing.then_some(chosen)).enumerate() {
        if nth > 0 {
            out.put_u8(b',');
        }
        json(out, &token_text(bytes));
        out.put_u8(b':');
        json(out, &finite(logprob));
    }
    out.put_u8(b'}');
}

/// `{"content":[{"token":..,"logprob":..,"bytes":[..],"top_logprobs":[..]}],"refusal":null}`
fn put_chat_logprobs(out: &mut BytesMut, tokens: &[TokenLogprob]) {
    out.put_slice(br#"{"content":["#);
    list(out, tokens, |out, token| {
        put_chat_token(out, &token.bytes, token.logprob.unwrap_or(0.0));
        out.put_slice(br#","top_logprobs":["#);
        list(out, &token.top, |out, (bytes, logprob)| {
            put_chat_token(out, bytes, *logprob);
            out.put_u8(b'}');
        });
        out.put_slice(b"]}");
    });
    out.put_slice(br#"],"refusal":null}"#);
}

fn put_chat_token(out: &mut BytesMut, bytes: &[u8], logprob: f32) {
    out.put_slice(br#"{"token":"#);
    json(out, &token_text(bytes));
    out.put_slice(br#","logprob":"#);
    json(out, &finite(logprob));
    out.put_slice(br#","bytes":"#);
    json(out, bytes);
}

/// A token that is no whole text is named by its bytes, as OpenAI does.
fn token_text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes
            .iter()
            .fold("bytes:".to_owned(), |name, byte| name + &format!("\\x{byte:02x}"))
            .into(),
    }
}

fn finite(logprob: f32) -> f32 {
    logprob.max(LOGPROB_MIN)
}

fn word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
    }
}

fn list<T>(out: &mut BytesMut, all: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    for (nth, one) in all.iter().enumerate() {
        if nth > 0 {
            out.put_u8(b',');
        }
        put(out, one);
    }
}

fn json(out: &mut BytesMut, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out.writer(), value).expect("plain data serialises into memory");
}

#[derive(Serialize)]
struct Head<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
}

#[derive(Serialize)]
struct UsageObject {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokensDetails,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<String>,
}

#[derive(Serialize)]
struct PromptTokensDetails {
    cached_tokens: u64,
}

impl UsageObject {
    fn new(usage: &Usage, cost: Option<Money>) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens: usage.cached_tokens },
            cost_usd: cost.map(|cost| cost.to_string()),
        }
    }
}

/// An answer that is not streamed.
pub(super) struct Collected {
    choices: Vec<Choice>,
    usage: Usage,
}

struct Choice {
    text: String,
    tokens: Vec<TokenLogprob>,
    finish: FinishReason,
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
    fn size(&self) -> usize {
        self.choices.iter().map(|choice| choice.text.len() + choice.tokens.len() * 64 + 128).sum()
    }
}
