//! A cursor for models that know none: in a family's own tokens, or as a question to a chat model.

use models::fim::{ExtraText, Family, FimText, Piece};

use crate::completion::{FimInput, Input, Reason, Refusal};
use crate::config::{CloudConfig, CloudFim};
use crate::policy::upstream::UpstreamNames;

const FILL_IN: &str = "You complete code. Reply with exactly the text that belongs between \
    <prefix> and <suffix>: no explanation, no Markdown, nothing that either of them already holds.";
const CONTINUE: &str = "You complete text. Reply with exactly the text that follows <prefix>: \
    no explanation, no Markdown, nothing that it already holds.";

/// The cursor that `row` asks a chat model about; None: the request is no such one.
pub(in crate::cloud) fn emulated(input: &Input, row: &CloudConfig) -> Option<FimInput> {
    match (input, &row.fim) {
        (Input::Text(text), CloudFim::Chat) => {
            Some(FimInput { prefix: text.clone(), ..FimInput::default() })
        }
        (Input::Fim(fim), CloudFim::Chat) => Some(fim.clone()),
        _ => None,
    }
}

/// What a chat model is told before it is asked about `fim`.
pub(in crate::cloud) fn instruction(fim: &FimInput) -> &'static str {
    if fim.suffix.is_empty() { CONTINUE } else { FILL_IN }
}

/// A cursor as a chat model is asked about it: context first, the cursor's surroundings last.
pub(in crate::cloud) fn question(fim: &FimInput) -> String {
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

/// The family's own prompt; what ends its completions joins `stops`.
pub(in crate::cloud) fn template(
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
