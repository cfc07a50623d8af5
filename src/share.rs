//! How the processes of one user find each other: one engine for all editors.
//!
//! A folder that is the user's alone holds two locks and a note. The engine holds `engine.lock`
//! alone, so there is one at most, and writes into `engine.json` where it listens; every editor's
//! `weir lsp` holds `editors.lock` together with the others. The system gives both back when their
//! holder ends, however it does: a note counts only while the engine's lock is held, and an engine
//! that can have the editors' lock for itself has no editor.
//!
//! An engine that leaves has the editors' lock while it takes its note away, and an editor has a
//! part of that lock before it looks: so nobody is sent to an engine that is about to go.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::config;

/// An editor that looks whether an engine runs has the engine's lock for a moment.
const CLAIM_MAX: Duration = Duration::from_secs(1);
const CLAIM_INTERVAL: Duration = Duration::from_millis(10);
/// Between two looks whether an editor is there.
const EDITORS_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// A note is one line.
const NOTE_BYTES_MAX: u64 = 4096;

/// Why processes cannot find each other.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("{path} cannot be used: {source}", path = path.display())]
    Unusable { path: PathBuf, source: io::Error },
    #[error("{path} must be a folder that is yours alone (mode 0700)", path = .0.display())]
    NotPrivate(PathBuf),
    #[error("another weir serves this user's editors")]
    Taken,
}

/// The user's own folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// Where an engine listens.
#[derive(Debug, Deserialize, Serialize)]
struct Note {
    address: SocketAddr,
    /// For whoever wants to end it.
    process: u32,
}

/// What an editor finds.
#[derive(Debug, PartialEq)]
pub enum Engine {
    At(SocketAddr),
    /// There is one, and it does not listen yet.
    Starting,
    Nowhere,
}

/// While it is there, so is the engine.
#[derive(Debug)]
pub struct Editor(#[expect(dead_code, reason = "held for its lock")] File);

impl Folder {
    /// The one of whoever runs this process, made where it is missing.
    pub fn of_user() -> Result<Self, ShareError> {
        let user = rustix::process::geteuid().as_raw();
        Self::at(&config::runtime_folder(user), user)
    }

    fn at(path: &Path, user: u32) -> Result<Self, ShareError> {
        let unusable = |source| ShareError::Unusable { path: path.to_owned(), source };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(unusable(error));
            }
            _ => {}
        }
        // In a folder that all users share somebody else may have been first, also with a link.
        let is = fs::symlink_metadata(path).map_err(unusable)?;
        if is.is_dir() && is.uid() == user && is.mode() & 0o077 == 0 {
            Ok(Self(path.to_owned()))
        } else {
            Err(ShareError::NotPrivate(path.to_owned()))
        }
    }

    /// What an engine says that an editor has started.
    pub fn log(&self) -> PathBuf {
        self.0.join("engine.log")
    }

    /// Counts as an editor. May wait for an engine that is about to leave.
    pub fn editor(&self) -> Result<Editor, ShareError> {
        let lock = self.file("editors.lock")?;
        lock.lock_shared().map_err(|error| self.unusable(error))?;
        Ok(Editor(lock))
    }

    /// Looks for an engine; what is left of one that was killed is cleared away.
    pub fn engine(&self, _editor: &Editor) -> Result<Engine, ShareError> {
        let lock = self.file("engine.lock")?;
        match lock.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                Ok(self.note().map_or(Engine::Starting, |note| Engine::At(note.address)))
            }
            Err(TryLockError::Error(error)) => Err(self.unusable(error)),
            // As long as the lock is here no engine can have written another one.
            Ok(()) => self.clear().map(|()| Engine::Nowhere),
        }
    }

    fn note(&self) -> Option<Note> {
        let path = self.note_path();
        let is_note = fs::metadata(&path).is_ok_and(|is| is.len() <= NOTE_BYTES_MAX);
        let bytes = is_note.then(|| fs::read(&path).ok())??;
        serde_json::from_slice(&bytes).ok()
    }

    fn note_path(&self) -> PathBuf {
        self.0.join("engine.json")
    }

    fn clear(&self) -> Result<(), ShareError> {
        match fs::remove_file(self.note_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.unusable(error)),
            _ => Ok(()),
        }
    }

    fn file(&self, name: &str) -> Result<File, ShareError> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).read(true).mode(0o600);
        options.open(self.0.join(name)).map_err(|error| self.unusable(error))
    }

    fn unusable(&self, source: io::Error) -> ShareError {
        ShareError::Unusable { path: self.0.clone(), source }
    }
}

/// Being the one engine of a user.
#[derive(Debug)]
pub struct Claim {
    folder: Folder,
    #[expect(dead_code, reason = "held until the claim is dropped")]
    lock: File,
}

