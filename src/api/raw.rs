//! A prompt as one text, on a route that has no field for what comes after the cursor.
//!
//! A client that writes its own FIM prompt takes the tokens from the name of a model, and the name
//! is rarely that of the model that runs. So a prompt that is one whole FIM prompt of any family is
//! taken apart, and written anew for the model there is. Anything less is text.

use models::fim::{ExtraText, Foreign, recognise};

use super::ModelCard;
use crate::completion::{ExtraFile, FimInput, Input};

/// What a raw prompt asks to complete.
pub(super) fn input(prompt: String, model: &ModelCard) -> Input {
    let cursor = model.fim.then(|| recognise(&prompt)).flatten().map(cursor);
    cursor.map_or(Input::Text(prompt), Input::Fim)
}

fn cursor(foreign: Foreign<'_>) -> FimInput {
    let file = |extra: &ExtraText<'_>| ExtraFile {
        path: extra.path.to_owned(),
        text: extra.text.to_owned(),
    };
    FimInput {
        prefix: foreign.prefix.into_owned(),
        suffix: foreign.suffix.to_owned(),
        path: foreign.head.path.map(str::to_owned),
        repository: foreign.head.repository.map(str::to_owned),
        extra: foreign.head.extras.iter().map(file).collect(),
    }
}
