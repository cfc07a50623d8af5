//! The benchmark by the clock on the wall: the configured model in its engine, clouds behind
//! sockets, an open loop of arrivals.

mod foretold;
mod load;
mod trial;
mod ways;

use std::sync::Arc;
use std::time::Duration;

use super::judge::{Judged, Point};
use super::least::{Known, fewest_beside};
use super::scene::{CAPACITY_PART, OBJECTIVE, PEAK_FACTOR, QUALIFIES, QUIET};
use super::{clouds, simulated};
use crate::app::{Local, StartError, target};
use crate::cli::{Failure, block_on, complain};
use crate::cloud::{self, Provider};
use crate::completion::Usage;
use crate::config::{Config, ModelConfig, Overrides};
use crate::dispatch::{Dispatcher, Safeguards};
use crate::engine::EngineHandle;
use crate::money::Money;
use crate::plan::Service;
use crate::telemetry::Telemetry;
pub(super) use foretold::foretold;
use load::{Answered, Asked, Load};
pub(super) use trial::trials;
use ways::{Cooldown, Depth, Place, Way};

/// Seconds of each probe of the bisection for C, and how many there are.
const PROBE: Duration = Duration::from_secs(8);
const PROBES: u32 = 5;
/// Seconds for which the box is kept full to see how much it can do.
const FULL: Duration = Duration::from_secs(5);

/// Name, milliseconds to the answer, dollars per million tokens in and out.
const CLOUDS: [(&str, u64, &str, &str); 3] =
    [("cheap", 600, "0.15", "0.6"), ("near", 120, "0.5", "1.5"), ("dear", 80, "3.0", "15.0")];

/// Measures C, then the peak by each router, and judges.
pub(super) fn run(seed: u64, seconds: f64, model: &ModelConfig) -> Result<Judged, Failure> {
    let local = Local::load(model)?;
    block_on(async {
        let engine = local.start(Telemetry::new());
        engine.started().await?;
        let stage = Stage::new(engine, seed).await?;
        let judged = stage.run(seconds).await;
        stage.engine.stop();
        judged
    })?
}

struct Stage {
    engine: EngineHandle,
    config: Config,
    providers: Vec<Arc<Provider>>,
    seed: u64,
}

/// How fast the box is when it is full.
struct Full {
    requests_per_second: f64,
    ns_per_prompt_token: f64,
    ns_per_token: f64,
}

impl Stage {
    async fn new(engine: EngineHandle, seed: u64) -> Result<Self, Failure> {
        // Nobody opens a ledger here: what an answer costs is counted by the bench.
        let mut text = format!(
            "[ledger]\npath = \"/nonexistent\"\n\
             [overflow]\nanonymous_cloud = true\nttft_objective_ms = {}\n",
            OBJECTIVE.as_millis()
        );
        for (name, ms, input, output) in CLOUDS {
            let address = clouds::start(Duration::from_millis(ms)).await?;
            text += &format!(
                "[[cloud]]\nname = \"{name}\"\nbase_url = \"http://{address}/v1\"\nmodel = \"m\"\n\
                 fim = \"suffix\"\n\
                 price = {{ input_usd_per_mtok = {input}, output_usd_per_mtok = {output} }}\n"
            );
        }
        let nothing = |_: &str| Err(std::env::VarError::NotPresent);
        let config = Config::from_text(&text, Overrides::default(), &nothing);
        let (config, _) = config.map_err(|wrong| Failure::Other(format!("{wrong:?}")))?;
        let providers = cloud::providers(&config.clouds).map_err(StartError::from)?;
        let providers = providers.into_iter().map(Arc::new).collect();
        Ok(Self { engine, config, providers, seed })
    }

