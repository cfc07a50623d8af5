//! What a request looks like on an OpenAI-shaped wire, and what such a row cannot do.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use models::fim::{ExtraText, Family, FimText, Piece};
use models::text::StopStrings;
use serde::Serialize;

use crate::completion::{ChatMessage, CompletionRequest, FimInput, Input, Reason, Refusal};
use crate::config::{CloudConfig, CloudFim};
use crate::money::Asked;
use crate::policy::upstream::UpstreamNames;

/// Stop strings an OpenAI-shaped server accepts; all of them are matched here anyway.
const UPSTREAM_STOPS_MAX: usize = 4;
/// Alternatives per token an OpenAI-shaped server reports.
const UPSTREAM_LOGPROBS_MAX: u32 = 5;

const FILL_IN: &str = "You complete code. Reply with exactly the text that belongs between \
    <prefix> and <suffix>: no explanation, no Markdown, nothing that either of them already holds.";
const CONTINUE: &str = "You complete text. Reply with exactly the text that follows <prefix>: \
    no explanation, no Markdown, nothing that it already holds.";

/// Which route answers, and so how its stream reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `/completions`: `choices[].text`.
    Completion,
    /// `/chat/completions`: `choices[].delta.content`.
    Chat,
}

/// A request, ready to be sent, and what its answer is to be held against.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) shape: Shape,
    pub(super) body: Bytes,
    /// Every text that ends a choice: the request's own, then the family's.
    pub(super) stops: Arc<StopStrings>,
    pub(super) max_tokens: u32,
    /// The cursor whose surroundings a chat model may echo.
    pub(super) emulated: Option<FimInput>,
}

/// Renders `request` for `row`, always as a stream. `max_tokens` is clamped to the row's; every
/// other thing the row cannot do is a refusal that names the field.
pub(super) fn render(request: &CompletionRequest, row: &CloudConfig) -> Result<Rendered, Refusal> {
    if let Some(field) = cannot(request, row) {
        return Err(cannot_honour(field));
    }
    let max_tokens = max_tokens(request, row);
    let mut stops = request.stop.strings.clone();
    let mut emulated = None;
    let mut body = Body::new(request, row, max_tokens);
    let shape = match (&request.input, &row.fim) {
        (Input::Chat(messages), _) => body.chat(messages),
        (Input::Text(text), CloudFim::Chat) => {
            emulated = Some(FimInput { prefix: text.clone(), ..FimInput::default() });
            body.emulate(emulated.as_ref().expect("set above"))
        }
        (Input::Text(text), _) => body.complete(text.clone(), None),
        (Input::Fim(fim), CloudFim::Suffix) => body.complete(fim.prefix.clone(), Some(&fim.suffix)),
        (Input::Fim(fim), CloudFim::Peer) => body.complete_there(fim),
        (Input::Fim(fim), CloudFim::Template(family)) => {
            let prompt = template(family, fim, &mut stops)?;
            body.complete(prompt, None)
        }
        (Input::Fim(fim), CloudFim::Chat) => {
            emulated = Some(fim.clone());
            body.emulate(fim)
        }
        (Input::Tokens(_), _) => unreachable!("refused by cannot()"),
    };
    body.stop = &stops[..stops.len().min(UPSTREAM_STOPS_MAX)];
    let bytes = serde_json::to_vec(&body).map_err(|error| {
        Refusal::new(Reason::CloudCannot("prompt"), "the request cannot be written as JSON")
            .with_source(error)
    })?;
    let stops = StopStrings::new(&stops).map_err(|error| {
        Refusal::new(Reason::CloudCannot("stop"), error.to_string()).with_source(error)
    })?;
    let stops = Arc::new(stops);
    Ok(Rendered { shape, body: bytes.into(), stops, max_tokens, emulated })
}

/// Bytes that a prompt may have beside its texts: the words around a part, in a template's tokens
/// or in tags,
const PART_BYTES: u64 = 64;
/// and what a chat model is told to do.
const INSTRUCTION_BYTES: u64 = 512;

/// What `request` would ask of `row`: never less than [`render`] will make of it.
pub(super) fn quote(request: &CompletionRequest, row: &CloudConfig) -> Result<Asked, Refusal> {
    if let Some(field) = cannot(request, row) {
        return Err(cannot_honour(field));
    }
    let (mut bytes, mut messages) = (INSTRUCTION_BYTES, 0);
    let mut part = |text: &str| bytes += text.len() as u64 + PART_BYTES;
    match &request.input {
        Input::Text(text) => part(text),
        Input::Fim(fim) => {
            let names = fim.path.iter().chain(&fim.repository);
            let extras = fim.extra.iter().flat_map(|file| [&file.path, &file.text]);
            [&fim.prefix, &fim.suffix].into_iter().chain(names).chain(extras).for_each(|t| part(t));
        }
        Input::Chat(all) => {
            messages = all.len() as u64;
            all.iter().for_each(|message| part(&message.content));
        }
        Input::Tokens(_) => unreachable!("refused by cannot()"),
    }
    if row.fim == CloudFim::Chat {
        messages = messages.max(2);
    }
    let max_tokens = u64::from(max_tokens(request, row));
    Ok(Asked { bytes, messages, max_tokens, n: u64::from(request.n) })
}

