//! Keys, from the environment and from files.

use std::path::Path;

use super::Checker;
use crate::config::{RawCloud, Secret};

/// Largest key file in bytes; keys have tens to a few thousand.
pub(super) const KEY_BYTES_MAX: usize = 16 << 10;

impl Checker<'_> {
    pub(super) fn api_key(&mut self, raw: &RawCloud) -> Option<Secret> {
        let [variable, path] = [&raw.api_key_env, &raw.api_key_file];
        self.key_from(("api_key_env", variable.as_deref()), ("api_key_file", path.as_deref()))
    }

    /// From a variable or a file, each with the key of the configuration that names it.
    pub(super) fn key_from(
        &mut self,
        (in_env, variable): (&str, Option<&str>),
        (in_file, path): (&str, Option<&str>),
    ) -> Option<Secret> {
        let (named, found) = match (variable, path) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                self.complain(in_env, format!("and {in_file} exclude each other"));
                return None;
            }
            (Some(variable), None) => (in_env, self.key_from_env(variable)),
            (None, Some(path)) => (
                in_file,
                key_from_file(Path::new(path)).map_err(|wrong| format!("{path}: {wrong}")),
            ),
        };
        found.map_err(|wrong| self.complain(named, wrong)).ok()
    }

    fn key_from_env(&self, variable: &str) -> Result<Secret, String> {
        match (self.env)(variable) {
            Ok(text) => key(&text).map_err(|wrong| format!("variable {variable} {wrong}")),
            Err(std::env::VarError::NotPresent) => Err(format!("variable {variable} is not set")),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("variable {variable} is not UTF-8"))
            }
        }
    }
}

/// Reads a key that only its owner (and group) may read.
pub(in crate::config) fn key_from_file(path: &Path) -> Result<Secret, String> {
    key(&secret_file(path, KEY_BYTES_MAX)?).map_err(Into::into)
}

/// The text of a file of at most `bytes_max` that only its owner (and group) may read.
pub(super) fn secret_file(path: &Path, bytes_max: usize) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if metadata.is_file() && metadata.permissions().mode() & 0o007 != 0 {
            return Err("is open to every user of this machine; chmod 600 it".into());
        }
    }
    text_file(path, bytes_max)
}

/// The text of a file of at most `bytes_max`.
pub(super) fn text_file(path: &Path, bytes_max: usize) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is no file".into());
    }
    if metadata.len() > bytes_max as u64 {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn unreadable(error: std::io::Error) -> String {
    format!("cannot be read: {error}")
}

/// A key goes into a header, so it is one line of visible characters.
pub(in crate::config) fn key(text: &str) -> Result<Secret, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("holds a character that cannot be in a key");
    }
    Ok(Secret::new(text))
}
