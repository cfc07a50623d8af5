//! The house put together: from a [`Config`] to a server that answers.

mod ledger;
mod local;
mod reload;

use std::borrow::{Borrow, Cow};
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
pub use self::reload::{Loaded, ReloadError, Reloaded};
use crate::api::{self, Api, Doors, Limits, ModelCard, Placed, Service, Shed};
use crate::cloud::{self, EgressError, Provider};
use crate::completion::{ChatMessage, CompletionRequest, CompletionStream, Refusal};
use crate::config::{CloudConfig, Config, ServeConfig};
use crate::dispatch::{
    self, Bounds, Dispatcher, Explanation, Left, Load, Quote, Rates, Safeguards, Standing, Target,
    Terms,
};
use crate::engine::{EngineHandle, Prepared};
use crate::ledger::audit::{AuditError, UsageLine};
use crate::ledger::{BudgetError, Ledger};
use crate::money::Asked;
use crate::policy::Rules;
use crate::policy::peer::Instance;
use crate::policy::{Roster, RosterFull};
use crate::telemetry::Telemetry;

/// A server that runs.
pub struct App {
    addresses: Vec<SocketAddr>,
    facts: Facts,
    /// In force: where a reload kept what only a start changes, that.
    config: Config,
    /// Numbers of tenants, those that are gone included.
    roster: Roster,
    /// The name by which other weirs know this one.
    instance: Instance,
    api: Arc<Api<Rooms>>,
    card: ModelCard,
    dispatcher: Arc<Dispatcher<EngineHandle, Arc<Provider>>>,
    /// In the order of the rows.
    clouds: Vec<Arc<Provider>>,
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
    #[error(transparent)]
    Tenants(#[from] RosterFull),
}

/// Binds the listeners, loads the model, starts the engine and begins to serve. The listeners
/// come first: a port that is taken is known at once, not after a model was read.
pub async fn start(config: Config) -> Result<App, StartError> {
    let listeners = listen(&config.serve).await?;
    let addresses: Vec<SocketAddr> =
        listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let instance = Instance::random();
    let clouds = cloud::providers_of(config.clouds_in_use(), &instance)?;
    let clouds: Vec<_> = clouds.into_iter().map(Arc::new).collect();
    let model = config.model.clone();
    let mut local = blocking(move || Local::load(&model)).await?;

    let telemetry = Telemetry::new();
    let terms = ledger::terms(&config)?;
    let ledger = ledger::open(&config, terms, telemetry.clone());
    let ledger = ledger.await.map_err(StartError::Ledger)?;
    let facts = local.facts().clone();
    let unwritten = local.take_unwritten();
    let engine = local.start(telemetry.clone());
    if let Some(unwritten) = unwritten {
        tokio::spawn(keep(unwritten, engine.clone()));
    }
    let mut roster = Roster::default();
    let rules = config.policy.rules_in(&mut roster)?;
    let parts = Parts {
        engine: engine.clone(),
        clouds: clouds.clone(),
        tenants: rules.names(),
        ledger: ledger.clone(),
        telemetry: telemetry.clone(),
    };
    let (card, dispatcher) = (card(&facts), Arc::new(parts.dispatcher(&config)));
    let rooms = Rooms::new(&card, &dispatcher, &config);
    let limits = Limits::new(&config.serve);
    let doors = Doors { serve: &config.serve, rules, limits, instance: instance.clone() };
    let api = Api::new(rooms, telemetry.clone(), doors);
    let going_down = CancellationToken::new();
    let stopping = going_down.clone().cancelled_owned();
    let server = tokio::spawn(api::serve(listeners, api.clone(), stopping));
    Ok(App {
        addresses,
        facts,
        config,
        roster,
        instance,
        api,
        card,
        dispatcher,
        clouds,
        engine,
        ledger,
        telemetry,
        going_down,
        server,
    })
}

/// What blocks, away from the threads that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let working = tokio::task::spawn_blocking(work);
    working.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// What a dispatcher is made of, beside its configuration.
struct Parts {
    engine: EngineHandle,
    clouds: Vec<Arc<Provider>>,
    /// Names by numbers.
    tenants: Vec<Arc<str>>,
    ledger: Option<Ledger>,
    telemetry: Arc<Telemetry>,
}

impl Parts {
    fn dispatcher(self, config: &Config) -> Dispatcher<EngineHandle, Arc<Provider>> {
        let clouds = self.clouds.into_iter().map(target).collect();
        let scanner = config.policy.scanner();
        let safeguards = Safeguards { scanner, ledger: self.ledger, tenants: self.tenants };
        Dispatcher::new(self.engine, clouds, &config.overflow, safeguards, self.telemetry)
    }
}

/// What stands before the clouds, for a bench. Opens the ledger, if there is to be one.
pub(crate) async fn safeguards(
    config: &Config,
    rules: &Rules,
    telemetry: Arc<Telemetry>,
) -> Result<Safeguards, StartError> {
    let terms = ledger::terms(config)?;
    let ledger = ledger::open(config, terms, telemetry).await.map_err(StartError::Ledger)?;
    Ok(Safeguards { scanner: config.policy.scanner(), ledger, tenants: rules.names() })
}

/// What a row may be asked.
pub(crate) fn bounds(row: &CloudConfig) -> Bounds {
    let rates =
        Rates { requests_per_min: row.requests_per_min, tokens_per_min: row.tokens_per_min };
    Bounds { max_in_flight: row.max_in_flight, rates, prefer: row.prefer }
}

/// A row as the dispatcher takes it.
pub(crate) fn target<C: Borrow<Provider>>(backend: C) -> Target<C> {
    let row = backend.borrow().row();
    let mut regions = row.declared.regions.iter();
    let region = regions.next().filter(|_| regions.next().is_none()).cloned();
    let attested_by = row.declared.attested_by.clone();
    Target {
        name: row.name.clone(),
        declared: row.declared.clone(),
        bounds: bounds(row),
        terms: Terms { price: row.price.clone(), model: row.model.clone(), attested_by, region },
        backend,
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
        // As the server has ended, nobody else holds them, nor the connections to clouds below.
        drop((self.api, self.dispatcher, self.clouds));
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

/// Binds all that was typed, and of the others what this machine has: a port that another program
/// has taken is an error there too, as clients would talk to that one.
async fn listen(serve: &ServeConfig) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::with_capacity(serve.listen.len() + serve.listen_too.len());
    for &address in &serve.listen {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.map_err(|source| StartError::Listen { address, source })?);
    }
    for &address in &serve.listen_too {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
                return Err(StartError::Listen { address, source });
            }
            Err(error) => tracing::debug!(%address, %error, "not on this machine"),
        }
    }
    Ok(listeners)
}

