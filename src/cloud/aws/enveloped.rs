//! OpenAI's JSON in another envelope: models that Bedrock invokes, containers behind SageMaker.
//! There one address serves both of its routes; the body tells which is meant.

use std::sync::Arc;

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::{model_uri, under};
use crate::cloud::frames::{Frames, eventstream};
use crate::cloud::wires::openai::OpenAi;
use crate::cloud::wires::{Abilities, Rendered, Wire};
use crate::completion::{CompletionRequest, Refusal};
use crate::config::CloudConfig;
use crate::config::services::Dialect;
use crate::config::services::aws::SageMakerEndpoint;

pub(super) struct Enveloped {
    inner: OpenAi,
    uri: Uri,
    headers: HeaderMap,
    frames: fn() -> eventstream::Parser,
}

impl Enveloped {
    /// A model that Bedrock invokes.
    pub(super) fn invoked(row: &CloudConfig) -> Option<Self> {
        Some(Self {
            inner: OpenAi::new(&row.base_url, Arc::new(Dialect::OPENAI))?,
            uri: model_uri(row, operation(row))?,
            headers: HeaderMap::new(),
            frames: eventstream::Parser::wrapped,
        })
    }

    /// A container behind an endpoint of SageMaker.
    pub(super) fn endpoint(row: &CloudConfig, endpoint: &SageMakerEndpoint) -> Option<Self> {
        Some(Self {
            inner: OpenAi::new(&row.base_url, Arc::new(Dialect::OPENAI))?,
            uri: endpoint_uri(row, endpoint)?,
            headers: component(endpoint),
            frames: eventstream::Parser::parts,
        })
    }
}

impl Wire for Enveloped {
    fn abilities(&self, row: &CloudConfig) -> Abilities {
        self.inner.abilities(row)
    }

    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    fn render(&self, request: &CompletionRequest, row: &CloudConfig) -> Result<Rendered, Refusal> {
        let inner = self.inner.render(request, row)?;
        let frames: Box<dyn Frames> = Box::new((self.frames)());
        Ok(Rendered { uri: self.uri.clone(), accept: accept(row), frames, ..inner })
    }
}

/// What Bedrock calls invoking a model.
pub(super) fn operation(row: &CloudConfig) -> &'static str {
    if row.stream { "invoke-with-response-stream" } else { "invoke" }
}

pub(super) fn accept(row: &CloudConfig) -> &'static str {
    if row.stream { eventstream::CONTENT_TYPE } else { "application/json" }
}

/// Where an endpoint of SageMaker answers.
pub(super) fn endpoint_uri(row: &CloudConfig, endpoint: &SageMakerEndpoint) -> Option<Uri> {
    let operation = if row.stream { "invocations-response-stream" } else { "invocations" };
    under(&row.base_url, &["endpoints", &endpoint.name, operation])
}

/// Which of the models that share an endpoint is meant.
pub(super) fn component(endpoint: &SageMakerEndpoint) -> HeaderMap {
    const NAME: HeaderName = HeaderName::from_static("x-amzn-sagemaker-inference-component");
    let value = endpoint.component.as_deref().and_then(|name| HeaderValue::from_str(name).ok());
    value.map(|value| (NAME, value)).into_iter().collect()
}
