//! Keys in the files that AWS's tools share.

use std::sync::Arc;

use crate::cloud::auth::renewed::{CredentialError, Fetched};
use crate::config::services::aws::AwsKeys;
use crate::config::services::aws::profile::SharedFiles;

/// The files do not say until when keys hold; they are read again before long.
pub(super) async fn read(
    files: &SharedFiles,
    name: &Arc<str>,
) -> Result<Fetched<AwsKeys>, CredentialError> {
    let (files, named) = (files.clone(), name.clone());
    let keys = tokio::task::spawn_blocking(move || {
        let profiles = files.read()?;
        Ok(profiles.get(&named).and_then(|profile| profile.keys()))
    });
    let keys = keys.await.map_err(|error| CredentialError(error.to_string()))?;
    let keys: Option<AwsKeys> = keys.map_err(CredentialError)?;
    let gone = || CredentialError(format!("profile {name:?} holds no keys any more"));
    Ok(Fetched { value: keys.ok_or_else(gone)?, until: None })
}
