//! The editor: a file with a piece taken out, and what stands there so far.

use super::edits::{Act, key};
use super::sources::Source;

pub(super) struct Desk<'a> {
    file: &'a Source,
    /// Bytes: the piece's first, and the first behind it.
    from: usize,
    to: usize,
    /// What stands where the piece was.
    typed: String,
}

/// What an act did to the text before the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Inserted(String),
    Removed,
    Nothing,
}

impl<'a> Desk<'a> {
    pub(super) fn new(file: &'a Source, from: usize, to: usize) -> Self {
        Self { file, from, to, typed: String::new() }
    }

    pub(super) fn path(&self) -> &'a str {
        &self.file.path
    }

    fn piece(&self) -> &'a str {
        &self.file.text[self.from..self.to]
    }

    /// All before the cursor.
    pub(super) fn prefix(&self) -> String {
        [&self.file.text[..self.from], &self.typed].concat()
    }

    /// All behind it.
    pub(super) fn suffix(&self) -> &'a str {
        &self.file.text[self.to..]
    }

    #[cfg(test)]
    pub(super) fn typed(&self) -> String {
        self.typed.clone()
    }

    /// Whether what stands there is what the file has.
    pub(super) fn is_right(&self) -> bool {
        self.piece().starts_with(&self.typed)
    }

    /// What is missing; nothing while something wrong stands there.
    pub(super) fn rest(&self) -> &'a str {
        self.piece().strip_prefix(&*self.typed).unwrap_or_default()
    }

    /// Whether all of it stands there.
    pub(super) fn is_done(&self) -> bool {
        self.typed == self.piece()
    }

    /// Does what is done with the keyboard; a look does nothing here.
    pub(super) fn act(&mut self, act: Act) -> Change {
        match act {
            Act::Slip(wrong) => self.insert(wrong.encode_utf8(&mut [0; 4])),
            Act::Type if !self.is_right() => self.correct(),
            Act::Type => self.insert(key(self.rest())),
            Act::Backspace => self.take_back(),
            Act::Look { .. } => Change::Nothing,
        }
    }

    /// Puts a text, a suggestion maybe, before the cursor.
    pub(super) fn insert(&mut self, text: &str) -> Change {
        self.typed.push_str(text);
        if text.is_empty() { Change::Nothing } else { Change::Inserted(text.to_owned()) }
    }

    /// Takes away all that is wrong, as who selects it would.
    fn correct(&mut self) -> Change {
        let same = |(a, b): &(char, char)| a == b;
        let common = self.typed.chars().zip(self.piece().chars()).take_while(same);
        let right = common.map(|(a, _)| a.len_utf8()).sum();
        self.typed.truncate(right);
        Change::Removed
    }

    /// One key back: as much as it typed.
    fn take_back(&mut self) -> Change {
        let mut start = 0;
        while start < self.typed.len() {
            let length = key(&self.typed[start..]).len();
            if start + length == self.typed.len() {
                self.typed.truncate(start);
                return Change::Removed;
            }
            start += length;
        }
        Change::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_that_is_wrong_is_taken_back_to_what_is_right() {
        let file = Source { path: "a.rs".into(), text: "let a = 1;\n    let b;\n".into() };
        let mut desk = Desk::new(&file, 4, 21);
        assert_eq!((desk.prefix(), desk.suffix()), ("let ".into(), "\n"));
        assert_eq!(desk.insert("a = 2;\n"), Change::Inserted("a = 2;\n".into()));
        assert!(!desk.is_right() && desk.rest().is_empty() && !desk.is_done());
        assert_eq!(desk.act(Act::Type), Change::Removed);
        assert_eq!(desk.prefix(), "let a = ");
        desk.insert("1;");
        assert_eq!(desk.act(Act::Type), Change::Inserted("\n    ".into()));
        assert_eq!(desk.act(Act::Backspace), Change::Removed);
        assert_eq!(desk.prefix(), "let a = 1;");
        desk.insert(desk.rest());
        assert!(desk.is_done());
        assert_eq!(desk.act(Act::Type), Change::Nothing);
    }
}
