//! Hostile upstreams over loopback: cells of the table (docs/hostile.md), each also through the
//! dispatcher, with a request beside it that runs on the box and must not notice.

#[allow(dead_code, reason = "the docs are held against the table by the library's own tests")]
#[path = "../../src/cloud/hostile/script/mod.rs"]
pub(crate) mod script;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use weir::cloud::{Provider, providers};
use weir::completion::compliance::{Declared, KeptHere};
use weir::completion::{
    Backend, Chunk, CompletionRequest, CompletionStream, Event, FinishReason, Input, Refusal,
    Route, Usage,
};
use weir::config::{CloudConfig, OverflowConfig};
use weir::dispatch::{Bounds, Dispatcher, Load, Local, Rates, Safeguards, Target, Terms};
use weir::policy::secrets::Scanner;
use weir::telemetry::Telemetry;

use self::script::client::{ask, load, read, request};
use self::script::faults::errors;
use self::script::list::ROWS;
use self::script::outcome::{Said, check};
use self::script::table::{Ask, Outcome, Phase, Row, Text};
use self::script::upstream::{Act, Conduct, End, serve};
use self::script::wires::{WIRES, Wire};
use self::script::{Pace, Scene, TEXTS};
use crate::support::scale;

/// What a hang costs a test.
const PACE: Pace = Pace {
    connect: Duration::from_millis(50),
    first: Duration::from_millis(100),
    idle: Duration::from_millis(100),
};
/// Cells at a time: their timeouts are short, and this machine is not theirs alone.
const AT_ONCE: usize = 2;
/// A busy machine makes honest upstreams late. What is wrong is wrong every time.
const TRIES: usize = 4;
/// A local request beside a hostile exchange takes a few milliseconds.
const UNHARMED: Duration = Duration::from_secs(1);

/// An upstream on loopback, gone when dropped.
struct Upstream {
    authority: String,
    accepting: Option<AbortHandle>,
}

impl Upstream {
    async fn start(conduct: Conduct, phase: Phase) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let authority = listener.local_addr().expect("bound").to_string();
        if phase == Phase::Connect {
            return Self { authority, accepting: None };
        }
        let shared = Arc::new((AtomicUsize::new(0), conduct));
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let shared = shared.clone();
                connections.spawn(async move {
                    let _ = stream.set_nodelay(true);
                    if serve(&mut stream, &shared.1, &shared.0).await == End::Reset {
                        let _ = stream.set_zero_linger();
                    }
                });
            }
        });
        Self { authority, accepting: Some(accepting.abort_handle()) }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.iter().for_each(AbortHandle::abort);
    }
}

/// A box that is full, and answers at once whatever it is asked.
struct Full;

impl Load for Full {
    fn work_ahead_ms(&self) -> f64 {
        1e6
    }
}

impl Local for Full {
    type Prepared = Arc<CompletionRequest>;

    async fn prepare(&self, request: Arc<CompletionRequest>) -> Result<Self::Prepared, Refusal> {
        Ok(request)
    }

    fn predicted_ttft(&self, _: &Self::Prepared) -> Duration {
        Duration::ZERO
    }

    fn start(&self, prepared: Self::Prepared) -> Result<CompletionStream, Refusal> {
        let asked = match &prepared.input {
            Input::Fim(fim) => fim.prefix.as_str(),
            _ => "",
        };
        // What was said already stands at the end of the prefix.
        let all = TEXTS.concat();
        let said = (0..=all.len()).rev().find(|length| asked.ends_with(&all[..*length]));
        let rest = &all[said.expect("nothing ends everything")..];
        let chunk = Chunk { choice: 0, text: rest.as_bytes().into(), tokens: Vec::new() };
        let finished = Event::Finished { choice: 0, reason: FinishReason::Stop };
        let events = [Event::Chunk(chunk), finished, Event::Usage(Usage::default())];
        let events = Box::pin(stream::iter(events));
        Ok(CompletionStream { model: "m".into(), truncated: false, events })
    }

    async fn estimate_ttft(&self, _: &Arc<CompletionRequest>) -> Result<Duration, Refusal> {
        Ok(Duration::ZERO)
    }
}

impl Backend for Full {
    async fn complete(&self, request: Arc<CompletionRequest>) -> Result<CompletionStream, Refusal> {
        self.start(request)
    }
}

fn provider(scene: &Scene<'_>, row: &CloudConfig, upstream: &Upstream) -> Provider {
    let mut row = row.clone();
    row.base_url = scene.url(&upstream.authority).parse().expect("a URL");
    let Pace { connect, first, idle } = scene.pace;
    (row.connect_timeout, row.first_token_timeout, row.idle_timeout) = (connect, first, idle);
    providers(&[row]).expect("a client").pop().expect("a row")
}

/// Credentials come from behind, and a peer proves itself.
async fn ready(provider: &Provider, scene: &Scene<'_>) {
    let is_proven = || provider.quote(&request(scene, Ask::Plain)).is_ok();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        if is_proven() {
            return;
        }
    }
}

