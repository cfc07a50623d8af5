//! The engine: one OS thread that owns the device.
//!
//! An [`EngineHandle`] turns a request into sequences and sends them over; [`Engine::run`] is
//! the thread's whole life: take what arrived, decide who runs, run one step (or give it up, if
//! everybody leaves whom it is for), take in what it came to, say how busy we are. The thread never awaits, never logs per token and never waits
//! for a reader: each reply has room for everything its sequences will ever send.
//!
//! In reading order: [`message`] is what crosses; `handle` one side of it, this file the other;
//! [`scheduler`] who runs, [`sequence`] one of them; [`draft`] what it may say next, to verify
//! several tokens in one step; [`prefix`] and [`blocks`] what is in the KV memory, [`digest`] what
//! others may know of it; [`rates`] and [`saturation`] how fast and how full, [`predict`] what that
//! means for one request.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, TryRecvError, sync_channel};
use std::time::Instant;

use models::chat::ChatTemplate;
use models::fim::FimTemplate;
use models::step::{Device, DeviceError, Rows};
use models::tokenizer::Tokenizer;
use tokio::sync::watch;

use self::draft::Costs;
use self::handle::{Link, Shared};
use self::message::{Command, Submission};
use self::place::{Places, WARM_UPS_MAX};
use self::prompt::Prompts;
use self::scheduler::{Moment, Scheduler, slots_max};
use self::sequence::End;
use crate::completion::Reason;
use crate::config::Speculate;
use crate::telemetry::Telemetry;

mod blocks;
mod digest;
pub(crate) mod draft;
mod handle;
mod heal;
mod memory;
mod message;
mod place;
mod predict;
mod prefix;
mod prompt;
mod rates;
mod saturation;
mod scheduler;
mod sequence;
#[cfg(test)]
mod tests;
mod text;
mod warm_up;

pub use self::blocks::BlockCounts;
pub use self::handle::{EngineHandle, Prepared};
pub use self::memory::{MemoryPlan, MemoryWish, available_memory, plan_memory};
pub(crate) use self::message::SequenceId;
pub(crate) use self::predict::Predictor;
pub(crate) use self::rates::Rates;
pub(crate) use self::saturation::Load;
pub use self::saturation::Saturation;
pub(crate) use self::scheduler::{Company, Span, StepRows, TOKENS_PER_TURN};
pub(crate) use self::sequence::Rank;

/// A model, ready to run.
pub struct EngineParts {
    pub device: Box<dyn Device>,
    pub tokenizer: Arc<Tokenizer>,
    /// None: the model only completes prefixes.
    pub fim: Option<FimTemplate>,
    pub chat: Option<ChatTemplate>,
    /// The model's id in answers.
    pub model: Arc<str>,
    /// The ids that end a text.
    pub eos: Vec<u32>,
}

/// How much runs and waits at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Sequences that run at once; fewer where the device's steps have no rows for so many.
    pub slots: usize,
    /// Sequences that wait; one more is refused.
    pub queue_max: usize,
    /// A step with prefill in it aims to take no longer, in milliseconds.
    pub step_ms_max: u32,
    /// When tokens are drafted and several verified in a step.
    pub speculate: Speculate,
}

/// Where the engine's thread is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Starting,
    /// It has generated a token.
    Ready,
    /// It was told to stop.
    Stopped,
    /// The device failed, or a rule of ours was broken.
    Failed,
}

/// Starts the engine's thread. It generates one token and is [`EngineHandle::ready`] then;
/// requests may come before. The thread ends with [`EngineHandle::stop`] or the last handle.
pub fn start(
    parts: EngineParts,
    options: EngineOptions,
    telemetry: Arc<Telemetry>,
) -> EngineHandle {
    let limits = parts.device.limits();
    let slots = options.slots.min(slots_max(&limits));
    let saturation = Saturation::new(slots);
    let places = Arc::new(Places::new(slots + options.queue_max, saturation));
    // Each place is one submission and at most one cancel; twice that, because places are taken
    // again between two looks into the inbox; and one command to stop.
    let (inbox_in, inbox) = sync_channel(4 * (places.max() + WARM_UPS_MAX) + 1);
    let (health_in, health) = watch::channel(Health::Starting);
    let scheduler = Scheduler::new(
        limits.clone(),
        slots,
        Arc::clone(&parts.tokenizer),
        telemetry,
        options.speculate != Speculate::Off,
    );
    let cached = scheduler.digest();
    let engine = Engine {
        scheduler,
        device: parts.device,
        rates: Rates::new(options.step_ms_max),
        speculate: options.speculate,
        free: Costs::free(),
        inbox,
        places: Arc::clone(&places),
        rows: Rows::default(),
    };
    let prompts = Prompts {
        tokenizer: parts.tokenizer,
        fim: parts.fim,
        chat: parts.chat,
        eos: parts.eos,
        vocab: limits.vocab,
        // a sequence never outgrows the whole pool
        context: limits.context.min(limits.blocks * limits.block_tokens),
    };
    let thread = std::thread::Builder::new()
        .name("weir-engine".into())
        .spawn(move || live(engine, &health_in))
        .expect("the system has room for one more thread");
    let link = Link { inbox: inbox_in, places, health, cached, thread };
    EngineHandle::new(Shared::new(link, prompts, parts.model))
}