impl Claim {
    pub async fn take(folder: Folder) -> Result<Self, ShareError> {
        let lock = folder.file("engine.lock")?;
        let deadline = Instant::now() + CLAIM_MAX;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    sleep(CLAIM_INTERVAL).await;
                }
                Err(TryLockError::WouldBlock) => return Err(ShareError::Taken),
                Err(TryLockError::Error(error)) => return Err(folder.unusable(error)),
            }
        }
        folder.clear()?;
        Ok(Self { folder, lock })
    }

    /// From now on editors come.
    pub fn announce(&self, address: SocketAddr) -> Result<(), ShareError> {
        let note = &Note { address, process: std::process::id() };
        let write = || {
            let beside = self.folder.0.join("engine.json.next");
            fs::write(&beside, serde_json::to_vec(&note)?)?;
            // In one step: a reader sees all of it or nothing.
            fs::rename(&beside, self.folder.note_path())
        };
        write().map_err(|error| self.folder.unusable(error))
    }

    /// Returns when no editor has been there for so long; none comes until what it returns is
    /// dropped, before which the claim is to be withdrawn.
    pub async fn unused(&self, limit: Duration) -> Result<Unused, ShareError> {
        let editors = self.folder.file("editors.lock")?;
        let mut since = Instant::now();
        loop {
            sleep(EDITORS_INTERVAL_MAX.min(limit / 4)).await;
            match editors.try_lock() {
                Err(TryLockError::WouldBlock) => since = Instant::now(),
                Err(TryLockError::Error(error)) => return Err(self.folder.unusable(error)),
                Ok(()) if since.elapsed() >= limit => return Ok(Unused(editors)),
                Ok(()) => editors.unlock().map_err(|error| self.folder.unusable(error))?,
            }
        }
    }

    /// Editors look elsewhere from now on, and may start another engine.
    pub fn withdraw(self) -> Result<(), ShareError> {
        self.folder.clear()
    }
}

/// Keeps editors waiting at the door.
#[derive(Debug)]
pub struct Unused(#[expect(dead_code, reason = "held for its lock")] File);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn folder(inside: &tempfile::TempDir) -> Folder {
        Folder::at(&inside.path().join("weir"), rustix::process::geteuid().as_raw()).unwrap()
    }

    fn address() -> SocketAddr {
        "127.0.0.1:4711".parse().unwrap()
    }

    #[test]
    fn only_a_folder_of_ones_own_is_used() {
        let outside = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let path = outside.path().join("weir");
        let refused =
            |path: &Path, user| matches!(Folder::at(path, user), Err(ShareError::NotPrivate(_)));
        assert!(refused(&path, user + 1), "somebody else's");
        assert!(Folder::at(&path, user).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(refused(&path, user), "open to a group");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&path, outside.path().join("link")).unwrap();
        assert!(refused(&outside.path().join("link"), user), "a link");
        fs::write(outside.path().join("file"), "").unwrap();
        assert!(refused(&outside.path().join("file"), user), "a file");
        assert!(Folder::at(&outside.path().join("no/where"), user).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_one_engine_and_it_is_found() {
        let outside = tempfile::tempdir().unwrap();
        let folder = folder(&outside);
        let editor = folder.editor().unwrap();
        assert_eq!(folder.engine(&editor).unwrap(), Engine::Nowhere);
        let claim = Claim::take(folder.clone()).await.unwrap();
        assert_eq!(folder.engine(&editor).unwrap(), Engine::Starting);
        assert!(matches!(Claim::take(folder.clone()).await, Err(ShareError::Taken)));
        claim.announce(address()).unwrap();
        assert_eq!(folder.engine(&editor).unwrap(), Engine::At(address()));
        // As after a kill: the lock is gone, the note is not.
        drop(claim);
        assert!(folder.note().is_some());
        assert_eq!(folder.engine(&editor).unwrap(), Engine::Nowhere);
        assert!(folder.note().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_leaves_when_its_last_editor_is_gone() {
        let outside = tempfile::tempdir().unwrap();
        let folder = folder(&outside);
        let claim = Claim::take(folder.clone()).await.unwrap();
        claim.announce(address()).unwrap();
        let limit = Duration::from_secs(60);
        let mut unused = Box::pin(claim.unused(limit));
        let editors = [folder.editor().unwrap(), folder.editor().unwrap()];
        for editor in editors {
            let waited = tokio::time::timeout(3 * limit, &mut unused).await;
            assert!(waited.is_err(), "an editor is there");
            drop(editor);
        }
        let left = Instant::now();
        let waited = tokio::time::timeout(3 * limit, &mut unused).await.expect("it leaves");
        assert!((limit..limit + Duration::from_secs(3)).contains(&left.elapsed()));
        drop(unused);
        assert!(folder.file("editors.lock").unwrap().try_lock_shared().is_err());
        claim.withdraw().unwrap();
        drop(waited);
        let editor = folder.editor().unwrap();
        assert_eq!(folder.engine(&editor).unwrap(), Engine::Nowhere);
    }
}
