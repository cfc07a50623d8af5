//! Where a row's signing keys come from: settled when the config loads, by the variables and files
//! that AWS's own tools read.

mod chain;

use std::net::IpAddr;
use std::path::PathBuf;

use hyper::Uri;

use super::hosts;
use crate::config::Secret;
use crate::config::raw::RawAws;
use crate::config::services::aws::{AwsBase, AwsCredentials, AwsKeys, AwsRole, ContainerToken};
use crate::config::validate::Checker;

/// How we are called where nobody says it.
const SESSION: &str = "weir";

/// What ECS listens on.
const ECS: &str = "http://169.254.170.2";
/// Beside loopback, the addresses that may hand out keys in clear text: the agents of ECS and EKS,
/// and EC2's metadata service.
const AGENTS: [&str; 5] =
    ["169.254.170.2", "169.254.170.23", "fd00:ec2::23", "169.254.169.254", "fd00:ec2::254"];
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
        if mode == Mode::Auto && matches!(base, AwsBase::Imds { .. }) {
            let message = "none are found here: the machine's metadata service is asked for them";
            self.warn("aws.credentials", message);
        }
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
        let endpoint = uri.filter(|uri: &Uri| hands_out_keys(uri) && uri.path() == "/");
        let message = || format!("variable {ENDPOINT} must be an address of the machine, no path");
        let wrong = || ("aws.credentials", message());
        Ok(AwsBase::Imds { endpoint: endpoint.ok_or_else(wrong)? })
    }
}

type Found = (AwsBase, Vec<AwsRole>);
/// A key of the configuration and what is wrong with it.
type Wrong = (&'static str, String);

fn alone(base: AwsBase) -> Found {
    (base, Vec::new())
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