    async fn run(&self, seconds: f64) -> Result<Judged, Failure> {
        let full = self.fill().await;
        complain(&format!("full, the box answers {:.1} requests/s", full.requests_per_second));
        let capacity = self.capacity(&full).await;
        complain(&format!("C is {capacity:.1} requests/s"));
        let load = Load::peak(capacity * QUIET, PEAK_FACTOR, seconds, self.seed);
        let weir = self.weir(&load).await?;
        let least = self.least(&load, &weir.answers, &full);
        let least_usd = least.iter().map(|&index| self.price(QUALIFIES, load.asked[index].usage()));
        let mut judged = Judged {
            seed: self.seed,
            capacity,
            requests: load.asked.len() as u64,
            weir: self.point("weir".into(), &weir.answers),
            changes: weir.changes,
            local_again_s: weir.local_again_s,
            least_requests: least.len(),
            least_usd: simulated::usd(least_usd.fold(Money::ZERO, Money::saturating_add)),
            queue_depth: Vec::new(),
            queue_depth_at_once: Vec::new(),
            cooldown: Vec::new(),
            missed: Vec::new(),
        };
        for most in simulated::DEPTHS {
            let way = Way::Depth(Depth::new(most, simulated::SEEN_EVERY));
            judged.queue_depth.push(self.rival(most.to_string(), way, &load).await);
        }
        for ms in simulated::PAUSES_MS {
            let way = Way::Cooldown(Cooldown::new(Duration::from_millis(ms)));
            judged.cooldown.push(self.rival(format!("{ms} ms"), way, &load).await);
        }
        Ok(judged.judge())
    }

    /// Keeps every slot busy for a while.
    async fn fill(&self) -> Full {
        let asked = Load::steady(1000.0, FULL.as_secs_f64(), self.seed).asked;
        let slots = self.engine.saturation().slots_total();
        let (answers, took) = load::closed(&self.engine, &asked, 2 * slots, FULL).await;
        let saturation = self.engine.saturation();
        let (prompt, token) = (1e9 / saturation.prefill_rate(), 1e9 / saturation.decode_rate());
        let work = |usage: &Usage| {
            usage.prompt_tokens as f64 * prompt + usage.completion_tokens as f64 * token
        };
        // The engine's averages say how the two compare; all of the time is what they add up to.
        let all: f64 = answers.iter().map(work).sum();
        let scale = took.as_nanos() as f64 / all.max(1.0);
        Full {
            requests_per_second: answers.len() as f64 / took.as_secs_f64(),
            ns_per_prompt_token: prompt * scale,
            ns_per_token: token * scale,
        }
    }

    async fn capacity(&self, full: &Full) -> f64 {
        let (mut low, mut high) = (0.0, full.requests_per_second * 1.1);
        for probe in 0..PROBES {
            let middle = f64::midpoint(low, high);
            let seed = self.seed + u64::from(probe);
            let load = Load::steady(middle, PROBE.as_secs_f64(), seed);
            let answers = load::open(&load, self.stage_for(Way::Local)).await;
            if attainment(&answers) >= CAPACITY_PART { low = middle } else { high = middle }
        }
        low
    }

    fn stage_for(&self, way: Way) -> Arc<ways::Asking> {
        let (engine, providers) = (self.engine.clone(), self.providers.clone());
        Arc::new(ways::Asking { engine, providers, way })
    }

    async fn rival(&self, setting: String, way: Way, load: &Load) -> Point {
        let answers = load::open(load, self.stage_for(way)).await;
        let point = self.point(setting, &answers);
        complain(&format!("{}: {:.2} % in time", point.setting, point.attainment * 100.0));
        point
    }

    async fn weir(&self, load: &Load) -> Result<Watched, Failure> {
        let rows = cloud::providers(&self.config.clouds).map_err(StartError::from)?;
        let scanner = self.config.policy.scanner();
        let safeguards = Safeguards { scanner, ledger: None, tenants: Vec::new() };
        let dispatcher = Arc::new(Dispatcher::new(
            self.engine.clone(),
            rows.into_iter().map(target).collect(),
            &self.config.overflow,
            safeguards,
            Telemetry::new(),
        ));
        let watching = tokio::spawn(watch(dispatcher.clone(), load.ends));
        let answers = load::open(load, self.stage_for(Way::Weir(dispatcher))).await;
        let states = watching.await.unwrap_or_default();
        let peak_ends_s = load.ends.as_secs_f64() * 2.0 / 3.0;
        let calm = states.last().filter(|(_, active)| !active).map(|(at, _)| at.as_secs_f64());
        let local_again_s = match states.is_empty() {
            true => 0.0,
            false => calm.map_or(f64::INFINITY, |calm| (calm - peak_ends_s).max(0.0)),
        };
        Ok(Watched { answers, changes: states.len(), local_again_s })
    }

