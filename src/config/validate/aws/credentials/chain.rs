//! Profiles of AWS's shared files, and where one leads.

use std::path::PathBuf;
use std::sync::Arc;

use super::{ARN, Found, SESSION, Wrong, is_role};
use crate::config::raw::RawAws;
use crate::config::services::aws::profile::{Profile, Profiles, SharedFiles};
use crate::config::services::aws::{AwsBase, AwsRole};
use crate::config::validate::Checker;

/// Profiles that one may lead to; each costs an exchange.
const CHAIN_MAX: usize = 4;
/// What makes a profile one with credentials.
const KINDS: [&str; 5] =
    ["aws_access_key_id", "role_arn", "credential_process", "sso_session", "sso_start_url"];
/// Sources that would run a program or need a browser.
const FOREIGN: [&str; 4] = ["credential_process", "sso_session", "sso_start_url", "mfa_serial"];

impl Checker<'_> {
    fn shared_files(&self) -> SharedFiles {
        let home = self.variable("HOME").map(PathBuf::from);
        let file = |variable: &str, name: &str| {
            let typed = self.variable(variable).map(PathBuf::from);
            typed.or_else(|| Some(home.as_ref()?.join(".aws").join(name)))
        };
        SharedFiles {
            config: file("AWS_CONFIG_FILE", "config"),
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        }
    }

    pub(super) fn has_default_profile(&self) -> bool {
        let profiles = self.shared_files().read();
        profiles.is_ok_and(|profiles| {
            let default = profiles.get("default");
            default.is_some_and(|profile| KINDS.iter().any(|kind| profile.get(kind).is_some()))
        })
    }

    pub(super) fn aws_profile(&self, typed: &RawAws) -> Result<Found, Wrong> {
        let named = typed.profile.clone().or_else(|| self.variable("AWS_PROFILE"));
        let name = named.unwrap_or_else(|| "default".into());
        let files = self.shared_files();
        let profiles = files.read().map_err(|wrong| ("aws.profile", wrong))?;
        let mut roles = Vec::new();
        let base = self.chain(&files, &profiles, &name, &mut roles);
        let base = base.map_err(|wrong| ("aws.profile", wrong))?;
        // The chain was walked from its end.
        roles.reverse();
        Ok((base, roles))
    }

    /// What `name` leads to, and the roles on the way, the last one first.
    fn chain(
        &self,
        files: &SharedFiles,
        profiles: &Profiles,
        name: &str,
        roles: &mut Vec<AwsRole>,
    ) -> Result<AwsBase, String> {
        let mut name: Arc<str> = name.into();
        for _ in 0..CHAIN_MAX {
            let profile = profiles.get(&name).ok_or_else(|| format!("there is no {name:?}"))?;
            if let Some(foreign) = FOREIGN.iter().find(|key| profile.get(key).is_some()) {
                return Err(format!("{name:?} has {foreign}, which weir does not do"));
            }
            let own_keys = |name| AwsBase::Profile { files: files.clone(), name };
            let Some(role) = role_of(&name, profile)? else {
                let keys = profile.keys().is_some();
                return keys.then(|| own_keys(name.clone())).ok_or_else(|| {
                    format!("{name:?} has neither keys nor a role that leads to some")
                });
            };
            if let Some(file) = profile.get("web_identity_token_file") {
                return Ok(AwsBase::WebIdentity { role, token_file: file.into() });
            }
            roles.push(role);
            match (profile.get("source_profile"), profile.get("credential_source")) {
                // A profile that is its own source assumes its role by its own keys.
                (Some(source), None) if *source == *name && profile.keys().is_some() => {
                    return Ok(own_keys(name));
                }
                (Some(source), None) => name = source.into(),
                (None, Some(source)) => return self.credential_source(source),
                _ => {
                    return Err(format!(
                        "{name:?} has a role_arn and needs source_profile, credential_source or \
                         web_identity_token_file beside it"
                    ));
                }
            }
        }
        Err(format!("leads through more than {CHAIN_MAX} profiles"))
    }

    fn credential_source(&self, word: &str) -> Result<AwsBase, String> {
        let base = match word {
            "Environment" => self.keys_of_environment().map(AwsBase::Keys),
            "Ec2InstanceMetadata" => self.imds(),
            "EcsContainer" => self.container(),
            _ => return Err(format!("has an unknown credential_source, {word:?}")),
        };
        base.map_err(|(_, wrong)| wrong)
    }
}

fn role_of(name: &str, profile: &Profile) -> Result<Option<AwsRole>, String> {
    let Some(arn) = profile.get("role_arn") else { return Ok(None) };
    if !is_role(arn) {
        return Err(format!("role_arn of {name:?} {ARN}"));
    }
    Ok(Some(AwsRole {
        arn: arn.into(),
        session: profile.get("role_session_name").unwrap_or(SESSION).into(),
        external_id: profile.get("external_id").map(Into::into),
    }))
}
