//! Keys, from the environment and from files.

use std::path::Path;

use super::Checker;
use crate::config::{RawCloud, Secret};

/// Largest key file in bytes; keys have tens to a few thousand.
const KEY_BYTES_MAX: usize = 16 << 10;

impl Checker<'_> {
    pub(super) fn api_key(&mut self, raw: &RawCloud) -> Option<Secret> {
        match (raw.api_key_env.as_deref(), raw.api_key_file.as_deref()) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                self.complain("api_key_env", "and api_key_file exclude each other");
                None
            }
            (Some(variable), None) => self.key_from_env(variable),
            (None, Some(path)) => match key_from_file(Path::new(path)) {
                Ok(key) => Some(key),
                Err(wrong) => {
                    self.complain("api_key_file", format!("{path}: {wrong}"));
                    None
                }
            },
        }
    }

    fn key_from_env(&mut self, variable: &str) -> Option<Secret> {
        let found = match (self.env)(variable) {
            Ok(text) => key(&text).map_err(|wrong| format!("variable {variable} {wrong}")),
            Err(std::env::VarError::NotPresent) => Err(format!("variable {variable} is not set")),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("variable {variable} is not UTF-8"))
            }
        };
        match found {
            Ok(key) => Some(key),
            Err(wrong) => {
                self.complain("api_key_env", wrong);
                None
            }
        }
    }
}

/// Reads a key that only its owner (and group) may read.
pub(super) fn key_from_file(path: &Path) -> Result<Secret, String> {
    key(&private_text(path)?).map_err(Into::into)
}

/// The text of a file that only its owner (and group) may read.
pub(super) fn private_text(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o007 != 0 {
            return Err("is open to every user of this machine; chmod 600 it".into());
        }
    }
    text_of(path)
}

/// The text of a small file.
pub(super) fn text_of(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err("is no file".into());
    }
    if metadata.len() > KEY_BYTES_MAX as u64 {
        return Err(format!("is larger than {KEY_BYTES_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(cannot)
}

fn cannot(error: std::io::Error) -> String {
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
