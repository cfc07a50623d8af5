//! From a row to its API and its proof.

use super::auth::Auth;
use super::auth::fetch::Services;
use super::auth::key::Key;
#[cfg(feature = "aws")]
use super::aws;
use super::egress::EgressError;
use super::wires::Wire;
use super::wires::openai::OpenAi;
use crate::config::{CloudConfig, CloudService};

pub(super) fn wire(row: &CloudConfig) -> Result<Box<dyn Wire>, EgressError> {
    let bad = || EgressError::Origin(row.name.clone());
    match &row.service {
        CloudService::OpenAi => Ok(Box::new(OpenAi::new(&row.base_url).ok_or_else(bad)?)),
        #[cfg(feature = "aws")]
        CloudService::Aws(aws) => aws::wire(row, aws).ok_or_else(bad),
        #[cfg(not(feature = "aws"))]
        CloudService::Aws(_) => Err(EgressError::NotBuilt("aws")),
    }
}

pub(super) fn auth(row: &CloudConfig, services: Services) -> Result<Box<dyn Auth>, EgressError> {
    match &row.service {
        CloudService::OpenAi => bearer(row),
        #[cfg(feature = "aws")]
        CloudService::Aws(aws) => aws::auth(row, aws, services).map_or_else(|| bearer(row), Ok),
        #[cfg(not(feature = "aws"))]
        CloudService::Aws(_) => Err(EgressError::NotBuilt("aws")),
    }
}

fn bearer(row: &CloudConfig) -> Result<Box<dyn Auth>, EgressError> {
    let Some(key) = &row.api_key else { return Ok(Box::new(Key::none())) };
    Ok(Box::new(Key::bearer(key).map_err(|_| EgressError::Key(row.name.clone()))?))
}
