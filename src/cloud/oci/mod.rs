//! Oracle's Generative AI: `POST /20231130/actions/chat`, signed.
//!
//! It knows no completion and no cursor, only chat in two shapes ([`render`]), whose streams are
//! server-sent events in all but the blank lines ([`frames`]).

mod frames;
mod read;
mod render;
mod sign;

use hyper::Uri;

pub(super) use self::sign::Signer;
use super::frames::sse;
use super::wires::openai::under;
use super::wires::prompt::emulated;
use super::wires::{Abilities, Rendered, Wire, json, max_tokens, stop_strings};
use crate::completion::{CompletionRequest, Refusal};
use crate::config::CloudConfig;
use crate::config::services::OciChat;

/// The API of one row.
pub(super) struct Chat {
    uri: Uri,
    chat: OciChat,
}

impl Chat {
    /// None: `base` has no scheme or host.
    pub(super) fn new(base: &Uri, chat: OciChat) -> Option<Self> {
        Some(Self { uri: under(base, "actions/chat")?, chat })
    }
}

impl Wire for Chat {
    fn abilities(&self, _row: &CloudConfig) -> Abilities {
        // `numGenerations` is there, and no stream tells its choices apart for sure.
        Abilities { chat: true, n: false, seed: true, penalties: true, top_k: true, logprobs: None }
    }

    fn render(&self, request: &CompletionRequest, row: &CloudConfig) -> Result<Rendered, Refusal> {
        let max_tokens = max_tokens(request, row);
        let emulated = emulated(&request.input, row);
        let asking =
            render::Asking { request, row, chat: &self.chat, fim: emulated.as_ref(), max_tokens };
        Ok(Rendered {
            uri: self.uri.clone(),
            body: json(&asking.body()?)?,
            accept: if row.stream { sse::CONTENT_TYPE } else { "application/json" },
            stops: stop_strings(&request.stop.strings)?,
            max_tokens,
            emulated,
            frames: Box::new(frames::Lines::default()),
            reader: Box::new(read::Reading),
        })
    }
}
