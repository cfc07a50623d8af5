//! Configuration: what the user typed, then what we run.
//!
//! [`Config`] is validated and frozen; every other room takes its part of it by reference.
//! [`Config::load`] is the one conversion: it complains about everything at once, each complaint
//! naming its key. This is the only room that reads the environment.

mod connection;
mod policy;
mod raw;
pub mod services;
#[cfg(test)]
mod tests;
mod validate;

use std::env::VarError;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
pub use connection::{Connection, Identity, PrivateKey, Proxy};
pub use policy::{Budget, Micros, PolicyConfig, TenantConfig};
pub use raw::{Complaint, Overrides, RawConfig, RawModel, RawOverflow, RawServe};
use raw::{RawCloud, RawConnection};
use services::aws::AwsConfig;

use crate::completion::compliance::Declared;
use crate::money::Price;
use services::{Azure, Dialect, OciChat, Vertex};

/// How a variable of the environment is looked up; tests bring their own.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Result<String, VarError>;

/// What a key is when nobody typed it; docs/configuration.md says the same.
mod defaults {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

    pub(super) const LISTEN: SocketAddr =
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8012));
    /// To some editors `localhost` is this.
    pub(super) const LISTEN_V6: SocketAddr =
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 8012, 0, 0));
    pub(super) const GRACE_MS: i64 = 30_000;
    pub(super) const CONNECTIONS_MAX: i64 = 1024;
    pub(super) const SLOTS: i64 = 8;
    pub(super) const QUEUE_MAX: i64 = 256;
    pub(super) const STEP_MS_MAX: u32 = 50;
    pub(super) const FIM_TEXT_TOKENS: i64 = 1024;
    pub(super) const CACHE_MAX_MB: i64 = 8192;
    pub(super) const TTFT_OBJECTIVE_MS: i64 = 300;
    pub(super) const ENTER: f64 = 1.0;
    pub(super) const LEAVE: f64 = 0.6;
    pub(super) const DWELL_MS: i64 = 2_000;
    pub(super) const CLOUD_MAX_TOKENS: i64 = 256;
    pub(super) const CLOUD_MAX_IN_FLIGHT: i64 = 64;
    pub(super) const CONNECT_TIMEOUT_MS: i64 = 2_000;
    pub(super) const FIRST_TOKEN_TIMEOUT_MS: i64 = 10_000;
    pub(super) const IDLE_TIMEOUT_MS: i64 = 15_000;
}

/// What weir runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether no cloud may be used, whatever else says so.
    pub offline: bool,
    pub serve: ServeConfig,
    pub model: ModelConfig,
    pub overflow: OverflowConfig,
    pub clouds: Vec<CloudConfig>,
    /// Who may send what where.
    pub policy: PolicyConfig,
    /// None: no cloud has a price and no ledger was asked for.
    pub ledger: Option<LedgerConfig>,
}

impl Config {
    /// The rows that anybody may use, none when offline; the others might as well not be there.
    pub fn clouds_in_use(&self) -> &[CloudConfig] {
        if self.policy.anybody_leaves() && !self.offline { &self.clouds } else { &[] }
    }

    /// From a file (or none) and flags to what we run, with what is odd about it; or everything
    /// that is wrong.
    pub fn load(
        file: Option<&Path>,
        flags: Overrides,
    ) -> Result<(Self, Vec<Complaint>), Vec<Complaint>> {
        let text = match file.map(std::fs::read_to_string).transpose() {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                let key = file.map_or_else(String::new, |path| path.display().to_string());
                return Err(vec![Complaint { key, message: format!("cannot be read: {error}") }]);
            }
        };
        Self::from_text(&text, flags, &environment)
    }

    /// The same for a text at hand.
    pub(crate) fn from_text(
        text: &str,
        flags: Overrides,
        env: Lookup<'_>,
    ) -> Result<(Self, Vec<Complaint>), Vec<Complaint>> {
        let (mut complaints, mut warnings) = (Vec::new(), Vec::new());
        let mut raw = RawConfig::parse(text, &mut complaints);
        raw.override_with(flags);
        let config = validate::validate(&raw, env, &mut complaints, &mut warnings);
        if complaints.is_empty() { Ok((config, warnings)) } else { Err(complaints) }
    }
}

impl Config {
    /// Tells configurations apart in the ledger: 16 hexadecimal digits of a SHA-256 over
    /// everything but secrets. Another version of weir may give the same file another one.
    pub fn fingerprint(&self) -> Arc<str> {
        let digest = digest(&SHA256, format!("{self:?}").as_bytes());
        let digits: String =
            digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        digits.into()
    }
}

