//! The documents that the editor has open, within bounds. One that is beyond them is not kept:
//! there are no completions in it, and all else goes on.

use std::collections::HashMap;

use lsp_types::{TextDocumentContentChangeEvent, Uri};

use super::text::{Encoding, Text};

/// Larger ones are not source code.
pub(super) const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Bytes of all together.
const BYTES_MAX: usize = 256 << 20;
const DOCUMENTS_MAX: usize = 1024;

pub(super) struct Document {
    pub(super) uri: Uri,
    pub(super) text: Text,
    /// A later use has a higher number.
    used: u64,
}

/// By the text of their URIs.
#[derive(Default)]
pub(super) struct Documents {
    open: HashMap<String, Document>,
    bytes: usize,
    uses: u64,
}

impl Documents {
    pub(super) fn open(&mut self, uri: Uri, text: &str) {
        self.close(&uri);
        if self.open.len() == DOCUMENTS_MAX || !self.has_room(0, text.len()) {
            tracing::warn!(bytes = text.len(), "a document is not kept: {}", Self::BOUNDS);
            return;
        }
        self.bytes += text.len();
        self.uses += 1;
        let document = Document { uri: uri.clone(), text: Text::new(text), used: self.uses };
        self.open.insert(uri.as_str().to_owned(), document);
    }

    const BOUNDS: &str = "at most 1024, of 16 MiB each and 256 MiB together";

    /// Applies changes in order; those of a document that is not kept are none.
    pub(super) fn change(
        &mut self,
        uri: &Uri,
        changes: &[TextDocumentContentChangeEvent],
        encoding: Encoding,
    ) {
        for change in changes {
            let Some(document) = self.open.get_mut(uri.as_str()) else { return };
            let was = document.text.len_bytes();
            document.text.change(change, encoding);
            let is = document.text.len_bytes();
            let fits = self.has_room(was, is);
            self.bytes = self.bytes - was + is;
            if !fits {
                tracing::warn!(bytes = is, "a document is not kept any more: {}", Self::BOUNDS);
                self.close(uri);
            }
        }
        self.touch(uri);
    }

    pub(super) fn close(&mut self, uri: &Uri) {
        if let Some(gone) = self.open.remove(uri.as_str()) {
            self.bytes -= gone.text.len_bytes();
        }
    }

    pub(super) fn get(&self, uri: &Uri) -> Option<&Document> {
        self.open.get(uri.as_str())
    }

    /// Notes that somebody works on it now.
    pub(super) fn touch(&mut self, uri: &Uri) {
        if let Some(document) = self.open.get_mut(uri.as_str()) {
            self.uses += 1;
            document.used = self.uses;
        }
    }

    /// All but this one, the most recently used first.
    pub(super) fn beside(&self, uri: &Uri) -> Vec<&Document> {
        let mut others: Vec<_> =
            self.open.values().filter(|document| document.uri.as_str() != uri.as_str()).collect();
        others.sort_unstable_by_key(|document| std::cmp::Reverse(document.used));
        others
    }

    /// Whether a document may grow from so many bytes to so many.
    fn has_room(&self, from: usize, to: usize) -> bool {
        to <= DOCUMENT_BYTES_MAX && self.bytes - from + to <= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use lsp_types::{Position, Range};

    use super::*;

    fn uri(name: &str) -> Uri {
        format!("file:///w/{name}").parse().unwrap()
    }

    fn insert(text: &str) -> TextDocumentContentChangeEvent {
        let range = Some(Range::new(Position::new(0, 0), Position::new(0, 0)));
        TextDocumentContentChangeEvent { range, range_length: None, text: text.into() }
    }

    #[test]
    fn too_many_and_too_large_ones_are_not_kept() {
        let mut documents = Documents::default();
        documents.open(uri("large"), &"x".repeat(DOCUMENT_BYTES_MAX + 1));
        assert!(documents.get(&uri("large")).is_none());
        documents.open(uri("grows"), &"x".repeat(DOCUMENT_BYTES_MAX));
        assert!(documents.get(&uri("grows")).is_some());
        documents.change(&uri("grows"), &[insert("y"), insert("z")], Encoding::Utf16);
        assert!(documents.get(&uri("grows")).is_none());
        assert_eq!(documents.bytes, 0);
        for number in 0..DOCUMENTS_MAX + 10 {
            documents.open(uri(&number.to_string()), "text");
        }
        assert_eq!(documents.open.len(), DOCUMENTS_MAX);
        documents.open(uri("7"), "again");
        assert_eq!(documents.bytes, 4 * DOCUMENTS_MAX + 1);
        // As if the others were larger.
        documents.bytes = BYTES_MAX - 4;
        documents.open(uri("7"), "text and more");
        assert!(documents.get(&uri("7")).is_none());
        documents.open(uri("7"), "text");
        assert!(documents.get(&uri("7")).is_some());
    }

    #[test]
    fn the_most_recently_used_come_first() {
        let mut documents = Documents::default();
        for name in ["a", "b", "c", "d"] {
            documents.open(uri(name), name);
        }
        documents.change(&uri("a"), &[insert("more ")], Encoding::Utf16);
        documents.touch(&uri("b"));
        documents.touch(&uri("nobody's"));
        let names: Vec<_> =
            documents.beside(&uri("d")).iter().map(|it| it.uri.path().as_str()).collect();
        assert_eq!(names, ["/w/b", "/w/a", "/w/c"]);
        assert_eq!(documents.get(&uri("a")).unwrap().text.len_bytes(), 6);
    }
}
