//! Messages on a byte stream: a header that names a length, and so many bytes of JSON.
//!
//! What is no JSON is told to the client and passed over; only what leaves it unknown where the
//! next message begins ends the session.

use std::io::{self, BufRead, Read, Write};

use lsp_server::Message;
use serde_json::json;

/// A message holds at most one document, in which a byte may be written as six.
const MESSAGE_BYTES_MAX: usize = 6 * super::documents::DOCUMENT_BYTES_MAX + (1 << 20);
/// Bytes of one line of a header; all lines together are at most `HEADER_LINES_MAX` of them.
const HEADER_LINE_BYTES_MAX: u64 = 1024;
const HEADER_LINES_MAX: usize = 16;

/// What was read.
pub(super) enum Frame {
    Message(Message),
    /// Some bytes in a good frame that are no message.
    Malformed,
}

/// The next frame; None at the stream's end. An error: where the next one begins is unknown.
pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Frame>> {
    let Some(length) = read_header(from)? else { return Ok(None) };
    // As it comes, so that a length alone takes no memory.
    let mut body = Vec::new();
    let read = from.take(length as u64).read_to_end(&mut body)?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&body).map_or(Frame::Malformed, Frame::Message)))
}

/// The length that a header names.
fn read_header(from: &mut impl BufRead) -> io::Result<Option<usize>> {
    let mut length = None;
    for number in 0..HEADER_LINES_MAX {
        let mut line = Vec::new();
        from.take(HEADER_LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() && number == 0 {
            return Ok(None);
        }
        let Some(line) = line.strip_suffix(b"\n") else { return Err(invalid("a header is cut")) };
        let line = std::str::from_utf8(line).map_err(|_| invalid("a header is no text"))?.trim();
        if line.is_empty() {
            let length = length.ok_or_else(|| invalid("a header names no length"))?;
            return Ok(Some(length));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header has no name"))?;
        if name.trim().eq_ignore_ascii_case("content-length") {
            let named = value.trim().parse().ok().filter(|&length| length <= MESSAGE_BYTES_MAX);
            length = Some(named.ok_or_else(|| invalid("a message is too long"))?);
        }
    }
    Err(invalid("a header does not end"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What answers bytes that are no message. It belongs to no request, which the crate's own
/// `Response` cannot say.
pub(super) fn write_malformed(to: &mut impl Write) -> io::Result<()> {
    let code = lsp_server::ErrorCode::ParseError as i32;
    let error = json!({ "code": code, "message": "this is no message of the protocol" });
    let text = json!({ "jsonrpc": "2.0", "id": null, "error": error }).to_string();
    write!(to, "Content-Length: {}\r\n\r\n{text}", text.len())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> (Vec<bool>, bool) {
        let (mut from, mut good) = (bytes, Vec::new());
        loop {
            match read(&mut from) {
                Ok(Some(frame)) => good.push(matches!(frame, Frame::Message(_))),
                end => return (good, end.is_ok()),
            }
        }
    }

    #[test]
    fn bad_messages_are_passed_over() {
        let exit = r#"{"jsonrpc":"2.0","method":"exit"}"#;
        let mut bytes = Vec::new();
        for body in ["{", "[]", "\u{fffd}", "", "17", exit] {
            let length = body.len();
            write!(bytes, "content-length: {length}\nContent-Type: x\r\n\r\n{body}").unwrap();
        }
        bytes.extend(b"Content-Length: 2\r\n\r\n\xff\xfe");
        write!(bytes, "Content-Length:{}\r\n\r\n{exit}", exit.len()).unwrap();
        let good = vec![false, false, false, false, false, true, false, true];
        assert_eq!(all(&bytes), (good, true));
    }

    #[test]
    fn a_stream_that_is_lost_ends() {
        let long = format!("Content-Length: {}\r\n\r\n", u64::MAX);
        let wide = format!("X: {}", "y".repeat(4096));
        let many = "X: y\r\n".repeat(17);
        let cut = "Content-Length: 10\r\n\r\n{}";
        for lost in [&long, "Content-Length: -1\r\n\r\n", "\r\n\r\n", "hello", &wide, &many, cut] {
            assert_eq!(all(lost.as_bytes()), (vec![], false), "{lost:?}");
        }
        assert_eq!(all(b""), (vec![], true));
    }

    #[test]
    fn what_was_written_is_framed() {
        let mut bytes = Vec::new();
        write_malformed(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(head, format!("Content-Length: {}", body.len()));
        let told: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(told["id"].is_null() && told["error"]["code"] == -32700, "{told}");
    }
}
