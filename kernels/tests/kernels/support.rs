//! Numbers to compute with, and caches to attend to.

use half::bf16;
use kernels::{Arena, AttendRow, Cpu, Isa, KvCache, KvFormat, KvShape, Query, naive};
use proptest::prelude::*;

/// Few cases of many shapes each: a case runs every kernel on every instruction set.
pub(crate) fn cases() -> ProptestConfig {
    ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() }
}

/// Fewer, where a case is three formats of a long sequence.
pub(crate) fn few_cases() -> ProptestConfig {
    ProptestConfig { cases: 16, ..cases() }
}

/// A `Cpu` for each instruction set of this machine.
pub(crate) fn cpus(threads: usize) -> Vec<Cpu> {
    Isa::available().into_iter().map(|isa| Cpu::new(isa, threads).expect("available")).collect()
}

/// `len` numbers between -1 and 1, the same for the same seed.
pub(crate) fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Asserts that numbers agree to `tolerance`, relative to the largest of them.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let scale = want.iter().fold(1e-3f32, |scale, x| scale.max(x.abs()));
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let difference = (got - want).abs();
        assert!(difference <= tolerance * scale, "{what}: [{i}] is {got}, should be {want}");
    }
}

/// Lengths of a sequence: any short one, and what lies around the borders of blocks and spans.
pub(crate) fn length() -> impl Strategy<Value = usize> {
    let border = prop::sample::select(&[16usize, 32, 256, 512, 768][..]);
    prop_oneof![1usize..150, (border, 0usize..4).prop_map(|(border, past)| border + past - 1)]
}

/// The last `chunk` positions of a sequence of `len`, which begins the flat list of tables.
pub(crate) fn chunk_rows(len: usize, chunk: usize) -> Vec<AttendRow> {
    let row = |len| AttendRow { blocks_start: 0, len: len as u32 };
    (len - chunk + 1..=len).map(row).collect()
}

/// Asserts what [`Cpu::attention`] computes with K and V of one format. Where queries are rounded
/// the naive one is asked exactly what they are rounded to; the weights, rounded to 8 bits as well,
/// may then be wrong by half of the last one, each in its own direction.
#[track_caller]
pub(crate) fn assert_attention(
    cpu: &Cpu,
    query: Query<'_>,
    cache: &Cache,
    rows: &[AttendRow],
    format: usize,
) {
    let kv = &cache.formats[format];
    let len = rows.len() * query.heads * kv.shape().head_dim;
    let naive = |query: Query<'_>, kv: &KvCache| {
        let mut y = vec![0.0; len];
        naive::attention(query, kv, &cache.blocks, rows, &mut y);
        y
    };
    let mut got = vec![f32::NAN; len];
    cpu.attention(query, kv, &cache.blocks, rows, &mut got);
    if KV_FORMATS[format] != KvFormat::Bf16 || !cpu.rounds_bf16() {
        return assert_close(&got, &naive(query, kv), 2e-5, &cpu.isa().to_string());
    }
    let q: Vec<f32> = query.q.iter().map(|x| bf16::from_f32(x * query.scale).to_f32()).collect();
    let rounded = Query { q: &q, scale: 1.0, ..query };
    let (want, sizes) = (naive(rounded, kv), naive(rounded, &cache.sizes));
    let scale = want.iter().fold(1e-3f32, |scale, x| scale.max(x.abs()));
    for (i, ((got, want), size)) in got.iter().zip(&want).zip(&sizes).enumerate() {
        let tolerance = 2e-5 * scale + size / 256.0;
        let isa = cpu.isa();
        assert!((got - want).abs() <= tolerance, "{isa}: [{i}] is {got}, should be {want}");
    }
}

pub(crate) const KV_FORMATS: [KvFormat; 3] = [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8];

/// Several sequences in one paged cache whose unused places hold NaN.
pub(crate) struct Cache {
    /// The cache in each format.
    pub(crate) formats: Vec<KvCache>,
    /// That of bf16, with the sizes of V's numbers in their place.
    sizes: KvCache,
    /// The block tables of all sequences.
    pub(crate) blocks: Vec<u32>,
    /// Each sequence's last position.
    pub(crate) rows: Vec<AttendRow>,
}

impl Cache {
    /// Sequences of the given lengths. Their numbers depend on their place in `lens` alone;
    /// `shuffle` decides which blocks hold them.
    pub(crate) fn new(
        lens: &[usize],
        block_tokens: usize,
        kv_heads: usize,
        head_dim: usize,
        shuffle: u64,
    ) -> Cache {
        let tables: Vec<usize> = lens.iter().map(|len| len.div_ceil(block_tokens)).collect();
        let count = tables.iter().sum::<usize>() + 3;
        let order = numbers(shuffle, count);
        let mut ids: Vec<u32> = (0..count as u32).collect();
        ids.sort_by(|a, b| order[*a as usize].total_cmp(&order[*b as usize]));
        let blocks = ids[..count - 3].to_vec();
        let mut rows = Vec::new();
        let mut blocks_start = 0;
        for (len, table) in lens.iter().zip(&tables) {
            rows.push(AttendRow { blocks_start: blocks_start as u32, len: *len as u32 });
            blocks_start += table;
        }
        let shape = KvShape { blocks: count, block_tokens, kv_heads, head_dim };
        let new = |format| KvCache::new(&Arena::default(), format, shape);
        let formats = KV_FORMATS.map(|format| filled(new(format), &blocks, &rows, |v| v));
        let sizes = filled(new(KvFormat::Bf16), &blocks, &rows, f32::abs);
        Cache { formats: formats.into(), sizes, blocks, rows }
    }
}

fn filled(mut cache: KvCache, blocks: &[u32], rows: &[AttendRow], of_v: fn(f32) -> f32) -> KvCache {
    let KvShape { block_tokens, kv_heads, head_dim, .. } = cache.shape();
    let width = kv_heads * head_dim;
    let nothing = vec![f32::NAN; width];
    for block in 0..cache.shape().blocks as u32 {
        for token in 0..block_tokens {
            cache.write(block, token, &nothing, &nothing);
        }
    }
    for (sequence, row) in rows.iter().enumerate() {
        let source = numbers(1000 + sequence as u64, row.len as usize * 2 * width);
        for (position, pair) in source.chunks_exact(2 * width).enumerate() {
            let block = blocks[row.blocks_start as usize + position / block_tokens];
            let v: Vec<f32> = pair[width..].iter().copied().map(of_v).collect();
            cache.write(block, position % block_tokens, &pair[..width], &v);
        }
    }
    cache
}
