//! `weir bench plan`: the same traffic by the clock and in simulated time, side by side.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::load::{self, Answered, Load, MAX_TOKENS, SIZES};
use super::ways::{Place, Way};
use super::{CLOUDS, PEAK_FACTOR, QUIET, Stage, attainment};
use crate::app::{Local, STEP_ROWS_MAX, bounds};
use crate::cli::bench::box_speed;
use crate::cli::bench::figures::median;
use crate::cli::{Failure, block_on, complain};
use crate::completion::Priority;
use crate::config::{ModelConfig, Speculate};
use crate::engine::EngineHandle;
use crate::plan::generate::{Recipe, Shape, Sizes};
use crate::plan::{
    Arrival, BoxRoom, BoxSpeed, CloudRow, CloudSpeed, Outcome, Pace, PaceMeter, Policy, Trace,
    World, replay, replay_paced,
};
use crate::telemetry::Telemetry;

/// How far the simulated share that leaves may be from the real one, in parts of it, or in points
/// where little leaves,
const OVERFLOW_OFF_MAX: f64 = 0.1;
const OVERFLOW_POINTS: f64 = 0.01;
/// and the share within the objective, in points.
const ATTAINMENT_OFF_MAX: f64 = 0.02;
/// Requests one after another, to see what lies between a client and the engine.
const ALONE: usize = 20;
/// Requests a second of one person of a team, about.
const PERSON_RATE: f64 = 0.3;
/// A cloud's time is known but for the noise of the machine.
const NOISE: f64 = 1.05;

/// Between two looks at a box.
const LOOKS: Duration = Duration::from_millis(10);
/// Replays in which the simulated box is made as fast as the real one was. What it is asked to do
/// changes with its speed, so one does not suffice.
const FITS: usize = 16;

/// What is known of a request before it is asked.
const UNANSWERED: Answered = Answered::nothing(Place::Local);

/// One traffic, twice.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli::bench::spill) struct Trial {
    trace: &'static str,
    requests: usize,
    overflow: f64,
    overflow_simulated: f64,
    attainment: f64,
    attainment_simulated: f64,
}

impl Trial {
    pub(in crate::cli::bench::spill) fn holds(&self) -> bool {
        let off = (self.overflow - self.overflow_simulated).abs();
        let most = (self.overflow * OVERFLOW_OFF_MAX).max(OVERFLOW_POINTS);
        let attained = (self.attainment - self.attainment_simulated).abs();
        off <= most && attained <= ATTAINMENT_OFF_MAX
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| share * 100.0;
        writeln!(
            f,
            "{:<6} {} requests: {:.2} % to clouds, simulated {:.2} %; {:.2} % in time, simulated \
             {:.2} %{}",
            self.trace,
            self.requests,
            percent(self.overflow),
            percent(self.overflow_simulated),
            percent(self.attainment),
            percent(self.attainment_simulated),
            if self.holds() { "" } else { "  MISSED" },
        )
    }
}

/// Runs three traffics. Drafts are off: how many are right depends on texts, and these are made
/// up.
pub(in crate::cli::bench::spill) fn trials(
    seed: u64,
    seconds: f64,
    model: &ModelConfig,
) -> Result<Vec<Trial>, Failure> {
    let model = ModelConfig { speculate: Speculate::Off, ..model.clone() };
    let speed = box_speed(&model, (SIZES.prompt.0 as usize, 0))?;
    let local = Local::load(&model)?;
    let context = local.facts().context;
    block_on(async {
        let engine = local.start(Telemetry::new());
        engine.started().await?;
        let stage = Stage::new(engine, seed).await?;
        let room = BoxRoom {
            slots: stage.engine.saturation().slots_total(),
            queue_max: model.queue_max,
            step_ms_max: model.step_ms_max,
            step_rows_max: STEP_ROWS_MAX,
            kv_tokens: (context * stage.engine.saturation().slots_total()) as u64,
        };
        let twice = Twice { world: stage.world(speed, room), stage, model };
        let trials = twice.run(seconds).await;
        twice.stage.engine.stop();
        trials
    })?
}

struct Twice {
    stage: Stage,
    world: World,
    model: ModelConfig,
}

