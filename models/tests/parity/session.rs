//! A device and its blocks, driven by hand: what the engine does, without an engine.

use std::path::{Path, PathBuf};

use kernels::Isa;
use models::cpu::{CpuDevice, CpuOptions};
use models::model::{LoadedModel, ModelSource, load};
use models::sampler::Plan;
use models::step::{BlockCopy, Device, Row, Rows, Sample, Segment, Step};
use models::{KvFormat, Quant};

use crate::blocks::BlockPool;

pub(crate) const BLOCKS: usize = 96;
pub(crate) const ROWS_MAX: usize = 160;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

pub(crate) fn fixture(name: &str, quant: Quant, kv: KvFormat) -> LoadedModel {
    load(&ModelSource::Directory(fixtures().join(name)), quant, kv)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A sequence: its ids, how many of them are in the KV cache, and where.
#[derive(Clone, Default)]
pub(crate) struct Sequence {
    pub(crate) ids: Vec<u32>,
    pub(crate) cached: usize,
    pub(crate) blocks: Vec<u32>,
}

impl Sequence {
    pub(crate) fn new(ids: &[u32]) -> Self {
        Self { ids: ids.to_vec(), ..Self::default() }
    }
}

pub(crate) struct Session {
    pub(crate) device: CpuDevice,
    pub(crate) pool: BlockPool,
    step: Step,
    rows: Rows,
}

impl Session {
    pub(crate) fn new(model: &LoadedModel, isa: Isa, block_tokens: usize) -> Self {
        let options = CpuOptions {
            isa: Some(isa),
            threads: 2,
            context: model.config.context,
            blocks: BLOCKS,
            block_tokens,
            rows_max: ROWS_MAX,
            samples_max: ROWS_MAX,
        };
        let device = CpuDevice::new(model, &options).expect("an available ISA");
        let mut pool = BlockPool::new(BLOCKS);
        // Every third block is taken, so that no table is a run of neighbours.
        let all: Vec<u32> = (0..BLOCKS).filter_map(|_| pool.alloc()).collect();
        for block in all.into_iter().filter(|block| block % 3 != 0) {
            pool.release(block);
        }
        Self { device, pool, step: Step::default(), rows: Rows::default() }
    }

    /// Adds the next `count` ids of a sequence to the step, logits wanted for all of them.
    pub(crate) fn push(&mut self, sequence: &mut Sequence, count: usize) {
        let block_tokens = self.device.limits().block_tokens;
        let end = sequence.cached + count;
        while sequence.blocks.len() * block_tokens < end {
            sequence.blocks.push(self.pool.alloc().expect("a free block"));
        }
        let step = &mut self.step;
        let (row, block) = (step.rows() as u32, step.blocks.len() as u32);
        for position in sequence.cached..end {
            step.samples.push(Sample {
                row: step.tokens.len() as u32,
                plan: Plan::Logits,
                logprob: false,
                stop_ids: 0..0,
            });
            step.tokens.push(sequence.ids[position]);
            step.positions.push(position as u32);
        }
        step.blocks.extend(&sequence.blocks);
        step.segments.push(Segment {
            rows: row..step.rows() as u32,
            blocks: block..step.blocks.len() as u32,
        });
        sequence.cached = end;
    }

    pub(crate) fn copy(&mut self, copy: BlockCopy) {
        self.step.copies.push(copy);
    }

    /// Runs the step: the logits of every row.
    pub(crate) fn run(&mut self) -> Vec<Vec<f32>> {
        self.device.run(&self.step, &mut self.rows).expect("the CPU does not fail");
        self.step.clear();
        let rows = self.rows.rows.iter();
        rows.map(|row| match row {
            Row::Logits(range) => self.rows.logits[range.clone()].to_vec(),
            Row::Token { .. } | Row::NotANumber => panic!("logits were asked for"),
        })
        .collect()
    }

    /// The rest of a sequence in chunks of at most `chunk`: the logits of its rows.
    pub(crate) fn prefill(&mut self, sequence: &mut Sequence, chunk: usize) -> Vec<Vec<f32>> {
        let mut logits = Vec::new();
        while sequence.cached < sequence.ids.len() {
            let count = chunk.min(sequence.ids.len() - sequence.cached);
            self.push(sequence, count);
            logits.extend(self.run());
        }
        logits
    }

    /// Greedy decode on the device, one token per step: the sequence grows by `count` ids, the
    /// last of them not in the cache.
    pub(crate) fn greedy(&mut self, sequence: &mut Sequence, count: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        for _ in 0..count {
            let left = sequence.ids.len() - sequence.cached;
            self.push(sequence, left);
            let last = self.step.samples.pop().expect("a sequence has a row to run");
            self.step.samples.clear();
            self.step.samples.push(Sample { plan: Plan::Greedy, logprob: true, ..last });
            self.device.run(&self.step, &mut self.rows).expect("the CPU does not fail");
            self.step.clear();
            let Some(Row::Token { id, .. }) = self.rows.rows.first() else { panic!("one token") };
            sequence.ids.push(*id);
            rows.append(&mut self.rows.rows);
        }
        rows
    }

    pub(crate) fn release(&mut self, sequence: &mut Sequence) {
        for block in sequence.blocks.drain(..) {
            self.pool.release(block);
        }
        sequence.cached = 0;
    }
}

/// Equal to the bit, NaN included.
pub(crate) fn assert_same_bits(got: &[Vec<f32>], wanted: &[Vec<f32>], what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}: rows");
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let same = got.iter().zip(wanted).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same && got.len() == wanted.len(), "{what}: row {i} differs");
    }
}
