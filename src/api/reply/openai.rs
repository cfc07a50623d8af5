//! OpenAI's two shapes of an answer, text completion and chat.

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::{Collected, Heading, Letter, Summary, finite, json, list, token_text, word};
use crate::api::error::ApiError;
use crate::completion::{FinishReason, TokenLogprob, Usage};
use crate::money::Money;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Kind {
    Text,
    Chat,
}

/// An answer of this dialect.
pub(in crate::api) struct Shape {
    kind: Kind,
    /// As the client asked.
    logprobs: Option<u32>,
    include_usage: bool,
    /// From `{"id":` to `"choices":[`, of a chunk and of a whole answer.
    chunk_head: Vec<u8>,
    whole_head: Vec<u8>,
    /// One for each choice.
    cursors: Vec<Cursor>,
}

/// Where a choice stands.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// Of the tokens so far; the next one's `text_offset`.
    characters: usize,
    /// Whether the role was sent (chat).
    begun: bool,
}

impl Shape {
    pub(in crate::api) fn new(kind: Kind, logprobs: Option<u32>, include_usage: bool) -> Self {
        let (chunk_head, whole_head, cursors) = Default::default();
        Self { kind, logprobs, include_usage, chunk_head, whole_head, cursors }
    }
}

impl Letter for Shape {
    fn open(&mut self, heading: &Heading<'_>) {
        let &Heading { model, created, choices, .. } = heading;
        let id = fastrand::u128(..);
        let (id, whole, chunk) = match self.kind {
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
        (self.chunk_head, self.whole_head) = (head(chunk), head(whole));
        self.cursors = vec![Cursor::default(); choices];
    }

    /// The role that begins every chat choice.
    fn begin(&mut self, out: &mut BytesMut, choice: u32) {
        let cursor = &mut self.cursors[choice as usize];
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

    fn text(&mut self, out: &mut BytesMut, choice: u32, text: &str, tokens: &[TokenLogprob]) {
        let mut cursor = self.cursors[choice as usize];
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
            self.put_logprobs(out, tokens, &mut cursor);
            out.put_slice(br#","finish_reason":null}"#);
        });
        self.cursors[choice as usize] = cursor;
    }

    fn finish(&mut self, out: &mut BytesMut, choice: u32, reason: FinishReason) {
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

    fn done(&mut self, out: &mut BytesMut, summary: &Summary) {
        if self.include_usage {
            out.put_slice(b"data: ");
            out.put_slice(&self.chunk_head);
            out.put_slice(br#"],"usage":"#);
            json(out, &UsageObject::new(&summary.usage, summary.cost));
            out.put_slice(b"}\n\n");
        }
        out.put_slice(b"data: [DONE]\n\n");
    }

    /// A stream that breaks says so and sends no `[DONE]`.
    fn failed(&mut self, out: &mut BytesMut, error: &ApiError) {
        out.put_slice(b"data: ");
        out.put_slice(&error.to_json());
        out.put_slice(b"\n\n");
    }

    fn whole(&mut self, collected: &Collected, summary: &Summary) -> Vec<u8> {
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
        json(&mut out, &UsageObject::new(&collected.usage, summary.cost));
        out.put_u8(b'}');
        out.into()
    }
}

impl Shape {
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
