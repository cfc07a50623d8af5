//! `FILE:LINE:COLUMN`: a cursor as editors and compilers write it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Larger files are not source code; their ends would be cut away anyhow.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A place in a file, both numbers from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) file: PathBuf,
    line: usize,
    column: usize,
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no FILE:LINE:COLUMN");
        // From the right: a path may hold colons.
        let mut parts = text.rsplitn(3, ':');
        let mut number = || parts.next()?.parse().ok().filter(|&number: &usize| number > 0);
        let (column, line) = (number().ok_or_else(wrong)?, number().ok_or_else(wrong)?);
        let file = parts.next().filter(|file| !file.is_empty()).ok_or_else(wrong)?;
        Ok(Self { file: file.into(), line, column })
    }
}

impl Cursor {
    /// The text before and after the cursor.
    pub(super) fn split(&self) -> Result<(String, String), String> {
        let text = read(&self.file)?;
        let at = self.offset(&text)?;
        Ok((text[..at].to_owned(), text[at..].to_owned()))
    }

    /// Byte offset of the cursor; one column behind the last character is the line's end.
    fn offset(&self, text: &str) -> Result<usize, String> {
        let start = if self.line == 1 {
            0
        } else {
            let ends = text.match_indices('\n').map(|(at, _)| at + 1);
            ends.into_iter().nth(self.line - 2).ok_or_else(|| self.outside("line"))?
        };
        let line = text[start..].split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
        let column = ends.into_iter().nth(self.column - 1).ok_or_else(|| self.outside("column"))?;
        Ok(start + column)
    }

    fn outside(&self, what: &str) -> String {
        let number = if what == "line" { self.line } else { self.column };
        format!("{} has no {what} {number} there", self.file.display())
    }
}

fn read(path: &Path) -> Result<String, String> {
    let cannot = |error| format!("{} cannot be read: {error}", path.display());
    let size = std::fs::metadata(path).map_err(cannot)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(text: &str, line: usize, column: usize) -> Option<usize> {
        Cursor { file: "f".into(), line, column }.offset(text).ok()
    }

    #[test]
    fn a_cursor_is_parsed_from_the_right() {
        let cursor: Cursor = "c:/a:b.rs:3:14".parse().unwrap();
        assert_eq!(cursor, Cursor { file: "c:/a:b.rs".into(), line: 3, column: 14 });
        for wrong in ["a.rs", "a.rs:1", "a.rs:0:1", "a.rs:1:0", ":1:1", "a.rs:x:1", "a.rs:1:-1"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cursor_is_found_by_characters() {
        assert_eq!(offset("ab\ncd", 1, 1), Some(0));
        assert_eq!(offset("ab\ncd", 1, 3), Some(2), "the end of a line");
        assert_eq!(offset("ab\ncd", 2, 3), Some(5), "the end of the text");
        assert_eq!(offset("äöü", 1, 3), Some(4), "two bytes each");
        assert_eq!(offset("a\r\nb", 1, 2), Some(1), "before the carriage return");
        assert_eq!(offset("a\n", 2, 1), Some(2), "the empty last line");
        assert_eq!(offset("ab\ncd", 1, 4), None);
        assert_eq!(offset("ab\ncd", 3, 1), None);
        assert_eq!(offset("", 1, 1), Some(0));
    }
}
