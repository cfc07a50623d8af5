//! From a row to its API and its proof.

use super::auth::Auth;
use super::auth::key::Key;
use super::egress::EgressError;
use super::wires::Wire;
use super::wires::openai::OpenAi;
use crate::config::{CloudConfig, CloudService};

pub(super) fn wire(row: &CloudConfig) -> Result<Box<dyn Wire>, EgressError> {
    let bad = || EgressError::Origin(row.name.clone());
    match row.service {
        CloudService::OpenAi => Ok(Box::new(OpenAi::new(&row.base_url).ok_or_else(bad)?)),
    }
}

pub(super) fn auth(row: &CloudConfig) -> Result<Box<dyn Auth>, EgressError> {
    match row.service {
        CloudService::OpenAi => {
            let Some(key) = &row.api_key else { return Ok(Box::new(Key::none())) };
            Ok(Box::new(Key::bearer(key).map_err(|_| EgressError::Key(row.name.clone()))?))
        }
    }
}