    fn least(&self, load: &Load, answers: &[Answered], full: &Full) -> Vec<usize> {
        let here: Vec<&Usage> = answers
            .iter()
            .filter(|answered| answered.place == Place::Local)
            .filter_map(|answered| answered.usage.as_ref())
            .collect();
        let count = here.len().max(1) as f64;
        let output = here.iter().map(|usage| usage.completion_tokens as f64).sum::<f64>() / count;
        let prompts = here.iter().map(|usage| usage.prompt_tokens as f64).sum::<f64>();
        let bytes: usize = answers
            .iter()
            .zip(&load.asked)
            .filter(|(answered, _)| answered.place == Place::Local && answered.usage.is_some())
            .map(|(_, asked)| asked.text.len())
            .sum();
        let tokens_per_byte = prompts / (bytes.max(1)) as f64;
        let known = load.asked.iter().zip(answers).map(|(asked, answered)| {
            let usage = answered.usage.filter(|_| answered.place == Place::Local);
            let of = |pick: fn(&Usage) -> u64, typical: f64| {
                usage.as_ref().map_or(typical, |usage| pick(usage) as f64)
            };
            let prompt = of(|u| u.prompt_tokens, asked.text.len() as f64 * tokens_per_byte);
            let tokens = of(|u| u.completion_tokens, output);
            Known {
                at_ns: asked.at.as_nanos() as u64,
                service: Service {
                    prefill_ns: (prompt * full.ns_per_prompt_token) as u64,
                    decode_ns: (tokens * full.ns_per_token) as u64,
                },
            }
        });
        let known: Vec<Known> = known.collect();
        fewest_beside(&known, OBJECTIVE, self.engine.saturation().slots_total())
    }

    fn price(&self, row: usize, usage: Usage) -> Money {
        self.config.clouds[row].price.as_ref().map_or(Money::ZERO, |price| price.actual(&usage))
    }

    fn point(&self, setting: String, answers: &[Answered]) -> Point {
        let cost = |answered: &Answered| match (answered.place, answered.usage) {
            (Place::Cloud(row), Some(usage)) => self.price(row, usage),
            _ => Money::ZERO,
        };
        let spent = answers.iter().map(cost).fold(Money::ZERO, Money::saturating_add);
        Point { setting, attainment: attainment(answers), spend_usd: simulated::usd(spent) }
    }
}

struct Watched {
    answers: Vec<Answered>,
    changes: usize,
    local_again_s: f64,
}

fn attainment(answers: &[Answered]) -> f64 {
    let met = |answered: &&Answered| answered.ttft.is_some_and(|ttft| ttft <= OBJECTIVE);
    answers.iter().filter(met).count() as f64 / answers.len().max(1) as f64
}

/// When overflow began and ended, from now on until a while after the arrivals.
async fn watch(
    dispatcher: Arc<Dispatcher<EngineHandle, Provider>>,
    ends: Duration,
) -> Vec<(Duration, bool)> {
    const LOOKS: Duration = Duration::from_millis(5);
    const AFTER: Duration = Duration::from_secs(3);
    let started = tokio::time::Instant::now();
    let mut states = Vec::new();
    let mut was = false;
    while started.elapsed() < ends + AFTER {
        let active = dispatcher.active();
        if std::mem::replace(&mut was, active) != active {
            states.push((started.elapsed(), active));
        }
        tokio::time::sleep(LOOKS).await;
    }
    states
}

impl Asked {
    /// As a cloud counts it.
    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: (self.text.len() / clouds::BYTES_PER_TOKEN) as u64,
            cached_tokens: 0,
            completion_tokens: u64::from(load::MAX_TOKENS),
        }
    }
}
