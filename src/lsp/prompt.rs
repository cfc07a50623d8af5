//! What a model reads: the text around a cursor, and what else is open.
//!
//! Windows are bounded, and their far ends move in coarse steps: while somebody types, each prompt
//! begins with the bytes of the one before, which the engine has read already.

use lsp_types::Uri;
use ropey::RopeSlice;
use serde::Serialize;

use super::documents::Documents;
use super::text::Text;
use super::workspace::Workspace;

/// Bytes before the cursor: more than the longest context of a model that answers at typing speed.
const PREFIX_BYTES_MAX: usize = 32 << 10;
/// Bytes behind the cursor.
const SUFFIX_BYTES_MAX: usize = 8 << 10;
/// By how much the far end of a window moves when it moves: that often a prompt is read anew.
const PREFIX_STEP_BYTES: usize = 8 << 10;
const SUFFIX_STEP_BYTES: usize = 2 << 10;
/// Other files that go along, and bytes of each and of all.
const EXTRA_FILES_MAX: usize = 8;
const EXTRA_FILE_BYTES_MAX: usize = 8 << 10;
const EXTRA_BYTES_MAX: usize = 32 << 10;

/// In the words of `/v1/completions`.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Prompt {
    pub(super) prompt: String,
    pub(super) suffix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repository: Option<String>,
    pub(super) extra_files: Vec<ExtraFile>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct ExtraFile {
    path: String,
    text: String,
}

/// A hole in a document: the cursor, or what a selected suggestion would replace.
pub(super) struct Hole<'a> {
    /// Offsets in bytes.
    pub(super) start: usize,
    pub(super) end: usize,
    /// What stands in it already.
    pub(super) begun: &'a str,
}

impl Prompt {
    pub(super) fn new(
        documents: &Documents,
        workspace: &Workspace,
        (uri, text): (&Uri, &Text),
        hole: &Hole<'_>,
    ) -> Self {
        let place = workspace.place(uri);
        Self {
            prompt: prefix(text, hole.start) + hole.begun,
            suffix: suffix(text, hole.end),
            path: place.path,
            repository: place.repository,
            extra_files: extra_files(documents, workspace, uri),
        }
    }
}

fn prefix(text: &Text, cursor: usize) -> String {
    let over = cursor.saturating_sub(PREFIX_BYTES_MAX);
    let cut = over.next_multiple_of(PREFIX_STEP_BYTES);
    // A line that is longer than the window has no beginning in it.
    let line = Some(text.line_start_from(cut)).filter(|&start| start <= cursor);
    unified(text.slice(line.unwrap_or(cut)..cursor))
}

/// Counted from the text's end, which is as far behind the cursor after a key as it was before.
fn suffix(text: &Text, cursor: usize) -> String {
    let behind = text.len_bytes() - cursor;
    let cut = behind.saturating_sub(SUFFIX_BYTES_MAX).next_multiple_of(SUFFIX_STEP_BYTES);
    let end = text.len_bytes() - cut.min(behind);
    let line = Some(text.line_start_before(end)).filter(|&start| cut > 0 && start > cursor);
    unified(text.slice(cursor..line.unwrap_or(end)))
}

/// The most recently used last, which is next to the cursor's own; those that are gone longest are
/// left out first.
fn extra_files(documents: &Documents, workspace: &Workspace, uri: &Uri) -> Vec<ExtraFile> {
    let (mut files, mut left) = (Vec::new(), EXTRA_BYTES_MAX);
    for document in documents.beside(uri) {
        let Some(path) = workspace.place(&document.uri).path else { continue };
        let text = &document.text;
        let mut end = text.len_bytes();
        if end > EXTRA_FILE_BYTES_MAX {
            end = text.line_start_before(EXTRA_FILE_BYTES_MAX);
        }
        if files.len() == EXTRA_FILES_MAX || end > left {
            break;
        }
        if end > 0 {
            left -= end;
            files.push(ExtraFile { path, text: unified(text.slice(0..end)) });
        }
    }
    files.reverse();
    files
}

