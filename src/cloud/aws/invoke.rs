//! Models that Bedrock invokes with their own JSON: a raw prompt, and so the model's own tokens for
//! filling in.

mod read;

use hyper::Uri;
use serde::Serialize;

use super::enveloped::{accept, operation};
use super::model_uri;
use crate::cloud::frames::eventstream;
use crate::cloud::wires::prompt::template;
use crate::cloud::wires::{Abilities, Rendered, Wire, json, max_tokens, stop_strings};
use crate::completion::{CompletionRequest, Input, Refusal};
use crate::config::services::aws::InvokeShape;
use crate::config::{CloudConfig, CloudFim};

/// Stop strings that Mistral's models accept; Llama's have no field for them. All are matched
/// here anyway.
const UPSTREAM_STOPS_MAX: usize = 10;

pub(super) struct Invoke {
    uri: Uri,
    shape: InvokeShape,
}

impl Invoke {
    pub(super) fn new(row: &CloudConfig, shape: InvokeShape) -> Option<Self> {
        Some(Self { uri: model_uri(row, operation(row))?, shape })
    }
}

impl Wire for Invoke {
    fn abilities(&self, _row: &CloudConfig) -> Abilities {
        Abilities {
            chat: false,
            n: false,
            seed: false,
            penalties: false,
            top_k: false,
            logprobs: None,
        }
    }

    fn render(&self, request: &CompletionRequest, row: &CloudConfig) -> Result<Rendered, Refusal> {
        let mut stops = request.stop.strings.clone();
        let prompt = raw_prompt(request, row, &mut stops)?;
        let max_tokens = max_tokens(request, row);
        let sampling = &request.sampling;
        let mut body = Body {
            prompt,
            temperature: sampling.temperature,
            top_p: Some(sampling.top_p).filter(|top_p| *top_p != 1.0),
            max_tokens: None,
            max_gen_len: None,
            stop: &[],
        };
        if self.shape == InvokeShape::Llama {
            body.max_gen_len = Some(max_tokens);
        } else {
            body.max_tokens = Some(max_tokens);
            body.stop = &stops[..stops.len().min(UPSTREAM_STOPS_MAX)];
        }
        Ok(Rendered {
            uri: self.uri.clone(),
            body: json(&body)?,
            accept: accept(row),
            stops: stop_strings(&stops)?,
            max_tokens,
            emulated: None,
            frames: Box::new(eventstream::Parser::wrapped()),
            reader: Box::new(read::Reading::default()),
        })
    }
}

/// The text as it is, or a cursor in its family's tokens, whose ends join `stops`.
pub(super) fn raw_prompt(
    request: &CompletionRequest,
    row: &CloudConfig,
    stops: &mut Vec<String>,
) -> Result<String, Refusal> {
    match (&request.input, &row.fim) {
        (Input::Text(text), _) => Ok(text.clone()),
        (Input::Fim(fim), CloudFim::Template(family)) => template(family, fim, stops),
        _ => unreachable!("abilities refuse chat, and the configuration other ways to fill in"),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    prompt: String,
    temperature: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_gen_len: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
}