fn card(facts: &Facts) -> ModelCard {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ModelCard {
        id: facts.model.clone(),
        created: now.as_secs(),
        chat: facts.chat,
        vocabulary: u32::try_from(facts.vocabulary).unwrap_or(u32::MAX),
        context: u32::try_from(facts.context).unwrap_or(u32::MAX),
        fim: facts.fim.is_some(),
        parameters: facts.parameters,
        bytes: facts.weight_bytes as u64,
        weights: facts.weight_format.to_string().into(),
        slots: u32::try_from(facts.slots).unwrap_or(u32::MAX),
    }
}

/// The rooms below the API, as it sees them.
struct Rooms {
    card: ModelCard,
    dispatcher: Arc<Dispatcher<EngineHandle, Arc<Provider>>>,
    /// Where the ledger is.
    ledger: Option<PathBuf>,
}

impl Rooms {
    fn new(
        card: &ModelCard,
        dispatcher: &Arc<Dispatcher<EngineHandle, Arc<Provider>>>,
        config: &Config,
    ) -> Self {
        let ledger = config.ledger.as_ref().map(|ledger| ledger.path.clone());
        Self { card: card.clone(), dispatcher: dispatcher.clone(), ledger }
    }
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
                costs: placed.costs,
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

    async fn tokenize(&self, text: String, special: bool) -> Result<Vec<u32>, Refusal> {
        self.dispatcher.local().tokenize_text(text, special).await
    }

    fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.dispatcher.local().tokenizer().bytes(id).to_vec()
    }

    fn render_chat(&self, messages: &[ChatMessage]) -> Result<String, Refusal> {
        self.dispatcher.local().render_chat(messages)
    }

    fn load(&self) -> api::Load {
        let saturation = self.dispatcher.local().saturation();
        api::Load {
            work_ahead_ms: saturation.work_ahead_ms(),
            prefill_tokens_per_second: saturation.prefill_rate(),
            running: saturation.running(),
            waiting: saturation.waiting(),
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

    fn clouds(&self) -> Vec<Standing> {
        self.dispatcher.standings()
    }

    fn hold_cloud(&self, name: &str, hold: bool) -> bool {
        self.dispatcher.hold(name, hold)
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