impl Config {
    /// Takes from the configuration that runs what only a start can change, and names what it would
    /// have changed. A ledger that was opened stays, also where nothing wants one any more.
    pub fn keep_what_only_a_start_sets(&mut self, running: &Self) -> Vec<&'static str> {
        let (serve, was) = (&mut self.serve, &running.serve);
        let mut changed = vec![
            (
                "[serve] listen",
                (&serve.listen, &serve.listen_too) != (&was.listen, &was.listen_too),
            ),
            ("[serve] grace_ms", serve.grace != was.grace),
            ("[serve] connections_max", serve.connections_max != was.connections_max),
            ("[model]", self.model != running.model),
        ];
        serve.listen.clone_from(&was.listen);
        serve.listen_too.clone_from(&was.listen_too);
        (serve.grace, serve.connections_max) = (was.grace, was.connections_max);
        self.model.clone_from(&running.model);
        if let Some(opened) = &running.ledger {
            let other = self.ledger.as_ref().is_some_and(|wanted| wanted != opened);
            changed.push(("[ledger]", other));
            self.ledger = Some(opened.clone());
        }
        changed.into_iter().filter(|(_, is)| *is).map(|(key, _)| key).collect()
    }
}

/// What is to be logged, in the words of `RUST_LOG`; None: it was not said.
pub fn log_filter() -> Option<String> {
    environment("RUST_LOG").ok()
}

/// The key that `weir complete --url` shows, from `WEIR_API_KEY`; an empty one is none.
pub fn peer_key() -> Result<Option<Secret>, String> {
    match environment("WEIR_API_KEY") {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => validate::key(&text).map(Some).map_err(|wrong| format!("WEIR_API_KEY {wrong}")),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err("WEIR_API_KEY is not UTF-8".into()),
    }
}

/// The key in a file that only its owner (and group) may read.
pub fn key_file(path: &Path) -> Result<Secret, String> {
    validate::key_from_file(path).map_err(|wrong| format!("{}: {wrong}", path.display()))
}

/// Where the processes of the user with this number find each other: below `XDG_RUNTIME_DIR`, or
/// where there is none below the folder for temporary files, which all users share.
pub fn runtime_folder(user: u32) -> PathBuf {
    let folder = |name: &str| {
        let named = environment(name).ok().map(PathBuf::from);
        named.filter(|folder| folder.is_absolute() && folder.is_dir())
    };
    match folder("XDG_RUNTIME_DIR") {
        Some(folder) => folder.join("weir"),
        None => {
            let shared = folder("TMPDIR").unwrap_or_else(|| "/tmp".into());
            shared.join(format!("weir-{user}"))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
fn environment(name: &str) -> Result<String, VarError> {
    std::env::var(name)
}

#[derive(Clone, Debug)]
pub struct ServeConfig {
    pub listen: Vec<SocketAddr>,
    /// Listened on too where the machine has such addresses: nobody typed them.
    pub listen_too: Vec<SocketAddr>,
    /// Host header values accepted beside loopback names and the listen addresses.
    pub allow_hosts: Vec<String>,
    /// Origins of web pages that may use the gateway.
    pub allow_origins: Vec<String>,
    /// Whether Copilot's clients get a token here instead of at GitHub.
    pub copilot_token: bool,
    /// Whether a request that names another model is refused.
    pub strict_model: bool,
    /// How long running streams may go on after SIGTERM.
    pub grace: Duration,
    /// Open connections; the next one waits to be accepted.
    pub connections_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub fim_lines: FimLines,
    /// Most tokens of the text around a cursor.
    pub fim_text_tokens: usize,
    pub speculate: Speculate,
    /// Where packed weights are kept; None: nowhere.
    pub cache: Option<Cache>,
}

/// When tokens are drafted and several verified in a step. Answers are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speculate {
    /// Where it is faster, as measured.
    #[default]
    Auto,
    Off,
    /// Whatever it costs: for tests and measurements.
    Always,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPath {
    Builtin,
    Directory(PathBuf),
}

impl ModelPath {
    pub fn source(&self) -> models::model::ModelSource {
        match self {
            ModelPath::Builtin => models::model::ModelSource::Builtin,
            ModelPath::Directory(folder) => models::model::ModelSource::Directory(folder.clone()),
        }
    }
}

pub use models::cache::Cache;
pub use models::{FimLines, FimOrder, KvFormat, Quant};

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
    pub placing: Placing,
    /// Whether a cloud is asked beside the box when a first token is late.
    pub hedge: bool,
}

impl Default for OverflowConfig {
    /// As when nobody typed anything.
    fn default() -> Self {
        let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        Self {
            ttft_objective: ms(defaults::TTFT_OBJECTIVE_MS),
            enter: defaults::ENTER,
            leave: defaults::LEAVE,
            dwell: ms(defaults::DWELL_MS),
            placing: Placing::default(),
            hedge: false,
        }
    }
}

/// Which wait of a request is held against the objective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placing {
    /// That before it is looked at: the box is kept full, and only what is too much leaves.
    #[default]
    Excess,
    /// The whole time to its first token: a box that is slow on its own sends out what a cloud
    /// answers sooner.
    Fastest,
}

/// Where requests that left are written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerConfig {
    pub path: PathBuf,
    /// How far the midnight at which budgets begin anew is ahead of UTC's.
    pub utc_offset_s: i32,
}

