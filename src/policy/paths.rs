//! Rules by source path: patterns, and which paths a request is made of.
//!
//! An editor may send a path from its repository's root, from the file system's, or as a URL, so
//! a pattern matches at any depth; and of all rules that match, each holds. So the order of rows
//! means nothing, and one row more can only tighten.

use std::sync::Arc;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::completion::compliance::Requires;
use crate::completion::{FimInput, Input};

/// What a rule says of the paths it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    NeverCloud,
    CloudAllowed,
    CloudOnly,
}

/// One `[[path]]` row.
#[derive(Clone, Debug)]
pub struct PathRule {
    /// As the operator wrote it; see [`globs`].
    pub pattern: Arc<str>,
    /// Whose requests it is about; None: everybody's.
    pub tenant: Option<u32>,
    pub access: Access,
    pub require: Requires,
}

/// Longest pattern in bytes.
pub const PATTERN_BYTES_MAX: usize = 512;

/// A pattern as globs: the path itself at any depth, and everything below it. `*` and `?` stay
/// within a name, `**` is any number of folders, `[a-z]` and `{a,b}` are as everywhere. Case is
/// ignored, since file systems may. The error is for the operator.
pub fn globs(pattern: &str) -> Result<[Glob; 2], String> {
    let trimmed = pattern.strip_prefix("**/").unwrap_or(pattern);
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    if trimmed.is_empty() || pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("must be a pattern of 1 to {PATTERN_BYTES_MAX} bytes"));
    }
    if trimmed.starts_with('/') || pattern.contains('\\') || pattern.contains(':') {
        return Err("must be relative, with /: it matches at any depth, whatever an editor calls \
                    the root"
            .into());
    }
    if trimmed.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err("must have no empty name, . or ..".into());
    }
    let glob = |text: String| {
        let built = GlobBuilder::new(&text).literal_separator(true).case_insensitive(true).build();
        built.map_err(|error| format!("is no pattern: {}", error.kind()))
    };
    Ok([glob(format!("**/{trimmed}"))?, glob(format!("**/{trimmed}/**"))?])
}

/// All rules, compiled.
#[derive(Clone, Debug)]
pub struct PathRules {
    rules: Vec<PathRule>,
    /// Two globs for each rule.
    globs: GlobSet,
}

impl PathRules {
    /// The error is for the operator.
    pub fn new(rules: Vec<PathRule>) -> Result<Self, String> {
        let mut set = GlobSetBuilder::new();
        for rule in &rules {
            for glob in globs(&rule.pattern)? {
                set.add(glob);
            }
        }
        let globs = set.build().map_err(|error| error.to_string())?;
        Ok(Self { rules, globs })
    }

    /// Whether any rule is about this tenant.
    pub fn concern(&self, tenant: u32) -> bool {
        self.rules.iter().any(|rule| rule.is_about(tenant))
    }

    /// Every rule about one of these ways to write a path.
    pub fn matching(&self, tenant: u32, candidates: &[String]) -> Vec<&PathRule> {
        let mut hits: Vec<usize> =
            candidates.iter().flat_map(|path| self.globs.matches(path)).map(|i| i / 2).collect();
        hits.sort_unstable();
        hits.dedup();
        hits.into_iter().map(|i| &self.rules[i]).filter(|rule| rule.is_about(tenant)).collect()
    }
}

impl PathRule {
    fn is_about(&self, tenant: u32) -> bool {
        self.tenant.is_none_or(|own| own == tenant)
    }
}

/// A part of a request: the ways in which its path may be written, or none when nobody said where
/// its text is from.
pub type Part = Option<Vec<String>>;

/// The parts of what is to be completed. A raw prompt, a conversation and ids are one part that
/// nobody can tell the path of; a path that a client wrote into a comment beside a snippet counts
/// where the file's own path is known too.
pub fn parts(input: &Input) -> Vec<Part> {
    let Input::Fim(fim) = input else { return vec![None] };
    // A host and an owner are folders here: `ada/weir/keys` is a pattern one may write.
    let repository = fim.repository.as_deref().map(|name| normal(name).replace(':', "/"));
    let repository = repository.map(|name| name.trim_end_matches(".git").to_owned());
    let part = |path: &str| written(path, repository.as_deref());
    let mut parts = vec![fim.path.as_deref().and_then(part)];
    parts.extend(fim.extra.iter().map(|file| part(&file.path)));
    parts.extend(noted(fim).map(part));
    parts
}

/// The path from its root, and from above its repository's.
fn written(path: &str, repository: Option<&str>) -> Part {
    let path = normal(path);
    if path.is_empty() {
        return None;
    }
    let below = repository.filter(|name| !name.is_empty()).map(|name| format!("{name}/{path}"));
    Some([path].into_iter().chain(below).collect())
}

