//! The text of a document as its editor speaks of it: lines, and columns in an encoding that was
//! agreed on. Every place there is can be named, and every name is a place: what lies behind a
//! line's end is the end, what lies inside a character is its beginning.

use std::ops::Range;

use lsp_types::{Position, PositionEncodingKind, TextDocumentContentChangeEvent};
use ropey::{Rope, RopeSlice};

/// What a column counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    /// What a client counts that says nothing.
    #[default]
    Utf16,
    Utf32,
}

impl Encoding {
    /// The best of those that a client offers: bytes, which nobody has to convert, before the one
    /// that every client must know.
    pub(super) fn best<'a>(offered: impl Iterator<Item = &'a str> + Clone) -> Self {
        [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32]
            .into_iter()
            .find(|encoding| offered.clone().any(|name| name == encoding.name().as_str()))
            .unwrap_or_default()
    }

    pub(super) fn name(self) -> PositionEncodingKind {
        match self {
            Encoding::Utf8 => PositionEncodingKind::UTF8,
            Encoding::Utf16 => PositionEncodingKind::UTF16,
            Encoding::Utf32 => PositionEncodingKind::UTF32,
        }
    }
}

/// A rope: an edit and a look-up take O(log n), wherever in the text.
#[derive(Clone, Debug)]
pub(super) struct Text(Rope);

impl Text {
    pub(super) fn new(text: &str) -> Self {
        Self(Rope::from_str(text))
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.0.len_bytes()
    }

    /// Applies one change; without a range it is the whole text.
    pub(super) fn change(&mut self, change: &TextDocumentContentChangeEvent, encoding: Encoding) {
        let Some(range) = change.range else {
            *self = Self::new(&change.text);
            return;
        };
        let (start, end) = (self.char_at(range.start, encoding), self.char_at(range.end, encoding));
        // A range the wrong way round is empty, at its start.
        self.0.remove(start..end.max(start));
        self.0.insert(start, &change.text);
    }

    /// The offset in bytes of a position, which is one of a character's beginning.
    pub(super) fn byte_at(&self, position: Position, encoding: Encoding) -> usize {
        self.0.char_to_byte(self.char_at(position, encoding))
    }

    /// The position of an offset in bytes; one inside a character is the character's.
    pub(super) fn position(&self, byte: usize, encoding: Encoding) -> Position {
        let char = self.0.byte_to_char(byte.min(self.0.len_bytes()));
        let line = self.0.char_to_line(char);
        let start = self.0.line_to_char(line);
        let column = self.units(char, encoding) - self.units(start, encoding);
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Position::new(number(line), number(column))
    }

    /// The first line's beginning at or behind this byte; the text's end where there is none.
    pub(super) fn line_start_from(&self, byte: usize) -> usize {
        let line = self.0.byte_to_line(byte.min(self.0.len_bytes()));
        let start = self.0.line_to_byte(line);
        if start >= byte { start } else { self.0.line_to_byte(line + 1) }
    }

    /// The last line's beginning at or before this byte.
    pub(super) fn line_start_before(&self, byte: usize) -> usize {
        self.0.line_to_byte(self.0.byte_to_line(byte.min(self.0.len_bytes())))
    }

    /// What stands there; offsets in bytes are cut at characters.
    pub(super) fn slice(&self, bytes: Range<usize>) -> RopeSlice<'_> {
        let char = |byte: usize| self.0.byte_to_char(byte.min(self.0.len_bytes()));
        let (start, end) = (char(bytes.start), char(bytes.end));
        self.0.slice(start..end.max(start))
    }

    /// From this byte to the end of its line, without what ends it.
    pub(super) fn rest_of_line(&self, byte: usize) -> RopeSlice<'_> {
        let char = self.0.byte_to_char(byte.min(self.0.len_bytes()));
        let end = self.line_end(self.0.char_to_line(char));
        self.0.slice(char..end.max(char))
    }

    fn char_at(&self, position: Position, encoding: Encoding) -> usize {
        let (line, column) = (position.line as usize, position.character as usize);
        if line >= self.0.len_lines() {
            return self.0.len_chars();
        }
        let (start, end) = (self.0.line_to_char(line), self.line_end(line));
        let last = self.units(end, encoding);
        let unit = self.units(start, encoding).saturating_add(column).min(last);
        match encoding {
            Encoding::Utf8 => self.0.byte_to_char(unit),
            Encoding::Utf16 => self.0.utf16_cu_to_char(unit),
            Encoding::Utf32 => unit,
        }
    }

    /// The character behind a line's last, before what ends the line.
    fn line_end(&self, line: usize) -> usize {
        let start = self.0.line_to_char(line);
        let mut end = self.0.line_to_char((line + 1).min(self.0.len_lines()));
        while end > start && matches!(self.0.char(end - 1), '\n' | '\r') {
            end -= 1;
        }
        end
    }

    /// Units of `encoding` before this character.
    fn units(&self, char: usize, encoding: Encoding) -> usize {
        match encoding {
            Encoding::Utf8 => self.0.char_to_byte(char),
            Encoding::Utf16 => self.0.char_to_utf16_cu(char),
            Encoding::Utf32 => char,
        }
    }
}

