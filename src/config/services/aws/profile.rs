//! The files that AWS's tools share: `~/.aws/config` and `~/.aws/credentials`.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::AwsKeys;
use crate::config::Secret;

/// Largest of the two in bytes; one of a few hundred profiles has some ten thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where they are; None: nobody knows, for there is no home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedFiles {
    pub config: Option<PathBuf>,
    pub credentials: Option<PathBuf>,
}

/// Profiles by name.
#[derive(Debug, Default)]
pub struct Profiles(HashMap<String, Profile>);

/// Its settings; names in lower case.
#[derive(Debug, Default)]
pub struct Profile(HashMap<String, String>);

impl SharedFiles {
    /// Both files; what the second says counts. One that is not there is empty.
    pub fn read(&self) -> Result<Profiles, String> {
        let mut profiles = Profiles::default();
        if let Some(path) = &self.config {
            profiles.add(&text(path)?, |section| match section.strip_prefix("profile") {
                Some(name) if name.starts_with([' ', '\t']) => Some(name.trim()),
                _ => (section == "default").then_some(section),
            });
        }
        if let Some(path) = &self.credentials {
            profiles.add(&text(path)?, Some);
        }
        Ok(profiles)
    }
}

fn text(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(cannot(error)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display()));
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map_err(cannot)
}

impl Profiles {
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    /// Adds a file's profiles; `name` tells which one a section is, if it is one.
    fn add<'t>(&mut self, text: &'t str, name: impl Fn(&'t str) -> Option<&'t str>) {
        let mut current = None;
        for line in text.lines().filter(|line| !is_comment(line)) {
            let trimmed = line.trim();
            if let Some(section) = trimmed.strip_prefix('[') {
                let section = section.split(']').next().unwrap_or_default();
                current = name(section.trim());
            } else if !line.starts_with([' ', '\t'])
                && let (Some(profile), Some((key, value))) = (current, trimmed.split_once('='))
            {
                // What is indented belongs to the setting before it: none that is looked at here.
                let profile = self.0.entry(profile.to_owned()).or_default();
                let value = without_comment(value).trim().to_owned();
                profile.0.insert(key.trim().to_ascii_lowercase(), value);
            }
            if let Some(profile) = current {
                self.0.entry(profile.to_owned()).or_default();
            }
        }
    }
}

fn is_comment(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with(['#', ';'])
}

/// A comment behind a value begins after white space: keys hold such signs themselves.
fn without_comment(value: &str) -> &str {
    let begins = [" #", " ;", "\t#", "\t;"].into_iter().filter_map(|sign| value.find(sign)).min();
    &value[..begins.unwrap_or(value.len())]
}

impl Profile {
    /// None: it is not there, or empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Its keys, where it holds them itself.
    pub fn keys(&self) -> Option<AwsKeys> {
        Some(AwsKeys {
            id: self.get("aws_access_key_id")?.into(),
            secret: Secret::new(self.get("aws_secret_access_key")?),
            token: self.get("aws_session_token").map(Secret::new),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(config: &str, credentials: &str) -> (tempfile::TempDir, SharedFiles) {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let files = SharedFiles {
            config: file("config", config),
            credentials: file("credentials", credentials),
        };
        (folder, files)
    }

    #[test]
    fn both_files_are_read_by_their_own_rules() {
        let config = "\
            # a comment\n; another\n[default]\nregion = us-east-1\n\n\
            [ profile  dev ] # ours\nrole_arn=arn:aws:iam::1:role/a  # not # the end\n\
            S3 =\n  max_concurrent_requests = 20\nSOURCE_PROFILE = base\n\
            [sso-session dev]\nsso_region = x\n[profiled]\nregion = y\n[profile empty]\n";
        let credentials = "\
            [base]\naws_access_key_id = AKIA1\naws_secret_access_key=a#b;c=\n\
            [dev]\nregion = us-gov-west-1\naws_session_token = \n";
        let (_folder, files) = write(config, credentials);
        let profiles = files.read().unwrap();
        let dev = profiles.get("dev").unwrap();
        assert_eq!(dev.get("role_arn"), Some("arn:aws:iam::1:role/a"));
        assert_eq!(dev.get("source_profile"), Some("base"));
        assert_eq!(dev.get("region"), Some("us-gov-west-1"), "the second file counts");
        assert_eq!((dev.get("s3"), dev.get("max_concurrent_requests")), (None, None));
        assert!(dev.keys().is_none());
        let keys = profiles.get("base").unwrap().keys().unwrap();
        assert_eq!((&*keys.id, keys.secret.expose()), ("AKIA1", "a#b;c="));
        assert!(keys.token.is_none());
        assert!(profiles.get("default").is_some() && profiles.get("empty").is_some());
        for name in ["profiled", "sso-session dev", "profile dev"] {
            assert!(profiles.get(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_file_may_be_missing_and_not_huge() {
        let nowhere = PathBuf::from("/nowhere/at/all");
        let files = SharedFiles { config: Some(nowhere), credentials: None };
        assert!(files.read().unwrap().get("default").is_none());
        let (_folder, files) = write(&"#".repeat(FILE_BYTES_MAX as usize + 1), "");
        assert!(files.read().unwrap_err().contains("is larger than"));
    }
}
