//! What is sent, in OpenAI's letter, and what a dialect makes of it.

use std::borrow::Cow;

use serde::Serialize;

use super::Shape;
use crate::cloud::wires::prompt::{instruction, question};
use crate::completion::{ChatMessage, CompletionRequest, FimInput};
use crate::config::CloudConfig;
use crate::config::services::{Dialect, Routing};

/// The JSON body; absent fields are left out, since servers differ in how they read null.
#[derive(Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extra_files: Vec<File<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "is_one")]
    top_p: f32,
    #[serde(skip_serializing_if = "is_zero")]
    presence_penalty: f32,
    #[serde(skip_serializing_if = "is_zero")]
    frequency_penalty: f32,
    #[serde(skip_serializing_if = "is_single")]
    n: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    random_seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(super) stop: &'a [String],
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Preferences<'a>>,
}

/// OpenRouter's word for whom it may hand a prompt on to. The pinned ones alone, none that keeps
/// data, and only such as honour every field of the request.
#[derive(Serialize)]
struct Preferences<'a> {
    only: &'a [String],
    allow_fallbacks: bool,
    data_collection: &'static str,
    require_parameters: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    zdr: bool,
}

impl<'a> From<&'a Routing> for Preferences<'a> {
    fn from(routing: &'a Routing) -> Self {
        Self {
            only: &routing.only,
            allow_fallbacks: false,
            data_collection: "deny",
            require_parameters: true,
            zdr: routing.zdr,
        }
    }
}

#[derive(Serialize)]
struct File<'a> {
    path: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: Cow<'a, str>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(
        request: &'a CompletionRequest,
        row: &'a CloudConfig,
        max_tokens: u32,
    ) -> Self {
        let sampling = &request.sampling;
        Self {
            model: &row.model,
            prompt: None,
            suffix: None,
            path: None,
            repository: None,
            extra_files: Vec::new(),
            messages: Vec::new(),
            max_tokens: Some(max_tokens),
            max_completion_tokens: None,
            reasoning_effort: None,
            temperature: Some(sampling.temperature),
            top_p: sampling.top_p,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            n: request.n,
            // Servers read the seed as a signed number.
            seed: sampling.seed.map(|seed| (seed & i64::MAX.unsigned_abs()).cast_signed()),
            random_seed: None,
            logprobs: request.logprobs,
            stop: &[],
            stream: row.stream,
            stream_options: row.stream.then_some(StreamOptions { include_usage: true }),
            provider: None,
        }
    }

    /// Says the same in a server's own way; last, when everything else is there.
    pub(super) fn speak(&mut self, dialect: &'a Dialect, shape: Shape) {
        if dialect.seed == Some("random_seed") {
            self.random_seed = self.seed.take();
        }
        if !dialect.asks_usage {
            self.stream_options = None;
        }
        self.provider = dialect.routing.as_ref().map(Preferences::from);
        if shape == Shape::Chat {
            self.reasoning_effort = dialect.reasoning_effort.as_deref();
            if dialect.max_completion_tokens {
                self.max_completion_tokens = self.max_tokens.take();
            }
        }
        if !dialect.sampling {
            self.temperature = None;
            (self.top_p, self.presence_penalty, self.frequency_penalty) = (1.0, 0.0, 0.0);
            self.stop = &[];
        }
    }

    pub(super) fn complete(&mut self, prompt: String, suffix: Option<&'a str>) -> Shape {
        self.prompt = Some(prompt);
        self.suffix = suffix;
        Shape::Completion
    }

    /// A cursor with everything around it, in the fields that another weir reads. Names stay whole:
    /// it is the user's own weir, which holds them against its rules.
    pub(super) fn complete_there(&mut self, fim: &'a FimInput) -> Shape {
        self.path = fim.path.as_deref();
        self.repository = fim.repository.as_deref();
        self.extra_files =
            fim.extra.iter().map(|file| File { path: &file.path, text: &file.text }).collect();
        self.complete(fim.prefix.clone(), Some(&fim.suffix))
    }

    pub(super) fn chat(&mut self, messages: &'a [ChatMessage]) -> Shape {
        self.messages = messages
            .iter()
            .map(|m| Message { role: &m.role, content: m.content.as_str().into() })
            .collect();
        Shape::Chat
    }

    pub(super) fn emulate(&mut self, fim: &FimInput) -> Shape {
        self.messages = vec![
            Message { role: "system", content: instruction(fim).into() },
            Message { role: "user", content: question(fim).into() },
        ];
        Shape::Chat
    }
}

// serde's skip_serializing_if hands over references.
fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

fn is_one(value: &f32) -> bool {
    *value == 1.0
}

fn is_single(value: &u32) -> bool {
    *value == 1
}