/// One cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudConfig {
    pub name: Arc<str>,
    /// Scheme, host and path up to and including `/v1`; http only where the operator wrote it.
    pub base_url: hyper::Uri,
    pub api_key: Option<Secret>,
    pub service: CloudService,
    pub model: Arc<str>,
    pub fim: CloudFim,
    /// Whether answers are asked for as streams; a route that cannot gives them whole.
    pub stream: bool,
    /// Upper bound put on what a request asks for.
    pub max_tokens: u32,
    pub max_in_flight: usize,
    /// None: the provider has no such limit that anybody declared.
    pub requests_per_min: Option<u64>,
    pub tokens_per_min: Option<u64>,
    /// Of rows that cost the same the one with more is asked first.
    pub prefer: i64,
    pub connect_timeout: Duration,
    /// From the beginning of the attempt, connecting included, to the first content.
    pub first_token_timeout: Duration,
    /// Between two contents; keep-alive comments do not count.
    pub idle_timeout: Duration,
    /// What it is, by the operator's word; nothing in it contradicts `base_url` or `model`.
    pub declared: Declared,
    /// What all tenants together may spend there.
    pub budget: Budget,
    /// None: nobody said, so that no budget can hold for it.
    pub price: Option<Price>,
    /// Proxy, roots and client certificate.
    pub connection: Connection,
}

impl CloudConfig {
    /// Another weir, as `weir complete --url` asks it: no key, its own defaults.
    pub fn of_peer(url: &hyper::Uri) -> Result<Self, String> {
        let base = url.to_string();
        let base = base.trim_end_matches('/').trim_end_matches("/v1");
        let base_url: hyper::Uri =
            format!("{base}/v1").parse().map_err(|_| format!("{url} is not a URL"))?;
        if base_url.host().is_none() || !matches!(base_url.scheme_str(), Some("http" | "https")) {
            return Err(format!("{url} must begin with http:// or https:// and name a host"));
        }
        let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        Ok(Self {
            name: "peer".into(),
            base_url,
            api_key: None,
            service: CloudService::OpenAi,
            model: "default".into(),
            fim: CloudFim::Peer,
            stream: true,
            max_tokens: u32::MAX,
            max_in_flight: 1,
            requests_per_min: None,
            tokens_per_min: None,
            prefer: 0,
            connect_timeout: ms(defaults::CONNECT_TIMEOUT_MS),
            // A slow box may prefill for long; whoever waits at a prompt can give up by hand.
            first_token_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(60),
            declared: Declared::default(),
            budget: Budget::default(),
            price: None,
            connection: Connection::default(),
        })
    }
}

/// Whose API and whose proof a row uses.
#[derive(Clone, Debug, PartialEq)]
pub enum CloudService {
    /// Any OpenAI-shaped server, with a bearer key or without.
    OpenAi,
    /// One that differs from OpenAI's letter.
    Dialect(Arc<Dialect>),
    /// Another weir, which is asked whether it holds to what is required of it before it gets
    /// anything.
    Weir,
    /// Oracle's own API, signed.
    Oci(OciChat),
    Azure(Arc<Azure>),
    Vertex(Arc<Vertex>),
    /// Bedrock, or an endpoint of SageMaker.
    Aws(Arc<AwsConfig>),
}

impl CloudService {
    /// Every service beside the row's own that its credentials come from.
    pub fn credential_services(&self) -> Vec<&hyper::Uri> {
        match self {
            CloudService::Aws(aws) => aws.credential_services(),
            CloudService::Azure(azure) => azure.credential_services(),
            CloudService::Vertex(vertex) => vertex.credential_services(),
            _ => Vec::new(),
        }
    }
}

/// How a cloud fills in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudFim {
    /// `/completions` with its own `suffix` field.
    Suffix,
    /// Another weir: `suffix` beside its own fields `path`, `repository` and `extra_files`.
    Peer,
    /// The FIM template of this family, rendered into a raw `/completions` prompt.
    Template(&'static models::fim::Family),
    /// A chat model asked to fill in; its stream is cleaned of fences and echoes.
    Chat,
}

/// A key; its text appears in no log and no debug output.
#[derive(Clone, PartialEq)]
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
