//! Where documents are: what the model is told of a file's path and its repository.

use lsp_types::Uri;
use serde_json::Value;

/// Folders of a workspace; an editor has a handful.
const ROOTS_MAX: usize = 64;
/// Bytes of a path or a name that weir takes.
const NAME_BYTES_MAX: usize = 4096;

/// Folders without a slash at their ends.
#[derive(Debug, Default)]
pub(super) struct Workspace(Vec<String>);

/// A file as the model sees it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Place {
    /// Below the root, or the file's name alone where it is below none.
    pub(super) path: Option<String>,
    /// The root's own name.
    pub(super) repository: Option<String>,
}

impl Workspace {
    /// From the parameters of `initialize`, of which clients fill in one or the other.
    pub(super) fn new(params: &Value) -> Self {
        let folders = params["workspaceFolders"].as_array().map_or(&[][..], Vec::as_slice);
        let uris = folders.iter().map(|folder| &folder["uri"]).chain([&params["rootUri"]]);
        let mut roots: Vec<_> = uris
            .filter_map(|uri| path(&uri.as_str()?.parse().ok()?))
            .chain(params["rootPath"].as_str().map(str::to_owned))
            .take(ROOTS_MAX)
            .map(|root| root.trim_end_matches('/').to_owned())
            .filter(|root| !root.is_empty())
            .collect();
        // The innermost says most about what is in it.
        roots.sort_by_key(|root| std::cmp::Reverse(root.len()));
        Self(roots)
    }

    pub(super) fn place(&self, uri: &Uri) -> Place {
        let Some(path) = path(uri) else { return Place::default() };
        let fits = |name: &str| {
            (!name.is_empty() && name.len() <= NAME_BYTES_MAX).then(|| name.to_owned())
        };
        let below = |root: &String| path.strip_prefix(root.as_str())?.strip_prefix('/');
        match self.0.iter().find_map(|root| Some((root, below(root)?))) {
            Some((root, below)) => {
                Place { path: fits(below), repository: root.rsplit('/').next().and_then(fits) }
            }
            None => Place { path: path.rsplit('/').next().and_then(fits), repository: None },
        }
    }
}

/// The path that a URI of a file means; of a buffer without a file there is none.
fn path(uri: &Uri) -> Option<String> {
    let is_file = uri.scheme().is_some_and(|scheme| scheme.as_str().eq_ignore_ascii_case("file"));
    let decoded = uri.path().as_estr().decode().into_string_lossy();
    is_file.then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(params: &Value, uri: &str) -> (Option<String>, Option<String>) {
        let Place { path, repository } = Workspace::new(params).place(&uri.parse().unwrap());
        (path, repository)
    }

    fn some(path: &str, repository: &str) -> (Option<String>, Option<String>) {
        (Some(path.into()), Some(repository.into()))
    }

    #[test]
    fn a_path_is_that_below_the_innermost_root() {
        let folders = json!({ "workspaceFolders": [
            { "uri": "file:///home/ada/weir", "name": "w" },
            { "uri": "file:///home/ada/weir/kernels/", "name": "k" },
        ]});
        let uri = "file:///home/ada/weir/src/a%20b.rs";
        assert_eq!(place(&folders, uri), some("src/a b.rs", "weir"));
        let inner = place(&folders, "file:///home/ada/weir/kernels/src/lib.rs");
        assert_eq!(inner, some("src/lib.rs", "kernels"));
        let beside = place(&folders, "file:///home/ada/weirdo/x.rs");
        assert_eq!(beside, (Some("x.rs".into()), None));
        assert_eq!(place(&folders, "untitled:Untitled-1"), (None, None));
    }

    #[test]
    fn older_clients_name_one_root() {
        let uri = "file:///w/p/a.c";
        assert_eq!(place(&json!({ "rootUri": "file:///w/p" }), uri), some("a.c", "p"));
        assert_eq!(place(&json!({ "rootPath": "/w/p/" }), uri), some("a.c", "p"));
        let nothing = (Some("a.c".to_owned()), None);
        let odd = [json!(null), json!({ "rootUri": 7 }), json!({ "rootPath": "/" })];
        for params in odd {
            assert_eq!(place(&params, uri), nothing, "{params}");
        }
        let long = format!("file:///w/p/{}", "x".repeat(5000));
        assert_eq!(place(&json!({ "rootPath": "/w/p" }), &long), (None, Some("p".into())));
    }
}
