//! What stands for the clouds in a build without the cargo feature `cloud`: there are none, and
//! nothing in the binary could open a connection to one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::completion::{Backend, CompletionRequest, CompletionStream, Refusal};
use crate::config::{CloudConfig, Secret};
use crate::money::Asked;
use crate::policy::peer::Instance;

/// What a provider says is left of a quota.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub requests_left: Option<u64>,
    pub tokens_left: Option<u64>,
    pub reset_at: Option<Instant>,
}

/// What another weir says of itself; none ever does.
#[derive(Debug)]
pub struct Reported(Infallible);

impl Reported {
    pub fn ttft(&self, _: u64) -> Duration {
        match self.0 {}
    }
}

/// There is never one.
#[derive(Debug)]
pub struct Provider(Infallible);

#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("this weir was built without clouds; the cargo feature `cloud` brings them")]
    NotBuilt,
}

/// There is never one: no command can ask a weir that runs.
#[derive(Debug)]
pub struct Remote(Infallible);

/// What would be asked of it.
pub struct Question<'a> {
    pub method: hyper::Method,
    pub path: &'a str,
    pub headers: Vec<(&'static str, &'a str)>,
    pub body: Vec<u8>,
}

/// What it would say.
pub struct Said {
    pub status: u16,
    pub body: bytes::Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error(transparent)]
    Egress(#[from] EgressError),
}

impl Remote {
    /// Fails.
    pub fn new(_: &hyper::Uri, _: Option<Secret>) -> Result<Self, RemoteError> {
        Err(EgressError::NotBuilt.into())
    }

    pub async fn ask(&self, _: Question<'_>) -> Result<Said, RemoteError> {
        match self.0 {}
    }
}

/// Fails where there is a row.
pub fn providers_of(rows: &[CloudConfig], _: &Instance) -> Result<Vec<Provider>, EgressError> {
    providers(rows)
}

/// Fails where there is a row.
pub fn providers(rows: &[CloudConfig]) -> Result<Vec<Provider>, EgressError> {
    if rows.is_empty() { Ok(Vec::new()) } else { Err(EgressError::NotBuilt) }
}

impl Provider {
    pub fn row(&self) -> &CloudConfig {
        match self.0 {}
    }

    pub fn is_ready(&self) -> Result<(), Refusal> {
        match self.0 {}
    }

    pub fn region(&self) -> Option<Arc<str>> {
        match self.0 {}
    }

    pub fn limits(&self, _: Instant) -> Limits {
        match self.0 {}
    }

    pub fn reported(&self) -> Option<Reported> {
        match self.0 {}
    }

    pub fn quote(&self, _: &CompletionRequest) -> Result<Asked, Refusal> {
        match self.0 {}
    }
}

impl Backend for Provider {
    async fn complete(&self, _: Arc<CompletionRequest>) -> Result<CompletionStream, Refusal> {
        match self.0 {}
    }
}
