//! Each kernel on each instruction set of the machine, at the shapes of a model with half a
//! billion parameters (hidden 896, MLP 4864, 14 query heads on 2 KV heads of 64).

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::{
    Arena, AttendRow, Cpu, Inputs, Isa, KvCache, KvFormat, KvShape, Packed, Packing, Query, Write,
};

/// (rows, cols) of the attention output, the gate and up projections, the down projection.
const SHAPES: [(usize, usize); 3] = [(896, 896), (9728, 896), (896, 4864)];
/// One decode, a full set of slots, a chunk of prefill.
const BATCHES: [usize; 3] = [1, 16, 256];

const LAYERS: usize = 24;
const BLOCK_TOKENS: usize = 16;
const HEADS: usize = 14;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 64;

fn cpus() -> impl Iterator<Item = Cpu> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Isa::available().into_iter().filter_map(move |isa| Cpu::new(isa, threads))
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 2003) as f32 / 1001.5 - 1.0).collect()
}

fn packed(packing: Packing, rows: usize, cols: usize) -> Packed {
    let row = numbers(cols);
    let mut packed = Packed::zeroed(packing, rows, cols);
    for mut strips in packed.strips_mut(usize::MAX / rows) {
        strips.rows().for_each(|n| strips.set(n, &row));
    }
    packed
}

/// Throughput is in multiplications with addition, two operations each.
fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("product");
    let packings = [Packing::F32, Packing::Bf16, Packing::Bf16Rounded, Packing::Q8, Packing::Q4];
    for (packing, (rows, cols)) in packings.into_iter().flat_map(|p| SHAPES.map(|shape| (p, shape)))
    {
        let w = packed(packing, rows, cols);
        for m in BATCHES {
            let (x, mut y) = (numbers(m * cols), vec![0.0; m * rows]);
            let mut inputs = Inputs::new(m, cols);
            group.throughput(Throughput::Elements((m * rows * cols) as u64));
            for cpu in cpus() {
                // Slow beyond patience, and no one's choice for prefill.
                if cpu.isa() == Isa::Scalar && m == 256 {
                    continue;
                }
                let name = format!("{}/{packing:?}/{rows}x{cols}", cpu.isa());
                group.bench_function(BenchmarkId::new(name, m), |bencher| {
                    bencher.iter(|| {
                        cpu.prepare(&mut inputs, black_box(&x), None, &w);
                        cpu.product(&inputs, &w, None, Write::Replace, &mut y);
                    });
                });
            }
        }
    }
}

/// A cache for each layer, as many as do not fit a processor's caches.
fn kv_layers(format: KvFormat, len: usize) -> Vec<KvCache> {
    let blocks = len / BLOCK_TOKENS;
    let shape =
        KvShape { blocks, block_tokens: BLOCK_TOKENS, kv_heads: KV_HEADS, head_dim: HEAD_DIM };
    let width = KV_HEADS * HEAD_DIM;
    let numbers = numbers(len * width);
    let filled = |_| {
        let mut cache = KvCache::new(&Arena::default(), format, shape);
        for (position, x) in numbers.chunks_exact(width).enumerate() {
            cache.write((position / BLOCK_TOKENS) as u32, position % BLOCK_TOKENS, x, x);
        }
        cache
    };
    (0..LAYERS).map(filled).collect()
}

/// A decode, whose throughput is in bytes of K and V, and a chunk of prefill, whose throughput
/// is in multiplications with addition. Each call is another layer.
fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    let stride = HEADS * HEAD_DIM;
    for (m, len) in [(1, 512), (1, 4096), (512, 512)] {
        let q = numbers(m * stride);
        let query = Query { q: &q, stride, heads: HEADS, scale: 0.125 };
        let blocks: Vec<u32> = (0..(len / BLOCK_TOKENS) as u32).rev().collect();
        let rows: Vec<AttendRow> =
            (len - m + 1..=len).map(|len| AttendRow { blocks_start: 0, len: len as u32 }).collect();
        let mut y = vec![0.0; m * stride];
        for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
            let layers = kv_layers(format, len);
            group.throughput(match m {
                1 => Throughput::Bytes((len * format.bytes(KV_HEADS, HEAD_DIM)) as u64),
                _ => Throughput::Elements((m * (m + 1) * stride) as u64),
            });
            for cpu in cpus().filter(|cpu| cpu.isa() != Isa::Scalar || m == 1) {
                let mut layer = layers.iter().cycle();
                let name = format!("{}/{format}/{m}", cpu.isa());
                group.bench_function(BenchmarkId::new(name, len), |bencher| {
                    bencher.iter(|| {
                        let kv = layer.next().expect("a cycle does not end");
                        cpu.attention(black_box(query), kv, &blocks, &rows, &mut y);
                    });
                });
            }
        }
    }
}

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    let logits = numbers(151_936);
    group.throughput(Throughput::Elements(logits.len() as u64));
    for cpu in cpus() {
        let isa = cpu.isa();
        group.bench_function(format!("argmax/{isa}"), |bencher| {
            bencher.iter(|| cpu.argmax(black_box(&logits)));
        });
        group.bench_function(format!("log_sum_exp/{isa}"), |bencher| {
            bencher.iter(|| cpu.log_sum_exp(black_box(&logits)));
        });
    }
}

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400));
    targets = products, attention, rows
}
criterion_main!(kernels);
