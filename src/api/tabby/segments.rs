//! The cursor and what is around it, as tabby-agent gathers it.

use serde::Deserialize;

use crate::api::fields::Field;
use crate::completion::{ExtraFile, FimInput};

/// Snippets of one kind that are looked at; tabby-agent sends five at most.
const SNIPPETS_MAX: usize = 16;

/// `{"prefix", "suffix", "filepath", "git_url", "declarations", ..}`
#[derive(Debug, Deserialize)]
pub(in crate::api) struct Segments {
    prefix: String,
    suffix: Option<String>,
    filepath: Option<String>,
    git_url: Option<String>,
    declarations: Option<Vec<Snippet>>,
    relevant_snippets_from_changed_files: Option<Vec<Snippet>>,
    relevant_snippets_from_recently_opened_files: Option<Vec<Snippet>>,
}

#[derive(Debug, Deserialize)]
struct Snippet {
    filepath: String,
    body: String,
}

impl Field for Segments {
    const EXPECTED: &'static str = "an object with `prefix`, and perhaps `suffix`, `filepath`, \
        `git_url` (strings), `declarations`, `relevant_snippets_from_changed_files`, \
        `relevant_snippets_from_recently_opened_files` (lists of `filepath` and `body`)";
}

impl From<Segments> for FimInput {
    fn from(segments: Segments) -> Self {
        // What the cursor's own code names is the most relevant, so it comes last.
        let extra = [
            segments.relevant_snippets_from_recently_opened_files,
            segments.relevant_snippets_from_changed_files,
            segments.declarations,
        ];
        let extra = extra.into_iter().flatten().flat_map(|all| all.into_iter().take(SNIPPETS_MAX));
        Self {
            prefix: segments.prefix,
            suffix: segments.suffix.unwrap_or_default(),
            path: segments.filepath,
            repository: segments.git_url,
            extra: extra.map(|one| ExtraFile { path: one.filepath, text: one.body }).collect(),
        }
    }
}
