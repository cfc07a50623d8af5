//! Configuration: what the user typed, then what we run.
//!
//! [`Config`] is validated and frozen; every other room takes its part of it by reference.
//! This is the only room that reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What weir runs with.
#[derive(Clone, Debug)]
pub struct Config {
    pub serve: ServeConfig,
    pub model: ModelConfig,
    pub overflow: OverflowConfig,
    pub clouds: Vec<CloudConfig>,
}

#[derive(Clone, Debug)]
pub struct ServeConfig {
    pub listen: Vec<SocketAddr>,
    /// Host header values accepted beside loopback names and the listen addresses.
    pub allow_hosts: Vec<String>,
    /// Origins of web pages that may use the gateway.
    pub allow_origins: Vec<String>,
    /// How long running streams may go on after SIGTERM.
    pub grace: Duration,
    /// Open connections; the next one waits to be accepted.
    pub connections_max: usize,
}

#[derive(Clone, Debug)]
pub struct ModelConfig {
    pub path: ModelPath,
    pub quant: Quant,
    pub kv: KvFormat,
    /// None: the widest this machine has.
    pub isa: Option<kernels::Isa>,
    /// None: the cores this process may use.
    pub threads: Option<usize>,
    /// None: the model's own, at most 8192.
    pub context: Option<usize>,
    /// Sequences that run at once.
    pub slots: usize,
    /// None: slots x context, at most a quarter of the free memory.
    pub kv_memory_mb: Option<usize>,
    /// Sequences that wait; one more is refused.
    pub queue_max: usize,
    /// A step with prefill in it aims to take no longer than this.
    pub step_ms_max: u32,
    pub fim_order: FimOrder,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPath {
    Builtin,
    Directory(PathBuf),
}

pub use models::{FimOrder, KvFormat, Quant};

#[derive(Clone, Debug)]
pub struct OverflowConfig {
    /// What time to first token the operator wants; the unit of saturation.
    pub ttft_objective: Duration,
    /// A request that meets more saturation than this begins overflow.
    pub enter: f64,
    /// During overflow a request stays local at or below this saturation.
    pub leave: f64,
    /// Overflow ends when nothing had to leave for so long.
    pub dwell: Duration,
}

/// One OpenAI-shaped cloud.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    pub name: Arc<str>,
    /// Scheme, host and path up to and including `/v1`; http only where the operator wrote it.
    pub base_url: hyper::Uri,
    pub api_key: Option<Secret>,
    pub model: Arc<str>,
    pub fim: CloudFim,
    /// Upper bound put on what a request asks for.
    pub max_tokens: u32,
    pub max_in_flight: usize,
    pub connect_timeout: Duration,
    /// From the request's last byte to the first content.
    pub first_token_timeout: Duration,
    /// Between two contents; keep-alive comments do not count.
    pub idle_timeout: Duration,
}

/// How a cloud fills in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudFim {
    /// `/completions` with its own `suffix` field.
    Suffix,
    /// The FIM template of this family, rendered into a raw `/completions` prompt.
    Template(&'static models::fim::Family),
    /// A chat model asked to fill in; its stream is cleaned of fences and echoes.
    Chat,
}

/// A key; its text appears in no log and no debug output.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}
