//! How an answer's bytes are cut into messages.

pub(super) mod sse;

use std::collections::VecDeque;

/// One message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The `event` field; empty for the default kind.
    pub(super) event: String,
    /// The `data` lines, joined with LF.
    pub(super) data: String,
}

/// Cuts a stream into messages, by whatever parts it comes.
pub(super) trait Frames: Send + Sync {
    /// Takes the next bytes and appends the messages they complete. After an error the stream is
    /// unusable.
    fn push(&mut self, bytes: &[u8], out: &mut VecDeque<Message>) -> Result<(), Malformed>;
}

/// The bytes are no stream of that kind, or beyond a bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);
