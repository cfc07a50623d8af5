//! What invoked models answer: Mistral's `outputs`, Llama's `generation`.

use hyper::header::HeaderMap;
use serde::Deserialize;

use crate::cloud::fault::{garbage, in_stream};
use crate::cloud::frames::Message;
use crate::cloud::wires::{Part, Reader, Said};
use crate::completion::{FinishReason, Refusal, Usage};

/// Reads one answer. Llama counts the prompt in the first chunk and the completion in each.
#[derive(Default)]
pub(super) struct Reading {
    counted: Option<Usage>,
}

impl Reader for Reading {
    /// A whole answer's counts are beside it.
    fn head(&mut self, headers: &HeaderMap) {
        let count = |name| headers.get(name)?.to_str().ok()?.parse().ok();
        let prompt = count("x-amzn-bedrock-input-token-count");
        let completion = count("x-amzn-bedrock-output-token-count");
        if let (Some(prompt_tokens), Some(completion_tokens)) = (prompt, completion) {
            self.counted = Some(Usage { prompt_tokens, completion_tokens, cached_tokens: 0 });
        }
    }

    fn read(&mut self, message: &Message) -> Result<Said, Refusal> {
        self.body(message.data.as_bytes())
    }

    fn whole(&mut self, body: &[u8]) -> Result<Said, Refusal> {
        Ok(Said { done: true, ..self.body(body)? })
    }
}

impl Reading {
    fn body(&mut self, bytes: &[u8]) -> Result<Said, Refusal> {
        let body: Body = serde_json::from_slice(bytes).map_err(|error| {
            garbage(&format!("no answer of an invoked model at column {}", error.column()))
        })?;
        if let Some(error) = &body.error {
            return Err(in_stream(error));
        }
        self.count(&body);
        // Bedrock's own count comes with the last chunk, and nothing after it.
        let done = body.metrics.is_some();
        let output = body.outputs.into_iter().next();
        let output =
            output.unwrap_or(Output { text: body.generation, stop_reason: body.stop_reason });
        let finish = output.stop_reason.as_deref().map(finish_reason);
        let usage = if done || finish.is_some() { self.counted } else { None };
        let text = output.text.unwrap_or_default();
        let part = Part { choice: 0, text, tokens: Vec::new(), finish };
        Ok(Said { parts: vec![part], usage, done })
    }

    fn count(&mut self, body: &Body) {
        if let Some(metrics) = &body.metrics {
            self.counted = Some(Usage {
                prompt_tokens: metrics.input_token_count,
                completion_tokens: metrics.output_token_count,
                cached_tokens: 0,
            });
        } else if let Some(completion_tokens) = body.generation_token_count {
            let usage = self.counted.get_or_insert_default();
            usage.prompt_tokens = body.prompt_token_count.unwrap_or(usage.prompt_tokens);
            usage.completion_tokens = completion_tokens;
        }
    }
}

fn finish_reason(name: &str) -> FinishReason {
    match name {
        "length" => FinishReason::Length,
        "content_filter" | "content_filtered" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    outputs: Vec<Output>,
    generation: Option<String>,
    stop_reason: Option<String>,
    prompt_token_count: Option<u64>,
    generation_token_count: Option<u64>,
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    metrics: Option<Metrics>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Output {
    text: Option<String>,
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metrics {
    input_token_count: u64,
    output_token_count: u64,
}
