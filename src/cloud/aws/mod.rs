//! AWS: Bedrock's three APIs, SageMaker's endpoints, and the signature that all of them ask for.

mod converse;
mod credentials;
mod enveloped;
mod invoke;
mod sign;
mod tgi;

use std::sync::Arc;

use hyper::Uri;

use super::auth::Auth;
use super::auth::fetch::Services;
use super::wires::Wire;
use super::wires::openai::OpenAi;
use crate::config::CloudConfig;
use crate::config::services::Dialect;
use crate::config::services::aws::{AwsApi, AwsConfig, Container, InvokeShape};

/// None: the base URL has no scheme or host.
pub(super) fn wire(row: &CloudConfig, aws: &AwsConfig) -> Option<Box<dyn Wire>> {
    Some(match &aws.api {
        AwsApi::Converse => Box::new(converse::Converse::new(row)?),
        AwsApi::Invoke(InvokeShape::OpenAi) => Box::new(enveloped::Enveloped::invoked(row)?),
        AwsApi::Invoke(shape) => Box::new(invoke::Invoke::new(row, *shape)?),
        AwsApi::OpenAi | AwsApi::Mantle => {
            Box::new(OpenAi::new(&row.base_url, Arc::new(Dialect::OPENAI))?)
        }
        AwsApi::SageMaker(endpoint) => match endpoint.container {
            Container::OpenAi => Box::new(enveloped::Enveloped::endpoint(row, endpoint)?),
            Container::Tgi => Box::new(tgi::Tgi::new(row, endpoint)?),
        },
    })
}

/// Signs, with keys from where the row says; None: it has a bearer token.
pub(super) fn auth(
    row: &CloudConfig,
    aws: &AwsConfig,
    services: Arc<Services>,
) -> Option<Box<dyn Auth>> {
    let credentials = aws.credentials.as_ref()?;
    let scope = sign::Scope { region: aws.region.clone(), service: aws.api.signing_name() };
    let keys = credentials::keys(row.name.clone(), &aws.region, credentials, services);
    Some(Box::new(sign::SigV4::new(scope, keys)))
}

/// `base` with these segments appended, each encoded as one: a model's ARN has slashes of its own.
fn under(base: &Uri, segments: &[&str]) -> Option<Uri> {
    let mut uri = format!("{}://{}", base.scheme_str()?, base.authority()?);
    uri.push_str(base.path().trim_end_matches('/'));
    for segment in segments {
        uri.push('/');
        encode(segment, &mut uri);
    }
    uri.parse().ok()
}

/// As a signature encodes: all but letters, digits and `-._~`.
fn encode(segment: &str, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            let digit = |of: u8| char::from(DIGITS[usize::from(of)]);
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Where a row's model answers one of Bedrock's own operations.
fn model_uri(row: &CloudConfig, operation: &str) -> Option<Uri> {
    under(&row.base_url, &["model", &row.model, operation])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_one() {
        let base: Uri = "https://h.example/a/".parse().unwrap();
        let cases = [
            ("meta.llama3-v1:0", "meta.llama3-v1%3A0"),
            ("arn:aws:x::1:model/b", "arn%3Aaws%3Ax%3A%3A1%3Amodel%2Fb"),
            ("a~b_c é", "a~b_c%20%C3%A9"),
        ];
        for (model, encoded) in cases {
            let uri = under(&base, &["model", model, "converse"]).unwrap();
            assert_eq!(uri.path(), format!("/a/model/{encoded}/converse"));
        }
    }
}
