//! The endpoint that ECS, EKS Pod Identity and Greengrass give a container.

use hyper::Uri;
use hyper::header::{self, HeaderValue};

use super::{document, good};
use crate::cloud::auth::fetch::{Fetch, get, token_file};
use crate::cloud::auth::renewed::{CredentialError, Fetched};
use crate::config::services::aws::{AwsKeys, ContainerToken};

pub(super) async fn ask(
    uri: &Uri,
    token: &ContainerToken,
    fetch: &impl Fetch,
) -> Result<Fetched<AwsKeys>, CredentialError> {
    let token = match token {
        ContainerToken::None => None,
        ContainerToken::Fixed(token) => Some(token.expose().to_owned()),
        ContainerToken::File(path) => Some(token_file(path).await?),
    };
    let mut request = get(uri, &[])?;
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&token)
            .map_err(|_| CredentialError("the container's token cannot be sent".into()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    document(&good("the container's endpoint", fetch.call(request).await?)?)
}
