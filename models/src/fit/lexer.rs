//! Brackets of code, told apart from those in strings and comments: roughly, in any language, and
//! byte by byte, so that it goes on from the text before the cursor into the answer.

/// What strings and comments look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    /// `//` and `/* */`: C and most that came after it.
    Slashes,
    /// The same, with strings in three quotes.
    SlashesAndQuotes,
    /// The same without them, where a quote may also begin the name of a lifetime.
    Rust,
    /// `#`, and strings in three quotes.
    Hashes,
}

/// What a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lexeme {
    /// A bracket opens: itself.
    Open(u8),
    /// A bracket closes: the one that it closes.
    Close(u8),
    /// A quote where none can be: what is inside of strings and what is between them has changed
    /// places, and from here on nobody knows which brackets count.
    Misplaced,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Code,
    /// One slash, which may begin a comment, or a pattern where an operand is due.
    Slash {
        operand: bool,
    },
    LineComment,
    BlockComment {
        star: bool,
    },
    /// One quote, of which two more would make three.
    Quote(u8),
    TwoQuotes(u8),
    /// A string that the end of the line ends, whatever was forgotten.
    Quoted {
        by: u8,
        escaped: bool,
    },
    ThreeQuotes {
        by: u8,
        run: u8,
        escaped: bool,
    },
    Backticks {
        escaped: bool,
    },
    Pattern {
        class: bool,
        escaped: bool,
    },
    /// A quote in Rust.
    Tick,
    /// And a letter after it: a lifetime, or a character if another quote follows.
    TickAndLetter,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Lexer {
    language: Language,
    state: State,
    /// The last byte of code that is no space.
    last: u8,
    /// Letters of the word that stands right behind a string, if there is one: `"a"word`.
    glued: Option<u8>,
    /// Whether the comment or string that the text is in counts as code: see [`Lexer::into_answer`].
    is_left_open: bool,
}

/// A word of fewer letters between two strings may belong to the second, as in `"a"rb"b"`.
const GLUED_MIN: u8 = 3;

fn bracket(byte: u8) -> Lexeme {
    match byte {
        b'(' | b'[' | b'{' => Lexeme::Open(byte),
        b')' | b']' | b'}' => Lexeme::Close(opener(byte)),
        _ => Lexeme::Other,
    }
}

