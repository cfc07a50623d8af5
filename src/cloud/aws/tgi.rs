//! Text Generation Inference behind an endpoint of SageMaker, in its own words.

mod read;

use hyper::Uri;
use hyper::header::HeaderMap;
use serde::Serialize;

use super::enveloped::{accept, component, endpoint_uri};
use super::invoke::raw_prompt;
use crate::cloud::frames::eventstream;
use crate::cloud::wires::{Abilities, Rendered, Wire, json, max_tokens, stop_strings};
use crate::completion::{CompletionRequest, Refusal};
use crate::config::CloudConfig;
use crate::config::services::aws::SageMakerEndpoint;

/// Stop strings it accepts as it is started; all of them are matched here anyway.
const UPSTREAM_STOPS_MAX: usize = 4;

pub(super) struct Tgi {
    uri: Uri,
    headers: HeaderMap,
}

impl Tgi {
    pub(super) fn new(row: &CloudConfig, endpoint: &SageMakerEndpoint) -> Option<Self> {
        Some(Self { uri: endpoint_uri(row, endpoint)?, headers: component(endpoint) })
    }
}

impl Wire for Tgi {
    fn abilities(&self, _row: &CloudConfig) -> Abilities {
        Abilities {
            chat: false,
            n: false,
            seed: true,
            penalties: false,
            top_k: true,
            logprobs: None,
        }
    }

    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    fn render(&self, request: &CompletionRequest, row: &CloudConfig) -> Result<Rendered, Refusal> {
        let mut stops = request.stop.strings.clone();
        let inputs = raw_prompt(request, row, &mut stops)?;
        let max_tokens = max_tokens(request, row);
        let sampling = &request.sampling;
        // It refuses a temperature of 0 and whatever changes nothing.
        let drawn = sampling.temperature > 0.0;
        let body = Body {
            inputs,
            parameters: Parameters {
                max_new_tokens: max_tokens,
                do_sample: drawn,
                temperature: Some(sampling.temperature).filter(|_| drawn),
                top_p: Some(sampling.top_p).filter(|top_p| drawn && *top_p < 1.0),
                top_k: Some(sampling.top_k).filter(|top_k| drawn && *top_k > 0),
                seed: sampling.seed,
                stop: &stops[..stops.len().min(UPSTREAM_STOPS_MAX)],
                return_full_text: false,
                details: true,
                decoder_input_details: !row.stream,
            },
            stream: row.stream,
        };
        Ok(Rendered {
            uri: self.uri.clone(),
            body: json(&body)?,
            accept: accept(row),
            stops: stop_strings(&stops)?,
            max_tokens,
            emulated: None,
            frames: Box::new(eventstream::Parser::parts()),
            reader: Box::new(read::Reading),
        })
    }
}

#[derive(Serialize)]
struct Body<'a> {
    inputs: String,
    parameters: Parameters<'a>,
    stream: bool,
}

#[derive(Serialize)]
struct Parameters<'a> {
    max_new_tokens: u32,
    do_sample: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    return_full_text: bool,
    details: bool,
    /// The tokens of the prompt, whose number is told in no other way.
    decoder_input_details: bool,
}
