//! What the engine adds to the kernels of a decode step: schedule, submit, collect, advance and
//! emit, against the very same steps replayed back to back on the same device, by the same
//! thread, with the same pool.
//!
//! The device that the engine gets notes when each step begins. At the beginning of the next
//! completion it replays those steps by itself, before it lets the engine go on: the same tokens
//! at the same places of the KV memory give the same numbers, so nobody notices.

use std::io::{Write, stdout};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use models::FimOrder;
use models::cpu::{CpuDevice, CpuOptions};
use models::kv::BLOCK_TOKENS;
use models::language::Language;
use models::model::{ModelSource, load};
use models::step::{Device, DeviceError, DeviceLimits, Rows, Step, Ticket};
use models::{KvFormat, Quant};
use weir::config::Speculate;
use weir::engine::{EngineHandle, EngineOptions, EngineParts, start};
use weir::telemetry::Telemetry;

/// Generated tokens of one completion.
const TOKENS: u32 = 256;
/// Completions, each with the replay of its steps.
const ROUNDS: usize = 31;
const SLOTS: usize = 8;

/// What a step took in one round.
struct Round {
    engine: Duration,
    replay: Duration,
}

/// Runs the steps of a real device and keeps those of the last completion.
struct Recorder {
    device: CpuDevice,
    /// Steps of one row, and when each began.
    steps: Vec<(Step, Instant)>,
    /// What keeping them took, which is no cost of the engine's.
    keeping: Duration,
    rounds: Arc<Mutex<Vec<Round>>>,
}

impl Recorder {
    /// Whether a step goes on where the one before it ended.
    fn continues(&self, step: &Step) -> bool {
        let next = self.steps.last().map(|(last, _)| last.positions[0] + 1);
        step.rows() == 1 && step.copies.is_empty() && next == Some(step.positions[0])
    }

    fn keep(&mut self, step: &Step) {
        let began = Instant::now();
        self.steps.push((step.clone(), began));
        if self.steps.len() > 1 {
            self.keeping += began.elapsed();
        }
    }

    /// Runs the steps of a completion again, and forgets them.
    fn replay(&mut self) {
        let keeping = std::mem::take(&mut self.keeping);
        // Less is what the engine does before it is ready.
        if self.steps.len() + 2 >= TOKENS as usize {
            let gaps = self.steps.len() as u32 - 1;
            let whole = self.steps[gaps as usize].1.duration_since(self.steps[0].1);
            let engine = whole.saturating_sub(keeping) / gaps;
            let round = Round { engine, replay: self.run_again(gaps as usize) / gaps };
            self.rounds.lock().expect("not poisoned").push(round);
        }
        self.steps.clear();
    }

    /// How long so many of the steps take back to back.
    fn run_again(&mut self, steps: usize) -> Duration {
        let mut rows = Rows::default();
        let began = Instant::now();
        for (step, _) in &self.steps[..steps] {
            self.device.run(step, &mut rows).expect("it ran before");
        }
        began.elapsed()
    }
}

impl Device for Recorder {
    fn limits(&self) -> DeviceLimits {
        self.device.limits()
    }

    fn submit(
        &mut self,
        step: &Step,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Ticket>, DeviceError> {
        if !self.continues(step) {
            self.replay();
        }
        if step.rows() == 1 {
            self.keep(step);
        }
        self.device.submit(step, go_on)
    }

    fn collect(&mut self, ticket: Ticket, rows: &mut Rows) -> Result<(), DeviceError> {
        self.device.collect(ticket, rows)
    }
}

/// Prints the medians as lines and as JSON.
pub(crate) fn measure() {
    let rounds = Arc::new(Mutex::new(Vec::with_capacity(ROUNDS)));
    let engine = engine(Arc::clone(&rounds));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // A round is measured at the beginning of the next completion; the first warms up.
    for _ in 0..ROUNDS + 2 {
        runtime.block_on(super::complete(&engine, TOKENS));
    }
    let rounds = rounds.lock().expect("not poisoned");
    let rounds = &rounds[1..];
    let micros = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let seconds = |duration: Duration| duration.as_secs_f64();
    let engine = micros(&|round| 1e6 * seconds(round.engine));
    let replay = micros(&|round| 1e6 * seconds(round.replay));
    let added = micros(&|round| 1e6 * (seconds(round.engine) - seconds(round.replay)));
    let json = serde_json::json!({
        "bench": "engine step",
        "engine_us": engine,
        "replay_us": replay,
        "added_us": added,
        "rounds": rounds.len(),
        "tokens": TOKENS,
    });
    writeln!(
        stdout(),
        "engine step: {engine:.1} us, the same kernels back to back {replay:.1} us, added \
         {added:.1} us (median of {} rounds)\n{json}",
        rounds.len()
    )
    .expect("standard output takes a line");
}

fn engine(rounds: Arc<Mutex<Vec<Round>>>) -> EngineHandle {
    let source = ModelSource::Builtin;
    let language = Language::load(&source, FimOrder::Auto).expect("embedded");
    let model = load(&source, Quant::Auto, KvFormat::Auto).expect("embedded");
    let options = CpuOptions {
        isa: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        context: model.config.context,
        blocks: SLOTS * model.config.context.div_ceil(BLOCK_TOKENS),
        block_tokens: BLOCK_TOKENS,
        rows_max: 512,
        samples_max: 2 * SLOTS,
    };
    let device = CpuDevice::new(&model, &options).expect("the best ISA is available");
    let steps = Vec::with_capacity(TOKENS as usize);
    let parts = EngineParts {
        device: Box::new(Recorder { device, steps, keeping: Duration::ZERO, rounds }),
        tokenizer: Arc::new(language.tokenizer),
        fim: language.fim,
        chat: language.chat,
        model: source.name().into(),
        eos: model.config.eos_ids.clone(),
    };
    // Without drafts every step has one row, and the steps of all rounds are the same.
    let speculate = Speculate::Off;
    let options = EngineOptions { slots: SLOTS, queue_max: 8, step_ms_max: 50, speculate };
    start(parts, options, Telemetry::new())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
