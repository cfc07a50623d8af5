//! HTTP in, completions out: the only room that knows axum.
//!
//! In reading order: [`serve`] accepts connections and bounds what a peer may do with them;
//! `live` takes the configuration that a request sees; `guard` keeps web pages out and `tenant`
//! whoever has no key; `routes` is the table of all doors; `completions` and `chat` turn a body
//! (`body`, `fields`, `sampling`) into requests, and a file or folder each for the other dialects does
//! the same; `answer` places them through a [`Service`] and writes the reply in
//! the shape of `reply`, as one object or through `sse`; `accounting` counts each request once.
//! The wire is written down in docs/wire.md.

mod acceptance;
mod accounting;
mod answer;
mod body;
mod chat;
mod clouds;
mod completions;
mod copilot;
mod error;
mod explain;
mod fields;
mod guard;
mod live;
mod llama_cpp;
mod lmstudio;
mod merged;
mod mistral;
mod models;
mod ollama;
mod peer;
mod raw;
mod reply;
mod routes;
mod sampling;
mod serve;
mod sse;
mod status;
mod tabby;
mod tenant;
mod tgi;
mod usage;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::acceptance::Acceptance;
use self::error::ApiError;
use self::live::Live;
pub use self::routes::{Access, Door, ROUTES};
pub use self::serve::{Limits, serve};
use crate::completion::{ChatMessage, CompletionRequest, CompletionStream, Refusal, Route};
use crate::config::ServeConfig;
use crate::dispatch::{Costs, Explanation, Standing};
use crate::ledger::audit::{AuditError, UsageLine};
use crate::policy::Rules;
use crate::policy::peer::Instance;
use crate::sessions::Sessions;
use crate::telemetry::Telemetry;

/// What the API needs of the rooms below it.
pub trait Service: Send + Sync + 'static {
    /// Starts a request wherever it should run.
    fn place(
        &self,
        request: Arc<CompletionRequest>,
    ) -> impl Future<Output = Result<Placed, Shed>> + Send;

    /// What `place` would do now, without doing it.
    fn explain(&self, request: &Arc<CompletionRequest>)
    -> impl Future<Output = Explanation> + Send;

    /// The local model; every model name a client sends means this one.
    fn model(&self) -> &ModelCard;

    /// The local model's ids of a text. What spells a control token is one only where `special`
    /// says so.
    fn tokenize(
        &self,
        text: String,
        special: bool,
    ) -> impl Future<Output = Result<Vec<u32>, Refusal>> + Send;

    /// The bytes that one id of the vocabulary stands for.
    fn token_bytes(&self, id: u32) -> Vec<u8>;

    /// A conversation as the local model reads it.
    fn render_chat(&self, messages: &[ChatMessage]) -> Result<String, Refusal>;

    /// How busy the device is, for another weir that may send something here.
    fn load(&self) -> Load;

    /// Whether the device has generated a token since the start and still works.
    fn ready(&self) -> bool;

    /// What a tenant (None: everybody) sent to clouds since a day, counted from 1970-01-01; None:
    /// the last 31 days.
    fn usage(
        &self,
        tenant: Option<Arc<str>>,
        since: Option<i64>,
    ) -> impl Future<Output = Result<Vec<UsageLine>, AuditError>> + Send;

    /// How the clouds are, in the order of the rows.
    fn clouds(&self) -> Vec<Standing>;

    /// Leaves a cloud alone until told otherwise, or not any more; false: there is none so named.
    fn hold_cloud(&self, name: &str, hold: bool) -> bool;

    /// Sets the gauges, before a scrape.
    fn publish(&self, telemetry: &Telemetry);
}

/// How busy the device is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Milliseconds of work ahead of a new request.
    pub work_ahead_ms: f64,
    /// As measured; 0: not yet.
    pub prefill_tokens_per_second: f64,
    /// Sequences that run and that wait.
    pub running: usize,
    pub waiting: usize,
}

