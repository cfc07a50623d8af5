//! The house put together: from a [`Config`] to a server that answers.

mod ledger;
mod local;

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use models::cache::Unwritten;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::local::STEP_ROWS_MAX;
pub use self::local::{Facts, Local, LocalError, write_cache};
use crate::api::{self, Api, Doors, Limits, ModelCard, Placed, Service, Shed};
use crate::cloud::{self, EgressError, Provider};
use crate::completion::{CompletionRequest, CompletionStream, Refusal};
use crate::config::{CloudConfig, Config};
use crate::dispatch::{
    self, Bounds, Dispatcher, Explanation, Left, Load, Quote, Rates, Safeguards, Target, Terms,
};
use crate::engine::{EngineHandle, Prepared};
use crate::ledger::audit::{AuditError, UsageLine};
use crate::ledger::{BudgetError, Ledger};
use crate::money::Asked;
use crate::policy::Rules;
use crate::policy::peer::Instance;
use crate::telemetry::Telemetry;

/// A server that runs.
pub struct App {
    addresses: Vec<SocketAddr>,
    facts: Facts,
    engine: EngineHandle,
    ledger: Option<Ledger>,
    telemetry: Arc<Telemetry>,
    going_down: CancellationToken,
    server: JoinHandle<()>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error("the clouds cannot be reached: {0}")]
    Egress(#[from] EgressError),
    #[error("the ledger cannot be started: {0}")]
    Ledger(#[source] io::Error),
    #[error(transparent)]
    Budget(#[from] BudgetError),
}

/// Binds the listeners, loads the model, starts the engine and begins to serve. The listeners
/// come first: a port that is taken is known at once, not after a model was read.
pub async fn start(config: Config) -> Result<App, StartError> {
    let mut listeners = Vec::with_capacity(config.serve.listen.len());
    for &address in &config.serve.listen {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.map_err(|source| StartError::Listen { address, source })?);
    }
    let addresses: Vec<SocketAddr> =
        listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let instance = Instance::random();
    let clouds = cloud::providers_of(config.clouds_in_use(), &instance)?;
    let model = config.model.clone();
    let loading = tokio::task::spawn_blocking(move || Local::load(&model));
    let mut local =
        loading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;

    let telemetry = Telemetry::new();
    let rules = config.policy.rules();
    let safeguards = safeguards(&config, &rules, telemetry.clone()).await?;
    let ledger = safeguards.ledger.clone();
    let facts = local.facts().clone();
    let unwritten = local.take_unwritten();
    let engine = local.start(telemetry.clone());
    if let Some(unwritten) = unwritten {
        tokio::spawn(keep(unwritten, engine.clone()));
    }
    let clouds = clouds.into_iter().map(target).collect();
    let (overflow, counting) = (&config.overflow, telemetry.clone());
    let rooms = Rooms {
        card: card(&facts),
        dispatcher: Arc::new(Dispatcher::new(
            engine.clone(),
            clouds,
            overflow,
            safeguards,
            counting,
        )),
        ledger: config.ledger.map(|ledger| ledger.path),
    };
    let limits = Limits::new(&config.serve);
    let doors = Doors { serve: &config.serve, rules, limits, instance };
    let api = Api::new(rooms, telemetry.clone(), doors);
    let going_down = CancellationToken::new();
    let server = tokio::spawn(api::serve(listeners, api, going_down.clone().cancelled_owned()));
    Ok(App { addresses, facts, engine, ledger, telemetry, going_down, server })
}

/// What stands before the clouds. Opens the ledger, if there is to be one.
pub(crate) async fn safeguards(
    config: &Config,
    rules: &Rules,
    telemetry: Arc<Telemetry>,
) -> Result<Safeguards, StartError> {
    let terms = ledger::terms(config)?;
    let ledger = ledger::open(config, terms, telemetry).await.map_err(StartError::Ledger)?;
    let tenants = rules.tenants.iter().map(|tenant| tenant.name.clone()).collect();
    Ok(Safeguards { scanner: config.policy.scanner(), ledger, tenants })
}

/// What a row may be asked.
pub(crate) fn bounds(row: &CloudConfig) -> Bounds {
    let rates =
        Rates { requests_per_min: row.requests_per_min, tokens_per_min: row.tokens_per_min };
    Bounds { max_in_flight: row.max_in_flight, rates, prefer: row.prefer }
}

/// A row as the dispatcher takes it.
pub(crate) fn target(provider: Provider) -> Target<Provider> {
    let row = provider.row();
    let attested_by = row.declared.attested_by.clone();
    Target {
        name: row.name.clone(),
        declared: row.declared.clone(),
        bounds: bounds(row),
        terms: Terms { price: row.price.clone(), model: row.model.clone(), attested_by },
        backend: provider,
    }
}

/// Writes packed weights to the cache, but not while the engine measures how fast it is.
async fn keep(unwritten: Unwritten, engine: EngineHandle) {
    if engine.started().await.is_ok() {
        tokio::task::spawn_blocking(move || write_cache(&unwritten));
    }
}

impl App {
    /// Where it listens, in the order of the config; a port 0 there is a real one here.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What was loaded.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Refuses new work, lets running streams finish within the grace time, ends the engine.
    pub async fn shutdown(self) {
        self.going_down.cancel();
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the server ended badly");
        }
        let engine = self.engine;
        let stopped = tokio::task::spawn_blocking(move || engine.stop()).await;
        if let Err(error) = stopped {
            tracing::error!(%error, "the engine ended badly");
        }
        if let Some(ledger) = self.ledger {
            // Whatever left has ended by now, and is written.
            let closed = tokio::task::spawn_blocking(move || ledger.close()).await;
            if let Err(error) = closed {
                tracing::error!(%error, "the ledger ended badly");
            }
        }
    }
}