#[cfg(test)]
mod tests {
    use lsp_types::Range;

    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32];

    fn at(line: u32, character: u32) -> Position {
        Position::new(line, character)
    }

    /// Lines as the protocol ends them, and units counted one by one.
    fn naive(text: &str, position: Position, encoding: Encoding) -> usize {
        let mut lines = vec![0];
        let bytes = text.as_bytes();
        for (at, &byte) in bytes.iter().enumerate() {
            let ends =
                byte == b'\n' || byte == b'\r' && bytes.get(at + 1).is_none_or(|&b| b != b'\n');
            if ends {
                lines.push(at + 1);
            }
        }
        let Some(&start) = lines.get(position.line as usize) else { return text.len() };
        let line = text[start..].split(['\n', '\r']).next().unwrap_or_default();
        let mut units = 0;
        for (offset, char) in line.char_indices() {
            units += match encoding {
                Encoding::Utf8 => char.len_utf8(),
                Encoding::Utf16 => char.len_utf16(),
                Encoding::Utf32 => 1,
            };
            if units > position.character as usize {
                return start + offset;
            }
        }
        start + line.len()
    }

    #[test]
    fn every_position_is_where_counting_finds_it() {
        let texts =
            ["", "a", "\n", "\r", "\r\n", "a\r\rb\n\nc", "äx\r\n🦀y🦀\r€\u{2028}\u{b}z\n", "🦀"];
        for text in texts {
            let rope = Text::new(text);
            for encoding in ALL {
                for line in 0..8 {
                    for character in (0..12).chain([u32::MAX]) {
                        let position = at(line, character);
                        let expected = naive(text, position, encoding);
                        let found = rope.byte_at(position, encoding);
                        assert_eq!(found, expected, "{text:?} {encoding:?} {position:?}");
                        let back = rope.byte_at(rope.position(found, encoding), encoding);
                        assert_eq!(back, found, "{text:?} {encoding:?} {position:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn changes_apply_in_every_encoding() {
        for (encoding, column) in ALL.into_iter().zip([6, 4, 3]) {
            let mut text = Text::new("x\n\"🦀\"\r\nend");
            let range = Some(Range::new(at(1, column - 1), at(1, column + 9)));
            let change =
                TextDocumentContentChangeEvent { range, range_length: None, text: "🐢\"".into() };
            text.change(&change, encoding);
            assert_eq!(text.0.to_string(), "x\n\"🦀🐢\"\r\nend", "{encoding:?}");
            let reversed = Range::new(at(9, 9), at(0, 1));
            let change = TextDocumentContentChangeEvent { range: Some(reversed), ..change };
            text.change(&change, encoding);
            assert_eq!(text.0.to_string(), "x\n\"🦀🐢\"\r\nend🐢\"", "{encoding:?}");
        }
    }

    #[test]
    fn bytes_are_preferred_and_utf_16_is_understood_anyhow() {
        let best = |offered: &[&str]| Encoding::best(offered.iter().copied());
        assert_eq!(best(&[]), Encoding::Utf16);
        assert_eq!(best(&["utf-7"]), Encoding::Utf16);
        assert_eq!(best(&["utf-16", "utf-8"]), Encoding::Utf8);
        assert_eq!(best(&["utf-32", "utf-16"]), Encoding::Utf16);
        assert_eq!(best(&["utf-32"]), Encoding::Utf32);
    }

    #[test]
    fn lines_are_found_from_bytes() {
        let text = Text::new("ab\r\ncd\nef");
        let starts: Vec<_> = (0..=10).map(|byte| text.line_start_from(byte)).collect();
        assert_eq!(starts, [0, 4, 4, 4, 4, 7, 7, 7, 9, 9, 9]);
        let starts: Vec<_> = (0..=10).map(|byte| text.line_start_before(byte)).collect();
        assert_eq!(starts, [0, 0, 0, 0, 4, 4, 4, 7, 7, 7, 7]);
        assert_eq!(text.rest_of_line(1), "b");
        assert_eq!(text.rest_of_line(3), "");
        assert_eq!(text.rest_of_line(8), "f");
    }
}