fn dispatcher(provider: Provider) -> Arc<Dispatcher<Full, Provider>> {
    let target = Target {
        name: provider.name().clone(),
        declared: Declared::default(),
        terms: Terms { price: None, model: "m".into(), attested_by: None, region: None },
        bounds: Bounds { max_in_flight: 4, rates: Rates::default(), prefer: 0 },
        backend: provider,
    };
    let scanner = Scanner::new(&[]).expect("the known formats");
    let safeguards = Safeguards { scanner, ledger: None, tenants: Vec::new() };
    let overflow = OverflowConfig::default();
    Arc::new(Dispatcher::new(Full, vec![target], &overflow, safeguards, Telemetry::new()))
}

async fn dispatched(
    dispatcher: &Arc<Dispatcher<Full, Provider>>,
    request: Arc<CompletionRequest>,
) -> (Said, Route) {
    let n = request.n;
    match dispatcher.dispatch(request).await {
        Ok(placed) => (read(placed.stream, n).await, placed.route),
        Err((refusal, route)) => (Said::refused(n, &refusal), route),
    }
}

/// The exchange through the dispatcher: what the cloud refuses the box answers, what breaks the box
/// goes on with where that is exact, and what is local never notices.
async fn is_survived(scene: &Scene<'_>, row: &CloudConfig) -> Result<(), String> {
    let mut conduct = scene.conduct();
    if let Outcome::Broken(_) = scene.outcome() {
        // The box goes on, and not a cloud whose script begins anew.
        conduct.honest = errors::bare(scene, "500 Internal Server Error", "");
    }
    let upstream = Upstream::start(conduct, scene.phase).await;
    let provider = provider(scene, row, &upstream);
    ready(&provider, scene).await;
    let dispatcher = dispatcher(provider);
    let mut local = CompletionRequest::clone(&request(scene, Ask::Plain));
    local.policy.away = Err(KeptHere::Header);
    let beside = tokio::time::timeout(UNHARMED, dispatched(&dispatcher, Arc::new(local)));
    let hostile = dispatched(&dispatcher, request(scene, scene.row.ask));
    let ((there, _), here) = tokio::join!(hostile, beside);
    let (here, route) = here.map_err(|_| "the local request was harmed")?;
    if route != Route::Local || here.texts[0] != TEXTS.concat() || here.usage.is_none() {
        return Err(format!("the local request was harmed: {here:?}"));
    }
    let (all, text) = (TEXTS.concat(), &there.texts[0]);
    let is_good = match scene.outcome() {
        _ if scene.row.text != Text::Honest || there.texts.len() > 1 => !there.goes_on,
        _ if scene.row.ask == Ask::Deadline => all.starts_with(text.as_str()),
        Outcome::Broken(_) if scene.wire.chats => *text == scene.said_before(),
        // It is the prompt that is refused, and the answer is empty or the box's own.
        Outcome::Refused("cloud_filtered") => there.codes.is_empty(),
        _ => there.codes.is_empty() && *text == all,
    };
    if is_good { Ok(()) } else { Err(format!("through the dispatcher: {there:?}")) }
}

async fn meets(scene: &Scene<'_>, row: &CloudConfig) -> Result<(), String> {
    let upstream = Upstream::start(scene.conduct(), scene.phase).await;
    let provider = provider(scene, row, &upstream);
    ready(&provider, scene).await;
    check(scene, &ask(&provider, request(scene, scene.row.ask)).await)?;
    is_survived(scene, row).await
}

/// A phase for every fault and wire, drawn.
fn scenes(random: &mut fastrand::Rng) -> Vec<Scene<'static>> {
    let wires = WIRES.iter().filter(|wire| wire.is_built());
    let pairs = wires.flat_map(|wire| ROWS.iter().map(move |row| (row, wire)));
    let mut drawn = |(row, wire): (&'static Row, &'static Wire)| {
        let phases = row.when.cells().into_iter().map(|(phase, _)| phase);
        let phases: Vec<Phase> = phases.filter(|phase| row.exists(*phase, wire)).collect();
        let phase = random.choice(phases)?;
        let scene = Scene { row, phase, wire, pace: PACE };
        // Loopback has no connection that neither opens nor fails, and a peer proves itself first.
        let is_there = !wire.is_peer() && !matches!(scene.acts()[0], Act::Hang);
        (phase != Phase::Connect || is_there).then_some(scene)
    };
    let mut scenes: Vec<_> = pairs.filter_map(&mut drawn).collect();
    random.shuffle(&mut scenes);
    scenes.truncate(scale::count(scenes.len()));
    scenes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_upstream_harms_more_than_its_own_answer() {
    let scenes = scenes(&mut scale::random("hostile upstreams"));
    let rows: Vec<_> =
        WIRES.iter().filter(|wire| wire.is_built()).map(|w| (w.name, load(w))).collect();
    let run = |scene: Scene<'static>| {
        let row = rows.iter().find(|(name, _)| *name == scene.wire.name).expect("a row").1.clone();
        async move {
            let mut outcome = meets(&scene, &row).await;
            for _ in 1..TRIES {
                if outcome.is_err() {
                    outcome = meets(&scene, &row).await;
                }
            }
            let (row, wire) = (scene.row.name, scene.wire.name);
            outcome.err().map(|said| format!("{row}, {:?}, {wire}: {said}", scene.phase))
        }
    };
    let count = scenes.len();
    let wrong: Vec<String> = stream::iter(scenes)
        .map(run)
        .buffer_unordered(AT_ONCE)
        .filter_map(async |w| w)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{} of {count} cells:\n{}", wrong.len(), wrong.join("\n"));
}
