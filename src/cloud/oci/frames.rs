//! Server-sent events whose blank lines cannot be relied on: every `data` line is an event.
//!
//! Each of Oracle's events is one line of JSON; some end with one newline and the next begins
//! right behind. So nothing is joined, and nothing waits for a blank line.

use std::collections::VecDeque;

use crate::cloud::frames::{Frames, Malformed, Message};

/// One line, and so one event.
const LINE_MAX: usize = 256 * 1024;

const BOM: &[u8] = b"\xEF\xBB\xBF";

const LINE: Malformed = Malformed("a line of the event stream is longer than 256 KiB");
const UTF8: Malformed = Malformed("the event stream is not UTF-8");

#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The current line so far, without its end.
    line: Vec<u8>,
    /// A first line was seen, so a byte order mark is no longer one.
    begun: bool,
}

impl Frames for Lines {
    fn push(&mut self, mut bytes: &[u8], out: &mut VecDeque<Message>) -> Result<(), Malformed> {
        // A CR ends a line as an LF does; the empty line between the two says nothing.
        while let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            self.extend(&bytes[..end])?;
            bytes = &bytes[end + 1..];
            let mark: &[u8] = if self.begun { b"" } else { BOM };
            self.begun = true;
            let line = self.line.strip_prefix(mark).unwrap_or(&self.line);
            if let Some(data) = line.strip_prefix(b"data:") {
                let data = std::str::from_utf8(data).map_err(|_| UTF8)?.trim().to_owned();
                out.push_back(Message { data, ..Message::default() });
            }
            self.line.clear();
        }
        self.extend(bytes)
    }
}

impl Lines {
    fn extend(&mut self, part: &[u8]) -> Result<(), Malformed> {
        if self.line.len() + part.len() > LINE_MAX {
            return Err(LINE);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parts: &[&[u8]]) -> Result<Vec<String>, Malformed> {
        let (mut lines, mut out) = (Lines::default(), VecDeque::new());
        parts.iter().try_for_each(|part| lines.push(part, &mut out))?;
        Ok(out.into_iter().map(|message| message.data).collect())
    }

    #[test]
    fn one_newline_ends_an_event_and_splits_do_not_matter() {
        let text = "data: {\"a\":1}\ndata:{\"b\":\"é\"}\n\n: pad\r\ndata: [DONE]\r\n\r\ndata: cut";
        let expected = ["{\"a\":1}", "{\"b\":\"é\"}", "[DONE]"];
        for at in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(at);
            assert_eq!(parse(&[head, tail]).unwrap(), expected, "cut at {at}");
        }
        let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(parse(&single).unwrap(), expected);
    }

    #[test]
    fn lines_are_capped() {
        assert_eq!(parse(&[&vec![b'x'; LINE_MAX + 1]]), Err(LINE));
        assert_eq!(parse(&[&[b'x'; 1024].repeat(256), b"y"]), Err(LINE));
        assert_eq!(parse(&[b"data: \xff\n"]), Err(UTF8));
    }
}
