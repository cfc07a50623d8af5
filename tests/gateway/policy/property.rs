//! Random configurations and requests, through the same doors as real ones: the file is parsed,
//! the request settled, and a dispatcher asks backends that only take down that they were asked.
//! What was generated is remembered as it was typed, and held against who was asked; no code of
//! weir judges here.

mod world;

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_util::stream;
use weir::completion::{
    Backend, Chunk, CompletionRequest, CompletionStream, Event, FinishReason, Reason, Refusal,
    Route, Usage,
};
use weir::config::Config;
use weir::dispatch::{Bounds, Dispatcher, Load, Local, Quote, Rates, Safeguards, Target, Terms};
use weir::money::Asked as Quoted;
use weir::policy::asked::{self, Asked};
use weir::policy::secrets::Scanner;
use weir::telemetry::Telemetry;

use self::world::{Asking, HIGH, World};
use crate::support::scale;

/// Compiled once: no case has patterns of its own.
static SCANNER: LazyLock<Scanner> = LazyLock::new(|| Scanner::new(&[]).expect("known formats"));

/// Cases of the full run.
const CASES: usize = 100_000;
/// A case's configuration serves so many requests.
const REQUESTS: usize = 10;

/// A backend that takes down that it was asked, and answers or refuses by lot.
struct Recorder {
    name: usize,
    asked: Arc<Mutex<Vec<usize>>>,
    refuses: Option<Reason>,
    work_ahead_ms: f64,
}

/// The box, among the names of clouds.
const HERE: usize = usize::MAX;

impl Load for Recorder {
    fn work_ahead_ms(&self) -> f64 {
        self.work_ahead_ms
    }
}

impl Quote for Recorder {
    fn quote(&self, _: &CompletionRequest) -> Result<Quoted, Refusal> {
        Ok(Quoted::default())
    }
}

impl Backend for Recorder {
    async fn complete(&self, _: Arc<CompletionRequest>) -> Result<CompletionStream, Refusal> {
        self.asked.lock().expect("no panic under it").push(self.name);
        if let Some(reason) = &self.refuses {
            return Err(Refusal::new(reason.clone(), "by lot"));
        }
        Ok(self.answer())
    }
}

impl Local for Recorder {
    type Prepared = ();

    async fn prepare(&self, _: Arc<CompletionRequest>) -> Result<(), Refusal> {
        Ok(())
    }

    fn predicted_ttft(&self, (): &()) -> Duration {
        Duration::from_secs_f64(self.work_ahead_ms / 1e3)
    }

    fn start(&self, (): ()) -> Result<CompletionStream, Refusal> {
        self.asked.lock().expect("no panic under it").push(self.name);
        match &self.refuses {
            Some(reason) => Err(Refusal::new(reason.clone(), "by lot")),
            None => Ok(self.answer()),
        }
    }

    async fn estimate_ttft(&self, _: &Arc<CompletionRequest>) -> Result<Duration, Refusal> {
        Ok(self.predicted_ttft(&()))
    }
}

impl Recorder {
    fn answer(&self) -> CompletionStream {
        let events = [
            Event::Chunk(Chunk { choice: 0, text: b"x".as_slice().into(), tokens: Vec::new() }),
            Event::Finished { choice: 0, reason: FinishReason::Stop },
            Event::Usage(Usage::default()),
        ];
        let events = Box::pin(stream::iter(events));
        CompletionStream { model: "m".into(), truncated: false, events }
    }
}

/// How often something was seen, so that the test knows it has power.
struct Tally {
    telemetry: Arc<Telemetry>,
    sent: usize,
    sent_by_high: usize,
    local: usize,
    shed: usize,
    /// A tenant requires FedRAMP High and no row has it.
    high_without_a_row: usize,
}

#[test]
fn nobody_is_asked_who_may_not_have_it() {
    let mut random = scale::random("policy");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut tally = Tally {
        telemetry: Telemetry::new(),
        sent: 0,
        sent_by_high: 0,
        local: 0,
        shed: 0,
        high_without_a_row: 0,
    };
    for _ in 0..scale::count(CASES).div_ceil(REQUESTS) {
        let world = World::any(&mut random);
        let config = world.load();
        let rules = config.policy.rules();
        for _ in 0..REQUESTS {
            let asking = Asking::any(&mut random, &world);
            let mut asked = Asked { stays_here: asking.stays, ..Asked::default() };
            let header = asking.header.header();
            if !header.is_empty() {
                asked::require(&header, &mut asked.require).expect("a valid header");
            }
            let input = asking.input();
            let policy = rules.settle(asking.tenant as u32, &asked, &input);
            let request = CompletionRequest { policy, ..CompletionRequest::greedy("r", input, 1) };
            runtime.block_on(one(&mut random, &world, &config, &asking, request, &mut tally));
        }
    }
    let Tally { sent, sent_by_high, local, shed, high_without_a_row, .. } = tally;
    let seen = [sent, sent_by_high, local, shed, high_without_a_row];
    let least = scale::count(CASES) / 200;
    assert!(seen.iter().all(|seen| *seen > least), "the cases are one-sided: {seen:?}");
    scale::measured(
        "policy: sent, sent though High is required, local, shed, no row",
        &format!("{seen:?}"),
    );
}

async fn one(
    random: &mut Rng,
    world: &World,
    config: &Config,
    asking: &Asking,
    request: CompletionRequest,
    tally: &mut Tally,
) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut backend = |name: usize, refusal: Reason| Recorder {
        name,
        asked: log.clone(),
        refuses: (random.u8(..3) == 0).then_some(refusal),
        work_ahead_ms: if random.u8(..4) > 0 { 2_000.0 } else { 0.0 },
    };
    let local = backend(HERE, Reason::QueueFull);
    let targets = config.clouds.iter().enumerate().map(|(index, row)| Target {
        name: row.name.clone(),
        declared: row.declared.clone(),
        terms: Terms { price: None, model: row.model.clone(), attested_by: None, region: None },
        bounds: Bounds { max_in_flight: 64, rates: Rates::default(), prefer: 0 },
        backend: backend(index, Reason::CloudBusy),
    });
    let targets = targets.collect();
    let telemetry = tally.telemetry.clone();
    let scanner = SCANNER.clone();
    let safeguards = Safeguards { scanner, ledger: None, tenants: Vec::new() };
    let dispatcher = Dispatcher::new(local, targets, &config.overflow, safeguards, telemetry);
    let dispatcher = Arc::new(dispatcher);
    let patience = Duration::from_secs(10);
    let done = tokio::time::timeout(patience, dispatcher.dispatch(Arc::new(request)));
    let route = match done.await.expect("backends answer at once") {
        Ok(placed) => placed.route,
        Err((_, route)) => route,
    };
    let high = world.tenants[asking.tenant].require.fedramp == Some(HIGH);
    for &name in log.lock().expect("no panic under it").iter() {
        let toml = || world.toml();
        if name == HERE {
            assert!(asking.may_stay(world), "ran here\n{}", toml());
            continue;
        }
        let has_high = world.clouds[name].fedramp == Some(HIGH);
        assert!(!high || has_high, "a tenant that requires High was sent to c{name}\n{}", toml());
        assert!(asking.may_go(world, name), "c{name} was asked\n{}", toml());
    }
    match route {
        Route::Cloud(_) if high => tally.sent_by_high += 1,
        Route::Cloud(_) => tally.sent += 1,
        Route::Local => tally.local += 1,
        Route::Shed => tally.shed += 1,
    }
    tally.high_without_a_row +=
        usize::from(high && world.clouds.iter().all(|row| row.fedramp != Some(HIGH)));
}
