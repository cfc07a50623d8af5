//! AWS's event stream (`application/vnd.amazon.eventstream`): binary frames with checksums, from a
//! peer we do not trust.
//!
//! A frame is a prelude of 12 bytes (its length, the length of its headers, a checksum of both),
//! headers, a payload and a checksum of all that. Length and prelude are checked before anything
//! behind them is kept; a whole frame is read by AWS's own decoder.

use std::collections::VecDeque;

use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::base64;
use aws_smithy_types::event_stream::Message as Frame;
use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;

use super::sse;
use super::{Frames, Malformed, Message};

/// One frame; AWS allows 24 MiB, and sends some hundred bytes for a token.
const FRAME_MAX: usize = 1024 * 1024;
/// Its headers, three short ones in practice; each costs more in memory than on the wire.
const HEADERS_MAX: usize = 16 * 1024;
const PRELUDE: usize = 12;
/// A frame without headers and payload: the prelude and the last checksum.
const FRAME_MIN: usize = PRELUDE + 4;

const LENGTH: Malformed = Malformed("a frame of the event stream has an impossible length");
const TOO_LONG: Malformed = Malformed("a frame of the event stream is longer than 1 MiB");
const HEADERS: Malformed = Malformed("a frame's headers are longer than 16 KiB");
const CHECKSUM: Malformed = Malformed("a frame's prelude does not match its checksum");
const FRAME: Malformed = Malformed("a frame of the event stream is damaged");
const KIND: Malformed = Malformed("a frame of the event stream does not say what it is");
const UTF8: Malformed = Malformed("a payload of the event stream is not UTF-8");
const CHUNK: Malformed = Malformed("a chunk of the event stream holds no bytes");

/// What such an answer calls itself.
pub(in crate::cloud) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// What the payloads of events are.
enum Payload {
    /// A message each.
    Own,
    /// `{"bytes": BASE64}` of a message each: InvokeModel wraps the model's own words so.
    Wrapped,
    /// Parts of a stream of server-sent events, cut anywhere: what a container wrote.
    Parts(sse::Parser),
}

pub(in crate::cloud) struct Parser {
    payload: Payload,
    /// The current frame so far; no longer than it may become.
    buffer: BytesMut,
    /// The current frame's length, once its prelude was there and good.
    length: Option<usize>,
}

impl Parser {
    pub(in crate::cloud) fn events() -> Self {
        Self::of(Payload::Own)
    }

    pub(in crate::cloud) fn wrapped() -> Self {
        Self::of(Payload::Wrapped)
    }

    pub(in crate::cloud) fn parts() -> Self {
        Self::of(Payload::Parts(sse::Parser::default()))
    }

    fn of(payload: Payload) -> Self {
        Self { payload, buffer: BytesMut::new(), length: None }
    }
}

impl Frames for Parser {
    fn push(&mut self, mut bytes: &[u8], out: &mut VecDeque<Message>) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            let missing = self.length.unwrap_or(PRELUDE) - self.buffer.len();
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            self.buffer.extend_from_slice(part);
            bytes = rest;
            match self.length {
                None if self.buffer.len() == PRELUDE => {
                    self.length = Some(frame_length(&self.buffer)?);
                }
                Some(length) if self.buffer.len() == length => {
                    self.length = None;
                    let whole = self.buffer.split().freeze();
                    self.frame(&read_message_from(whole).map_err(|_| FRAME)?, out)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Parser {
    fn frame(&mut self, frame: &Frame, out: &mut VecDeque<Message>) -> Result<(), Malformed> {
        match header(frame, ":message-type").ok_or(KIND)? {
            "event" => self.event(header(frame, ":event-type").ok_or(KIND)?, frame.payload(), out),
            "exception" => {
                let name = header(frame, ":exception-type").ok_or(KIND)?.to_owned();
                // Its payload tells more than its name, and is not needed to know that it is over.
                let data = text(frame.payload()).unwrap_or_default();
                out.push_back(Message { event: name, data, failure: true });
                Ok(())
            }
            "error" => {
                let name = header(frame, ":error-code").ok_or(KIND)?.to_owned();
                out.push_back(Message { event: name, data: String::new(), failure: true });
                Ok(())
            }
            _ => Err(KIND),
        }
    }

    fn event(
        &mut self,
        name: &str,
        payload: &Bytes,
        out: &mut VecDeque<Message>,
    ) -> Result<(), Malformed> {
        let mut give = |event: &str, data| {
            out.push_back(Message { event: event.to_owned(), data, failure: false });
        };
        match &mut self.payload {
            Payload::Own => give(name, text(payload)?),
            Payload::Wrapped if name == "chunk" => give("", unwrapped(payload)?),
            Payload::Parts(inner) if name == "PayloadPart" => inner.push(payload, out)?,
            // Kinds that are newer than this say nothing to us.
            Payload::Wrapped | Payload::Parts(_) => {}
        }
        Ok(())
    }
}

/// The length that a good prelude tells.
fn frame_length(mut prelude: &[u8]) -> Result<usize, Malformed> {
    let checksum = crc32fast::hash(&prelude[..PRELUDE - 4]);
    let (length, headers) = (prelude.get_u32() as usize, prelude.get_u32() as usize);
    if prelude.get_u32() != checksum {
        return Err(CHECKSUM);
    }
    if length > FRAME_MAX {
        return Err(TOO_LONG);
    }
    if headers > HEADERS_MAX {
        return Err(HEADERS);
    }
    if length < FRAME_MIN + headers {
        return Err(LENGTH);
    }
    Ok(length)
}

fn header<'f>(frame: &'f Frame, name: &str) -> Option<&'f str> {
    let header = frame.headers().iter().find(|header| header.name().as_str() == name)?;
    Some(header.value().as_string().ok()?.as_str())
}

fn text(payload: &[u8]) -> Result<String, Malformed> {
    Ok(std::str::from_utf8(payload).map_err(|_| UTF8)?.to_owned())
}

fn unwrapped(payload: &[u8]) -> Result<String, Malformed> {
    #[derive(Deserialize)]
    struct Chunk<'c> {
        bytes: &'c str,
    }
    let chunk: Chunk<'_> = serde_json::from_slice(payload).map_err(|_| CHUNK)?;
    let bytes = base64::decode(chunk.bytes).map_err(|_| CHUNK)?;
    String::from_utf8(bytes).map_err(|_| UTF8)
}

#[cfg(test)]
mod tests;