/// A request that runs.
pub struct Placed {
    pub stream: CompletionStream,
    pub route: Route,
    /// Why there; `x-weir-reason` and a metric label, so from a closed list.
    pub reason: Cow<'static, str>,
    pub costs: Costs,
    /// From its arrival to its first text, as was thought when it was placed.
    pub predicted_ttft: Option<Duration>,
}

/// A request that runs nowhere.
#[derive(Debug)]
pub struct Shed {
    pub refusal: Refusal,
    /// Who refused last.
    pub route: Route,
    pub reason: Cow<'static, str>,
}

/// What a client may know about the local model.
#[derive(Clone, Debug)]
pub struct ModelCard {
    pub id: Arc<str>,
    /// Unix seconds.
    pub created: u64,
    /// Whether it has a chat template.
    pub chat: bool,
    /// Ids below this exist.
    pub vocabulary: u32,
    /// Tokens of prompt and completion together.
    pub context: u32,
    /// Whether it fills in the middle.
    pub fim: bool,
    pub parameters: u64,
    /// Of its weights in memory.
    pub bytes: u64,
    /// How its weights are kept: `f32`, `bf16`, `q8`, `q4`.
    pub weights: Arc<str>,
    /// Sequences that run at once.
    pub slots: u32,
}

/// Who may come in, and what they may take.
pub struct Doors<'a> {
    pub serve: &'a ServeConfig,
    pub rules: Rules,
    pub limits: Limits,
    /// The name by which other weirs know this one.
    pub instance: Instance,
}

/// Bytes of request bodies that may be in memory unparsed, all connections together: 32 of the
/// largest, thousands of ordinary ones.
const BODIES_BYTES_MAX: usize = 32 * body::BYTES_MAX;

/// Everything the routes share.
pub struct Api<S> {
    live: ArcSwap<Live<S>>,
    telemetry: Arc<Telemetry>,
    acceptance: Arc<Acceptance>,
    sessions: Sessions,
    instance: Instance,
    limits: Limits,
    lifecycle: Lifecycle,
    /// In bytes; see [`BODIES_BYTES_MAX`].
    body_room: Arc<Semaphore>,
}

/// How far the way down has gone.
#[derive(Clone, Default)]
struct Lifecycle {
    /// New work is refused.
    draining: CancellationToken,
    /// The grace time is over: what still runs ends now.
    ended: CancellationToken,
}

impl<S: Service> Api<S> {
    pub fn new(service: S, telemetry: Arc<Telemetry>, doors: Doors<'_>) -> Arc<Self> {
        let Doors { serve, rules, limits, instance } = doors;
        Arc::new(Self {
            live: ArcSwap::from_pointee(Live::new(service, rules, serve)),
            acceptance: Arc::new(Acceptance::new(telemetry.clone())),
            sessions: Sessions::default(),
            telemetry,
            instance,
            limits,
            lifecycle: Lifecycle::default(),
            body_room: Arc::new(Semaphore::new(BODIES_BYTES_MAX)),
        })
    }

    /// What requests see that come from now on; those that are there go on with what they saw.
    /// Of `serve`, listeners and limits stay as they are.
    pub fn replace(&self, service: S, serve: &ServeConfig, rules: Rules) {
        self.live.store(Arc::new(Live::new(service, rules, serve)));
    }

    fn live(&self) -> Arc<Live<S>> {
        self.live.load_full()
    }

    /// Every route of the table, behind the guard and the key.
    fn router(self: &Arc<Self>) -> Router {
        let keyed = axum::middleware::from_fn_with_state(self.clone(), tenant::check::<S>);
        let guarded = axum::middleware::from_fn(guard::check::<S>);
        let taken = axum::middleware::from_fn_with_state(self.clone(), live::take::<S>);
        routes::all::<S>()
            .fallback(|| async { ApiError::no_such_path() })
            .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
            .with_state(self.clone())
            .layer(keyed)
            .layer(guarded)
            .layer(taken)
            .layer(CatchPanicLayer::custom(error::panicked))
            .layer(axum::middleware::from_fn(guard::name_request))
            .layer(axum::middleware::from_fn(routes::speak))
    }
}
