//! Numbers to compute with, and caches to attend to.

use half::bf16;
use kernels::{AttendRow, Cpu, Elems, Isa, PagedKv, to_bf16};
use proptest::prelude::ProptestConfig;

/// Few cases of many shapes each: a case runs every kernel on every instruction set.
pub(crate) fn cases() -> ProptestConfig {
    ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() }
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

/// Numbers in both formats.
pub(crate) struct Stored {
    f32: Vec<f32>,
    bf16: Vec<bf16>,
}

impl Stored {
    pub(crate) fn new(numbers: Vec<f32>) -> Stored {
        let mut bf16 = vec![bf16::ZERO; numbers.len()];
        to_bf16(&numbers, &mut bf16);
        Stored { f32: numbers, bf16 }
    }

    pub(crate) fn formats(&self) -> [Elems<'_>; 2] {
        [Elems::F32(&self.f32), Elems::Bf16(&self.bf16)]
    }
}

/// Several sequences in one paged cache whose unused places hold NaN.
pub(crate) struct Cache {
    pub(crate) k: Stored,
    pub(crate) v: Stored,
    pub(crate) block_tokens: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
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

        let size = count * kv_heads * block_tokens * head_dim;
        let (mut k, mut v) = (vec![f32::NAN; size], vec![f32::NAN; size]);
        let mut rows = Vec::new();
        let mut blocks_start = 0;
        for (sequence, len) in lens.iter().enumerate() {
            let source = numbers(1000 + sequence as u64, len * kv_heads * head_dim * 2);
            for (i, pair) in source.chunks_exact(2 * head_dim).enumerate() {
                let (position, head) = (i / kv_heads, i % kv_heads);
                let block = blocks[blocks_start + position / block_tokens] as usize;
                let slot = (block * kv_heads + head) * block_tokens + position % block_tokens;
                k[slot * head_dim..][..head_dim].copy_from_slice(&pair[..head_dim]);
                v[slot * head_dim..][..head_dim].copy_from_slice(&pair[head_dim..]);
            }
            rows.push(AttendRow { blocks_start: blocks_start as u32, len: *len as u32 });
            blocks_start += tables[sequence];
        }
        let (k, v) = (Stored::new(k), Stored::new(v));
        Cache { k, v, block_tokens, kv_heads, head_dim, blocks, rows }
    }

    /// The cache in each format.
    pub(crate) fn formats(&self) -> impl Iterator<Item = PagedKv<'_>> {
        let Cache { block_tokens, kv_heads, head_dim, .. } = *self;
        let pairs = self.k.formats().into_iter().zip(self.v.formats());
        pairs.map(move |(k, v)| PagedKv { k, v, block_tokens, kv_heads, head_dim })
    }
}
