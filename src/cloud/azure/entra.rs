//! Tokens of Entra. The three exchanges are ours: Cargo.toml says why.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{HeaderName, HeaderValue};

use crate::cloud::auth::fetch::{Fetch, get, post_form, token_file};
use crate::cloud::auth::renewed::{CredentialError, Fetched, Source};
use crate::cloud::auth::token::granted_bearer;
use crate::config::Secret;
use crate::config::services::{Entra, EntraIdentity};

/// Of the metadata service of a virtual machine, and of App Service's own.
const MACHINE_VERSION: &str = "2018-02-01";
const APP_SERVICE_VERSION: &str = "2019-08-01";
const JWT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub(super) struct Tokens {
    entra: Entra,
    services: Arc<dyn Fetch>,
}

impl Tokens {
    pub(super) fn new(entra: Entra, services: Arc<dyn Fetch>) -> Self {
        Self { entra, services }
    }

    async fn request(&self) -> Result<Request<Full<Bytes>>, CredentialError> {
        let scope = format!("{}/.default", self.entra.resource);
        match &self.entra.identity {
            EntraIdentity::Secret { tokens, client_id, secret } => {
                let proof = [("client_secret", secret.expose())];
                Ok(post_form(tokens, &[&client(client_id, &scope)[..], &proof].concat()))
            }
            EntraIdentity::Workload { tokens, client_id, token_file: path } => {
                let assertion = token_file(path).await?;
                let proof =
                    [("client_assertion_type", JWT_ASSERTION), ("client_assertion", &*assertion)];
                Ok(post_form(tokens, &[&client(client_id, &scope)[..], &proof].concat()))
            }
            EntraIdentity::Managed { endpoint, header, client_id } => {
                let version = if header.is_some() { APP_SERVICE_VERSION } else { MACHINE_VERSION };
                let mut query = vec![("api-version", version), ("resource", &*self.entra.resource)];
                query.extend(client_id.as_deref().map(|id| ("client_id", id)));
                machine(get(endpoint, &query)?, header.as_ref())
            }
        }
    }
}

impl Source<HeaderValue> for Tokens {
    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        granted_bearer(&self.services.call(self.request().await?).await?)
    }
}

/// Who asks for what.
fn client<'a>(client_id: &'a str, scope: &'a str) -> [(&'static str, &'a str); 3] {
    [("grant_type", "client_credentials"), ("client_id", client_id), ("scope", scope)]
}

/// The headers without which a machine's endpoint answers nobody, so that no page in a browser
/// there can ask it.
fn machine(
    mut request: Request<Full<Bytes>>,
    header: Option<&Secret>,
) -> Result<Request<Full<Bytes>>, CredentialError> {
    let headers = request.headers_mut();
    headers.insert(HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
    if let Some(header) = header {
        let malformed = |_| CredentialError("IDENTITY_HEADER can be in no header".into());
        let mut value = HeaderValue::from_str(header.expose()).map_err(malformed)?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static("x-identity-header"), value);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::cloud::auth::fetch::tests::Recorded;

    /// What azure-identity asks; see tests/oracles/azure_identity.py.
    const ORACLE: &str = include_str!("../../../tests/fixtures/wires/azure/token-requests.json");
    const GRANTED: &str =
        r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"t.o-k"}"#;

    /// MSAL also asks who it was that asked, which tells a client without users nothing.
    const LEFT_OUT: [&str; 1] = ["client_info"];

    /// What the oracle's inputs are here; the assertion comes from `token_file`.
    fn entra(inputs: &Value, origin: &str, path: &str, token_file: &std::path::Path) -> Entra {
        let text = |key: &str| inputs[key].as_str().map(Arc::<str>::from);
        let at = || format!("{origin}{path}").parse().unwrap();
        let identity = match inputs["credential"].as_str().unwrap() {
            "client-secret" => EntraIdentity::Secret {
                tokens: at(),
                client_id: text("client_id").unwrap(),
                secret: Secret::new(&text("client_secret").unwrap()),
            },
            "workload-identity" => EntraIdentity::Workload {
                tokens: at(),
                client_id: text("client_id").unwrap(),
                token_file: token_file.to_owned(),
            },
            "managed-identity" => EntraIdentity::Managed {
                endpoint: at(),
                header: text("identity_header").map(|header| Secret::new(&header)),
                client_id: text("client_id"),
            },
            other => panic!("{other}"),
        };
        let resource = match inputs["partition"].as_str().unwrap() {
            "azure" => "https://cognitiveservices.azure.com",
            "azure-us-gov" => "https://cognitiveservices.azure.us",
            "azure-cn" => "https://cognitiveservices.azure.cn",
            other => panic!("{other}"),
        };
        Entra { resource: resource.into(), identity }
    }

    #[tokio::test]
    async fn weir_asks_what_azures_own_library_asks() {
        let exchanges: Vec<Value> = serde_json::from_str(ORACLE).unwrap();
        assert_eq!(exchanges.len(), 14);
        for exchange in exchanges {
            let (inputs, mut expected) = (&exchange["inputs"], exchange["request"].clone());
            for field in LEFT_OUT {
                expected["form"].as_object_mut().unwrap().remove(field);
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&file, inputs["assertion"].as_str().unwrap_or_default()).unwrap();
            let at = |key: &str| expected[key].as_str().unwrap().to_owned();
            let entra = entra(inputs, &at("origin"), &at("path"), file.path());
            let services = Recorded::new(&[(200, GRANTED)]);
            let token = Tokens::new(entra, services.clone()).fetch().await.unwrap();
            assert_eq!(token.value, "Bearer t.o-k");
            expected["json"] = Value::Null;
            assert_eq!(services.asked(), [expected], "{inputs}");
        }
    }

    #[tokio::test]
    async fn a_federated_token_is_read_each_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let identity = EntraIdentity::Workload {
            tokens: "https://login.example/t/oauth2/v2.0/token".parse().unwrap(),
            client_id: "c".into(),
            token_file: file.path().to_owned(),
        };
        let services = Recorded::new(&[(200, GRANTED), (200, GRANTED)]);
        let tokens =
            Tokens::new(Entra { resource: "https://r.example".into(), identity }, services.clone());
        for assertion in ["first", "second"] {
            std::fs::write(&file, format!("{assertion}\n")).unwrap();
            tokens.fetch().await.unwrap();
            let asked = services.asked();
            assert_eq!(asked.last().unwrap()["form"]["client_assertion"], assertion);
        }
    }
}
