//! From a row to its API and its proof.

use std::sync::Arc;

use super::auth::Auth;
use super::auth::fetch::Services;
use super::auth::key::Key;
#[cfg(feature = "aws")]
use super::aws;
#[cfg(feature = "azure")]
use super::azure;
use super::egress::EgressError;
#[cfg(feature = "google")]
use super::google;
#[cfg(feature = "oci")]
use super::oci;
use super::wires::Wire;
use super::wires::openai::OpenAi;
use crate::config::services::aws::AwsConfig;
use crate::config::services::{Dialect, OciChat};
use crate::config::{CloudConfig, CloudService};

pub(super) fn wire(row: &CloudConfig) -> Result<Box<dyn Wire>, EgressError> {
    let bad = || EgressError::Origin(row.name.clone());
    let openai = |dialect| OpenAi::new(&row.base_url, dialect).ok_or_else(bad);
    match &row.service {
        CloudService::OpenAi | CloudService::Weir => {
            Ok(Box::new(openai(Arc::new(Dialect::OPENAI))?))
        }
        CloudService::Dialect(dialect) => Ok(Box::new(openai(dialect.clone())?)),
        CloudService::Oci(chat) => oci_wire(row, chat),
        #[cfg(feature = "azure")]
        CloudService::Azure(azure) => Ok(Box::new(azure::wire(row, azure).ok_or_else(bad)?)),
        #[cfg(feature = "google")]
        CloudService::Vertex(vertex) => google::wire(row, vertex).ok_or_else(bad),
        CloudService::Aws(aws) => aws_wire(row, aws),
        #[cfg(not(all(feature = "azure", feature = "google")))]
        _ => Err(bad()),
    }
}

/// `services` reach whoever grants the row's credentials.
pub(super) fn auth(
    row: &CloudConfig,
    services: Arc<Services>,
) -> Result<Box<dyn Auth>, EgressError> {
    match &row.service {
        CloudService::OpenAi | CloudService::Dialect(_) | CloudService::Weir => bearer(row),
        CloudService::Oci(chat) => oci_auth(row, chat),
        #[cfg(feature = "azure")]
        CloudService::Azure(azure) => azure::auth(row, &azure.auth, services),
        #[cfg(feature = "google")]
        CloudService::Vertex(vertex) => Ok(google::auth(row, &vertex.credentials, services)),
        CloudService::Aws(aws) => aws_auth(row, aws, services),
        #[cfg(not(all(feature = "azure", feature = "google")))]
        _ => Err(EgressError::Origin(row.name.clone())),
    }
}

fn bearer(row: &CloudConfig) -> Result<Box<dyn Auth>, EgressError> {
    let Some(key) = &row.api_key else { return Ok(Box::new(Key::none())) };
    Ok(Box::new(Key::bearer(key).map_err(|_| EgressError::Key(row.name.clone()))?))
}

#[cfg(feature = "aws")]
fn aws_wire(row: &CloudConfig, aws: &AwsConfig) -> Result<Box<dyn Wire>, EgressError> {
    aws::wire(row, aws).ok_or_else(|| EgressError::Origin(row.name.clone()))
}

#[cfg(feature = "aws")]
fn aws_auth(
    row: &CloudConfig,
    aws: &AwsConfig,
    services: Arc<Services>,
) -> Result<Box<dyn Auth>, EgressError> {
    aws::auth(row, aws, services).map_or_else(|| bearer(row), Ok)
}

#[cfg(not(feature = "aws"))]
fn aws_wire(row: &CloudConfig, _: &AwsConfig) -> Result<Box<dyn Wire>, EgressError> {
    Err(EgressError::Origin(row.name.clone()))
}

#[cfg(not(feature = "aws"))]
fn aws_auth(
    row: &CloudConfig,
    _: &AwsConfig,
    _: Arc<Services>,
) -> Result<Box<dyn Auth>, EgressError> {
    Err(EgressError::Origin(row.name.clone()))
}

#[cfg(feature = "oci")]
fn oci_wire(row: &CloudConfig, chat: &OciChat) -> Result<Box<dyn Wire>, EgressError> {
    let wire = oci::Chat::new(&row.base_url, chat.clone());
    Ok(Box::new(wire.ok_or_else(|| EgressError::Origin(row.name.clone()))?))
}

#[cfg(feature = "oci")]
fn oci_auth(row: &CloudConfig, chat: &OciChat) -> Result<Box<dyn Auth>, EgressError> {
    let signer = oci::Signer::new(&chat.key, &row.base_url);
    Ok(Box::new(signer.ok_or_else(|| EgressError::Origin(row.name.clone()))?))
}

#[cfg(not(feature = "oci"))]
fn oci_wire(row: &CloudConfig, _: &OciChat) -> Result<Box<dyn Wire>, EgressError> {
    Err(EgressError::Origin(row.name.clone()))
}

#[cfg(not(feature = "oci"))]
fn oci_auth(row: &CloudConfig, _: &OciChat) -> Result<Box<dyn Auth>, EgressError> {
    Err(EgressError::Origin(row.name.clone()))
}
