//! The bytes of each API: how a request looks on it and what its answers say.
//!
//! A [`Wire`] renders a request and brings the [`Reader`] of its answer. Readers speak in
//! [`Said`], no API's own words; [`super::reply`] makes our events of that. What they share is
//! here too: [`abilities`], the FIM prompts of [`prompt`].

mod abilities;
pub(super) mod openai;
pub(super) mod prompt;
#[cfg(test)]
pub(super) mod recorded;

use std::sync::Arc;

pub(super) use abilities::{Abilities, check, quote};
use bytes::Bytes;
use hyper::Uri;
use hyper::header::HeaderMap;
use models::text::StopStrings;
use serde::Serialize;

use super::frames::{Frames, Message};
use crate::completion::{
    CompletionRequest, FimInput, FinishReason, Reason, Refusal, TokenLogprob, Usage,
};
use crate::config::CloudConfig;

/// One API.
pub(super) trait Wire: Send + Sync {
    /// What the API has fields for.
    fn abilities(&self, row: &CloudConfig) -> Abilities;

    /// Headers of its own beside those that every request has.
    fn headers(&self) -> HeaderMap {
        HeaderMap::new()
    }

    /// Renders a request that [`Abilities`] do not refuse.
    fn render(&self, request: &CompletionRequest, row: &CloudConfig) -> Result<Rendered, Refusal>;
}

/// A request, ready to be signed and sent, and what its answer is to be held against.
pub(super) struct Rendered {
    pub(super) uri: Uri,
    /// JSON.
    pub(super) body: Bytes,
    pub(super) accept: &'static str,
    /// Every text that ends a choice: the request's own, then the family's.
    pub(super) stops: Arc<StopStrings>,
    pub(super) max_tokens: u32,
    /// The cursor whose surroundings a chat model may echo.
    pub(super) emulated: Option<FimInput>,
    pub(super) frames: Box<dyn Frames>,
    pub(super) reader: Box<dyn Reader>,
}

/// Reads one answer of an API. It may keep state: some say the end of a choice and what was used in
/// different events.
pub(super) trait Reader: Send + Sync {
    /// The headers of an answer that is one, before anything else.
    fn head(&mut self, _headers: &HeaderMap) {}

    /// One event of a stream.
    fn read(&mut self, message: &Message) -> Result<Said, Refusal>;

    /// The whole of an answer that is no stream.
    fn whole(&mut self, body: &[u8]) -> Result<Said, Refusal>;
}

/// What a part of an answer says.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) parts: Vec<Part>,
    pub(super) usage: Option<Usage>,
    /// Nothing follows.
    pub(super) done: bool,
}

/// Of one choice.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) choice: u32,
    pub(super) text: String,
    /// Those of `text`, where they were asked for.
    pub(super) tokens: Vec<TokenLogprob>,
    pub(super) finish: Option<FinishReason>,
}

impl Said {
    /// The end of a stream and no more.
    pub(super) fn done() -> Self {
        Self { done: true, ..Self::default() }
    }
}

/// `body` as JSON.
pub(super) fn json(body: &impl Serialize) -> Result<Bytes, Refusal> {
    let bytes = serde_json::to_vec(body).map_err(|error| {
        Refusal::new(Reason::CloudCannot("prompt"), "the request cannot be written as JSON")
            .with_source(error)
    })?;
    Ok(bytes.into())
}

/// `stops`, ready to be matched here, whatever a cloud makes of them.
pub(super) fn stop_strings(stops: &[String]) -> Result<Arc<StopStrings>, Refusal> {
    let stops = StopStrings::new(stops).map_err(|error| {
        Refusal::new(Reason::CloudCannot("stop"), error.to_string()).with_source(error)
    })?;
    Ok(Arc::new(stops))
}

/// What a request may ask of a row: its own wish, or the row's bound where that is less.
pub(super) fn max_tokens(request: &CompletionRequest, row: &CloudConfig) -> u32 {
    request.max_tokens.unwrap_or(row.max_tokens).min(row.max_tokens)
}
