//! Gemini's own wire: `generateContent`, streamed as server-sent events or whole.

mod read;

use hyper::Uri;
use serde::Serialize;

use self::read::Reading;
use crate::cloud::frames::sse;
use crate::cloud::wires::openai::under;
use crate::cloud::wires::prompt::{emulated, instruction, question};
use crate::cloud::wires::{Abilities, Rendered, Wire, json, max_tokens, stop_strings};
use crate::completion::{ChatMessage, CompletionRequest, Input, Refusal};
use crate::config::CloudConfig;
use crate::config::services::Thinking;

/// Stop strings that the API accepts; all of them are matched here anyway.
const UPSTREAM_STOPS_MAX: usize = 5;

/// One model's two methods.
pub(super) struct GenerateContent {
    uri: Uri,
    thinking: Option<Thinking>,
}

impl GenerateContent {
    /// None: the row's address has no scheme or host.
    pub(super) fn new(row: &CloudConfig, thinking: Option<Thinking>) -> Option<Self> {
        // Without alt=sse a stream is one JSON array.
        let method = if row.stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
        let uri = under(&row.base_url, &format!("models/{}:{method}", row.model))?;
        Some(Self { uri, thinking })
    }
}

impl Wire for GenerateContent {
    fn abilities(&self, row: &CloudConfig) -> Abilities {
        Abilities {
            chat: true,
            // Several candidates come whole or not at all.
            n: !row.stream,
            seed: true,
            penalties: true,
            top_k: true,
            logprobs: None,
        }
    }

    fn render(&self, request: &CompletionRequest, row: &CloudConfig) -> Result<Rendered, Refusal> {
        let max_tokens = max_tokens(request, row);
        let emulated = emulated(&request.input, row);
        let (system, contents) = match (&request.input, &emulated) {
            (_, Some(fim)) => {
                let asked = Content::new(Some("user"), question(fim));
                (Some(Content::new(None, instruction(fim).into())), vec![asked])
            }
            (Input::Chat(messages), _) => conversation(messages),
            _ => unreachable!("a row of this API has fim = \"chat\", and abilities refuse tokens"),
        };
        let body = Body {
            contents,
            system_instruction: system,
            generation_config: Generation::new(request, max_tokens, self.thinking.as_ref()),
        };
        Ok(Rendered {
            uri: self.uri.clone(),
            body: json(&body)?,
            accept: if row.stream { sse::CONTENT_TYPE } else { "application/json" },
            stops: stop_strings(&request.stop.strings)?,
            max_tokens,
            emulated,
            frames: Box::new(sse::Parser::default()),
            reader: Box::new(Reading::new(request.n)),
        })
    }
}

/// What the system says, and the turns of the others. Tools' answers count as the user's words.
fn conversation(messages: &[ChatMessage]) -> (Option<Content>, Vec<Content>) {
    let (system, turns): (Vec<_>, Vec<_>) = messages.iter().partition(|m| &*m.role == "system");
    let parts = |messages: Vec<&ChatMessage>| -> Vec<Part> {
        messages.into_iter().map(|message| Part { text: message.content.clone() }).collect()
    };
    if turns.is_empty() {
        // The API wants at least one turn.
        return (None, vec![Content { role: Some("user"), parts: parts(system) }]);
    }
    let turn = |message: &ChatMessage| {
        let role = if &*message.role == "assistant" { "model" } else { "user" };
        Content::new(Some(role), message.content.clone())
    };
    let contents = turns.into_iter().map(turn).collect();
    let system = (!system.is_empty()).then(|| Content { role: None, parts: parts(system) });
    (system, contents)
}

/// The JSON body; absent fields are left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    contents: Vec<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content>,
    generation_config: Generation<'a>,
}

#[derive(Serialize)]
struct Content {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    text: String,
}

impl Content {
    fn new(role: Option<&'static str>, text: String) -> Self {
        Self { role, parts: vec![Part { text }] }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Generation<'a> {
    max_output_tokens: u32,
    temperature: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<ThinkingConfig<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum ThinkingConfig<'a> {
    ThinkingBudget(i32),
    ThinkingLevel(&'a str),
}

impl<'a> Generation<'a> {
    fn new(
        request: &'a CompletionRequest,
        max_tokens: u32,
        thinking: Option<&'a Thinking>,
    ) -> Self {
        let (sampling, stops) = (&request.sampling, &request.stop.strings);
        let unless = |value: f32, default: f32| (value != default).then_some(value);
        Self {
            max_output_tokens: max_tokens,
            temperature: sampling.temperature,
            top_p: unless(sampling.top_p, 1.0),
            top_k: (sampling.top_k != 0).then_some(sampling.top_k),
            candidate_count: (request.n > 1).then_some(request.n),
            presence_penalty: unless(sampling.presence_penalty, 0.0),
            frequency_penalty: unless(sampling.frequency_penalty, 0.0),
            // The API reads 32 bits with a sign.
            seed: sampling.seed.map(|seed| (seed & u64::from(i32::MAX.unsigned_abs())) as i32),
            stop_sequences: &stops[..stops.len().min(UPSTREAM_STOPS_MAX)],
            thinking_config: thinking.map(|thinking| match thinking {
                Thinking::Budget(tokens) => ThinkingConfig::ThinkingBudget(*tokens),
                Thinking::Level(level) => ThinkingConfig::ThinkingLevel(level),
            }),
        }
    }
}
