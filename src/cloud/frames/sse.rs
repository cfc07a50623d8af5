//! Server-sent events, parsed from a peer we do not trust: every buffer has a cap.
//!
//! Follows the `text/event-stream` grammar: LF, CRLF and lone CR end a line, a leading BOM is
//! skipped, several `data` lines join with LF, an event without its blank line is dropped. What
//! comes out does not depend on how the bytes were split.

use std::collections::VecDeque;

use super::{Frames, Malformed, Message};

/// One line of a stream. Far above any honest line (one token, or one with log-probabilities);
/// small enough that a thousand hostile streams stay within memory.
const LINE_MAX: usize = 256 * 1024;
/// All `data` lines of one event.
const EVENT_MAX: usize = 1024 * 1024;

const BOM: &[u8] = b"\xEF\xBB\xBF";

const LINE: Malformed = Malformed("a line of the event stream is longer than 256 KiB");
const EVENT: Malformed = Malformed("an event of the stream is longer than 1 MiB");
const UTF8: Malformed = Malformed("the event stream is not UTF-8");

/// What such an answer calls itself.
pub(in crate::cloud) const CONTENT_TYPE: &str = "text/event-stream";

#[derive(Debug, Default)]
pub(in crate::cloud) struct Parser {
    /// The current line so far, without its end.
    line: Vec<u8>,
    /// The last byte was a CR that ended a line: an LF right after it belongs to it.
    after_cr: bool,
    /// A first line was seen, so a BOM is no longer one.
    begun: bool,
    event: String,
    /// `data` lines, each followed by LF.
    data: Vec<u8>,
}

impl Frames for Parser {
    fn push(&mut self, mut bytes: &[u8], out: &mut VecDeque<Message>) -> Result<(), Malformed> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            self.extend_line(&bytes[..end])?;
            let cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if cr {
                match bytes.first() {
                    Some(b'\n') => bytes = &bytes[1..],
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            self.end_line(out)?;
        }
        self.extend_line(bytes)
    }
}

impl Parser {
    fn extend_line(&mut self, part: &[u8]) -> Result<(), Malformed> {
        if self.line.len() + part.len() > LINE_MAX {
            return Err(LINE);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self, out: &mut VecDeque<Message>) -> Result<(), Malformed> {
        let line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if !self.begun {
            self.begun = true;
            text = text.strip_prefix(BOM).unwrap_or(text);
        }
        let result = if text.is_empty() { self.dispatch(out) } else { self.field(text) };
        // The allocation serves the next line.
        self.line = line;
        self.line.clear();
        result
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let colon = line.iter().position(|&b| b == b':').unwrap_or(line.len());
        let (name, rest) = line.split_at(colon);
        let value = rest.strip_prefix(b":").unwrap_or(rest);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if self.data.len() + value.len() + 1 > EVENT_MAX {
                    return Err(EVENT);
                }
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => {
                self.event = std::str::from_utf8(value).map_err(|_| UTF8)?.to_owned();
            }
            // Comments, `id`, `retry` and unknown fields say nothing to us.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, out: &mut VecDeque<Message>) -> Result<(), Malformed> {
        let event = std::mem::take(&mut self.event);
        if self.data.pop().is_none() {
            return Ok(());
        }
        let data = std::str::from_utf8(&self.data).map_err(|_| UTF8)?.to_owned();
        self.data.clear();
        out.push_back(Message { event, data, failure: false });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(parts: &[&[u8]]) -> Result<Vec<Message>, Malformed> {
        let mut parser = Parser::default();
        let mut out = VecDeque::new();
        for part in parts {
            parser.push(part, &mut out)?;
        }
        Ok(out.into())
    }

    fn data(texts: &[&str]) -> Vec<Message> {
        texts.iter().map(|t| Message { data: (*t).to_owned(), ..Message::default() }).collect()
    }

    #[test]
    fn follows_the_grammar() {
        let cases: &[(&str, &[&str])] = &[
            ("data: a\n\n", &["a"]),
            ("data:a\r\n\r\ndata:  b\r\r", &["a", " b"]),
            ("\u{feff}data: a\n\n", &["a"]),
            ("data: a\ndata\ndata: b\n\n", &["a\n\nb"]),
            (": hello\n\n:\n\ndata: a\n\n", &["a"]),
            ("id: 7\nretry: 10\nunknown\ndata: a\n\n", &["a"]),
            ("data\n\n", &[""]),
            ("data: a\n\ndata: lost", &["a"]),
            ("data: a\n\ndata: lost\n", &["a"]),
            ("data: \u{feff}a\n\n", &["\u{feff}a"]),
            ("\n\n\n", &[]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse(&[bytes.as_bytes()]).unwrap(), data(expected), "{bytes:?}");
        }
        let named = parse(&[b"event: error\ndata: a\n\ndata: b\n\n"]).unwrap();
        assert_eq!(named[0].event, "error");
        assert_eq!(named[1].event, "");
    }

    #[test]
    fn every_buffer_is_capped() {
        let line = [b"data: ".as_slice(), &vec![b'x'; LINE_MAX]].concat();
        assert_eq!(parse(&[&line]), Err(LINE));
        let mut drip = Parser::default();
        let mut out = VecDeque::new();
        let dripped = (0..=LINE_MAX / 1024).try_for_each(|_| drip.push(&[b'x'; 1024], &mut out));
        assert_eq!(dripped, Err(LINE));
        let lines = format!("data: {}\n", "x".repeat(LINE_MAX / 2)).repeat(9);
        assert_eq!(parse(&[lines.as_bytes()]), Err(EVENT));
        assert_eq!(parse(&[b"data: \xff\n\n"]), Err(UTF8));
        assert_eq!(parse(&[b"event: \xff\n\n"]), Err(UTF8));
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "data: ", "data", "event: e", ":", "\n", "\r", "\r\n", "\n\n", "é", "a b", "\u{feff}",
            ]), 0..40),
            cuts in prop::collection::vec(0usize..200, 0..12),
        ) {
            let whole = pieces.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|w| &whole[w[0]..w[1]]).collect();
            let single: Vec<&[u8]> = whole.chunks(1).collect();
            let expected = parse(&[&whole]);
            prop_assert_eq!(&parse(&parts), &expected);
            prop_assert_eq!(&parse(&single), &expected);
        }
    }
}
