//! A prompt as one text, on a route that has no field for what comes after the cursor.

use crate::completion::Input;

/// What a raw prompt asks to complete.
pub(super) fn input(prompt: String) -> Input {
    Input::Text(prompt)
}
