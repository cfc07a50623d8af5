//! A deterministic device. The KV entry of a token is a hash of the token and of every entry
//! found through the block table before it; the next token is a hash of all entries up to the
//! row. So a block that is shared, copied, exchanged or given up wrongly changes what is said.
//!
//! A mock with a habit says mostly the same after the same token, so that there is something to
//! draft; only one row in eight looks at all of the memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use models::sampler::{self, Plan, Scratch, Uniform};
use models::step::{Device, DeviceError, DeviceLimits, Row, Rows, Step, Ticket};
use models::text::StopStrings;
use models::tokenizer::{Tokenizer, TokenizerFiles};

use crate::engine::message::SequenceSpec;
use crate::engine::text::OutputText;

/// Ids of a small mock; the first of the default model's vocabulary.
pub(super) const VOCAB: usize = 97;

pub(super) fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
        let tokenizer = include_bytes!("../../../models/default/tokenizer.json");
        let files = TokenizerFiles { tokenizer, ..TokenizerFiles::default() };
        Arc::new(Tokenizer::from_files(&files).expect("the default tokenizer loads"))
    });
    Arc::clone(&TOKENIZER)
}

/// What happens at a certain step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Error,
    Panic,
}

pub(super) struct Mock {
    limits: DeviceLimits,
    /// `[blocks * block_tokens]`; never cleared, as real memory is not.
    entries: Vec<u64>,
    answers: Rows,
    submitted: u64,
    /// Rows that were run; read from outside while the engine owns the mock.
    pub(super) rows: Arc<AtomicUsize>,
    pub(super) fault: Option<(u64, Fault)>,
    /// How long a step takes,
    pub(super) pace: Duration,
    /// in so many layers,
    pub(super) layers: u32,
    /// once so many steps have taken no time, and if it has so many rows.
    pub(super) fast_steps: u64,
    pub(super) slow_rows: usize,
    /// Steps that were begun, and those of them that were given up; read from outside too.
    pub(super) begun: Arc<AtomicUsize>,
    pub(super) given_up: Arc<AtomicUsize>,
    pub(super) habit: bool,
}

pub(super) fn limits(blocks: usize, block_tokens: usize) -> DeviceLimits {
    DeviceLimits { vocab: VOCAB, blocks, block_tokens, context: 256, rows_max: 64, samples_max: 24 }
}

impl Mock {
    pub(super) fn new(limits: DeviceLimits) -> Self {
        Self {
            entries: vec![0xDEAD; limits.blocks * limits.block_tokens],
            limits,
            answers: Rows::default(),
            submitted: 0,
            rows: Arc::default(),
            fault: None,
            pace: Duration::ZERO,
            layers: 2,
            fast_steps: 0,
            slow_rows: 0,
            begun: Arc::default(),
            given_up: Arc::default(),
            habit: false,
        }
    }

    fn entry(&mut self, table: &[u32], position: usize) -> &mut u64 {
        let block = table[position / self.limits.block_tokens] as usize;
        &mut self.entries[block * self.limits.block_tokens + position % self.limits.block_tokens]
    }

    fn copy(&mut self, step: &Step) {
        for copy in &step.copies {
            assert_ne!(copy.from, copy.to);
            let from = copy.from as usize * self.limits.block_tokens;
            let to = copy.to as usize * self.limits.block_tokens;
            self.entries.copy_within(from..from + copy.tokens as usize, to);
        }
    }

    /// Leaves what is wrong at the positions of all rows, as a step does that is given up.
    fn scribble(&mut self, step: &Step) {
        self.given_up.fetch_add(1, Ordering::SeqCst);
        for segment in &step.segments {
            let table = &step.blocks[segment.blocks.start as usize..segment.blocks.end as usize];
            for row in segment.rows.start as usize..segment.rows.end as usize {
                *self.entry(table, step.positions[row] as usize) = 0xBAD;
            }
        }
    }

    /// Runs all rows; returns what each sees.
    fn run(&mut self, step: &Step) -> Vec<u64> {
        assert!(step.rows() <= self.limits.rows_max);
        assert!(step.samples.len() <= self.limits.samples_max);
        let mut seen = Vec::with_capacity(step.rows());
        for segment in &step.segments {
            assert_eq!(segment.rows.start as usize, seen.len(), "segments are contiguous");
            let table = &step.blocks[segment.blocks.start as usize..segment.blocks.end as usize];
            for row in segment.rows.start as usize..segment.rows.end as usize {
                let position = step.positions[row] as usize;
                assert!(position < self.limits.context);
                let before = (0..position).fold(0, |all, at| mix(all, *self.entry(table, at)));
                let entry = mix(before, u64::from(step.tokens[row]));
                *self.entry(table, position) = entry;
                seen.push(look(mix(before, entry), step.tokens[row], self.habit));
            }
        }
        seen
    }
}

