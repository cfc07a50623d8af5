//! Google's Vertex AI: three wires at one address, with tokens of Google's.

mod credentials;
mod federation;
mod generate;
mod jwt;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::credentials::{Exchanged, Machine, SelfSigned};
use self::federation::Federated;
use self::generate::GenerateContent;
use super::auth::Auth;
use super::auth::fetch::Fetch;
use super::auth::token::Bearer;
use super::wires::Wire;
use super::wires::openai::{OpenAi, under};
use crate::config::CloudConfig;
use crate::config::services::{Dialect, GoogleCredentials, Vertex, VertexApi};

/// None: the row's address has no scheme or host.
pub(super) fn wire(row: &CloudConfig, vertex: &Vertex) -> Option<Box<dyn Wire>> {
    match vertex.api {
        VertexApi::GenerateContent => {
            Some(Box::new(GenerateContent::new(row, vertex.thinking.clone())?))
        }
        VertexApi::OpenAi => Some(Box::new(OpenAi::new(&row.base_url, Arc::new(Dialect::VERTEX))?)),
        VertexApi::RawPredict => {
            let method = if row.stream { "streamRawPredict" } else { "rawPredict" };
            let uri = under(&row.base_url, &format!("models/{}:{method}", row.model))?;
            Some(Box::new(OpenAi::at(uri.clone(), uri, Arc::new(Dialect::MISTRAL))))
        }
    }
}

/// `services` reach whoever grants tokens.
pub(super) fn auth(
    row: &CloudConfig,
    credentials: &GoogleCredentials,
    services: Arc<dyn Fetch>,
) -> Box<dyn Auth> {
    let cloud = row.name.clone();
    Box::new(match credentials.clone() {
        GoogleCredentials::ServiceAccount { key, exchange: None } => {
            Bearer::start(cloud, SelfSigned(key))
        }
        GoogleCredentials::ServiceAccount { key, exchange: Some(tokens) } => {
            Bearer::start(cloud, Exchanged { key, tokens, services })
        }
        GoogleCredentials::Metadata { server } => {
            Bearer::start(cloud, Machine { server, services })
        }
        GoogleCredentials::External(account) => {
            Bearer::start(cloud, Federated { account, services })
        }
    })
}
