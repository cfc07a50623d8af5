//! What became of suggestions that were shown, as clients tell: counts by language and route, and
//! never a word of text.
//!
//! An event names a completion by the id in its answer; which language and which route that was is
//! remembered for the last few thousand.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::completion::Route;
use crate::telemetry::Telemetry;

/// Completions whose events are still understood: some hours of one developer, minutes of a
/// hundred. Later events count under `unknown`.
const REMEMBERED_MAX: usize = 8192;

/// Languages that are counted by name; the metric's labels come from a closed list.
const LANGUAGES: [&str; 40] = [
    "bash",
    "c",
    "clojure",
    "cpp",
    "csharp",
    "css",
    "dart",
    "dockerfile",
    "elixir",
    "erlang",
    "go",
    "haskell",
    "html",
    "java",
    "javascript",
    "javascriptreact",
    "json",
    "julia",
    "kotlin",
    "lua",
    "markdown",
    "nix",
    "objective-c",
    "ocaml",
    "perl",
    "php",
    "powershell",
    "python",
    "r",
    "ruby",
    "rust",
    "scala",
    "shellscript",
    "sql",
    "swift",
    "toml",
    "typescript",
    "typescriptreact",
    "yaml",
    "zig",
];

/// What a client may tell of a suggestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Shown,
    Accepted,
    Dismissed,
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Fate::Shown => "shown",
            Fate::Accepted => "accepted",
            Fate::Dismissed => "dismissed",
        }
    }
}

/// The completions that events may still come of.
pub(super) struct Acceptance {
    telemetry: Arc<Telemetry>,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    by_id: HashMap<String, (&'static str, Route)>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl Acceptance {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, recent: Mutex::default() }
    }

    /// A completion is on its way, of which events may come.
    pub(super) fn remember(&self, id: &str, language: &'static str, route: &Route) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.by_id.insert(id.to_owned(), (language, route.clone())).is_none() {
            recent.order.push_back(id.to_owned());
        }
        if recent.order.len() > REMEMBERED_MAX
            && let Some(oldest) = recent.order.pop_front()
        {
            recent.by_id.remove(&oldest);
        }
    }

    /// An event of a completion has come.
    pub(super) fn count(&self, id: &str, fate: Fate) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recent.by_id.get(id).map(|(language, route)| (*language, route.to_string()));
        drop(recent);
        let (language, route) = known.unwrap_or(("unknown", "unknown".to_owned()));
        self.telemetry.suggestion(fate.word(), language, &route);
    }
}

/// A language as it is counted.
pub(super) fn language(said: Option<&str>) -> &'static str {
    let Some(said) = said else { return "unknown" };
    let named = |known: &&&str| known.eq_ignore_ascii_case(said);
    LANGUAGES.iter().find(named).copied().unwrap_or("other")
}
