//! How an OpenAI-shaped server differs from OpenAI's own letter: data, since the bytes are the
//! same.

use std::sync::Arc;

/// The ways of one server. [`Dialect::OPENAI`] is the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    pub fim: FimRoute,
    /// Several choices.
    pub n: bool,
    /// Presence and frequency penalties.
    pub penalties: bool,
    /// What the field is called; None: there is none.
    pub seed: Option<&'static str>,
    /// Alternatives per token on a route that completes; None: no log-probabilities.
    pub logprobs: Option<u32>,
    /// Stop strings it accepts; all of them are matched here anyway.
    pub stops_max: usize,
    /// Whether usage of a stream is asked for; the others report it unasked.
    pub asks_usage: bool,
    /// On the chat route, `max_completion_tokens` in place of `max_tokens`.
    pub max_completion_tokens: bool,
    /// On the chat route.
    pub reasoning_effort: Option<Arc<str>>,
    /// Whether temperature, nucleus, penalties and stop strings are sent. Reasoning models refuse
    /// them.
    pub sampling: bool,
    pub routing: Option<Routing>,
}

/// Where a server completes and fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FimRoute {
    /// `/completions`: `choices[].text`.
    Completions,
    /// `/fim/completions`, which answers in the shape of chat.
    FimCompletions,
}

/// Whom OpenRouter may hand a prompt on to. That it collects no data and falls back on nobody else
/// is always said, and no choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// Providers by OpenRouter's names; at least one.
    pub only: Vec<String>,
    /// Only those that keep nothing at all.
    pub zdr: bool,
}

impl Dialect {
    pub const OPENAI: Self = Self {
        fim: FimRoute::Completions,
        n: true,
        penalties: true,
        seed: Some("seed"),
        logprobs: Some(5),
        stops_max: 4,
        asks_usage: true,
        max_completion_tokens: false,
        reasoning_effort: None,
        sampling: true,
        routing: None,
    };

    /// Unknown fields are refused there with 422, `stream_options` among them.
    pub const MISTRAL: Self = Self {
        fim: FimRoute::FimCompletions,
        n: false,
        penalties: false,
        seed: Some("random_seed"),
        logprobs: None,
        asks_usage: false,
        ..Self::OPENAI
    };

    /// The FIM route of `/beta`.
    pub const DEEPSEEK: Self = Self { n: false, seed: None, stops_max: 16, ..Self::OPENAI };

    /// What its providers have in common.
    pub const OPENROUTER: Self = Self { n: false, logprobs: None, ..Self::OPENAI };

    /// Vertex's OpenAI-shaped route.
    pub const VERTEX: Self = Self { logprobs: None, ..Self::OPENAI };

    /// Oracle's OpenAI-shaped route: chat models behind one door.
    pub const OCI: Self = Self { n: false, logprobs: None, ..Self::OPENAI };
}
