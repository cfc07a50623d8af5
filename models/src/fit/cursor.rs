//! What lies around a cursor, as far as it decides where an answer ends.

use super::lexer::{Language, Lexeme, Lexer, closes, is_space};
use super::{CodeStops, PREFIX_BYTES_MAX, SUFFIX_BYTES_MAX};

/// Brackets that are open at once; what is opened inside of so many is not seen.
pub(super) const OPEN_MAX: usize = 256;
/// Bytes of the rest of the cursor's line; of a longer one nothing is recognised.
const REST_BYTES_MAX: usize = 512;
/// Bytes of the suffix's next line that are compared.
const NEXT_BYTES_MAX: usize = 512;
/// Letters and digits that a line must have, so that it is no coincidence to meet it twice.
const NEXT_LETTERS_MIN: usize = 4;

/// A cursor's surroundings under the stops that were asked for, shared by the choices of a request.
#[derive(Debug)]
pub struct Cursor {
    pub(super) stops: CodeStops,
    /// As it stands after the prefix.
    pub(super) lexer: Lexer,
    /// Characters of white space that the cursor's line begins with; of a line that closes what
    /// another has opened, those of the other.
    pub(super) columns: usize,
    /// Whether nothing else precedes the cursor on its line.
    pub(super) is_blank: bool,
    pub(super) closable: Closable,
    /// The rest of the cursor's line without white space at its end.
    pub(super) rest: Vec<u8>,
    /// Whether there is none, however long it is.
    pub(super) ends_line: bool,
    /// The suffix's next line that is not blank, without white space around it; empty if it is not
    /// worth recognising.
    pub(super) next: Vec<u8>,
    /// Whether `next` is only the beginning of the line.
    pub(super) next_is_cut: bool,
}

/// Which brackets of the prefix an answer may close.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Closable {
    /// The suffix closes none.
    Any,
    /// These, the innermost first; the suffix closes the others.
    Only(Vec<u8>),
}

impl Closable {
    /// Whether the answer may close this bracket when it has closed `before` others of the prefix.
    pub(super) fn allows(&self, bracket: u8, before: usize) -> bool {
        match self {
            Closable::Any => true,
            Closable::Only(brackets) => brackets.get(before) == Some(&bracket),
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Closable::Any => usize::MAX,
            Closable::Only(brackets) => brackets.len(),
        }
    }
}

impl Cursor {
    /// `path` tells the language; without it the text does. Looks at [`PREFIX_BYTES_MAX`] before
    /// the cursor and [`SUFFIX_BYTES_MAX`] after it.
    pub fn new(stops: CodeStops, prefix: &str, suffix: &str, path: Option<&str>) -> Self {
        let prefix = tail(prefix);
        let suffix = &suffix[..suffix.floor_char_boundary(SUFFIX_BYTES_MAX)];
        let mut scan = Scan::new(Lexer::new(Language::guess(path, prefix)));
        prefix.bytes().for_each(|byte| scan.step(byte));
        let (rest, after) = suffix.split_once('\n').unwrap_or((suffix, ""));
        let rest = rest.trim_end();
        let next = after.lines().map(str::trim).find(|line| !line.is_empty());
        let is_telling =
            |line: &&str| line.chars().filter(|c| c.is_alphanumeric()).count() >= NEXT_LETTERS_MIN;
        let next = next.filter(is_telling).unwrap_or_default();
        let near = &next[..next.floor_char_boundary(NEXT_BYTES_MAX)];
        Self {
            stops,
            lexer: scan.lexer.into_answer(suffix),
            columns: scan.columns,
            is_blank: scan.is_blank,
            closable: scan.closable(suffix),
            rest: Some(rest).filter(|rest| rest.len() <= REST_BYTES_MAX).unwrap_or_default().into(),
            ends_line: rest.is_empty(),
            next: near.into(),
            next_is_cut: near.len() < next.len(),
        }
    }
}

/// The end of a text, from the beginning of a line where it is cut.
fn tail(prefix: &str) -> &str {
    let start = prefix.ceil_char_boundary(prefix.len().saturating_sub(PREFIX_BYTES_MAX));
    if start == 0 {
        return prefix;
    }
    let near = &prefix[start..];
    near.split_once('\n').map_or(near, |(_, lines)| lines)
}

/// A bracket that is open.
#[derive(Clone, Copy)]
struct Open {
    bracket: u8,
    /// Of its line.
    columns: usize,
    line: usize,
}

