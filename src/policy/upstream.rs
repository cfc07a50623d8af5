//! What names of files and repositories tell a cloud: where a file lies in its repository, and
//! nothing of the machine it lies on.

use std::borrow::Cow;

use super::paths::{comment, is_marker, normal, note};
use crate::completion::{CompletionRequest, FimInput, Input};

/// The names around a cursor as a cloud may see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamNames {
    pub path: Option<String>,
    pub repository: Option<String>,
    /// One for each extra file.
    pub extras: Vec<String>,
}

impl UpstreamNames {
    pub fn of(fim: &FimInput) -> Self {
        let within = fim.repository.as_deref();
        Self {
            path: fim.path.as_deref().map(|own| path(own, within)),
            repository: within.map(repository),
            extras: fim.extra.iter().map(|file| path(&file.path, within)).collect(),
        }
    }
}

/// Whether a path begins at a root of a machine: `/x`, `\\host\x`, `C:\x`, `~/x`, or a URL.
fn is_absolute(path: &str) -> bool {
    let drive = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
    path.starts_with(['/', '\\', '~']) || drive || path.contains("://")
}

/// A file's path as a cloud may see it. A relative one stays, without `.` and `..`. An absolute
/// one is cut to what is below the folder named like the repository, or, where no folder is, to
/// the file's own name: every folder above may be a person's or a customer's.
pub fn path(path: &str, repository: Option<&str>) -> String {
    let names = normal(path);
    if !is_absolute(path.trim()) {
        return names;
    }
    let root = repository.map(self::repository).filter(|name| !name.is_empty());
    let below = root.and_then(|root| {
        let mut parts = names.rsplit_once('/');
        // From the innermost folder outwards, so that the least is told.
        while let Some((folders, _)) = parts {
            let folder = folders.rsplit('/').next().unwrap_or(folders);
            if folder.eq_ignore_ascii_case(&root) {
                return Some(names[folders.len() + 1..].to_owned());
            }
            parts = folders.rsplit_once('/');
        }
        None
    });
    below.unwrap_or_else(|| names.rsplit('/').next().unwrap_or_default().to_owned())
}

/// A repository's name as a cloud may see it: the last part of a path or URL, without `.git`.
/// Users, passwords, hosts and owners stay here.
pub fn repository(name: &str) -> String {
    let name = normal(name);
    let last = name.rsplit(['/', ':']).next().unwrap_or_default();
    let last = last.split(['?', '#']).next().unwrap_or_default();
    last.strip_suffix(".git").unwrap_or(last).to_owned()
}

/// Where a path begins that stands alone in a comment and lies in somebody's folders.
const HOMES: [&str; 5] = ["/home/", "/Users/", "~/", "file://", "vscode-remote://"];

/// A request whose texts begin with paths of the machine (as editors write them above a snippet,
/// in comments or behind a model's marker), with those cut; None: there is none.
pub fn without_roots(request: &CompletionRequest) -> Option<CompletionRequest> {
    let cut = match &request.input {
        Input::Text(text) => Input::Text(rootless(text, None)?),
        Input::Fim(fim) => Input::Fim(rootless_fim(fim)?),
        Input::Chat(_) | Input::Tokens(_) => return None,
    };
    Some(CompletionRequest { input: cut, ..request.clone() })
}

fn rootless_fim(fim: &FimInput) -> Option<FimInput> {
    let within = fim.repository.as_deref();
    let cut = |text: &String| rootless(text, within);
    let (prefix, suffix) = (cut(&fim.prefix), cut(&fim.suffix));
    let extras: Vec<_> = fim.extra.iter().map(|file| cut(&file.text)).collect();
    if prefix.is_none() && suffix.is_none() && extras.iter().all(Option::is_none) {
        return None;
    }
    let mut fim = fim.clone();
    fim.prefix = prefix.unwrap_or(fim.prefix);
    fim.suffix = suffix.unwrap_or(fim.suffix);
    for (file, cut) in fim.extra.iter_mut().zip(extras) {
        file.text = cut.unwrap_or_else(|| std::mem::take(&mut file.text));
    }
    Some(fim)
}

/// A text whose path comments at its head, and behind markers wherever they are, are cut; None:
/// nothing is to be cut. Further down a comment is the programmer's own.
fn rootless(text: &str, within: Option<&str>) -> Option<String> {
    let mut at_head = true;
    let mut changed = false;
    let lines = text.split_inclusive('\n').map(|line| {
        let marked = is_marker(line);
        at_head = marked || (at_head && (line.trim().is_empty() || comment(line).is_some()));
        let noted = if at_head { noted(line) } else { None };
        let Some(noted) = noted.filter(|path| is_absolute(path)) else { return Cow::from(line) };
        let Some(start) = line.rfind(noted) else { return Cow::from(line) };
        changed = true;
        let (before, after) = (&line[..start], &line[start + noted.len()..]);
        Cow::from(format!("{before}{}{after}", path(noted, within)))
    });
    let lines: Vec<Cow<'_, str>> = lines.collect();
    changed.then(|| lines.concat())
}