/// A path with `/` between names, without scheme, drive, root, `.` and `..`.
pub(super) fn normal(path: &str) -> String {
    let path = decoded(path).replace('\\', "/");
    let path = path.split_once("://").map_or(path.as_str(), |(_, rest)| rest);
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name.trim() {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

/// A URL's path without its percent signs; any other path as it is.
fn decoded(path: &str) -> String {
    if !path.contains("://") || !path.contains('%') {
        return path.to_owned();
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let escaped = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How editors begin the line above a snippet of another file, and how model families do.
const NOTES: [&str; 6] =
    ["path:", "file:", "filepath:", "filename:", "file path:", "compare this snippet from "];
const MARKERS: [&str; 3] = ["<|file_sep|>", "<file_sep>", "+++++ "];
const LEADERS: [&str; 7] = ["//", "#", "--", ";", "/*", "<!--", "%"];

/// Paths that the text around the cursor says snippets in it are from.
fn noted(fim: &FimInput) -> impl Iterator<Item = &str> {
    fim.prefix.lines().chain(fim.suffix.lines()).filter_map(note)
}

/// Whether a line names the file that the text below it is from, for a model to read.
pub(super) fn is_marker(line: &str) -> bool {
    MARKERS.iter().any(|marker| line.trim().starts_with(marker))
}

/// What is behind the sign that begins a comment; None: the line is none.
pub(super) fn comment(line: &str) -> Option<&str> {
    let line = line.trim();
    LEADERS.iter().find_map(|leader| line.strip_prefix(leader))
}

/// The path that a line says what is below it is from.
pub(super) fn note(line: &str) -> Option<&str> {
    let line = line.trim();
    if let Some(path) = MARKERS.iter().find_map(|marker| line.strip_prefix(marker)) {
        return Some(path.trim()).filter(|path| !path.is_empty());
    }
    let text = comment(line)?.trim_start_matches(['/', '#', '*', '-', '!', ' ', '\t']);
    let named = |words: &&&str| {
        text.get(..words.len()).is_some_and(|head| head.eq_ignore_ascii_case(words))
    };
    let words = NOTES.iter().find(named)?;
    let path = text[words.len()..].trim_end_matches(['*', '/', '-', '>', ':', ' ']).trim();
    let path = path.trim_matches(['`', '"', '\'']);
    Some(path).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::ExtraFile;

    fn rules(patterns: &[&str]) -> PathRules {
        let rule = |pattern: &&str| PathRule {
            pattern: Arc::from(*pattern),
            tenant: None,
            access: Access::NeverCloud,
            require: Requires::default(),
        };
        PathRules::new(patterns.iter().map(rule).collect()).unwrap()
    }

    fn is_matched(pattern: &str, path: &str) -> bool {
        let part = written(path, None).expect("a path");
        !rules(&[pattern]).matching(0, &part).is_empty()
    }

    #[test]
    fn patterns_match_wherever_an_editor_puts_the_root() {
        let paths = [
            "secrets/a.rs",
            "/home/ada/proj/secrets/a.rs",
            "./secrets/a.rs",
            "secrets/deep/a.rs",
            "src/../secrets/a.rs",
            "C:\\work\\Secrets\\a.rs",
            "file:///c%3A/p/secrets/a.rs",
            "vscode-remote://ssh-remote%2Bbox/p/%73ecrets/a.rs",
            "secrets//a.rs",
            "../secrets/a",
        ];
        for path in paths {
            for pattern in ["secrets", "secrets/", "secrets/**", "**/secrets", "**/secrets/**"] {
                assert!(is_matched(pattern, path), "{pattern} {path}");
            }
        }
        for other in ["secret/a.rs", "src/secrets.rs", "mysecrets/a.rs"] {
            assert!(!is_matched("secrets/**", other), "{other}");
        }
    }

    #[test]
    fn stars_stay_within_a_name() {
        assert!(is_matched("*.pem", "deploy/keys/a.pem"));
        assert!(is_matched("src/*.rs", "x/src/a.rs"));
        assert!(!is_matched("src/*.rs", "src/deep/a.rs"));
        assert!(is_matched("src/**/*.rs", "src/deep/a.rs"));
        assert!(is_matched("{a,b}/x", "b/x"));
        assert!(is_matched(".env*", "deploy/.env.local"));
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for wrong in ["", "/", "**/", "/etc", "a\\b", "C:/x", "a/../b", "a//b", "[", "{a", "./a"] {
            assert!(globs(wrong).is_err(), "{wrong:?}");
        }
        assert!(globs(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_rule_of_one_tenant_is_nobody_elses() {
        let mut all = rules(&["a", "b"]).rules;
        all[1].tenant = Some(1);
        let rules = PathRules::new(all).unwrap();
        let found = |tenant, path: &str| rules.matching(tenant, &[path.to_owned()]).len();
        assert_eq!([found(0, "a"), found(0, "b"), found(1, "a"), found(1, "b")], [1, 0, 1, 1]);
    }

    #[test]
    fn every_part_of_a_request_is_seen() {
        assert_eq!(parts(&Input::Text("# path: a.rs".into())), [None]);
        assert_eq!(parts(&Input::Chat(Vec::new())), [None]);
        assert_eq!(parts(&Input::Tokens(vec![1])), [None]);
        assert_eq!(parts(&Input::Fim(FimInput::default())), [None]);
        let extra = ["lib/b.rs", " "].map(|path| ExtraFile { path: path.into(), text: "".into() });
        let fim = FimInput {
            prefix: "// Path: keys/c.rs\n//   x\n  # Compare this snippet from d.py:\nlet a = 1;\n\
                     <|file_sep|>e.rs\n/* file: f.c */\n<!-- filepath: g.html -->\n// path: \n"
                .into(),
            suffix: "path: not a comment\n# pathology: x\n".into(),
            path: Some("src/a.rs".into()),
            repository: Some("https://git.example/ada/weir.git".into()),
            extra: extra.into(),
        };
        let parts = parts(&Input::Fim(fim));
        let first: Vec<_> = parts.iter().map(|part| part.as_ref().map(|all| &*all[0])).collect();
        let expected = [
            Some("src/a.rs"),
            Some("lib/b.rs"),
            None,
            Some("keys/c.rs"),
            Some("d.py"),
            Some("e.rs"),
            Some("f.c"),
            Some("g.html"),
        ];
        assert_eq!(first, expected);
        assert_eq!(parts[0].as_ref().unwrap()[1], "git.example/ada/weir/src/a.rs");
    }
}
