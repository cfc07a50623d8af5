//! Ollama's own API: `POST /api/generate` and `/api/chat`; [`card`] tells of the model.

pub(super) mod card;
mod options;

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use self::options::Options;
use super::answer::{Ask, Caller, answer};
use super::chat::{self, Messages};
use super::error::ApiError;
use super::fields::{Field, Nested, body, parse};
use super::reply::ollama::{Kind, Lines};
use super::{Api, ModelCard, Service, raw};
use crate::completion::{ChatMessage, CompletionRequest, FimInput, Input, Priority};

body! {
    struct GenerateFields {
        prompt: String,
        suffix: String,
        system: String,
        raw: bool,
        stream: bool,
        keep_alive: KeepAlive,
    }
}

body! {
    struct ChatFields {
        messages: Messages,
        stream: bool,
        keep_alive: KeepAlive,
    }
}

pub(super) async fn generate<S: Service>(
    State(api): State<Arc<Api<S>>>,
    request: Request,
) -> Response {
    answer(api, request, read_generate).await
}

pub(super) async fn chat<S: Service>(State(api): State<Arc<Api<S>>>, request: Request) -> Response {
    answer(api, request, read_chat).await
}

fn read_generate(body: &[u8], caller: &Caller<'_>, model: &ModelCard) -> Result<Ask, ApiError> {
    let (own, Nested(options)): (GenerateFields, Nested<Options>) = parse(body)?;
    let (stream, keep_alive) = (own.stream, own.keep_alive);
    let input = own.input(model);
    ask(Asked { kind: Kind::Generate, input, stream, keep_alive, options }, caller, model)
}

fn read_chat(body: &[u8], caller: &Caller<'_>, model: &ModelCard) -> Result<Ask, ApiError> {
    let (own, Nested(options)): (ChatFields, Nested<Options>) = parse(body)?;
    let (stream, keep_alive) = (own.stream, own.keep_alive);
    let messages = own.messages.map(|messages| messages.0).unwrap_or_default();
    if !messages.is_empty() {
        chat::has_template(model)?;
    }
    let input = (!messages.is_empty()).then_some(Input::Chat(messages));
    ask(Asked { kind: Kind::Chat, input, stream, keep_alive, options }, caller, model)
}

/// What both routes come to.
struct Asked {
    kind: Kind,
    /// None: there is no prompt, by which clients have a model loaded or unloaded.
    input: Option<Input>,
    stream: Option<bool>,
    keep_alive: Option<KeepAlive>,
    options: Option<Options>,
}

fn ask(asked: Asked, caller: &Caller<'_>, model: &ModelCard) -> Result<Ask, ApiError> {
    let settings = asked.options.unwrap_or_default().settle(model)?;
    let request = |input: Input| {
        let natural = match input {
            Input::Chat(_) => Priority::Chat,
            _ => Priority::Completion,
        };
        Arc::new(CompletionRequest {
            max_tokens: settings.max_tokens,
            sampling: settings.sampling.clone(),
            stop: settings.stop.clone(),
            ..caller.request(input, natural)
        })
    };
    // The model stays whatever is asked: it is the one that this process has.
    let unasked = match asked.keep_alive {
        Some(KeepAlive { is_zero: true }) => "unload",
        _ => "load",
    };
    Ok(Ask {
        requests: asked.input.map(request).into_iter().collect(),
        letter: Box::new(Lines::new(asked.kind, unasked)),
        n: 1,
        best_of: 1,
        stream: asked.stream.unwrap_or(true),
    })
}

impl GenerateFields {
    /// A suffix, even an empty one, makes it a cursor. Otherwise a prompt that was not declared raw
    /// is a turn of a conversation, where the model knows those.
    fn input(self, model: &ModelCard) -> Option<Input> {
        let prompt = self.prompt.unwrap_or_default();
        if prompt.is_empty() && self.suffix.as_ref().is_none_or(String::is_empty) {
            return None;
        }
        if let Some(suffix) = self.suffix {
            return Some(Input::Fim(FimInput { prefix: prompt, suffix, ..FimInput::default() }));
        }
        let is_turn = model.chat && self.raw != Some(true);
        Some(match raw::input(prompt, model) {
            Input::Text(prompt) if is_turn => Input::Chat(turn(self.system, prompt)),
            input => input,
        })
    }
}

fn turn(system: Option<String>, prompt: String) -> Vec<ChatMessage> {
    let says = |role: &str, content| ChatMessage { role: role.to_owned(), content };
    let system = system.filter(|text| !text.is_empty()).map(|text| says("system", text));
    system.into_iter().chain([says("user", prompt)]).collect()
}

/// How long the model should stay loaded; of which only 0, at once, changes a word of an answer.
#[derive(Clone, Copy)]
struct KeepAlive {
    is_zero: bool,
}

impl Field for KeepAlive {
    const EXPECTED: &'static str = "a number of seconds or a duration as in \"5m\"";
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeepAliveVisitor)
    }
}

struct KeepAliveVisitor;

impl Visitor<'_> for KeepAliveVisitor {
    type Value = KeepAlive;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KeepAlive::EXPECTED)
    }

    fn visit_i64<E>(self, seconds: i64) -> Result<KeepAlive, E> {
        Ok(KeepAlive { is_zero: seconds == 0 })
    }

    fn visit_u64<E>(self, seconds: u64) -> Result<KeepAlive, E> {
        Ok(KeepAlive { is_zero: seconds == 0 })
    }

    fn visit_f64<E>(self, seconds: f64) -> Result<KeepAlive, E> {
        Ok(KeepAlive { is_zero: seconds == 0.0 })
    }

    fn visit_str<E>(self, duration: &str) -> Result<KeepAlive, E> {
        let mut digits = duration.chars().filter(char::is_ascii_digit).peekable();
        let is_zero = digits.peek().is_some() && digits.all(|digit| digit == '0');
        Ok(KeepAlive { is_zero })
    }
}
