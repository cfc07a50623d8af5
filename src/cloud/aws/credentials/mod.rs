//! Where signing keys come from. Those that end are fetched from behind, ahead of need.

mod container;
mod imds;
mod profile;
mod sts;

use std::sync::Arc;
use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde::Deserialize;

use crate::cloud::auth::fetch::Fetch;
use crate::cloud::auth::renewed::{CredentialError, Fetched, Renewed, Source};
use crate::completion::Refusal;
use crate::config::Secret;
use crate::config::services::aws::{AwsBase, AwsCredentials, AwsKeys};
use sts::Sts;

/// A row's keys, as they are now.
pub(super) enum Keys {
    Fixed(Arc<AwsKeys>),
    Renewed(Renewed<AwsKeys>),
}

impl Keys {
    pub(super) fn get(&self, now: SystemTime) -> Result<Arc<AwsKeys>, Refusal> {
        match self {
            Self::Fixed(keys) => Ok(keys.clone()),
            Self::Renewed(renewed) => renewed.get(now),
        }
    }

    pub(super) fn rejected(&self) {
        if let Self::Renewed(renewed) = self {
            renewed.rejected();
        }
    }
}

/// The keys of `cloud`. Needs a runtime, unless they are fixed.
pub(super) fn keys(
    cloud: Arc<str>,
    region: &Arc<str>,
    credentials: &AwsCredentials,
    services: impl Fetch,
) -> Keys {
    if let (AwsBase::Keys(keys), []) = (&credentials.base, credentials.roles.as_slice()) {
        return Keys::Fixed(Arc::new(keys.clone()));
    }
    let chain = Chain { credentials: credentials.clone(), region: region.clone(), fetch: services };
    Keys::Renewed(Renewed::start(cloud, chain))
}

/// The source at its beginning, and the roles that are assumed from there.
struct Chain<F> {
    credentials: AwsCredentials,
    region: Arc<str>,
    fetch: F,
}

impl<F: Fetch> Source<AwsKeys> for Chain<F> {
    async fn fetch(&self) -> Result<Fetched<AwsKeys>, CredentialError> {
        let sts = Sts { uri: &self.credentials.sts, region: &self.region, fetch: &self.fetch };
        let mut keys = match &self.credentials.base {
            AwsBase::Keys(keys) => Fetched { value: keys.clone(), until: None },
            AwsBase::Profile { files, name } => profile::read(files, name).await?,
            AwsBase::WebIdentity { role, token_file } => {
                sts.assume_by_web_identity(role, token_file).await?
            }
            AwsBase::Container { uri, token } => container::ask(uri, token, &self.fetch).await?,
            AwsBase::Imds { endpoint } => imds::ask(endpoint, &self.fetch).await?,
        };
        for role in &self.credentials.roles {
            keys = sts.assume(role, &keys.value).await?;
        }
        Ok(keys)
    }
}

/// Keys as ECS, EKS and EC2 write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    /// EC2 alone; anything but `Success` comes without keys.
    code: Option<String>,
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

fn document(answer: &Response<Bytes>) -> Result<Fetched<AwsKeys>, CredentialError> {
    let document: Document = serde_json::from_slice(answer.body())
        .map_err(|_| CredentialError("the answer holds no keys".into()))?;
    if document.code.as_deref().is_some_and(|code| code != "Success") {
        return Err(CredentialError("the metadata service has no keys for its role".into()));
    }
    Ok(Fetched {
        value: AwsKeys {
            id: document.access_key_id.into(),
            secret: Secret::new(&document.secret_access_key),
            token: document.token.as_deref().map(Secret::new),
        },
        until: document.expiration.as_deref().map(end).transpose()?,
    })
}

fn end(text: &str) -> Result<SystemTime, CredentialError> {
    let time = DateTime::from_str(text, Format::DateTime).ok();
    let time = time.and_then(|time| SystemTime::try_from(time).ok());
    time.ok_or_else(|| CredentialError("the end of the keys is no time".into()))
}

/// The answer, if it is one; `whose` it is not otherwise.
fn good(whose: &str, answer: Response<Bytes>) -> Result<Response<Bytes>, CredentialError> {
    match answer.status() {
        StatusCode::OK => Ok(answer),
        status => Err(CredentialError(format!("{whose} answered {}", status.as_u16()))),
    }
}

#[cfg(test)]
mod tests;
