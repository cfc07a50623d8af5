//! OpenAI's wire, which most servers speak: `/completions` and `/chat/completions`, streamed as
//! server-sent events or whole.

mod read;

use std::borrow::Cow;

use hyper::Uri;
use serde::Serialize;

use super::prompt::{emulated, instruction, question, template};
use super::{Abilities, Rendered, Wire, json, max_tokens, stop_strings};
use crate::cloud::frames::sse;
use crate::completion::{ChatMessage, CompletionRequest, FimInput, Input, Refusal};
use crate::config::{CloudConfig, CloudFim};

/// Stop strings an OpenAI-shaped server accepts; all of them are matched here anyway.
const UPSTREAM_STOPS_MAX: usize = 4;
/// Alternatives per token an OpenAI-shaped server reports.
const UPSTREAM_LOGPROBS_MAX: u32 = 5;

/// Which route answers, and so how its answer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `/completions`: `choices[].text`.
    Completion,
    /// `/chat/completions`: `choices[].delta.content`, whole `choices[].message.content`.
    Chat,
}

/// One server's two routes.
pub(in crate::cloud) struct OpenAi {
    completions: Uri,
    chat: Uri,
}

impl OpenAi {
    /// None: `base` has no scheme or host.
    pub(in crate::cloud) fn new(base: &Uri) -> Option<Self> {
        Some(Self {
            completions: under(base, "completions")?,
            chat: under(base, "chat/completions")?,
        })
    }
}

impl Wire for OpenAi {
    fn abilities(&self, _row: &CloudConfig) -> Abilities {
        Abilities {
            chat: true,
            n: true,
            seed: true,
            penalties: true,
            top_k: false,
            logprobs: Some(UPSTREAM_LOGPROBS_MAX),
        }
    }

    fn render(&self, request: &CompletionRequest, row: &CloudConfig) -> Result<Rendered, Refusal> {
        let max_tokens = max_tokens(request, row);
        let mut stops = request.stop.strings.clone();
        let emulated = emulated(&request.input, row);
        let mut body = Body::new(request, row, max_tokens);
        let shape = match (&request.input, &emulated) {
            (_, Some(fim)) => body.emulate(fim),
            (Input::Chat(messages), _) => body.chat(messages),
            (Input::Text(text), _) => body.complete(text.clone(), None),
            (Input::Fim(fim), _) => match &row.fim {
                CloudFim::Template(family) => {
                    let prompt = template(family, fim, &mut stops)?;
                    body.complete(prompt, None)
                }
                CloudFim::Peer => body.complete_there(fim),
                CloudFim::Suffix | CloudFim::Chat => {
                    body.complete(fim.prefix.clone(), Some(&fim.suffix))
                }
            },
            (Input::Tokens(_), _) => unreachable!("abilities refuse it"),
        };
        body.stop = &stops[..stops.len().min(UPSTREAM_STOPS_MAX)];
        let uri = match shape {
            Shape::Completion => &self.completions,
            Shape::Chat => &self.chat,
        };
        Ok(Rendered {
            uri: uri.clone(),
            body: json(&body)?,
            accept: if row.stream { sse::CONTENT_TYPE } else { "application/json" },
            stops: stop_strings(&stops)?,
            max_tokens,
            emulated,
            frames: Box::new(sse::Parser::default()),
            reader: Box::new(read::Reading::new(shape, request.logprobs.is_some())),
        })
    }
}

/// `base_url` with `route` appended to its path.
pub(in crate::cloud) fn under(base: &Uri, route: &str) -> Option<Uri> {
    let authority = base.authority()?.as_str();
    let path = base.path().trim_end_matches('/');
    format!("{}://{authority}{path}/{route}", base.scheme_str()?).parse().ok()
}

/// The JSON body; absent fields are left out, since servers differ in how they read null.
#[derive(Serialize)]
struct Body<'a> {
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
    max_tokens: u32,
    temperature: f32,
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
    logprobs: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
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
    fn new(request: &'a CompletionRequest, row: &'a CloudConfig, max_tokens: u32) -> Self {
        let sampling = &request.sampling;
        Self {
            model: &row.model,
            prompt: None,
            suffix: None,
            path: None,
            repository: None,
            extra_files: Vec::new(),
            messages: Vec::new(),
            max_tokens,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            n: request.n,
            // Servers read the seed as a signed number.
            seed: sampling.seed.map(|seed| (seed & i64::MAX.unsigned_abs()).cast_signed()),
            logprobs: request.logprobs,
            stop: &[],
            stream: row.stream,
            stream_options: row.stream.then_some(StreamOptions { include_usage: true }),
        }
    }

    fn complete(&mut self, prompt: String, suffix: Option<&'a str>) -> Shape {
        self.prompt = Some(prompt);
        self.suffix = suffix;
        Shape::Completion
    }

    /// A cursor with everything around it, in the fields that another weir reads. Names stay whole:
    /// it is the user's own weir, which holds them against its rules.
    fn complete_there(&mut self, fim: &'a FimInput) -> Shape {
        self.path = fim.path.as_deref();
        self.repository = fim.repository.as_deref();
        self.extra_files =
            fim.extra.iter().map(|file| File { path: &file.path, text: &file.text }).collect();
        self.complete(fim.prefix.clone(), Some(&fim.suffix))
    }

    fn chat(&mut self, messages: &'a [ChatMessage]) -> Shape {
        self.messages = messages
            .iter()
            .map(|m| Message { role: &m.role, content: m.content.as_str().into() })
            .collect();
        Shape::Chat
    }

    fn emulate(&mut self, fim: &FimInput) -> Shape {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_appended_to_the_base() {
        let at = |base: &str| under(&base.parse().unwrap(), "completions").unwrap().to_string();
        assert_eq!(at("http://h:9000/v1"), "http://h:9000/v1/completions");
        assert_eq!(at("https://h/a/v1/"), "https://h/a/v1/completions");
        assert_eq!(at("https://h"), "https://h/completions");
    }
}