/// The path that a line of comment or a marker names, or that stands alone in it.
fn noted(line: &str) -> Option<&str> {
    let alone = || {
        let text = comment(line)?.split_whitespace().next()?;
        HOMES.iter().any(|home| text.starts_with(home)).then_some(text)
    };
    note(line).or_else(alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_is_cut_to_its_repository_or_its_name() {
        let cases = [
            ("src/a.rs", None, "src/a.rs"),
            ("./src/../src/a.rs", None, "src/a.rs"),
            ("../../home/ada/a.rs", None, "home/ada/a.rs"),
            ("/home/ada/weir/src/a.rs", Some("weir"), "src/a.rs"),
            ("/home/weir/ada/weir/src/a.rs", Some("weir"), "src/a.rs"),
            ("/home/ada/weir/src/a.rs", Some("ada/weir"), "src/a.rs"),
            ("/home/ada/weir/src/a.rs", Some("https://t:k@git.example/ada/weir.git"), "src/a.rs"),
            ("/home/ada/Weir/src/a.rs", Some("git@git.example:ada/weir.git"), "src/a.rs"),
            ("/home/ada/weir/src/a.rs", Some("other"), "a.rs"),
            ("/home/ada/weir/src/a.rs", None, "a.rs"),
            ("/home/ada/weir", Some("weir"), "weir"),
            ("~/proj/a.rs", None, "a.rs"),
            ("C:\\Users\\ada\\a.rs", None, "a.rs"),
            ("c:/Users/ada/weir/src/a.rs", Some("weir"), "src/a.rs"),
            ("\\\\host\\share\\a.rs", None, "a.rs"),
            ("file:///home/ada/weir/src/a.rs", Some("weir"), "src/a.rs"),
            ("vscode-remote://ssh-remote%2Bhost/home/ada/a.rs", None, "a.rs"),
            ("/", None, ""),
            ("", None, ""),
        ];
        for (is, repository, cut) in cases {
            assert_eq!(path(is, repository), cut, "{is} in {repository:?}");
        }
    }

    #[test]
    fn paths_at_the_head_of_a_text_are_cut() {
        let cases = [
            ("# Path: /home/ada/weir/src/a.py\nx = 1\n", Some("# Path: src/a.py\nx = 1\n")),
            ("// file: C:\\work\\weir\\a.rs\r\nfn", Some("// file: a.rs\r\nfn")),
            ("/* filepath: ~/weir/a.c */\nint", Some("/* filepath: a.c */\nint")),
            ("#!/bin/sh\n\n# /home/ada/weir/a.sh\nls", Some("#!/bin/sh\n\n# a.sh\nls")),
            ("// /Users/ada/a.rs\nfn", Some("// a.rs\nfn")),
            (
                "// Compare this snippet from /w/weir/b.rs:\n// fn b() {}\n// path: /w/weir/a.rs",
                Some("// Compare this snippet from b.rs:\n// fn b() {}\n// path: a.rs"),
            ),
            ("x\n<|file_sep|>/home/ada/weir/a.rs\ny", Some("x\n<|file_sep|>a.rs\ny")),
            ("# Path: src/a.py\n", None),
            ("#!/bin/sh\nls", None),
            ("// /api/v1/users\n", None),
            ("import os\n# path: /home/ada/weir/a.py\n", None),
            ("open('/home/ada/a')", None),
            ("", None),
        ];
        for (text, cut) in cases {
            assert_eq!(rootless(text, Some("weir")).as_deref(), cut, "{text:?}");
        }
    }

    #[test]
    fn every_text_of_a_cursor_is_cut_and_what_needs_no_cut_is_left_alone() {
        let text = "# Path: /home/ada/weir/b.py\n";
        let fim = FimInput {
            prefix: "a".into(),
            extra: vec![crate::completion::ExtraFile { path: "b.py".into(), text: text.into() }],
            ..FimInput::default()
        };
        let request = |fim| CompletionRequest::greedy("r", Input::Fim(fim), 1);
        let cut = without_roots(&request(fim.clone())).expect("a path");
        let Input::Fim(cut) = cut.input else { panic!("a cursor") };
        assert_eq!((&*cut.extra[0].text, &*cut.prefix), ("# Path: b.py\n", "a"));
        assert!(without_roots(&request(FimInput { extra: Vec::new(), ..fim })).is_none());
    }

    #[test]
    fn a_repository_is_its_name() {
        let cases = [
            ("weir", "weir"),
            ("ada/weir", "weir"),
            ("/home/ada/weir", "weir"),
            ("https://user:token@git.example/ada/weir.git", "weir"),
            ("https://git.example/ada/weir?token=x#y", "weir"),
            ("git@git.example:ada/weir.git", "weir"),
            ("", ""),
        ];
        for (is, name) in cases {
            assert_eq!(repository(is), name, "{is}");
        }
    }
}
