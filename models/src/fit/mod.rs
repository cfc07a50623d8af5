//! Where an answer at a cursor ends because of the code that it stands in.
//!
//! [`Cursor`] reads what lies around a cursor once; [`FitText`] takes one choice's text and gives
//! out what is certain to belong to the answer. Text in, text out: nothing here knows a token, so
//! that the result does not depend on where tokens, or chunks of a cloud's stream, begin.
//!
//! What is looked at is the text that came so far, byte by byte, and each of these ends it:
//!
//! - a line is whole, where one was asked for;
//! - a line is indented less than the block of the cursor ([`CodeStops::block`]) or than asked for;
//! - a bracket is closed that the answer did not open and the suffix closes ([`lexer`], [`cursor`]);
//! - a quote stands where none can, so that nobody knows any more which brackets count;
//! - a line is the suffix's next one, or ends as the cursor's own line goes on behind the cursor;
//! - the text goes round in circles ([`repeats`]).
//!
//! What may turn out to be beyond the end is held back, white space at the end always is: a blank
//! line before code that is cut is cut with it.

mod cursor;
mod lexer;
mod repeats;

use std::sync::Arc;

pub use self::cursor::Cursor;
use self::cursor::{Brackets, has_unmatched_closer};
use self::lexer::{Lexeme, Lexer, closes, is_space};
use self::repeats::{Bytes, LINE_BYTES_MAX, Lines, Round};
use crate::text::Progress;

/// Bytes before the cursor that are looked at.
pub const PREFIX_BYTES_MAX: usize = 64 * 1024;
/// Bytes behind the cursor that are looked at.
pub const SUFFIX_BYTES_MAX: usize = 64 * 1024;
/// Blank lines in a row after which nothing is expected.
const BLANK_LINES_MAX: usize = 4;
/// White space in a row after which nothing is expected.
const SPACE_BYTES_MAX: usize = 512;
/// Text that is looked at before any of it is given out.
const PIECE_BYTES: usize = 256;
/// Room for what is held back at once.
const HELD_BYTES: usize = 4096;
/// Letters and digits that the end of an answer must have in common with what follows the cursor.
const REST_LETTERS_MIN: usize = 4;

/// When an answer at a cursor ends because of the code that it stands in. Besides what is asked for
/// here, it ends where it runs into the text behind the cursor, and where it begins to repeat itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeStops {
    /// At the end of the first line that holds anything.
    pub single_line: bool,
    /// Before a line that is indented less than the block the cursor is in, and before a bracket is
    /// closed that the answer did not open and the text behind the cursor closes.
    pub block: bool,
    /// White space that every line of the answer must begin with, the first excepted, where the
    /// client says so (`n_indent`, `next_indent`); characters, a tab is one.
    pub indent_min: Option<u32>,
}

/// One answer's text on its way out.
#[derive(Debug)]
pub struct FitText {
    cursor: Arc<Cursor>,
    progress: Progress,
    /// Bytes given out; `held` follows them.
    given: usize,
    held: Vec<u8>,
    /// For each byte held: how many brackets of the answer's own were open before it.
    depths: Vec<u16>,
    /// Where the text ends, without white space behind it.
    text_end: usize,
    blank_lines: usize,
    line: Line,
    /// What the lines after the cursor's must be indented by; known with the first of them.
    block: Block,
    lexer: Lexer,
    brackets: Brackets,
    lines: Lines,
    /// Lines from here on may be a third round.
    round_from: Option<usize>,
    bytes: Bytes,
}

/// The line that is being read.
#[derive(Debug)]
struct Line {
    /// Where the text before it ends.
    gap: usize,
    start: usize,
    /// White space before its text.
    columns: usize,
    has_text: bool,
    /// Whether it begins inside of a string or a comment.
    in_text: bool,
    /// How many bytes of the suffix's next line it began with; None: it is another line.
    is_next: Option<usize>,
    hash: u64,
    /// `hash` without white space at the end.
    text_hash: u64,
}

/// How deep the block is that the cursor is in.
#[derive(Clone, Copy, Debug)]
enum Block {
    /// The cursor's line goes on.
    Unknown,
    /// Lines are at least as deep as its line.
    Line(usize),
    /// Its line opens a block, whose lines are deeper if the first is.
    Opened(usize),
    /// Lines are deeper than this one's, but for the bracket that closes it.
    Inside(usize),
    /// As deep as the first line that holds anything.
    First,
}

impl Line {
    fn new(gap: usize, start: usize, in_text: bool) -> Self {
        Self {
            gap,
            start,
            columns: 0,
            has_text: false,
            in_text,
            is_next: Some(0),
            hash: HASH_SEED,
            text_hash: HASH_SEED,
        }
    }

    fn push(&mut self, byte: u8, next: &[u8]) {
        self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(HASH_PRIME);
        let is_space = is_space(byte);
        if self.has_text || !is_space {
            self.is_next =
                self.is_next.filter(|_| !next.is_empty()).and_then(|at| match next.get(at) {
                    Some(same) if *same == byte => Some(at + 1),
                    None if is_space => Some(at),
                    _ => None,
                });
        }
        if !is_space {
            self.has_text = true;
            self.text_hash = self.hash;
        } else if !self.has_text {
            self.columns += 1;
        }
    }
}

