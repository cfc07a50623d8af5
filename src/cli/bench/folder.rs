//! A folder for what a benchmark writes.

use std::path::PathBuf;

use super::Failure;

/// A folder of this process's own, gone with it.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self, Failure> {
        let name = format!("weir-bench-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it does no harm.
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}
