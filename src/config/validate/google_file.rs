//! The files in which Google describes credentials: the key of a service account, and the account
//! of another provider.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderName;
use serde::Deserialize;

use super::Checker;
use super::cloud::may_see_secrets;
use super::keys::{KEY_BYTES_MAX, secret_file, text_file};
use crate::config::Secret;
use crate::config::services::{
    ExternalAccount, GoogleCredentials, Impersonation, ServiceAccountKey, Subject, SubjectPlace,
};

/// The cloud that weir knows; Google runs others for sovereign customers.
const UNIVERSE: &str = "googleapis.com";
/// What Google grants to an impersonated account, and what it grants unasked.
const LIFETIME_S: std::ops::RangeInclusive<u64> = 600..=43_200;
const LIFETIME_DEFAULT_S: u64 = 3600;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum File {
    ServiceAccount(Account),
    ExternalAccount(Box<External>),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Account {
    client_email: String,
    private_key_id: String,
    private_key: String,
    token_uri: String,
    universe_domain: Option<String>,
}

#[derive(Deserialize)]
struct External {
    audience: String,
    subject_token_type: String,
    token_url: String,
    credential_source: Source,
    service_account_impersonation_url: Option<String>,
    service_account_impersonation: Option<Lifetime>,
    workforce_pool_user_project: Option<String>,
    universe_domain: Option<String>,
}

#[derive(Deserialize)]
struct Lifetime {
    token_lifetime_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct Source {
    file: Option<String>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    format: Option<Format>,
    environment_id: Option<String>,
}

#[derive(Deserialize)]
struct Format {
    r#type: Option<String>,
    subject_token_field_name: Option<String>,
}

impl Checker<'_> {
    /// None: it was complained about.
    pub(super) fn google_file(&mut self, path: &Path, exchange: bool) -> Option<GoogleCredentials> {
        match read(path, exchange) {
            Ok(credentials) => Some(credentials),
            Err(wrong) => {
                let message = format!("{}: {wrong}", path.display());
                self.complain("vertex.credentials_file", message);
                None
            }
        }
    }
}

fn read(path: &Path, exchange: bool) -> Result<GoogleCredentials, String> {
    let file = serde_json::from_str(&text_file(path, KEY_BYTES_MAX)?)
        // serde's message may quote the key.
        .map_err(|error| format!("is no credentials file of Google's (line {})", error.line()))?;
    match file {
        File::ServiceAccount(account) => {
            // Only this kind holds something secret.
            secret_file(path, KEY_BYTES_MAX)?;
            universe(account.universe_domain.as_deref())?;
            let Account { client_email: email, private_key_id: id, .. } = &account;
            let key = ServiceAccountKey::new(email, id, &account.private_key);
            let key = key.map_err(|wrong| wrong.to_string())?;
            let tokens = https("token_uri", &account.token_uri)?;
            Ok(GoogleCredentials::ServiceAccount { key, exchange: exchange.then_some(tokens) })
        }
        File::ExternalAccount(_) if exchange => {
            Err("is no service account's key, which vertex.token_exchange is for".into())
        }
        File::ExternalAccount(account) => {
            external(*account).map(|account| GoogleCredentials::External(account.into()))
        }
        File::Other => {
            Err("must be of type service_account or external_account; others are not supported"
                .into())
        }
    }
}

fn external(account: External) -> Result<ExternalAccount, String> {
    universe(account.universe_domain.as_deref())?;
    if account.workforce_pool_user_project.is_some() {
        return Err("is of a workforce pool, which is for people".into());
    }
    let lifetime = account.service_account_impersonation.and_then(|of| of.token_lifetime_seconds);
    let lifetime = lifetime.unwrap_or(LIFETIME_DEFAULT_S);
    if !LIFETIME_S.contains(&lifetime) {
        return Err("has a token_lifetime_seconds that is not 600 to 43200".into());
    }
    let impersonation = account.service_account_impersonation_url.map(|url| {
        let url = https("service_account_impersonation_url", &url)?;
        Ok::<_, String>(Impersonation { url, lifetime: Duration::from_secs(lifetime) })
    });
    Ok(ExternalAccount {
        audience: account.audience.into(),
        subject_token_type: account.subject_token_type.into(),
        subject: subject(account.credential_source)?,
        tokens: https("token_url", &account.token_url)?,
        impersonation: impersonation.transpose()?,
    })
}

fn subject(source: Source) -> Result<Subject, String> {
    let place = match (source.file, source.url) {
        // AWS's has a url too, and signs what it learns there.
        (Some(file), None) if source.environment_id.is_none() => SubjectPlace::File(file.into()),
        (None, Some(url)) if source.environment_id.is_none() => {
            let url = url.parse::<Uri>().ok().filter(|url| url.host().is_some());
            let header = |(name, value): (String, String)| {
                let name = name.parse::<HeaderName>().map_err(|_| "has a header that is none")?;
                Ok::<_, String>((name, Secret::new(&value)))
            };
            SubjectPlace::Url {
                url: url.ok_or("has a credential_source whose url is none")?,
                headers: source.headers.into_iter().map(header).collect::<Result<_, _>>()?,
            }
        }
        _ => return Err("has a credential_source that is neither a file nor a url".into()),
    };
    let field = match source.format {
        Some(Format { r#type: Some(kind), subject_token_field_name: field }) if kind == "json" => {
            Some(field.ok_or("has a format without subject_token_field_name")?)
        }
        _ => None,
    };
    Ok(Subject { place, field: field.map(Into::into) })
}

fn universe(domain: Option<&str>) -> Result<(), String> {
    match domain {
        None | Some(UNIVERSE) => Ok(()),
        Some(_) => Err(format!("is of another universe_domain than {UNIVERSE}")),
    }
}

fn https(field: &str, url: &str) -> Result<Uri, String> {
    let url = url.parse::<Uri>().ok().filter(may_see_secrets);
    url.ok_or_else(|| format!("has a {field} that is no https URL"))
}