impl Stage {
    fn world(&self, speed: BoxSpeed, room: BoxRoom) -> World {
        let rows = self.config.clouds.iter().zip(CLOUDS).map(|(row, (_, ms, ..))| CloudRow {
            name: row.name.clone(),
            price: row.price.clone(),
            speed: CloudSpeed {
                ttft_ms: ms as f64,
                ttft_p90_ms: Some(ms as f64 * NOISE),
                // The whole answer comes at once.
                tokens_per_second: 1e6,
                ..CloudSpeed::UNKNOWN
            },
            max_tokens: row.max_tokens,
            bounds: bounds(row),
            first_token_timeout: row.first_token_timeout,
            budget_day: None,
        });
        let clouds = rows.collect();
        World { speed, room, clouds, overflow: self.config.overflow.clone(), seed: self.seed }
    }
}

impl Twice {
    async fn run(&self, seconds: f64) -> Result<Vec<Trial>, Failure> {
        let full = self.stage.fill().await;
        let capacity = self.stage.capacity(&full).await;
        complain(&format!("C is {capacity:.1} requests/s"));
        let seed = self.stage.seed;
        let recipe = |shape, rate, sizes| Recipe { shape, seconds, rate, sizes, seed };
        let burst = Shape::Burst { factor: PEAK_FACTOR };
        let steady = Shape::Burst { factor: 1.0 };
        let team = Shape::Team { people: (2.0 * capacity / PERSON_RATE).ceil() as u32 };
        let typing = Sizes { prompt: (300.0, 0.4), cached: 0.8, ..SIZES };
        let mut trials = Vec::new();
        for (name, recipe) in [
            ("burst", recipe(burst, capacity * QUIET, SIZES)),
            ("steady", recipe(steady, capacity * 1.5, SIZES)),
            ("team", recipe(team, 1.0, typing)),
        ] {
            trials.push(self.trial(name, &Load::of(&recipe)).await?);
        }
        Ok(trials)
    }

    async fn trial(&self, name: &'static str, load: &Load) -> Result<Trial, Failure> {
        let world = self.world_now(load).await?;
        let watching = tokio::spawn(watch(self.stage.engine.clone(), load.ends));
        let real = self.stage.weir(load).await?.answers;
        let pace = watching.await.ok().flatten();
        let trace = self.recorded(load, &real)?;
        let world = as_fast(world, &trace, pace);
        let simulated = replay(&trace, &world, Policy::Weir);
        let left = real.iter().filter(|answered| matches!(answered.place, Place::Cloud(_)));
        Ok(Trial {
            trace: name,
            requests: real.len(),
            overflow: left.count() as f64 / real.len().max(1) as f64,
            overflow_simulated: simulated.overflow(),
            attainment: attainment(&real),
            attainment_simulated: simulated.attainment(),
        })
    }

    /// With the box as fast as it is at the moment: a machine that others use changes its speed.
    async fn world_now(&self, load: &Load) -> Result<World, Failure> {
        let mut world = self.world.clone();
        let nobody = vec![UNANSWERED; load.asked.len()];
        let typical = self.recorded(load, &nobody)?.typical();
        world.speed = tokio::task::block_in_place(|| box_speed(&self.model, typical))?;
        world.speed.overhead_ms = self.overhead_ms(&world).await;
        Ok(world)
    }

    /// What a log would have: tokens as they were counted, and of a prompt those that the one
    /// before it in its session began with.
    fn recorded(&self, load: &Load, answers: &[Answered]) -> Result<Trace, Failure> {
        let sessions = load.asked.iter().filter_map(|asked| asked.session).max();
        let sessions = sessions.map_or(0, |last| last + 1);
        let mut last: Vec<Vec<u32>> = vec![Vec::new(); sessions as usize];
        let mut arrivals = Vec::with_capacity(load.asked.len());
        for (asked, answered) in load.asked.iter().zip(answers) {
            let ids = self.stage.engine.tokenizer().encode_prompt(&asked.text);
            let ids = ids.map_err(|error| Failure::Other(error.to_string()))?;
            let shared = asked.session.map_or(0, |session| common(&last[session as usize], &ids));
            let local = answered.usage.filter(|_| answered.place == Place::Local);
            let output = local.map_or(MAX_TOKENS, |usage| usage.completion_tokens as u32);
            arrivals.push(Arrival {
                at_ns: asked.at.as_nanos() as u64,
                prompt_tokens: ids.len() as u32,
                cached_tokens: shared.min(ids.len() - 1) as u32,
                session: asked.session,
                output_tokens: output.clamp(1, MAX_TOKENS),
                max_tokens: MAX_TOKENS,
                priority: Priority::Completion,
            });
            if let Some(session) = asked.session {
                last[session as usize] = ids;
            }
        }
        Ok(Trace { arrivals, sessions })
    }

