//! `POST /v1/chat/completions`, when the model has a chat template.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

use super::answer::{Ask, Caller, answer};
use super::error::ApiError;
use super::fields::{Field, MaxTokens, body, parse};
use super::reply::openai::{Kind, Shape};
use super::sampling::{SharedFields, integer};
use super::{Api, ModelCard, Service};
use crate::completion::{ChatMessage, CompletionRequest, Input, Priority, Reason, Refusal};

/// Messages of one conversation.
const MESSAGES_MAX: usize = 1024;
/// Alternatives per token.
const TOP_LOGPROBS_MAX: i64 = 20;
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

body! {
    struct ChatFields {
        messages: Messages,
        max_completion_tokens: MaxTokens,
        logprobs: bool,
        top_logprobs: i64,
    }
}

pub(super) async fn post<S: Service>(State(api): State<Arc<Api<S>>>, request: Request) -> Response {
    answer(api, request, read).await
}

pub(super) fn read(body: &[u8], caller: &Caller<'_>, model: &ModelCard) -> Result<Ask, ApiError> {
    let (mut own, mut shared): (ChatFields, SharedFields) = parse(body)?;
    has_template(model)?;
    let messages = own
        .messages
        .take()
        .filter(|messages| !messages.0.is_empty())
        .ok_or_else(|| ApiError::invalid("messages", "`messages` is missing or empty"))?;
    let (n, best_of) = shared.choices(1)?;
    if best_of > n {
        return Err(ApiError::invalid("best_of", "`best_of` is not for chat; use `n`"));
    }
    let logprobs = own.logprobs()?;
    let max_tokens = own.max_completion_tokens.or(shared.max_tokens).and_then(|most| most.0);
    let input = Input::Chat(messages.0);
    let request = CompletionRequest {
        n,
        max_tokens,
        sampling: shared.sampling(model)?,
        stop: shared.stop_rules(max_tokens, model)?,
        logprobs,
        ..caller.request(input, Priority::Chat)
    };
    Ok(Ask {
        requests: vec![Arc::new(request)],
        letter: Box::new(Shape::new(Kind::Chat, logprobs, shared.include_usage())),
        n,
        best_of,
        stream: shared.streams(),
    })
}

/// 400 where the model has none.
pub(super) fn has_template(model: &ModelCard) -> Result<(), ApiError> {
    if model.chat {
        return Ok(());
    }
    let message = "this model has no chat template; use /v1/completions";
    Err(ApiError::from(&Refusal::new(Reason::Unsupported, message)))
}

impl ChatFields {
    fn logprobs(&self) -> Result<Option<u32>, ApiError> {
        let top = integer("top_logprobs", self.top_logprobs, 0..=TOP_LOGPROBS_MAX)?;
        match (self.logprobs.unwrap_or(false), top) {
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => {
                let message = "`top_logprobs` needs `logprobs`: true";
                Err(ApiError::invalid("top_logprobs", message))
            }
        }
    }
}

/// A conversation, checked.
pub(super) struct Messages(pub(super) Vec<ChatMessage>);

impl Field for Messages {
    const EXPECTED: &'static str = "a list of at most 1024 objects with `role` (system, developer, user, assistant, tool) \
         and `content` (a string or a list of text parts)";
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(MessagesVisitor)
    }
}

struct MessagesVisitor;

impl<'de> Visitor<'de> for MessagesVisitor {
    type Value = Messages;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Messages::EXPECTED)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Messages, S::Error> {
        let mut messages = Vec::new();
        while let Some(Message { role, content }) = list.next_element()? {
            if !ROLES.contains(&role.as_str()) || messages.len() == MESSAGES_MAX {
                return Err(S::Error::custom(Messages::EXPECTED));
            }
            // Templates know the older name.
            let role = if role == "developer" { "system".to_owned() } else { role };
            messages.push(ChatMessage { role, content: content.unwrap_or_default().0 });
        }
        Ok(Messages(messages))
    }
}

#[derive(Deserialize)]
struct Message {
    role: String,
    /// Null where an assistant only called tools.
    #[serde(default)]
    content: Option<Content>,
}

/// A string, or text parts joined.
#[derive(Default)]
struct Content(String);

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: String,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of text parts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content(text.to_owned()))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Content, S::Error> {
        let mut whole = String::new();
        while let Some(Part { kind, text }) = list.next_element()? {
            if kind != "text" {
                return Err(S::Error::custom("only text parts"));
            }
            whole.push_str(&text);
        }
        Ok(Content(whole))
    }
}
