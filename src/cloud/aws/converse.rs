//! Bedrock's Converse: one API for all its chat models.

mod read;

use hyper::Uri;
use serde::Serialize;

use super::model_uri;
use crate::cloud::frames::eventstream;
use crate::cloud::wires::prompt::{emulated, instruction, question};
use crate::cloud::wires::{Abilities, Rendered, Wire, json, max_tokens, stop_strings};
use crate::completion::{ChatMessage, CompletionRequest, FimInput, Input, Reason, Refusal};
use crate::config::CloudConfig;

/// Stop sequences that every model there accepts; all of them are matched here anyway.
const UPSTREAM_STOPS_MAX: usize = 4;

pub(super) struct Converse {
    whole: Uri,
    streamed: Uri,
}

impl Converse {
    pub(super) fn new(row: &CloudConfig) -> Option<Self> {
        let (whole, streamed) = (model_uri(row, "converse")?, model_uri(row, "converse-stream")?);
        Some(Self { whole, streamed })
    }
}

impl Wire for Converse {
    fn abilities(&self, _row: &CloudConfig) -> Abilities {
        // top_k has a name of its own for each model.
        Abilities {
            chat: true,
            n: false,
            seed: false,
            penalties: false,
            top_k: false,
            logprobs: None,
        }
    }

    fn render(&self, request: &CompletionRequest, row: &CloudConfig) -> Result<Rendered, Refusal> {
        let max_tokens = max_tokens(request, row);
        let emulated = emulated(&request.input, row);
        let mut body = Body::new(request, max_tokens);
        match (&request.input, &emulated) {
            (_, Some(fim)) => body.emulate(fim),
            (Input::Chat(messages), None) => body.chat(messages)?,
            _ => unreachable!("the row asks a chat model"),
        }
        let (uri, accept) = if row.stream {
            (&self.streamed, eventstream::CONTENT_TYPE)
        } else {
            (&self.whole, "application/json")
        };
        Ok(Rendered {
            uri: uri.clone(),
            body: json(&body)?,
            accept,
            stops: stop_strings(&request.stop.strings)?,
            max_tokens,
            emulated,
            frames: Box::new(eventstream::Parser::events()),
            reader: Box::new(read::Reading),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Text<'a>>,
    inference_config: Inference<'a>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Vec<Text<'a>>,
}

#[derive(Serialize)]
struct Text<'a> {
    text: std::borrow::Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inference<'a> {
    max_tokens: u32,
    temperature: f32,
    /// Left out where it changes nothing: some models refuse it beside a temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
}

impl<'a> Body<'a> {
    fn new(request: &'a CompletionRequest, max_tokens: u32) -> Self {
        let sampling = &request.sampling;
        // Some models refuse sequences of nothing but white space.
        let stops = request.stop.strings.iter().map(String::as_str);
        let stops = stops.filter(|stop| !stop.trim().is_empty()).take(UPSTREAM_STOPS_MAX);
        Self {
            messages: Vec::new(),
            system: Vec::new(),
            inference_config: Inference {
                max_tokens,
                temperature: sampling.temperature,
                top_p: Some(sampling.top_p).filter(|top_p| *top_p != 1.0),
                stop_sequences: stops.collect(),
            },
        }
    }

    fn emulate(&mut self, fim: &FimInput) {
        self.system = vec![Text { text: instruction(fim).into() }];
        self.messages =
            vec![Message { role: "user", content: vec![Text { text: question(fim).into() }] }];
    }

    /// Turns have to alternate, beginning with the user's, and no text may be blank.
    fn chat(&mut self, messages: &'a [ChatMessage]) -> Result<(), Refusal> {
        for message in messages.iter().filter(|message| !message.content.trim().is_empty()) {
            let text = Text { text: message.content.as_str().into() };
            let role = match message.role.as_str() {
                "system" | "developer" => {
                    self.system.push(text);
                    continue;
                }
                "user" => "user",
                "assistant" => "assistant",
                _ => return Err(cannot()),
            };
            match self.messages.last_mut() {
                Some(last) if last.role == role => last.content.push(text),
                _ => self.messages.push(Message { role, content: vec![text] }),
            }
        }
        match self.messages.first() {
            Some(first) if first.role == "user" => Ok(()),
            _ => Err(cannot()),
        }
    }
}

fn cannot() -> Refusal {
    let message = "no configured cloud can honour `messages`";
    Refusal::new(Reason::CloudCannot("messages"), message)
}