fn max_tokens(request: &CompletionRequest, row: &CloudConfig) -> u32 {
    request.max_tokens.unwrap_or(row.max_tokens).min(row.max_tokens)
}

fn cannot_honour(field: &'static str) -> Refusal {
    let message = format!("no configured cloud can honour `{field}`");
    Refusal::new(Reason::CloudCannot(field), message)
}

/// The first field of `request` that `row` cannot honour in full.
fn cannot(request: &CompletionRequest, row: &CloudConfig) -> Option<&'static str> {
    let sampling = &request.sampling;
    let stop = &request.stop;
    let chat = matches!(request.input, Input::Chat(_)) || row.fim == CloudFim::Chat;
    let around = match &request.input {
        Input::Fim(fim) if row.fim == CloudFim::Suffix => Some(fim),
        _ => None,
    };
    let checks = [
        ("prompt", matches!(request.input, Input::Tokens(_))),
        // Where there is no field for a path it is left out: a hint, and settled policy by now.
        ("extra_files", around.is_some_and(|fim| !fim.extra.is_empty())),
        ("max_tokens", request.max_tokens == Some(0)),
        ("echo", request.echo),
        ("logprobs", request.logprobs.is_some_and(|top| chat || top > UPSTREAM_LOGPROBS_MAX)),
        ("logit_bias", !sampling.logit_bias.is_empty()),
        ("top_k", sampling.top_k != 0),
        ("min_p", sampling.min_p != 0.0),
        ("repetition_penalty", sampling.repetition_penalty != 1.0),
        ("ignore_eos", stop.ignore_eos),
        ("min_tokens", stop.min_tokens != 0),
        ("stop_token_ids", !stop.token_ids.is_empty()),
    ];
    checks.iter().find(|(_, refused)| *refused).map(|(field, _)| *field)
}

/// The family's own prompt; what ends its completions joins `stops`.
fn template(
    family: &'static Family,
    fim: &FimInput,
    stops: &mut Vec<String>,
) -> Result<String, Refusal> {
    let names = UpstreamNames::of(fim);
    let extras: Vec<ExtraText<'_>> = names
        .extras
        .iter()
        .zip(&fim.extra)
        .map(|(path, file)| ExtraText { path, text: &file.text })
        .collect();
    let text = FimText {
        prefix: &fim.prefix,
        suffix: &fim.suffix,
        path: names.path.as_deref(),
        repository: names.repository.as_deref(),
        extras: &extras,
    };
    if holds_control_token(family, &text) {
        // Here it would stay text; on a raw route the cloud would read it as the token.
        let message = "the text holds a control token of the cloud's model";
        return Err(Refusal::new(Reason::CloudCannot("prompt"), message));
    }
    let prompt = family.render_text(models::FimOrder::Auto, &text).map_err(|error| {
        Refusal::new(Reason::CloudCannot("suffix"), "the cloud's model cannot fill in the middle")
            .with_source(error)
    })?;
    for stop in family.stops.iter().chain(family.stop_texts) {
        if !stops.iter().any(|known| known == stop) {
            stops.push((*stop).to_owned());
        }
    }
    Ok(prompt)
}

fn holds_control_token(family: &Family, text: &FimText<'_>) -> bool {
    let forms = [family.psm, family.spm, family.repository, family.extra, family.opening];
    let tokens = forms.into_iter().flatten().filter_map(|piece| match piece {
        Piece::Token(token) => Some(*token),
        _ => None,
    });
    let tokens: Vec<&str> = tokens.chain(family.stops.iter().copied()).collect();
    let extras = text.extras.iter().flat_map(|extra| [extra.path, extra.text]);
    let own = [text.prefix, text.suffix];
    let names = text.path.into_iter().chain(text.repository);
    own.into_iter()
        .chain(names)
        .chain(extras)
        .any(|part| tokens.iter().any(|token| part.contains(token)))
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
    stream_options: StreamOptions,
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
            stream: true,
            stream_options: StreamOptions { include_usage: true },
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
        let system = if fim.suffix.is_empty() { CONTINUE } else { FILL_IN };
        self.messages = vec![
            Message { role: "system", content: system.into() },
            Message { role: "user", content: question(fim).into() },
        ];
        Shape::Chat
    }
}

/// A cursor as a chat model is asked about it: context first, the cursor's surroundings last.
fn question(fim: &FimInput) -> String {
    let mut text = String::new();
    let mut part = |tag: &str, body: &str| {
        for piece in ["<", tag, ">", body, "</", tag, ">\n"] {
            text.push_str(piece);
        }
    };
    let names = UpstreamNames::of(fim);
    for (path, file) in names.extras.iter().zip(&fim.extra) {
        part("path", path);
        part("file", &file.text);
    }
    if let Some(repository) = &names.repository {
        part("repository", repository);
    }
    if let Some(path) = &names.path {
        part("path", path);
    }
    part("prefix", &fim.prefix);
    if !fim.suffix.is_empty() {
        part("suffix", &fim.suffix);
    }
    text
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