/// The state of the engine's thread.
struct Engine {
    device: Box<dyn Device>,
    scheduler: Scheduler,
    rates: Rates,
    speculate: Speculate,
    /// What drafts cost where they are always made.
    free: Costs,
    inbox: Receiver<Command>,
    places: Arc<Places>,
    rows: Rows,
}

impl Engine {
    /// Runs steps until told to stop.
    fn run(&mut self) -> Result<(), DeviceError> {
        // When the step before ended, or work came: what lies between two steps is part of how long
        // the next one takes.
        let mut since = Instant::now();
        while self.take_inbox(&mut since) {
            let rates = &self.rates;
            let always = self.speculate == Speculate::Always;
            let costs = if always { &self.free } else { rates.costs() };
            let moment = moment(&self.places);
            let rows = self
                .scheduler
                .schedule(moment, costs, |decodes, span| rates.prefill_rows(decodes, span));
            if !rows.is_empty() {
                let ran = self.run_step()?;
                let now = Instant::now();
                match ran {
                    true => {
                        self.rates.record(rows, now.duration_since(since));
                        let generated = self.scheduler.advance(&self.rows);
                        self.rates.record_tokens(rows, generated);
                    }
                    // Part of a step says nothing of how long one takes.
                    false => self.scheduler.discard(),
                }
                since = now;
            }
            self.publish();
        }
        Ok(())
    }

    /// Runs the step that was scheduled. False: it was given up, because it was for nobody.
    fn run_step(&mut self) -> Result<bool, DeviceError> {
        let Self { device, scheduler, places, rows, .. } = self;
        let mut go_on = || scheduler.wants_step(moment(places));
        let Some(ticket) = device.submit(scheduler.step(), &mut go_on)? else {
            return Ok(false);
        };
        device.collect(ticket, rows)?;
        Ok(true)
    }

    /// Takes in everything that arrived; waits only when there is nothing else to do. False:
    /// the engine was told to stop, or nobody is left who could ask anything.
    fn take_inbox(&mut self, since: &mut Instant) -> bool {
        if self.scheduler.is_idle() {
            let command = self.inbox.recv();
            *since = Instant::now();
            match command {
                Ok(Command::Stop) | Err(RecvError) => return false,
                Ok(command) => self.take(command),
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Stop) => return false,
                Ok(command) => self.take(command),
                // Without handles the replies are closed too, and the sequences end by that.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(submission) => self.take_submission(*submission),
            Command::Cancel(id) => self.scheduler.cancel(id),
            Command::Stop => unreachable!("handled where the inbox is read"),
        }
    }

    fn take_submission(&mut self, mut submission: Submission) {
        let arrival = submission.place.arrival.take();
        self.scheduler.arrive(submission);
        // counted as waiting before it stops counting as arriving: never missed
        self.publish();
        drop(arrival);
    }

    fn publish(&mut self) {
        for generated in self.scheduler.take_ends() {
            self.rates.record_sequence(generated);
        }
        self.places.saturation.publish_load(self.scheduler.load());
        self.places.saturation.publish_rates(&self.rates);
    }

    /// Ends all that arrived and all that may still be in the inbox.
    fn end_all(&mut self, end: &End) {
        while let Ok(command) = self.inbox.try_recv() {
            if let Command::Submit(submission) = command {
                self.take_submission(*submission);
            }
        }
        self.scheduler.end_all(end);
        self.publish();
    }
}

fn moment(places: &Places) -> Moment {
    Moment { now: Instant::now(), arriving: places.saturation.arriving_now() }
}

/// The thread's whole life, whatever happens: everybody who waits gets an end. After a panic the
/// engine is dropped as it is, and what hangs on the replies sees them close.
fn live(mut engine: Engine, health: &watch::Sender<Health>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let measure = engine.speculate == Speculate::Auto;
        warm_up::warm_up(&mut *engine.device, &mut engine.rates, measure)?;
        engine.publish();
        health.send_replace(Health::Ready);
        engine.run()
    }));
    match outcome {
        Ok(Ok(())) => {
            health.send_replace(Health::Stopped);
            engine.end_all(&End::Failed(Reason::Draining, "The server is going down."));
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the engine ends");
            health.send_replace(Health::Failed);
            engine.end_all(&End::Failed(Reason::EngineFailed, handle::FAILED));
        }
        Err(_panic) => {
            tracing::error!("the engine's thread panicked");
            health.send_replace(Health::Failed);
            let places = Arc::clone(&engine.places);
            drop(engine);
            places.saturation.publish_nothing_runs();
        }
    }
}