/// The bracket that this one closes.
fn opener(closer: u8) -> u8 {
    match closer {
        b')' => b'(',
        b']' => b'[',
        _ => b'{',
    }
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

pub(super) fn closes(byte: u8) -> bool {
    matches!(byte, b')' | b']' | b'}')
}

impl Lexer {
    pub(super) fn new(language: Language) -> Self {
        Self { language, state: State::Code, last: b'\n', glued: None, is_left_open: false }
    }

    /// Whether the next line would begin inside of a string or a comment.
    pub(super) fn is_in_text(&self) -> bool {
        matches!(
            self.state,
            State::BlockComment { .. } | State::ThreeQuotes { .. } | State::Backticks { .. }
        )
    }

    /// Whether the last code is such that what it begins is on the lines that follow.
    pub(super) fn opens_block(&self) -> bool {
        matches!(self.last, b'{' | b'(' | b'[' | b':')
    }

    /// As it stands at the beginning of an answer that this text follows. Where the text leaves the
    /// comment or the string open that the cursor is in, nobody knows whether the answer will end
    /// it; if it does not, all that follows is torn up, so its brackets count until it does.
    pub(super) fn into_answer(self, suffix: &str) -> Self {
        let is_left_open = match self.state {
            State::BlockComment { .. } => match (suffix.find("*/"), suffix.find("/*")) {
                (Some(end), Some(next)) => next < end,
                (end, _) => end.is_none(),
            },
            State::ThreeQuotes { by, .. } => {
                suffix.matches(if by == b'"' { "\"\"\"" } else { "'''" }).count().is_multiple_of(2)
            }
            State::Backticks { .. } => suffix.matches('`').count().is_multiple_of(2),
            _ => false,
        };
        Self { is_left_open, ..self }
    }

    /// As it stands behind the answer, before this suffix.
    pub(super) fn before_suffix(self, suffix: &str) -> Self {
        if self.into_answer(suffix).is_left_open {
            return Self { state: State::Code, ..self };
        }
        self.before(suffix.split('\n').next().unwrap_or_default())
    }

    /// As it must stand for the rest of a line to be whole: where that leaves a string open, what
    /// comes between ends the string, or begins it.
    fn before(self, rest: &str) -> Self {
        let mut lexer = self;
        rest.bytes().for_each(|byte| _ = lexer.step(byte));
        let by = match lexer.state {
            State::Quote(by) | State::Quoted { by, .. } => by,
            _ => return self,
        };
        let state = match self.state {
            State::Quote(_) | State::Quoted { .. } => State::Code,
            _ => State::Quoted { by, escaped: false },
        };
        Self { state, ..self }
    }

    pub(super) fn step(&mut self, byte: u8) -> Lexeme {
        if byte == b'\n' {
            self.end_line();
            return Lexeme::Other;
        }
        self.state = match self.state {
            State::Code => return self.code(byte),
            State::LineComment => State::LineComment,
            State::BlockComment { star: true } if byte == b'/' => State::Code,
            State::BlockComment { .. } => State::BlockComment { star: byte == b'*' },
            State::Slash { operand } => match byte {
                b'/' => State::LineComment,
                b'*' => State::BlockComment { star: false },
                _ if operand => in_pattern(false, false, byte),
                _ => {
                    self.last = b'/';
                    return self.code(byte);
                }
            },
            State::Quote(by) if byte == by => State::TwoQuotes(by),
            State::Quote(by) => quoted(by, false, byte),
            State::TwoQuotes(by) if byte == by && self.has_three(by) => {
                State::ThreeQuotes { by, run: 0, escaped: false }
            }
            State::TickAndLetter if byte == b'\'' => State::Code,
            State::TwoQuotes(_) | State::TickAndLetter => return self.code(byte),
            State::Quoted { by, escaped } => {
                let state = quoted(by, escaped, byte);
                self.glued = (state == State::Code).then_some(0);
                state
            }
            State::ThreeQuotes { by, run, escaped } => three_quotes(by, run, escaped, byte),
            State::Backticks { escaped: false } if byte == b'`' => State::Code,
            State::Backticks { escaped } => State::Backticks { escaped: !escaped && byte == b'\\' },
            State::Pattern { class, escaped } => in_pattern(class, escaped, byte),
            State::Tick if byte.is_ascii_alphabetic() || byte == b'_' => State::TickAndLetter,
            State::Tick => quoted(b'\'', false, byte),
        };
        self.is_left_open &= self.is_in_text();
        if self.is_left_open { bracket(byte) } else { Lexeme::Other }
    }

    fn code(&mut self, byte: u8) -> Lexeme {
        let between = self.glued;
        // A word that begins with a capital may be a macro that stands for a string.
        self.glued = match between {
            Some(0) if byte.is_ascii_lowercase() => Some(1),
            Some(1..) if byte.is_ascii_alphanumeric() || byte == b'_' => {
                between.map(|letters| letters.saturating_add(1))
            }
            _ => None,
        };
        self.state = match byte {
            b'/' if self.language != Language::Hashes => {
                State::Slash { operand: self.wants_operand() }
            }
            b'#' if self.language == Language::Hashes => State::LineComment,
            b'\'' if self.language == Language::Rust => State::Tick,
            b'"' | b'\'' => State::Quote(byte),
            b'`' if self.language != Language::Rust => State::Backticks { escaped: false },
            _ => State::Code,
        };
        if matches!(self.state, State::Slash { .. } | State::LineComment) || is_space(byte) {
            return Lexeme::Other;
        }
        self.last = byte;
        match byte {
            b'"' if between.is_some_and(|letters| letters >= GLUED_MIN) => Lexeme::Misplaced,
            _ => bracket(byte),
        }
    }

    /// What does not span lines ends with its line, so that one quote too many spoils no more.
    fn end_line(&mut self) {
        self.glued = None;
        let goes_on = matches!(self.state, State::Quoted { escaped: true, .. });
        self.state = match self.state {
            State::Quoted { by, .. } if goes_on => State::Quoted { by, escaped: false },
            State::BlockComment { .. } => State::BlockComment { star: false },
            State::ThreeQuotes { by, .. } => State::ThreeQuotes { by, run: 0, escaped: false },
            State::Backticks { .. } => State::Backticks { escaped: false },
            _ => State::Code,
        };
    }

    fn has_three(&self, quote: u8) -> bool {
        match self.language {
            Language::Hashes => true,
            Language::SlashesAndQuotes => quote == b'"',
            Language::Slashes | Language::Rust => false,
        }
    }

    /// Whether a slash here begins a pattern and divides nothing.
    fn wants_operand(&self) -> bool {
        self.language == Language::Slashes && b"(,=:[!&|?{};\n".contains(&self.last)
    }
}

fn quoted(by: u8, escaped: bool, byte: u8) -> State {
    match escaped {
        false if byte == by => State::Code,
        _ => State::Quoted { by, escaped: !escaped && byte == b'\\' },
    }
}

fn three_quotes(by: u8, run: u8, escaped: bool, byte: u8) -> State {
    let run = if byte == by && !escaped { run + 1 } else { 0 };
    match run {
        3 => State::Code,
        _ => State::ThreeQuotes { by, run, escaped: !escaped && byte == b'\\' },
    }
}

fn in_pattern(class: bool, escaped: bool, byte: u8) -> State {
    match byte {
        _ if escaped => State::Pattern { class, escaped: false },
        b'/' if !class => State::Code,
        b'[' => State::Pattern { class: true, escaped: false },
        b']' => State::Pattern { class: false, escaped: false },
        _ => State::Pattern { class, escaped: byte == b'\\' },
    }
}

/// Extensions of files with `#` comments.
const HASHES: &[&str] = &[
    "bash", "cfg", "cmake", "conf", "ex", "exs", "fish", "ini", "jl", "mk", "nix", "pl", "pm",
    "py", "pyi", "pyx", "r", "rb", "sh", "tcl", "tf", "toml", "yaml", "yml", "zsh",
];

/// Extensions of files with `//` comments and strings in three quotes.
const QUOTES: &[&str] = &["cs", "dart", "gradle", "groovy", "java", "kt", "kts", "scala", "swift"];

impl Language {
    /// By the path where there is one, else by what the text looks like.
    pub(super) fn guess(path: Option<&str>, text: &str) -> Self {
        match path.and_then(|path| path.rsplit_once('.')) {
            Some((_, "rs")) => return Language::Rust,
            Some((_, extension)) if HASHES.contains(&extension) => return Language::Hashes,
            Some((_, extension)) if QUOTES.contains(&extension) => {
                return Language::SlashesAndQuotes;
            }
            Some((_, extension)) if !extension.contains('/') => return Language::Slashes,
            _ => {}
        }
        let mut hashes = 0;
        let mut slashes = 0;
        let mut rust = 0;
        for line in text.lines().map(str::trim) {
            hashes += u32::from(line.ends_with(':') || line.starts_with("# "));
            hashes += u32::from(line.starts_with("import ") && !line.ends_with(';'));
            slashes += u32::from(line.ends_with([';', '{', '}']) || line.starts_with("//"));
            rust += u32::from(line.starts_with("fn ") || line.starts_with("pub fn "));
            rust += u32::from(line.starts_with("let mut ") || line.starts_with("impl"));
        }
        match rust {
            0 if hashes > slashes => Language::Hashes,
            0 => Language::Slashes,
            _ => Language::Rust,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The brackets of a text that count.
    fn brackets(language: Language, text: &str) -> String {
        let mut lexer = Lexer::new(language);
        let is_bracket = |byte: &u8| !matches!(lexer.step(*byte), Lexeme::Other);
        text.bytes().filter(is_bracket).map(char::from).collect()
    }

    #[test]
    fn strings_and_comments_hold_no_brackets() {
        use Language::{Hashes, Rust, Slashes, SlashesAndQuotes};
        for (language, text, expected) in [
            (Slashes, "f(a[0]) {", "([]){"),
            (Slashes, "f(\"(\", ')', `[\n`) // )", "()"),
            (Slashes, "f(/* ) \n */) a / b(c) / d", "()()"),
            (Slashes, "f(\"\\\"(\") \"\" (", "()("),
            (Slashes, "it's (\n(", "("),
            (Slashes, "\"\"\"\n)", ")"),
            (SlashesAndQuotes, "\"\"\"\n)\"\"\" (", "("),
            (Slashes, "x = /[/(]\\/(/.test(y)", "()"),
            (Slashes, "x = a / (b) / c", "()"),
            (Rust, "fn f<'a>(x: &'a str) { '(' '\\'' (", "(){("),
            (Rust, "let s = \"(\\\n(\"; (", "("),
            (Hashes, "f(a // b) # (", "()"),
            (Hashes, "'''(\n\"(''' (", "("),
            (Hashes, "\"\"\"it's\n(\"\"\")", ")"),
            (Hashes, "f('') f(\"\")", "()()"),
        ] {
            assert_eq!(brackets(language, text), expected, "{language:?} {text}");
        }
    }

    #[test]
    fn a_quote_behind_a_word_behind_a_string_is_misplaced() {
        for (text, misplaced) in [
            ("\"target_os = \"android\" } else {", Some(21)),
            ("f(\"a\" + b, \"c\")", None),
            ("\"a\"rb\"b\"", None),
            ("\"%\"PRIu64\"\\n\"", None),
            ("\"a\" word \"b\"", None),
            ("word\"a\"", None),
            ("\"a\\\"word\"", None),
            ("'don\"t'word 'a\"b'", None),
            ("// \"a\"word\"", None),
            ("\"a\"\nword\"b\"", None),
        ] {
            let mut lexer = Lexer::new(Language::Slashes);
            let found = text.bytes().position(|byte| lexer.step(byte) == Lexeme::Misplaced);
            assert_eq!(found, misplaced, "{text}");
        }
    }

    #[test]
    fn a_language_is_told_by_path_or_text() {
        assert_eq!(Language::guess(Some("src/a.rs"), ""), Language::Rust);
        assert_eq!(Language::guess(Some("a.py"), "{;"), Language::Hashes);
        assert_eq!(Language::guess(Some("a.d/Makefile"), "x:\n"), Language::Hashes);
        assert_eq!(Language::guess(None, "def f():\n    pass"), Language::Hashes);
        assert_eq!(Language::guess(None, "int f() {\n"), Language::Slashes);
        assert_eq!(Language::guess(None, "pub fn f() {\n"), Language::Rust);
    }
}
