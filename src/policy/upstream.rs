//! What names of files and repositories tell a cloud: where a file lies in its repository, and
//! nothing of the machine it lies on.

use super::paths::normal;
use crate::completion::FimInput;

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
