//! Where a row's signing keys come from: settled when the config loads, by the variables and files
//! that AWS's own tools read.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::Uri;

use super::hosts;
use crate::config::Secret;
use crate::config::raw::RawAws;
use crate::config::services::aws::profile::{Profile, Profiles, SharedFiles};
use crate::config::services::aws::{AwsBase, AwsCredentials, AwsKeys, AwsRole, ContainerToken};
use crate::config::validate::Checker;

/// Profiles that one may lead to; each costs an exchange.
const CHAIN_MAX: usize = 4;
/// How we are called where nobody says it.
const SESSION: &str = "weir";

/// What ECS listens on.
const ECS: &str = "http://169.254.170.2";
/// Beside loopback, the addresses that may hand out keys in clear text: ECS's and EKS's agents.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
const IMDS: &str = "http://169.254.169.254";

const ARN: &str = "must be a role's ARN as in arn:aws:iam::123456789012:role/name";

/// Which source a row names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Auto,
    Environment,
    Profile,
    WebIdentity,
    Container,
    Imds,
}

impl Checker<'_> {
    pub(super) fn aws_credentials(
        &mut self,
        typed: &RawAws,
        region: &str,
    ) -> Option<AwsCredentials> {
        const WORDS: [(&str, Mode); 6] = [
            ("auto", Mode::Auto),
            ("environment", Mode::Environment),
            ("profile", Mode::Profile),
            ("web-identity", Mode::WebIdentity),
            ("container", Mode::Container),
            ("imds", Mode::Imds),
        ];
        let mode = self.choice("aws.credentials", typed.credentials.as_deref(), Mode::Auto, &WORDS);
        if typed.profile.is_some() && !matches!(mode, Mode::Auto | Mode::Profile) {
            self.complain("aws.profile", "is for credentials = \"profile\" only");
        }
        let (base, mut roles) = match self.aws_base(typed, mode) {
            Ok(found) => found,
            Err((key, wrong)) => {
                self.complain(key, wrong);
                return None;
            }
        };
        roles.extend(self.assumed(typed));
        Some(AwsCredentials { base, roles, sts: self.sts(typed, region)? })
    }

    fn sts(&mut self, typed: &RawAws, region: &str) -> Option<Uri> {
        let fips = typed.fips.unwrap_or(false);
        let url = typed.sts_url.clone().unwrap_or_else(|| hosts::sts(region, fips));
        let uri = url.trim_end_matches('/').parse().ok().filter(|uri: &Uri| {
            let kind = matches!(uri.scheme_str(), Some("https" | "http"));
            let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            kind && plain && uri.path() == "/" && uri.query().is_none()
        });
        if uri.is_none() {
            self.complain("aws.sts_url", "must be https:// or http:// and a host, no more");
        }
        uri
    }

    fn assumed(&mut self, typed: &RawAws) -> Option<AwsRole> {
        let Some(arn) = typed.role_arn.as_deref() else {
            if typed.external_id.is_some() {
                self.complain("aws.external_id", "is for a role_arn only");
            }
            return None;
        };
        if !is_role(arn) {
            self.complain("aws.role_arn", ARN);
        }
        Some(AwsRole {
            arn: arn.into(),
            session: SESSION.into(),
            external_id: typed.external_id.as_deref().map(Into::into),
        })
    }

    fn aws_base(&self, typed: &RawAws, mode: Mode) -> Result<Found, Wrong> {
        match mode {
            Mode::Auto => self.first_found(typed),
            Mode::Environment => Ok((AwsBase::Keys(self.keys_of_environment()?), Vec::new())),
            Mode::Profile => self.aws_profile(typed),
            Mode::WebIdentity => self.web_identity().map(alone),
            Mode::Container => self.container().map(alone),
            Mode::Imds => self.imds().map(alone),
        }
    }

    /// In the order of AWS's own tools.
    fn first_found(&self, typed: &RawAws) -> Result<Found, Wrong> {
        let has = |name| self.variable(name).is_some();
        if typed.profile.is_some() {
            return self.aws_profile(typed);
        }
        if has("AWS_ACCESS_KEY_ID") {
            return Ok((AwsBase::Keys(self.keys_of_environment()?), Vec::new()));
        }
        if has("AWS_PROFILE") || self.has_default_profile() {
            return self.aws_profile(typed);
        }
        if has("AWS_WEB_IDENTITY_TOKEN_FILE") {
            return self.web_identity().map(alone);
        }
        if has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
            || has("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        {
            return self.container().map(alone);
        }
        let off = self.variable("AWS_EC2_METADATA_DISABLED");
        if off.is_some_and(|off| off.eq_ignore_ascii_case("true")) {
            return Err((
                "aws.credentials",
                "there are none, and AWS_EC2_METADATA_DISABLED".into(),
            ));
        }
        self.imds().map(alone)
    }

    /// What a variable holds, which has to be there.
    fn needed(&self, name: &str) -> Result<String, Wrong> {
        let absent = || ("aws.credentials", format!("variable {name} is not set"));
        self.variable(name).ok_or_else(absent)
    }

    fn keys_of_environment(&self) -> Result<AwsKeys, Wrong> {
        Ok(AwsKeys {
            id: self.needed("AWS_ACCESS_KEY_ID")?.trim().into(),
            secret: Secret::new(self.needed("AWS_SECRET_ACCESS_KEY")?.trim()),
            token: self.variable("AWS_SESSION_TOKEN").map(|token| Secret::new(token.trim())),
        })
    }

    fn web_identity(&self) -> Result<AwsBase, Wrong> {
        let token_file = PathBuf::from(self.needed("AWS_WEB_IDENTITY_TOKEN_FILE")?);
        let arn = self.needed("AWS_ROLE_ARN")?;
        if !is_role(&arn) {
            return Err(("aws.credentials", format!("variable AWS_ROLE_ARN {ARN}")));
        }
        let session = self.variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| SESSION.into());
        let role = AwsRole { arn: arn.into(), session: session.into(), external_id: None };
        Ok(AwsBase::WebIdentity { role, token_file })
    }

    fn container(&self) -> Result<AwsBase, Wrong> {
        const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
        const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        let (name, url) = match self.variable(RELATIVE) {
            Some(path) => (RELATIVE, format!("{ECS}{path}")),
            None => (FULL, self.needed(FULL)?),
        };
        let uri: Option<Uri> = url.parse().ok();
        let Some(uri) = uri.filter(hands_out_keys) else {
            let message = format!(
                "variable {name} must be an https:// URL, or http:// of loopback or of ECS's and \
                 EKS's agents"
            );
            return Err(("aws.credentials", message));
        };
        let file = self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from);
        let fixed = || self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
        let token = match file {
            Some(file) => ContainerToken::File(file),
            None => fixed().map_or(ContainerToken::None, |token| {
                ContainerToken::Fixed(Secret::new(token.trim()))
            }),
        };
        Ok(AwsBase::Container { uri, token })
    }

    fn imds(&self) -> Result<AwsBase, Wrong> {
        const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        let url = self.variable(ENDPOINT).unwrap_or_else(|| IMDS.into());
        let uri = url.trim_end_matches('/').parse().ok();
        let endpoint = uri.filter(|uri: &Uri| uri.scheme().is_some() && uri.path() == "/");
        let wrong =
            || ("aws.credentials", format!("variable {ENDPOINT} must be a URL and no path"));
        Ok(AwsBase::Imds { endpoint: endpoint.ok_or_else(wrong)? })
    }

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

    fn has_default_profile(&self) -> bool {
        let profiles = self.shared_files().read();
        profiles.is_ok_and(|profiles| {
            let default = profiles.get("default");
            default.is_some_and(|profile| KINDS.iter().any(|kind| profile.get(kind).is_some()))
        })
    }

    fn aws_profile(&self, typed: &RawAws) -> Result<Found, Wrong> {
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

type Found = (AwsBase, Vec<AwsRole>);
/// A key of the configuration and what is wrong with it.
type Wrong = (&'static str, String);

/// What makes a profile one with credentials.
const KINDS: [&str; 5] =
    ["aws_access_key_id", "role_arn", "credential_process", "sso_session", "sso_start_url"];
/// Sources that would run a program or need a browser.
const FOREIGN: [&str; 4] = ["credential_process", "sso_session", "sso_start_url", "mfa_serial"];

fn alone(base: AwsBase) -> Found {
    (base, Vec::new())
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

fn is_role(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':');
    let wanted = [Some("arn"), None, Some("iam"), Some(""), None];
    let fits = |want: Option<&str>| {
        let part = parts.next();
        want.map_or(part.is_some_and(|part| !part.is_empty()), |want| part == Some(want))
    };
    wanted.into_iter().all(fits)
        && arn.rsplit(':').next().is_some_and(|resource| resource.starts_with("role/"))
}

/// Whether an address may be asked for keys: in clear text only within the machine.
fn hands_out_keys(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let inside = AGENTS.contains(&host)
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => inside,
        _ => false,
    }
}
