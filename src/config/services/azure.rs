//! Azure OpenAI and Foundry.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::Uri;

use super::Dialect;
use crate::config::Secret;

/// A resource of Azure OpenAI or Foundry.
#[derive(Clone, Debug, PartialEq)]
pub struct Azure {
    /// Of the routes below a deployment; None: the v1 routes, which have none.
    pub api_version: Option<Arc<str>>,
    pub dialect: Arc<Dialect>,
    pub auth: AzureAuth,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AzureAuth {
    /// The row's `api_key`, in a header of Azure's own.
    Key,
    Entra(Entra),
}

/// Tokens of Entra, Azure's identity service.
#[derive(Clone, Debug, PartialEq)]
pub struct Entra {
    /// What they are for: `https://cognitiveservices.azure.com`.
    pub resource: Arc<str>,
    pub identity: EntraIdentity,
}

#[derive(Clone, Debug, PartialEq)]
pub enum EntraIdentity {
    Secret {
        /// `https://HOST/TENANT/oauth2/v2.0/token`.
        tokens: Uri,
        client_id: Arc<str>,
        secret: Secret,
    },
    /// A token of Kubernetes' stands for the secret.
    Workload {
        tokens: Uri,
        client_id: Arc<str>,
        /// Read anew each time: it rotates.
        token_file: PathBuf,
    },
    /// The machine's own.
    Managed {
        endpoint: Uri,
        /// What App Service wants to see; None: the endpoint is a virtual machine's.
        header: Option<Secret>,
        /// Of an identity that was assigned by a user; None: the machine's only one.
        client_id: Option<Arc<str>>,
    },
}

impl Azure {
    /// Where its tokens come from.
    pub fn credential_services(&self) -> Vec<&Uri> {
        match &self.auth {
            AzureAuth::Key => Vec::new(),
            AzureAuth::Entra(entra) => vec![match &entra.identity {
                EntraIdentity::Secret { tokens, .. } | EntraIdentity::Workload { tokens, .. } => {
                    tokens
                }
                EntraIdentity::Managed { endpoint, .. } => endpoint,
            }],
        }
    }
}