// FNV-1a.
const HASH_SEED: u64 = 0xCBF2_9CE4_8422_2325;
const HASH_PRIME: u64 = 0x0000_0100_0000_01B3;

impl FitText {
    pub fn new(cursor: Arc<Cursor>) -> Self {
        Self {
            progress: Progress::Open,
            given: 0,
            held: Vec::with_capacity(HELD_BYTES),
            depths: Vec::with_capacity(HELD_BYTES),
            text_end: 0,
            blank_lines: 0,
            line: Line::new(0, 0, cursor.lexer.is_in_text()),
            block: Block::Unknown,
            lexer: cursor.lexer,
            brackets: Brackets::new(),
            lines: Lines::new(),
            round_from: None,
            bytes: Bytes::new(),
            cursor,
        }
    }

    /// Takes text in UTF-8, split anywhere, and appends what is certain to `out`, in whole
    /// characters. After [`Progress::Stopped`] everything is ignored.
    pub fn push(&mut self, text: &[u8], out: &mut impl Extend<u8>) -> Progress {
        for piece in text.chunks(PIECE_BYTES) {
            for &byte in piece {
                if self.progress == Progress::Stopped {
                    return Progress::Stopped;
                }
                if let Some(end) = self.take(byte) {
                    self.stop(end, out);
                }
            }
            if self.progress == Progress::Open {
                self.give(self.certain(), out);
            }
        }
        self.progress
    }

    /// No more text comes: gives out what belongs to the answer.
    pub fn finish(&mut self, out: &mut impl Extend<u8>) {
        if self.progress == Progress::Stopped {
            return;
        }
        let has_newline = self.held_from(self.text_end).contains(&b'\n');
        let is_blank = self.cursor.ends_line && (has_newline || self.text_end == 0);
        let all = if is_blank { self.text_end } else { self.seen() };
        let ends = [self.line_end(), self.partial_rest()];
        self.stop(ends.into_iter().flatten().min().unwrap_or(all), out);
    }

    fn seen(&self) -> usize {
        self.given + self.held.len()
    }

    /// Takes the next byte; where the answer ends, if that is certain now.
    fn take(&mut self, byte: u8) -> Option<usize> {
        let depth = u16::try_from(self.brackets.depth()).unwrap_or(u16::MAX);
        let lexeme = self.lexer.step(byte);
        self.held.push(byte);
        self.depths.push(depth);
        let circle = self.bytes.push(byte).map(|from| self.before_space(from));
        if byte == b'\n' {
            let is_whole = self.cursor.stops.single_line && self.line.has_text;
            let ends = [self.line_end(), is_whole.then_some(self.text_end), circle];
            self.next_line();
            return ends.into_iter().flatten().min();
        }
        let is_first = !self.line.has_text && !is_space(byte);
        self.line.push(byte, &self.cursor.next);
        if is_space(byte) {
            let is_long = self.seen() - self.text_end > SPACE_BYTES_MAX;
            return circle.or(is_long.then_some(self.text_end));
        }
        if lexeme == Lexeme::Misplaced || (is_first && self.is_outside(byte)) {
            return Some(self.text_end);
        }
        if !self.brackets.take(lexeme, &self.cursor.closable) && self.cursor.stops.block {
            return Some(self.text_end);
        }
        self.text_end = self.seen();
        self.blank_lines = 0;
        let runs_on = self.cursor.next_is_cut && self.line.is_next == Some(self.cursor.next.len());
        circle.into_iter().chain(runs_on.then_some(self.line.gap)).min()
    }

    /// The line is over: where the answer ends, if it ends with it.
    fn line_end(&mut self) -> Option<usize> {
        if !self.line.has_text {
            self.blank_lines += 1;
            return (self.blank_lines > BLANK_LINES_MAX).then_some(self.text_end);
        }
        let next = &self.cursor.next;
        let is_next = !next.is_empty() && self.line.is_next == Some(next.len());
        let round = self.lines.push(self.line.text_hash, self.line.gap, self.text_end);
        self.round_from = if let Round::Pending(from) = round { Some(from) } else { None };
        let ends = [
            is_next.then_some(self.line.gap),
            self.whole_rest(),
            if let Round::Over(end) = round { Some(end) } else { None },
        ];
        ends.into_iter().flatten().min()
    }

    fn next_line(&mut self) {
        if matches!(self.block, Block::Unknown) {
            let columns = self.cursor.columns;
            self.block = match (self.cursor.is_blank, self.line.has_text) {
                (true, false) if columns + self.line.columns == 0 => Block::First,
                (true, false) => Block::Line(columns + self.line.columns),
                (true, true) => self.opened(columns + self.line.columns),
                (false, _) => self.opened(columns),
            };
        }
        self.line = Line::new(self.text_end, self.seen(), self.lexer.is_in_text());
    }

