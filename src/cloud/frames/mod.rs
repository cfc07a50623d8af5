//! How an answer's bytes are cut into messages.

#[cfg(feature = "aws")]
pub(super) mod eventstream;
pub(super) mod sse;

use std::collections::VecDeque;

/// One message of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// What kind it is: SSE's `event` field, `:event-type` of AWS; empty for the default kind.
    pub(super) event: String,
    /// SSE's `data` lines, joined with LF; the payload of AWS.
    pub(super) data: String,
    /// The framing itself says that this is a failure, and `event` its name.
    pub(super) failure: bool,
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
