//! The files that are edited: some of this repository's, or those of a folder.

use std::path::{Path, PathBuf};

use crate::cli::Failure;

/// Files of a folder; more say no more.
const FILES_MAX: usize = 256;
/// Entries of a folder that are looked at, those below it included.
const ENTRIES_MAX: usize = 100_000;
/// Shorter ones have no room for a cursor with something around it.
const BYTES_MIN: usize = 1_000;
/// Above what anybody types into by hand.
const BYTES_MAX: u64 = 1 << 20;
/// What counts as source by its name.
const EXTENSIONS: [&str; 18] = [
    "c", "cc", "cpp", "cs", "go", "h", "hpp", "java", "js", "kt", "lua", "php", "py", "rb", "rs",
    "sh", "ts", "tsx",
];

/// A file that somebody works on.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// As clients send it: below the folder.
    pub(super) path: String,
    pub(super) text: String,
}

macro_rules! own {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../../../../", $path)))),*]
    };
}

/// Of this repository: long and short ones, code and scripts.
pub(super) fn own() -> Vec<Source> {
    let files = own![
        "src/engine/scheduler.rs",
        "src/engine/sequence.rs",
        "src/engine/prefix.rs",
        "src/dispatch/decide.rs",
        "src/policy/paths.rs",
        "src/plan/trace.rs",
        "models/src/fim/cut.rs",
        "models/fixtures/make.py",
        "benches/peers/gguf_files.py",
        "benches/peers/engines.py",
    ];
    let source = |(path, text): (&str, &str)| Source { path: path.into(), text: text.into() };
    files.into_iter().map(source).collect()
}

/// Source files below a folder, in the order of their paths.
pub(super) fn of_folder(folder: &Path) -> Result<Vec<Source>, Failure> {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut entries = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(Failure::Other(format!("more than {ENTRIES_MAX} files")));
            }
            // Links may lead in circles, and what lies behind them is somebody else's.
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if is_source(&path) {
                paths.push(path);
            }
        }
    }
    paths.sort_unstable();
    let mut sources: Vec<Source> =
        paths.iter().filter_map(|path| read(folder, path)).take(FILES_MAX).collect();
    if sources.is_empty() {
        return Err(Failure::Other(format!(
            "{} holds no source file of {BYTES_MIN} to {BYTES_MAX} bytes",
            folder.display()
        )));
    }
    sources.shrink_to_fit();
    Ok(sources)
}

fn is_source(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let size = path.metadata().map_or(0, |metadata| metadata.len());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) && size <= BYTES_MAX
}

/// None: it is not text, or too short.
fn read(folder: &Path, path: &PathBuf) -> Option<Source> {
    let text = std::fs::read_to_string(path).ok().filter(|text| text.len() >= BYTES_MIN)?;
    let below = path.strip_prefix(folder).unwrap_or(path);
    Some(Source { path: below.to_string_lossy().into_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_s_sources_are_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x = 1\n".repeat(BYTES_MIN / 6 + 1);
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for (name, text) in
            [("b/two.rs", &*long), ("one.py", &long), ("short.py", "x"), ("a.txt", &long)]
        {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let found = of_folder(folder.path()).unwrap();
        assert_eq!(
            found.iter().map(|source| &*source.path).collect::<Vec<_>>(),
            ["b/two.rs", "one.py"]
        );
        assert!(of_folder(&folder.path().join("c")).is_err());
    }

    #[test]
    fn our_own_files_are_long_enough() {
        assert!(own().iter().all(|source| source.text.len() >= BYTES_MIN));
    }
}
