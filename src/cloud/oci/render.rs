//! Oracle's two request shapes.

use serde::Serialize;

use crate::cloud::wires::prompt::{instruction, question};
use crate::completion::{
    ChatMessage, CompletionRequest, FimInput, Input, Reason, Refusal, SamplingParams,
};
use crate::config::CloudConfig;
use crate::config::services::{OciChat, OciFormat, OciServing};

/// Stop strings that are sent; all of them are matched here anyway.
const STOPS_MAX: usize = 4;

/// Everything a body is made of.
pub(super) struct Asking<'a> {
    pub(super) request: &'a CompletionRequest,
    pub(super) row: &'a CloudConfig,
    pub(super) chat: &'a OciChat,
    /// The cursor that a chat model is asked about.
    pub(super) fim: Option<&'a FimInput>,
    pub(super) max_tokens: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Body<'a> {
    compartment_id: &'a str,
    serving_mode: ServingMode<'a>,
    chat_request: ChatRequest<'a>,
}

#[derive(Serialize)]
#[serde(tag = "servingType", rename_all_fields = "camelCase")]
enum ServingMode<'a> {
    #[serde(rename = "ON_DEMAND")]
    OnDemand { model_id: &'a str },
    #[serde(rename = "DEDICATED")]
    Dedicated { endpoint_id: &'a str },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChatRequest<'a> {
    #[serde(flatten)]
    said: Said<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    temperature: f32,
    top_p: f32,
    #[serde(skip_serializing_if = "is_default")]
    top_k: u32,
    #[serde(skip_serializing_if = "is_default")]
    frequency_penalty: f32,
    #[serde(skip_serializing_if = "is_default")]
    presence_penalty: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    is_stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
#[serde(tag = "apiFormat", rename_all_fields = "camelCase")]
enum Said<'a> {
    #[serde(rename = "GENERIC")]
    Generic {
        messages: Vec<Message>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        stop: &'a [String],
    },
    #[serde(rename = "COHERE")]
    Cohere {
        message: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        chat_history: Vec<CohereMessage>,
        #[serde(skip_serializing_if = "Option::is_none")]
        preamble_override: Option<String>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        stop_sequences: &'a [String],
    },
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: [Content; 1],
}

#[derive(Serialize)]
struct Content {
    #[serde(rename = "type")]
    kind: &'static str,
    text: String,
}

#[derive(Serialize)]
struct CohereMessage {
    role: &'static str,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamOptions {
    is_include_usage: bool,
}

/// Who speaks, in Oracle's generic words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
}

impl<'a> Asking<'a> {
    pub(super) fn body(&self) -> Result<Body<'a>, Refusal> {
        let serving_mode = match &self.chat.serving {
            OciServing::OnDemand => ServingMode::OnDemand { model_id: &self.row.model },
            OciServing::Dedicated(id) => ServingMode::Dedicated { endpoint_id: id },
        };
        let (turns, chat) = (self.turns()?, self.chat);
        let stops = &self.request.stop.strings;
        let stops = &stops[..stops.len().min(STOPS_MAX)];
        let said = match chat.format {
            OciFormat::Generic => generic(turns, stops),
            OciFormat::Cohere => cohere(turns, stops)?,
        };
        Ok(Body {
            compartment_id: &chat.compartment,
            serving_mode,
            chat_request: self.with_limits(said),
        })
    }

    fn with_limits(&self, said: Said<'a>) -> ChatRequest<'a> {
        let sampling: &SamplingParams = &self.request.sampling;
        let renamed = counts_reasoning(&self.row.model);
        let limit = |mine: bool| (mine == renamed).then_some(self.max_tokens);
        ChatRequest {
            said,
            max_tokens: limit(false),
            max_completion_tokens: limit(true),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            seed: sampling.seed.map(|seed| (seed & i64::MAX.unsigned_abs()).cast_signed()),
            is_stream: self.row.stream,
            stream_options: self.row.stream.then_some(StreamOptions { is_include_usage: true }),
        }
    }

    fn turns(&self) -> Result<Vec<(Role, String)>, Refusal> {
        match (self.fim, &self.request.input) {
            (Some(fim), _) => {
                Ok(vec![(Role::System, instruction(fim).into()), (Role::User, question(fim))])
            }
            (None, Input::Chat(messages)) => messages.iter().map(turn).collect(),
            (None, _) => unreachable!("everything else is asked of a chat model"),
        }
    }
}

/// OpenAI's own models there count what they think with what they say, and call the limit so.
fn counts_reasoning(model: &str) -> bool {
    model.starts_with("openai.") && !model.contains("gpt-oss")
}

fn turn(message: &ChatMessage) -> Result<(Role, String), Refusal> {
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        // A tool's result names the call it answers, which weir does not carry.
        _ => return Err(cannot()),
    };
    Ok((role, message.content.clone()))
}

fn generic<'a>(turns: Vec<(Role, String)>, stop: &'a [String]) -> Said<'a> {
    let message = |(role, text)| {
        let role = match role {
            Role::System => "SYSTEM",
            Role::User => "USER",
            Role::Assistant => "ASSISTANT",
        };
        Message { role, content: [Content { kind: "TEXT", text }] }
    };
    Said::Generic { messages: turns.into_iter().map(message).collect(), stop }
}

/// What the system says first is Cohere's preamble, what a user says last its message, and
/// everything between is history.
fn cohere<'a>(
    mut turns: Vec<(Role, String)>,
    stop_sequences: &'a [String],
) -> Result<Said<'a>, Refusal> {
    let Some((Role::User, message)) = turns.pop() else { return Err(cannot()) };
    let first = turns.iter().position(|(role, _)| *role != Role::System).unwrap_or(turns.len());
    let preamble: Vec<String> = turns.drain(..first).map(|(_, text)| text).collect();
    let history = |(role, message)| {
        let role = match role {
            Role::System => "SYSTEM",
            Role::User => "USER",
            Role::Assistant => "CHATBOT",
        };
        CohereMessage { role, message }
    };
    Ok(Said::Cohere {
        message,
        chat_history: turns.into_iter().map(history).collect(),
        preamble_override: (!preamble.is_empty()).then(|| preamble.join("\n\n")),
        stop_sequences,
    })
}

fn cannot() -> Refusal {
    Refusal::new(Reason::CloudCannot("messages"), "no configured cloud can honour `messages`")
}

// serde's skip_serializing_if hands over references.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
