//! A device driven one pass at a time, each sequence in blocks of its own.

use kernels::{BandwidthProbe, Rounds};
use models::cpu::{CpuDevice, CpuOptions};
use models::kv::BLOCK_TOKENS;
use models::model::LoadedModel;
use models::sampler::Plan;
use models::step::{Device, Row, Rows, Sample, Segment, Step};

use super::Failure;
use super::figures::Fnv;
use super::subject::{Circumstances, Subject};
use crate::app::LocalError;
use crate::config::ModelConfig;

/// A read probe never needs more: beyond it no cache of any machine helps.
const PROBE_BYTES_MAX: usize = 1 << 30;

/// What the passes of a bench may hold.
pub(super) struct Room {
    pub(super) sequences: usize,
    /// Of each sequence.
    pub(super) tokens: usize,
    /// Of one pass.
    pub(super) rows: usize,
    /// Sampled rows of one pass.
    pub(super) samples: usize,
}

/// Which rows of a sequence's part of a pass choose a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampled {
    None,
    Last,
    All,
    /// None does: all give their logits.
    Logits,
}

pub(super) struct Passes {
    device: CpuDevice,
    step: Step,
    rows: Rows,
    blocks_each: u32,
    probe: BandwidthProbe,
}

impl Passes {
    pub(super) fn new(
        model: &LoadedModel,
        config: &ModelConfig,
        room: &Room,
    ) -> Result<Self, Failure> {
        let blocks_each = room.tokens.div_ceil(BLOCK_TOKENS);
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let options = CpuOptions {
            isa: config.isa,
            threads: config.threads.unwrap_or_else(cores),
            context: room.tokens,
            blocks: room.sequences * blocks_each,
            block_tokens: BLOCK_TOKENS,
            rows_max: room.rows,
            samples_max: room.samples,
        };
        let device = CpuDevice::new(model, &options).map_err(LocalError::from)?;
        let probe = device.bandwidth_probe(model.weights.bytes_per_step().min(PROBE_BYTES_MAX));
        let (step, rows) = (Step::default(), Rows::default());
        Ok(Self { device, step, rows, blocks_each: blocks_each as u32, probe })
    }

    /// Reads a buffer as large as the weights, with the threads that run the passes.
    pub(super) fn probe(&self, rounds: &mut Rounds) {
        self.device.read(&self.probe, rounds);
    }

    /// Begins the next pass.
    pub(super) fn clear(&mut self) {
        self.step.clear();
    }

    /// Adds rows of one sequence, from `position` on. Sequences are added in any order, each once.
    pub(super) fn push(&mut self, sequence: usize, position: usize, ids: &[u32], sampled: Sampled) {
        let step = &mut self.step;
        let (first_row, first_block) = (step.tokens.len() as u32, step.blocks.len() as u32);
        let position = position as u32;
        step.tokens.extend_from_slice(ids);
        step.positions.extend(position..position + ids.len() as u32);
        let block = sequence as u32 * self.blocks_each;
        step.blocks.extend(block..block + self.blocks_each);
        let rows = first_row..step.tokens.len() as u32;
        step.segments
            .push(Segment { rows: rows.clone(), blocks: first_block..step.blocks.len() as u32 });
        let first_sampled = match sampled {
            Sampled::None => rows.end,
            Sampled::Last => rows.end - 1,
            Sampled::All | Sampled::Logits => rows.start,
        };
        let plan = if sampled == Sampled::Logits { Plan::Logits } else { Plan::Greedy };
        step.samples.extend((first_sampled..rows.end).map(|row| Sample {
            row,
            plan,
            logprob: false,
            stop_ids: 0..0,
        }));
    }

    /// Runs the pass.
    pub(super) fn run(&mut self) {
        self.device.run(&self.step, &mut self.rows).expect("the CPU runs every step");
    }

    /// What the sampled rows of the last pass chose, in the order in which they were added.
    pub(super) fn chosen(&self) -> impl Iterator<Item = u32> {
        self.rows.rows.iter().map(|row| match row {
            Row::Token { id, .. } => *id,
            Row::NotANumber => panic!("random or real, weights give numbers"),
            Row::Logits(_) => unreachable!("no logits were asked for"),
        })
    }

    /// The logits of the last pass, whose rows all gave them: `[rows, vocab]`.
    pub(super) fn logits(&self) -> &[f32] {
        assert!(self.rows.rows.iter().all(|row| matches!(row, Row::Logits(_))), "logits only");
        &self.rows.logits
    }

    /// Reads a prompt in passes of at most `rows` and returns the token chosen after it.
    pub(super) fn read(&mut self, sequence: usize, prompt: &[u32], rows: usize) -> u32 {
        let mut position = 0;
        for part in prompt.chunks(rows) {
            let is_last = position + part.len() == prompt.len();
            self.clear();
            let sampled = if is_last { Sampled::Last } else { Sampled::None };
            self.push(sequence, position, part, sampled);
            self.run();
            position += part.len();
        }
        self.chosen().next().expect("the last row chose a token")
    }

    pub(super) fn circumstances(&self, subject: &Subject, runs: usize) -> Circumstances {
        let model = &subject.model;
        Circumstances {
            model: subject.name.clone(),
            parameters: model.config.parameters(),
            quant: model.weight_format().to_string(),
            kv: model.kv_format.to_string(),
            isa: self.device.isa().to_string(),
            threads: self.device.threads(),
            context: subject.context,
            runs,
        }
    }
}

/// Some ids, the same in every run, other ones for each sequence. The benches of the peers feed
/// the same.
pub(super) fn prompt(sequence: usize, tokens: usize, vocab: usize) -> Vec<u32> {
    (0..tokens).map(|at| ((sequence * 7919 + at * 104_729 + 17) % vocab) as u32).collect()
}

/// A hash of what was generated: shows that the work was done, and was the same.
pub(super) fn hash(ids: impl IntoIterator<Item = u32>) -> u64 {
    let mut hash = Fnv::default();
    ids.into_iter().for_each(|id| hash.add(id));
    hash.value()
}
