//! What stands for the clouds in a build without the cargo feature `cloud`: there are none, and
//! nothing in the binary could open a connection to one.

use std::convert::Infallible;
use std::sync::Arc;

use crate::completion::{Backend, CompletionRequest, CompletionStream, Refusal};
use crate::config::CloudConfig;
use crate::money::Asked;

/// There is never one.
#[derive(Debug)]
pub struct Provider(Infallible);

#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("this weir was built without clouds; the cargo feature `cloud` brings them")]
    NotBuilt,
}

/// Fails where there is a row.
pub fn providers(rows: &[CloudConfig]) -> Result<Vec<Provider>, EgressError> {
    if rows.is_empty() { Ok(Vec::new()) } else { Err(EgressError::NotBuilt) }
}

impl Provider {
    pub fn row(&self) -> &CloudConfig {
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
