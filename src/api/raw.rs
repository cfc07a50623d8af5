//! A prompt as one text, on a route that has no field for what comes after the cursor.

use crate::completion::{CodeStops, Input};

/// What a raw prompt asks to complete.
pub(super) fn input(prompt: String) -> Input {
    Input::Text(prompt)
}

/// Where an answer ends on the routes that only editors ask at a cursor: with the block it is in.
pub(super) fn fit(input: &Input) -> Option<CodeStops> {
    let is_cursor = matches!(input, Input::Fim(_));
    is_cursor.then(|| CodeStops { block: true, ..CodeStops::default() })
}
