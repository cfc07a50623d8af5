//! `POST /v1/completions`: text, token ids, or a cursor between prompt and suffix.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

use super::answer::{Ask, Caller, answer};
use super::error::ApiError;
use super::fields::{Field, Prompts, body, parse};
use super::reply::openai::{Kind, Shape};
use super::sampling::{SharedFields, integer, known_ids};
use super::tabby::{self, Segments};
use super::{Api, ModelCard, Service, raw};
use crate::completion::{CompletionRequest, ExtraFile, FimInput, Input, Priority};

/// OpenAI's own default.
const MAX_TOKENS_DEFAULT: u32 = 16;
/// Alternatives per token.
const LOGPROBS_MAX: i64 = 5;
/// Context files beside the cursor's own; an editor's open tabs.
const EXTRA_FILES_MAX: usize = 64;
/// Bytes of a path or a repository's name.
const NAME_BYTES_MAX: usize = 4096;

body! {
    struct CompletionFields {
        prompt: Prompts,
        suffix: String,
        echo: bool,
        logprobs: i64,
        path: String,
        repository: String,
        extra_files: ExtraFiles,
        segments: Segments,
        language: String,
        code_stops: bool,
    }
}

pub(super) async fn post<S: Service>(State(api): State<Arc<Api<S>>>, request: Request) -> Response {
    answer(api, request, read).await
}

pub(super) fn read(body: &[u8], caller: &Caller<'_>, model: &ModelCard) -> Result<Ask, ApiError> {
    read_until(body, caller, model, Some(MAX_TOKENS_DEFAULT))
}

/// `otherwise`: the longest answer where the body names none; None: as long as fits.
pub(super) fn read_until(
    body: &[u8],
    caller: &Caller<'_>,
    model: &ModelCard,
    otherwise: Option<u32>,
) -> Result<Ask, ApiError> {
    let (mut own, mut shared): (CompletionFields, SharedFields) = parse(body)?;
    if let Some(segments) = own.segments.take() {
        return tabby::ask(segments, own.language.as_deref(), shared, caller, model);
    }
    let prompts =
        own.prompt.take().ok_or_else(|| ApiError::invalid("prompt", "`prompt` is missing"))?;
    let inputs = own.inputs(prompts, model)?;
    let (n, best_of) = shared.choices(inputs.len())?;
    let logprobs = integer("logprobs", own.logprobs, 0..=LOGPROBS_MAX)?;
    let max_tokens = shared.max_tokens.map_or(otherwise, |most| most.0);
    let sampling = shared.sampling(model)?;
    let stop = shared.stop_rules(max_tokens, model)?;
    let code_stops = own.code_stops.unwrap_or(true);
    let request = |input| {
        let plain = caller.request(input, Priority::Completion);
        Arc::new(CompletionRequest {
            n: best_of,
            max_tokens,
            sampling: sampling.clone(),
            stop: stop.clone(),
            // The best are found by their log-probabilities.
            logprobs: if best_of > n { logprobs.or(Some(0)) } else { logprobs },
            echo: own.echo.unwrap_or(false),
            fit: plain.fit.filter(|_| code_stops),
            ..plain
        })
    };
    Ok(Ask {
        requests: inputs.into_iter().map(request).collect(),
        letter: Box::new(Shape::new(Kind::Text, logprobs, shared.include_usage())),
        n,
        best_of,
        stream: shared.streams(),
    })
}

impl CompletionFields {
    fn inputs(&mut self, prompts: Prompts, model: &ModelCard) -> Result<Vec<Input>, ApiError> {
        let Some(suffix) = self.suffix.take() else {
            return plain(prompts, self.echo == Some(true), model);
        };
        let Prompts::Texts(prefixes) = prompts else {
            let message = "with `suffix`, `prompt` must be text, not token ids";
            return Err(ApiError::invalid("prompt", message));
        };
        if self.echo == Some(true) {
            let message = "`echo` cannot be combined with `suffix`";
            return Err(ApiError::invalid("echo", message));
        }
        short("path", self.path.as_deref())?;
        short("repository", self.repository.as_deref())?;
        let around = FimInput {
            prefix: String::new(),
            suffix,
            path: self.path.take(),
            repository: self.repository.take(),
            extra: self.extra_files.take().unwrap_or_default().0,
        };
        // Each further prefix has its own copy of what is around it, so together they are bounded
        // like a body.
        let size = around.suffix.len()
            + around.extra.iter().map(|file| file.path.len() + file.text.len()).sum::<usize>();
        if size.saturating_mul(prefixes.len()) > super::body::BYTES_MAX {
            let message = "too many prompts for a suffix and extra files of this size";
            return Err(ApiError::invalid("prompt", message));
        }
        let cursor = |prefix| Input::Fim(FimInput { prefix, ..around.clone() });
        Ok(prefixes.into_iter().map(cursor).collect())
    }
}

fn plain(prompts: Prompts, echo: bool, model: &ModelCard) -> Result<Vec<Input>, ApiError> {
    match prompts {
        Prompts::Texts(texts) => {
            let input = |text| match echo {
                // Said back as it came, so it is no cursor's.
                true => Input::Text(text),
                false => raw::input(text, model),
            };
            Ok(texts.into_iter().map(input).collect())
        }
        Prompts::Tokens(lists) => {
            if lists.iter().any(Vec::is_empty) {
                return Err(ApiError::invalid("prompt", "a list of token ids is empty"));
            }
            known_ids("prompt", lists.iter().flatten().copied(), model)?;
            Ok(lists.into_iter().map(Input::Tokens).collect())
        }
    }
}

fn short(field: &'static str, value: Option<&str>) -> Result<(), ApiError> {
    if value.is_none_or(|value| value.len() <= NAME_BYTES_MAX) {
        return Ok(());
    }
    let message = format!("`{field}` must be at most {NAME_BYTES_MAX} bytes");
    Err(ApiError::invalid(field, message))
}

/// `[{"path": .., "text": ..}]`, the most relevant last.
#[derive(Default)]
struct ExtraFiles(Vec<ExtraFile>);

impl Field for ExtraFiles {
    const EXPECTED: &'static str =
        "a list of at most 64 objects with `path` (at most 4096 bytes) and `text`";
}

#[derive(Deserialize)]
struct File {
    path: String,
    text: String,
}

impl<'de> Deserialize<'de> for ExtraFiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ExtraFilesVisitor)
    }
}

struct ExtraFilesVisitor;

impl<'de> Visitor<'de> for ExtraFilesVisitor {
    type Value = ExtraFiles;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ExtraFiles::EXPECTED)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<ExtraFiles, S::Error> {
        let mut files = Vec::new();
        while let Some(File { path, text }) = list.next_element()? {
            if path.len() > NAME_BYTES_MAX || files.len() == EXTRA_FILES_MAX {
                return Err(S::Error::custom(ExtraFiles::EXPECTED));
            }
            files.push(ExtraFile { path, text });
        }
        Ok(ExtraFiles(files))
    }
}