fn card(facts: &Facts) -> ModelCard {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ModelCard {
        id: facts.model.clone(),
        created: now.as_secs(),
        chat: facts.chat,
        vocabulary: u32::try_from(facts.vocabulary).unwrap_or(u32::MAX),
        context: u32::try_from(facts.context).unwrap_or(u32::MAX),
    }
}

/// The rooms below the API, as it sees them.
struct Rooms {
    card: ModelCard,
    dispatcher: Arc<Dispatcher<EngineHandle, Provider>>,
    /// Where the ledger is.
    ledger: Option<PathBuf>,
}

impl Load for EngineHandle {
    fn work_ahead_ms(&self) -> f64 {
        self.saturation().work_ahead_ms()
    }
}

impl dispatch::Local for EngineHandle {
    type Prepared = Prepared;

    async fn prepare(&self, request: Arc<CompletionRequest>) -> Result<Prepared, Refusal> {
        EngineHandle::prepare(self, request).await
    }

    fn predicted_ttft(&self, prepared: &Prepared) -> Duration {
        EngineHandle::predicted_ttft(self, prepared)
    }

    fn start(&self, prepared: Prepared) -> Result<CompletionStream, Refusal> {
        EngineHandle::start(self, prepared)
    }

    async fn estimate_ttft(&self, request: &Arc<CompletionRequest>) -> Result<Duration, Refusal> {
        EngineHandle::estimate_ttft(self, request).await
    }
}

impl Quote for Provider {
    fn quote(&self, request: &CompletionRequest) -> Result<Asked, Refusal> {
        Provider::quote(self, request)
    }

    fn left(&self, now: Instant) -> Left {
        let limits = self.limits(now);
        Left { requests: limits.requests_left, tokens: limits.tokens_left, until: limits.reset_at }
    }

    fn told_ttft(&self, asked: &Asked) -> Option<Duration> {
        self.reported().map(|reported| reported.ttft(asked.prompt_tokens()))
    }
}

impl Service for Rooms {
    async fn place(&self, request: Arc<CompletionRequest>) -> Result<Placed, Shed> {
        match self.dispatcher.dispatch(request).await {
            Ok(placed) => Ok(Placed {
                stream: placed.stream,
                route: placed.route,
                reason: Cow::Owned(placed.reason),
                cost: placed.cost,
                predicted_ttft: placed.predicted_ttft,
            }),
            Err((refusal, route)) => {
                let reason = Cow::Owned(refusal.reason.code());
                Err(Shed { refusal, route, reason })
            }
        }
    }

    async fn explain(&self, request: &Arc<CompletionRequest>) -> Explanation {
        self.dispatcher.explain(request).await
    }

    fn model(&self) -> &ModelCard {
        &self.card
    }

    fn load(&self) -> api::Load {
        let saturation = self.dispatcher.local().saturation();
        api::Load {
            work_ahead_ms: saturation.work_ahead_ms(),
            prefill_tokens_per_second: saturation.prefill_rate(),
        }
    }

    fn ready(&self) -> bool {
        self.dispatcher.local().ready()
    }

    async fn usage(
        &self,
        tenant: Option<Arc<str>>,
        since: Option<i64>,
    ) -> Result<Vec<UsageLine>, AuditError> {
        match &self.ledger {
            Some(path) => ledger::usage(path.clone(), tenant, since).await,
            None => Ok(Vec::new()),
        }
    }

    fn publish(&self, telemetry: &Telemetry) {
        let saturation = self.dispatcher.local().saturation();
        let (gauges, blocks) = (&telemetry.gauges, saturation.blocks());
        gauges.sequences_running.set(saturation.running() as f64);
        gauges.sequences_waiting.set(saturation.waiting() as f64);
        gauges.slots_used.set(saturation.running() as f64);
        gauges.slots_total.set(saturation.slots_total() as f64);
        gauges.kv_blocks_referenced.set(blocks.referenced as f64);
        gauges.kv_blocks_cached.set(blocks.cached as f64);
        gauges.kv_blocks_total.set(blocks.total as f64);
        gauges.saturation.set(self.dispatcher.saturation());
        gauges.overflow_active.set(f64::from(u8::from(self.dispatcher.active())));
    }
}