/// A bracket that is closed and was not opened in the text that closes it.
struct Closing {
    bracket: u8,
    columns: usize,
    /// Whether it is the first on its line.
    leads: bool,
}

/// Reads a text for its brackets.
struct Scan {
    lexer: Lexer,
    open: Vec<Open>,
    line: usize,
    columns: usize,
    is_blank: bool,
}

impl Scan {
    fn new(lexer: Lexer) -> Self {
        Self { lexer, open: Vec::new(), line: 0, columns: 0, is_blank: true }
    }

    fn step(&mut self, byte: u8) {
        self.closing(byte);
    }

    /// Takes a byte; the bracket that it closes, if this text did not open it.
    fn closing(&mut self, byte: u8) -> Option<Closing> {
        let lexeme = self.lexer.step(byte);
        if byte == b'\n' {
            (self.line, self.columns, self.is_blank) = (self.line + 1, 0, true);
            return None;
        }
        if self.is_blank && is_space(byte) {
            self.columns += 1;
            return None;
        }
        let leads = std::mem::take(&mut self.is_blank);
        match lexeme {
            Lexeme::Open(bracket) if self.open.len() < OPEN_MAX => {
                self.open.push(Open { bracket, columns: self.columns, line: self.line });
                None
            }
            Lexeme::Close(bracket) => {
                let Some(at) = self.open.iter().rposition(|open| open.bracket == bracket) else {
                    return Some(Closing { bracket, columns: self.columns, leads });
                };
                // A line that closes what an earlier one has opened goes on with that line:
                // what it opens stands where the statement began.
                if self.open[at].line != self.line {
                    self.columns = self.open[at].columns;
                }
                self.open.truncate(at);
                None
            }
            _ => None,
        }
    }

    /// What the answer may close between this text and a suffix: all that is inside of the first
    /// bracket of this text which the suffix closes. One that the suffix closes and nobody has
    /// opened is the answer's to open, or stands far above.
    fn closable(&self, suffix: &str) -> Closable {
        let lexer = self.lexer.before_suffix(suffix);
        let mut after = Scan { columns: self.columns, is_blank: false, ..Self::new(lexer) };
        let mut first_here = None;
        let mut closed_here = 0;
        // How many are inside, and whether that is beyond doubt: else later ones may say less.
        let mut inside: Option<(usize, bool)> = None;
        let mut closes_any = false;
        for byte in suffix.bytes() {
            if inside.is_some_and(|(count, certain)| certain || count == 0) {
                break;
            }
            let Some(closing) = after.closing(byte) else { continue };
            closes_any = true;
            if after.line == 0 {
                first_here.get_or_insert(closing.bracket);
                closed_here += 1;
            } else if let Some((count, certain)) = self.inside(&closing) {
                inside = Some((inside.map_or(count, |(known, _)| known.min(count)), certain));
            }
        }
        if !closes_any {
            return Closable::Any;
        }
        let inside = match first_here {
            Some(bracket) => self.inside_on_this_line(bracket, closed_here, inside),
            None => inside.map_or(usize::MAX, |(count, _)| count),
        };
        Closable::Only(self.open.iter().rev().take(inside).map(|open| open.bracket).collect())
    }

    /// How many brackets are open inside of the one that a later line closes, and whether that is
    /// beyond doubt. A bracket that leads a line stands as deep as the line on which it was opened;
    /// if none is that deep, or what stands no deeper is open inside, it may close the innermost of
    /// its kind, or one that is not there yet.
    fn inside(&self, closing: &Closing) -> Option<(usize, bool)> {
        let same = || {
            self.open.iter().rev().enumerate().filter(|(_, open)| open.bracket == closing.bracket)
        };
        let (innermost, _) = same().next()?;
        let near = same().find(|(_, open)| open.columns <= closing.columns);
        Some(match near {
            Some((at, open)) if closing.leads && open.columns == closing.columns => (at, true),
            _ => (innermost, false),
        })
    }

    /// The same where the cursor's own line goes on and closes so many, the first of this kind:
    /// they belong to the outermost that were opened on it, unless those may be left to later lines.
    fn inside_on_this_line(&self, first: u8, closed: usize, later: Option<(usize, bool)>) -> usize {
        let here = self.open.iter().rev().take_while(|open| open.line == self.line).count();
        let inside = here.saturating_sub(closed);
        let is_here = later.is_none_or(|(inside, certain)| certain && inside >= here);
        let closes = self.open.iter().rev().nth(inside).map(|open| open.bracket);
        if is_here && closes == Some(first) { inside } else { 0 }
    }
}