impl Device for Mock {
    fn limits(&self) -> DeviceLimits {
        self.limits.clone()
    }

    fn submit(
        &mut self,
        step: &Step,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Ticket>, DeviceError> {
        self.submitted += 1;
        self.rows.fetch_add(step.rows(), Ordering::SeqCst);
        match self.fault.filter(|(at, _)| *at <= self.submitted) {
            Some((_, Fault::Error)) => return Err(DeviceError("the mock was told to".into())),
            Some((_, Fault::Panic)) => panic!("the mock was told to"),
            None => {}
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.copy(step);
        for _ in 0..self.layers {
            if !go_on() {
                self.scribble(step);
                return Ok(None);
            }
            if self.submitted > self.fast_steps && step.rows() >= self.slow_rows {
                std::thread::sleep(self.pace / self.layers);
            }
        }
        let seen = self.run(step);
        self.answers.clear();
        for sample in &step.samples {
            let logits = logits(seen[sample.row as usize], self.limits.vocab);
            let stops =
                &step.stop_ids[sample.stop_ids.start as usize..sample.stop_ids.end as usize];
            let row = match choose(&logits, &sample.plan) {
                Some(id) => {
                    let logprob =
                        if sample.logprob { sampler::logprob(&logits, id) } else { f32::NAN };
                    Row::Token { id, logprob, stop: stops.contains(&id) }
                }
                None => {
                    let start = self.answers.logits.len();
                    self.answers.logits.extend(logits);
                    Row::Logits(start..start + self.limits.vocab)
                }
            };
            self.answers.rows.push(row);
        }
        Ok(Some(Ticket(self.submitted)))
    }

    fn collect(&mut self, ticket: Ticket, rows: &mut Rows) -> Result<(), DeviceError> {
        assert_eq!(ticket, Ticket(self.submitted));
        std::mem::swap(rows, &mut self.answers);
        Ok(())
    }
}

fn choose(logits: &[f32], plan: &Plan) -> Option<u32> {
    match plan {
        Plan::Greedy => sampler::argmax(logits),
        Plan::Draw(draw) => sampler::choose(logits, draw, &mut Scratch::default()),
        Plan::Logits => None,
    }
}

/// What the next token depends on.
fn look(seen: u64, token: u32, habit: bool) -> u64 {
    if habit && !seen.is_multiple_of(8) { mix(u64::from(token), 7) } else { seen }
}

fn logits(seen: u64, vocab: usize) -> Vec<f32> {
    (0..vocab as u64).map(|id| (mix(seen, id) >> 40) as f32 / (1u64 << 22) as f32).collect()
}

fn mix(a: u64, b: u64) -> u64 {
    let z = (a.rotate_left(23) ^ b).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).rotate_left(31)
}

/// What a sequence that runs alone generates, without blocks, batches or a cache: its ids, and
/// whether a stop id or stop string ended it.
pub(super) fn solo(spec: &SequenceSpec, vocab: usize, habit: bool) -> (Vec<u32>, String, bool) {
    let rules = &spec.rules;
    let uniform = Uniform::new(spec.seed, spec.choice);
    let mut text = OutputText::new(rules);
    let mut out = Vec::new();
    let mut ids = Vec::new();
    let mut all = 0;
    let mut seen = 0;
    let mut stopped = false;
    let mut feed = |id: u32| {
        let entry = mix(all, u64::from(id));
        seen = mix(all, entry);
        all = mix(all, entry);
        look(seen, id, habit)
    };
    let mut seen_last = 0;
    for &id in spec.prompt.iter() {
        seen_last = feed(id);
    }
    while ids.len() < spec.max_tokens && !stopped {
        let mut logits = logits(seen_last, vocab);
        if ids.len() < rules.min_tokens {
            for &id in &rules.stop_ids {
                logits[id as usize] = f32::NEG_INFINITY;
            }
        }
        let plan = rules.sampling.plan(uniform.at(ids.len() as u64));
        let id = choose(&logits, &plan).expect("the mock's logits are numbers");
        ids.push(id);
        stopped = rules.stop_ids.contains(&id)
            || text.push(tokenizer().bytes(id), &mut out) == models::text::Progress::Stopped;
        seen_last = feed(id);
    }
    text.finish(&mut out);
    (ids, String::from_utf8(out).expect("text is UTF-8"), stopped)
}

/// No stop strings.
pub(super) fn unstoppable() -> Arc<StopStrings> {
    Arc::new(StopStrings::new::<&str>(&[]).expect("none is few"))
}