    fn opened(&self, columns: usize) -> Block {
        if self.lexer.opens_block() { Block::Opened(columns) } else { Block::Line(columns) }
    }

    /// Whether the line that begins with this byte is not in the block any more.
    fn is_outside(&mut self, byte: u8) -> bool {
        if self.line.in_text || matches!(self.block, Block::Unknown) {
            return false;
        }
        let columns = self.line.columns;
        let stops = self.cursor.stops;
        if stops.indent_min.is_some_and(|min| columns < min as usize) {
            return true;
        }
        self.block = match self.block {
            Block::First => Block::Line(columns),
            Block::Opened(of_line) if columns > of_line => Block::Inside(of_line),
            Block::Opened(of_line) => Block::Line(of_line),
            known => known,
        };
        stops.block
            && match self.block {
                Block::Line(least) => columns < least,
                Block::Inside(of) => columns < of || (columns == of && !closes(byte)),
                Block::Unknown | Block::Opened(_) | Block::First => false,
            }
    }

    /// Where the line becomes what follows the cursor on its line, if it ends with all of that.
    fn whole_rest(&self) -> Option<usize> {
        let rest = self.cursor.rest.as_slice();
        let start = self.rest_starts().find(|start| self.text_from(*start) == rest)?;
        self.is_rest(start).then(|| self.before_space(start))
    }

    /// The same at the end of the text, where the beginning of the rest will do, if it is no
    /// coincidence.
    fn partial_rest(&self) -> Option<usize> {
        let is_telling = |start: &usize| {
            let part = self.text_from(*start);
            let letters = part.iter().filter(|byte| byte.is_ascii_alphanumeric()).count();
            has_unmatched_closer(part) || letters >= REST_LETTERS_MIN
        };
        let start = self.rest_starts().filter(is_telling).find(|start| self.is_rest(*start))?;
        Some(self.before_space(start))
    }

    /// Where the end of the line may be the beginning of what follows the cursor on its line, the
    /// earliest first.
    fn rest_starts(&self) -> impl Iterator<Item = usize> {
        let rest = self.cursor.rest.as_slice();
        let line = self.line.start.max(self.given);
        let first = self.text_end.saturating_sub(rest.len()).max(line);
        (first..self.text_end).filter(move |start| rest.starts_with(self.text_from(*start)))
    }

    /// Whether what follows the cursor is meant from here on, and not the same in brackets of the
    /// answer's own, or a bracket that is the answer's to close.
    fn is_rest(&self, start: usize) -> bool {
        let closed = self.brackets.closed();
        let may_close = (1..=self.cursor.closable.count()).contains(&closed);
        let closes = has_unmatched_closer(self.text_from(start));
        self.depth_at(start) == 0 && !(closes && may_close)
    }

    /// How much of the text is certain to belong to the answer.
    fn certain(&self) -> usize {
        let next = self.line.is_next.filter(|same| *same > 0).map(|_| self.line.gap);
        let is_long = self.text_end.saturating_sub(self.line.gap) > LINE_BYTES_MAX;
        let round = self.round_from.filter(|_| !is_long);
        let rest = self.rest_starts().next().map(|start| self.before_space(start));
        let circle = self.bytes.held_from().map(|from| self.before_space(from));
        [next, round, rest, circle].into_iter().flatten().fold(self.text_end, usize::min)
    }

    fn held_from(&self, position: usize) -> &[u8] {
        &self.held[position - self.given..]
    }

    /// Without white space at the end.
    fn text_from(&self, position: usize) -> &[u8] {
        &self.held[position - self.given..self.text_end - self.given]
    }

    fn depth_at(&self, position: usize) -> u16 {
        self.depths.get(position - self.given).copied().unwrap_or_default()
    }

    /// This position, less white space and what of a character precedes it.
    fn before_space(&self, position: usize) -> usize {
        let held = &self.held[..position - self.given];
        let held = &held[..whole_characters(held)];
        let is_white = |byte: &u8| is_space(*byte) || *byte == b'\n';
        let space = held.iter().rev().take_while(|byte| is_white(byte)).count();
        self.given + held.len() - space
    }

    fn give(&mut self, end: usize, out: &mut impl Extend<u8>) {
        let count = whole_characters(&self.held[..end - self.given]);
        out.extend(self.held.drain(..count));
        self.depths.drain(..count);
        self.given += count;
    }

    fn stop(&mut self, end: usize, out: &mut impl Extend<u8>) {
        assert!(end >= self.given, "what is given out belongs to the answer");
        self.give(end, out);
        self.held.clear();
        self.depths.clear();
        self.progress = Progress::Stopped;
    }
}

/// Bytes of a text without the beginning of a character at its end.
fn whole_characters(text: &[u8]) -> usize {
    let begins = |byte: &&u8| (**byte as i8) >= -0x40;
    let tail = text.iter().rev().take(4).position(|byte| begins(&byte));
    let Some(back) = tail else { return text.len() };
    let start = text.len() - 1 - back;
    let length = match text[start] {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    };
    if start + length > text.len() { start } else { text.len() }
}

#[cfg(test)]
mod tests;
