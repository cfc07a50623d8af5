//! HTTP in, completions out: the only room that knows axum.
//!
//! In reading order: [`serve`] accepts connections and bounds what a peer may do with them;
//! `guard` keeps web pages out; `completions` and `chat` turn a body (`body`, `fields`,
//! `sampling`) into requests; `answer` places them through a [`Service`] and writes the reply in
//! the shape of `reply`, as one object or through `sse`; `accounting` counts each request once.
//! The wire is written down in docs/wire.md.

mod accounting;
mod answer;
mod body;
mod chat;
mod completions;
mod error;
mod fields;
mod guard;
mod models;
mod reply;
mod sampling;
mod serve;
mod sse;
mod status;
mod usage;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::{get, post};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::error::ApiError;
pub use self::serve::{Limits, serve};
use crate::completion::{CompletionRequest, CompletionStream, Refusal, Route};
use crate::config::ServeConfig;
use crate::ledger::audit::{AuditError, UsageLine};
use crate::telemetry::Telemetry;

/// What the API needs of the rooms below it.
pub trait Service: Send + Sync + 'static {
    /// Starts a request wherever it should run.
    fn place(
        &self,
        request: Arc<CompletionRequest>,
    ) -> impl Future<Output = Result<Placed, Shed>> + Send;

    /// The local model; every model name a client sends means this one.
    fn model(&self) -> &ModelCard;

    /// Whether the device has generated a token since the start and still works.
    fn ready(&self) -> bool;

    /// What was sent to clouds since a day, counted from 1970-01-01; None: the last 31 days.
    fn usage(
        &self,
        since: Option<i64>,
    ) -> impl Future<Output = Result<Vec<UsageLine>, AuditError>> + Send;

    /// Sets the gauges, before a scrape.
    fn publish(&self, telemetry: &Telemetry);
}

/// A request that runs.
pub struct Placed {
    pub stream: CompletionStream,
    pub route: Route,
    /// Why there; `x-weir-reason` and a metric label, so from a closed list.
    pub reason: Cow<'static, str>,
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
}

/// Bytes of request bodies that may be in memory unparsed, all connections together: 32 of the
/// largest, thousands of ordinary ones.
const BODIES_BYTES_MAX: usize = 32 * body::BYTES_MAX;

/// Everything the routes share.
pub struct Api<S> {
    service: S,
    telemetry: Arc<Telemetry>,
    guard: guard::Guard,
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
    pub fn new(
        service: S,
        telemetry: Arc<Telemetry>,
        config: &ServeConfig,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Self {
            service,
            telemetry,
            guard: guard::Guard::new(config),
            limits,
            lifecycle: Lifecycle::default(),
            body_room: Arc::new(Semaphore::new(BODIES_BYTES_MAX)),
        })
    }

    /// Every route, with and without `/v1`, behind the guard.
    fn router(self: &Arc<Self>) -> Router {
        let dialect = Router::new()
            .route("/completions", post(completions::post::<S>))
            .route("/chat/completions", post(chat::post::<S>))
            .route("/models", get(models::list::<S>))
            .route("/models/{*id}", get(models::one::<S>))
            .route("/usage", get(usage::get::<S>));
        let guarded = axum::middleware::from_fn_with_state(self.clone(), guard::check::<S>);
        Router::new()
            .merge(dialect.clone())
            .nest("/v1", dialect)
            .route("/health", get(status::health))
            .route("/ready", get(status::ready::<S>))
            .route("/metrics", get(status::metrics::<S>))
            .fallback(|| async { ApiError::no_such_path() })
            .method_not_allowed_fallback(
                |method: Method| async move { ApiError::wrong_method(&method) },
            )
            .with_state(self.clone())
            .layer(guarded)
            .layer(CatchPanicLayer::custom(error::panicked))
            .layer(axum::middleware::from_fn(guard::name_request))
    }
}