/// With `\n` at the end of each line, as models have learned code.
fn unified(text: RopeSlice<'_>) -> String {
    let text = String::from(text);
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn uri(name: &str) -> Uri {
        format!("file:///w/{name}").parse().unwrap()
    }

    fn prompt(text: &str, cursor: usize) -> Prompt {
        let hole = Hole { start: cursor, end: cursor, begun: "" };
        let (documents, workspace) = (Documents::default(), Workspace::default());
        Prompt::new(&documents, &workspace, (&uri("a.rs"), &Text::new(text)), &hole)
    }

    /// Lines of different lengths.
    fn long(lines: usize) -> String {
        (0..lines).map(|line| format!("line {line} {}\n", "ä".repeat(line % 37))).collect()
    }

    #[test]
    fn a_small_file_is_read_whole() {
        let text = "fn a() {\r\n    \rb\n}\r\n";
        let read = prompt(text, 14);
        assert_eq!((&*read.prompt, &*read.suffix), ("fn a() {\n    ", "\nb\n}\n"));
        let hole = Hole { start: 0, end: 2, begun: "function" };
        let (documents, workspace) = (Documents::default(), Workspace::default());
        let read = Prompt::new(&documents, &workspace, (&uri("a.rs"), &Text::new(text)), &hole);
        assert_eq!((&*read.prompt, &read.suffix[..4]), ("function", " a()"));
        assert_eq!(read.path.as_deref(), Some("a.rs"));
    }

    #[test]
    fn windows_are_bounded_and_cut_at_lines() {
        let text = long(4000);
        for cursor in (0..text.len()).step_by(997).filter(|&at| text.is_char_boundary(at)) {
            let read = prompt(&text, cursor);
            let (start, end) = (cursor - read.prompt.len(), cursor + read.suffix.len());
            assert!(read.prompt.len() <= PREFIX_BYTES_MAX, "{cursor}");
            assert!(read.suffix.len() <= SUFFIX_BYTES_MAX, "{cursor}");
            assert!(read.prompt.len() >= (PREFIX_BYTES_MAX - PREFIX_STEP_BYTES - 100).min(cursor));
            let behind = text.len() - cursor;
            assert!(read.suffix.len() >= (SUFFIX_BYTES_MAX - SUFFIX_STEP_BYTES - 100).min(behind));
            assert!(start == 0 || text[..start].ends_with('\n'), "{cursor}");
            assert!(end == text.len() || text[..end].ends_with('\n'), "{cursor}");
            assert!(text[start..].starts_with(&read.prompt) && text[..end].ends_with(&read.suffix));
        }
    }

    #[test]
    fn typing_moves_the_far_ends_rarely() {
        let (before, after) = (long(3000), long(2000));
        let (mut starts, mut ends) = (0, 0);
        let mut last = prompt(&format!("{before}{after}"), before.len());
        for typed in 1..400 {
            let text = format!("{before}{}{after}", "x".repeat(typed));
            let read = prompt(&text, before.len() + typed);
            starts += usize::from(!read.prompt.starts_with(&last.prompt));
            ends += usize::from(read.suffix != last.suffix);
            last = read;
        }
        assert!(starts <= 1, "{starts}");
        assert_eq!(ends, 0);
    }

    #[test]
    fn a_line_without_end_is_cut_anywhere() {
        let text = "é".repeat(100 << 10);
        let read = prompt(&text, 150 << 10);
        assert!((1..=PREFIX_BYTES_MAX).contains(&read.prompt.len()), "{}", read.prompt.len());
        assert!((1..=SUFFIX_BYTES_MAX).contains(&read.suffix.len()), "{}", read.suffix.len());
    }

    #[test]
    fn other_files_go_along_within_bounds() {
        let workspace = Workspace::new(&json!({ "rootUri": "file:///w" }));
        let mut documents = Documents::default();
        for number in 0..12 {
            documents.open(uri(&format!("{number}.rs")), "small\n");
        }
        documents.open(uri("empty.rs"), "");
        documents.open("untitled:1".parse().unwrap(), "nowhere");
        documents.open(uri("large.rs"), &long(4000));
        documents.touch(&uri("3.rs"));
        let files = extra_files(&documents, &workspace, &uri("11.rs"));
        let paths: Vec<_> = files.iter().map(|file| &*file.path).collect();
        let expected = ["5.rs", "6.rs", "7.rs", "8.rs", "9.rs", "10.rs", "large.rs", "3.rs"];
        assert_eq!(paths, expected);
        let large = &files[6].text;
        assert!(large.len() <= EXTRA_FILE_BYTES_MAX && large.ends_with('\n'), "{}", large.len());
        for number in 0..6 {
            documents.open(uri(&format!("{number}.large")), &long(4000));
        }
        let files = extra_files(&documents, &workspace, &uri("11.rs"));
        let bytes: usize = files.iter().map(|file| file.text.len()).sum();
        assert!(files.len() >= 3 && bytes <= EXTRA_BYTES_MAX, "{} {bytes}", files.len());
    }
}