    /// What a request that is alone takes beside its passes.
    async fn overhead_ms(&self, world: &World) -> f64 {
        let mut load = Load::steady(1000.0, 1.0, self.stage.seed);
        load.asked.truncate(ALONE);
        let mut times = Vec::new();
        for asked in &mut load.asked {
            let asking = self.stage.stage_for(Way::Local);
            let now = tokio::time::Instant::now();
            let answered = asking.ask(load::request(&asked.text), now).await;
            times.extend(answered.ttft.map(|ttft| ttft.as_secs_f64() * 1e3));
            // Far apart: in the simulation each is alone too.
            asked.at = Duration::from_secs(10 * times.len() as u64);
        }
        let alone = vec![Answered::nothing(Place::Local); load.asked.len()];
        let trace = self.recorded(&load, &alone).unwrap_or_default();
        let simulated: Outcome = replay(&trace, world, Policy::Local);
        let simulated = simulated.fates.iter().map(|fate| f64::from(fate.ttft_us) / 1e3);
        match times.is_empty() {
            true => 0.0,
            false => (median(times) - median(simulated)).max(0.0),
        }
    }
}

/// How fast the engine says that it is, all the while.
async fn watch(engine: EngineHandle, ends: Duration) -> Option<Pace> {
    let mut meter = PaceMeter::default();
    let began = tokio::time::Instant::now();
    while began.elapsed() < ends {
        tokio::time::sleep(LOOKS).await;
        meter.look(engine.saturation(), 1.0);
    }
    meter.pace()
}

/// With a box that says of itself what the real one said while it ran this trace: a machine that
/// others use too changes its speed within seconds.
fn as_fast(mut world: World, trace: &Trace, real: Option<Pace>) -> World {
    let Some(real) = real else { return world };
    for _ in 0..FITS {
        let (_, Some(pace)) = replay_paced(trace, &world, Policy::Weir) else { return world };
        let decode = real.token_ms / pace.token_ms;
        let prefill = real.prompt_token_ms / pace.prompt_token_ms;
        if !(decode.is_normal() && prefill.is_normal()) {
            return world;
        }
        world.speed = world.speed.slower(decode, prefill);
    }
    world
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::generate::generate;

    #[test]
    fn a_trial_holds_within_a_tenth_and_two_points() {
        let trial = |overflow_simulated, attainment_simulated| Trial {
            trace: "burst",
            requests: 100,
            overflow: 0.4,
            overflow_simulated,
            attainment: 0.99,
            attainment_simulated,
        };
        assert!(trial(0.439, 0.971).holds() && trial(0.361, 1.0).holds());
        assert!(!trial(0.45, 0.99).holds() && !trial(0.4, 0.96).holds());
        assert!(trial(0.45, 0.99).to_string().ends_with("MISSED\n"));
        let little = Trial { overflow: 0.01, ..trial(0.019, 0.99) };
        assert!(little.holds(), "a tenth of little is a matter of chance");
    }

    /// A box that was measured while it was twice as fast as in the run is found out.
    #[test]
    fn the_simulated_box_is_made_as_fast_as_the_real_one_was() {
        let speed = BoxSpeed {
            decode_ms: vec![(1, 2.0), (8, 4.0)],
            prefill_ms: vec![(1, 2.0), (512, 100.0)],
            draft_gain: 1.0,
            overhead_ms: 0.0,
        };
        let room = BoxRoom {
            slots: 8,
            queue_max: 64,
            step_ms_max: 50,
            step_rows_max: 512,
            kv_tokens: 1 << 16,
        };
        let shape = Shape::Burst { factor: PEAK_FACTOR };
        let recipe = Recipe { shape, seconds: 20.0, rate: 4.0, sizes: SIZES, seed: 1 };
        let trace = generate(&recipe).expect("a sound recipe");
        let overflow = crate::config::OverflowConfig::default();
        let world = World { speed, room, clouds: Vec::new(), overflow, seed: 1 };
        let slow = World { speed: world.speed.slower(2.0, 3.0), ..world.clone() };
        let (_, real) = replay_paced(&trace, &slow, Policy::Weir);
        let found = as_fast(world.clone(), &trace, real).speed;
        let near = |found: &[(u32, f64)], slow: &[(u32, f64)]| {
            found.iter().zip(slow).all(|(a, b)| (a.1 / b.1 - 1.0).abs() < 0.1)
        };
        assert!(near(&found.decode_ms, &slow.speed.decode_ms), "{found:?}");
        assert!(near(&found.prefill_ms, &slow.speed.prefill_ms), "{found:?}");
        let idle = as_fast(world.clone(), &trace, None);
        assert_eq!(idle.speed, world.speed, "of a box that did nothing nothing is known");
    }
}
