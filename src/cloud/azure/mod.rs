//! Azure OpenAI and Foundry: OpenAI's wire at Azure's addresses, with a key or a token of Entra.

mod entra;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hyper::header::HeaderName;

use self::entra::Tokens;
use super::auth::Auth;
use super::auth::fetch::Fetch;
use super::auth::key::Key;
use super::auth::token::Bearer;
use super::egress::EgressError;
use super::wires::openai::{OpenAi, under};
use crate::config::CloudConfig;
use crate::config::services::{Azure, AzureAuth};

/// None: the row's address has no scheme or host.
pub(super) fn wire(row: &CloudConfig, azure: &Azure) -> Option<OpenAi> {
    let version = azure.api_version.as_deref();
    let query = version.map(|version| format!("?api-version={version}")).unwrap_or_default();
    let at = |route: &str| under(&row.base_url, &format!("{route}{query}"));
    Some(OpenAi::at(at("completions")?, at("chat/completions")?, azure.dialect.clone()))
}

/// `services` reach Entra.
pub(super) fn auth(
    row: &CloudConfig,
    auth: &AzureAuth,
    services: Arc<dyn Fetch>,
) -> Result<Box<dyn Auth>, EgressError> {
    match (auth, &row.api_key) {
        (AzureAuth::Key, None) => Ok(Box::new(Key::none())),
        (AzureAuth::Key, Some(key)) => {
            let key = Key::plain(HeaderName::from_static("api-key"), key.expose());
            Ok(Box::new(key.map_err(|_| EgressError::Key(row.name.clone()))?))
        }
        (AzureAuth::Entra(entra), _) => {
            let source = Tokens::new(entra.clone(), services);
            Ok(Box::new(Bearer::start(row.name.clone(), source)))
        }
    }
}
