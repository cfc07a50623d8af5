//! A prompt as it stands, from the routes that have no field for what is behind the cursor.

use crate::completion::Input;

/// What such a prompt asks for: to be continued.
pub(super) fn input(prompt: String) -> Input {
    Input::Text(prompt)
}