/// What the answer opens and closes.
#[derive(Debug)]
pub(super) struct Brackets {
    /// Opened by the answer and not closed; room for [`OPEN_MAX`].
    open: Vec<u8>,
    /// Brackets of the prefix that it has closed.
    closed: usize,
}

impl Brackets {
    pub(super) fn new() -> Self {
        Self { open: Vec::with_capacity(OPEN_MAX), closed: 0 }
    }

    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    pub(super) fn closed(&self) -> usize {
        self.closed
    }

    /// Takes a piece of the answer; false: it closes what it must not.
    pub(super) fn take(&mut self, lexeme: Lexeme, closable: &Closable) -> bool {
        match lexeme {
            Lexeme::Open(bracket) if self.open.len() < OPEN_MAX => self.open.push(bracket),
            Lexeme::Close(bracket) => match self.open.iter().rposition(|open| *open == bracket) {
                Some(at) => self.open.truncate(at),
                None => {
                    let allowed = closable.allows(bracket, self.closed);
                    self.closed += 1;
                    return allowed;
                }
            },
            _ => {}
        }
        true
    }
}

/// Whether a piece of the cursor's line closes a bracket that it did not open.
pub(super) fn has_unmatched_closer(text: &[u8]) -> bool {
    let mut open = 0usize;
    for &byte in text {
        if matches!(byte, b'(' | b'[' | b'{') {
            open += 1;
        } else if closes(byte) {
            let Some(left) = open.checked_sub(1) else { return true };
            open = left;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closable(prefix: &str, suffix: &str) -> Option<String> {
        match Cursor::new(CodeStops::default(), prefix, suffix, Some("a.js")).closable {
            Closable::Any => None,
            Closable::Only(brackets) => Some(String::from_utf8(brackets).expect("brackets")),
        }
    }

    #[test]
    fn an_answer_may_close_what_the_suffix_leaves_open() {
        for (prefix, suffix, expected) in [
            ("foo(", "", None),
            ("foo(", ")", Some("")),
            ("foo(bar(", ")", Some("(")),
            ("foo(bar(", "))", Some("")),
            ("f(", "\n}", Some("(")),
            ("function f() {\n  if (x) {", "\n}", Some("{")),
            ("function f() {\n  if (x) {", "\n  }\n}", Some("")),
            ("class A {\n  f(a,\n    b) {\n    ", "\n  }\n}", Some("")),
            // what the closing line goes on with stands where its statement began
            ("class A {\nf(a,\n    b) {\n    ", "\n}\n}", Some("")),
            ("foo(\n  a, ", "\n)", Some("")),
            ("x = { // }\n", "\n}", Some("")),
            ("x = \"(", "\"\n)", Some("")),
            ("f(a, ", ", \")\")", Some("")),
            ("if (a && (b", ") {", Some("(")),
            ("{\nif (a && (b", ") {\n  }\n}", Some("(")),
            ("foo(bar(", "),\n  x)", Some("")),
            // what is missing ends a string, or begins one
            ("f(\"a", ");\n", Some("")),
            ("x = [\"a\", ", "b\"],\n", Some("")),
            ("f(\"a", "b\");\n", Some("")),
            ("  call(a, (", "b) => {\n  }, [c]);\n", Some("")),
            ("", "\n}", Some("")),
            ("f(", "\n  g(\n  );\n]", Some("(")),
            // a comment that the suffix ends, and one that it leaves open
            ("f(\n/* a ", "b */\n)", Some("")),
            ("f(\n/* a ", "\n) /* b */", Some("")),
            ("f(\n/* a ", "\n", None),
        ] {
            assert_eq!(closable(prefix, suffix).as_deref(), expected, "{prefix}|{suffix}");
        }
    }

    #[test]
    fn only_so_much_of_prefix_and_suffix_is_read() {
        let long = "x\n".repeat(PREFIX_BYTES_MAX);
        let cursor = Cursor::new(CodeStops::default(), &format!("({long}{{"), &long, None);
        assert_eq!(cursor.closable, Closable::Any);
        let suffix = format!("\n{}", "word ".repeat(SUFFIX_BYTES_MAX));
        let cursor = Cursor::new(CodeStops::default(), "", &suffix, None);
        assert!(cursor.next_is_cut && cursor.next.len() == NEXT_BYTES_MAX);
    }
}
