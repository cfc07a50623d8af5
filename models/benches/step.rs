//! One pass of the embedded model: decodes at a depth of half its context, alone and together,
//! drafts verified beside a decode, and a prefill chunk.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use models::cpu::{CpuDevice, CpuOptions};
use models::kv::BLOCK_TOKENS;
use models::model::{ModelSource, load};
use models::sampler::Plan;
use models::step::{Device, Rows, Sample, Segment, Step};
use models::{KvFormat, Quant};

const DEPTH: u32 = 512;
const SEQUENCES_MAX: usize = 8;
const CHUNK: usize = 128;
/// Rows of a pass that verifies drafts, and thus its samples.
const VERIFIED_MAX: usize = 16;

fn device() -> CpuDevice {
    let model = load(&ModelSource::Builtin, Quant::Auto, KvFormat::Auto).expect("embedded");
    let options = CpuOptions {
        isa: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        context: model.config.context,
        blocks: SEQUENCES_MAX * model.config.context.div_ceil(BLOCK_TOKENS),
        block_tokens: BLOCK_TOKENS,
        rows_max: CHUNK,
        samples_max: VERIFIED_MAX,
    };
    CpuDevice::new(&model, &options).expect("the best ISA is available")
}

/// Adds `rows` rows of a sequence from `position` on, in blocks of its own, the last `sampled` of
/// them sampled.
fn push(step: &mut Step, limits_blocks: usize, position: u32, rows: u32, sampled: u32) {
    let blocks_each = (limits_blocks / SEQUENCES_MAX) as u32;
    let first_block = step.segments.len() as u32 * blocks_each;
    let (row, block) = (step.rows() as u32, step.blocks.len() as u32);
    step.tokens.extend((0..rows).map(|i| 100 + i));
    step.positions.extend(position..position + rows);
    step.blocks.extend(first_block..first_block + blocks_each);
    step.segments.push(Segment { rows: row..row + rows, blocks: block..step.blocks.len() as u32 });
    step.samples.extend((row + rows - sampled..row + rows).map(|row| Sample {
        row,
        plan: Plan::Greedy,
        logprob: false,
        stop_ids: 0..0,
    }));
}

fn run(device: &mut CpuDevice, step: &Step, rows: &mut Rows) {
    device.run(step, rows).expect("the CPU does not fail");
    black_box(rows);
}

fn steps(criterion: &mut Criterion) {
    let mut device = device();
    let mut rows_out = Rows::default();
    let blocks = device.limits().blocks;
    let mut group = criterion.benchmark_group("step");
    for sequences in [1, 4, SEQUENCES_MAX] {
        let mut step = Step::default();
        (0..sequences).for_each(|_| push(&mut step, blocks, DEPTH, 1, 1));
        group.throughput(Throughput::Elements(sequences as u64));
        group.bench_function(BenchmarkId::new("decode", sequences), |bencher| {
            bencher.iter(|| run(&mut device, &step, &mut rows_out));
        });
    }
    for rows in [2, 4, 8, VERIFIED_MAX] {
        let mut step = Step::default();
        push(&mut step, blocks, DEPTH, rows as u32, rows as u32);
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::new("verify", rows), |bencher| {
            bencher.iter(|| run(&mut device, &step, &mut rows_out));
        });
    }
    let mut step = Step::default();
    push(&mut step, blocks, 0, CHUNK as u32, 1);
    group.throughput(Throughput::Elements(CHUNK as u64));
    group.bench_function(BenchmarkId::new("prefill", CHUNK), |bencher| {
        bencher.iter(|| run(&mut device, &step, &mut rows_out));
    });
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
