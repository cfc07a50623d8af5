//! The door to the kernels of one instruction set.

use std::time::Instant;

use crate::isa::Isa;
use crate::naive;
use crate::shape::{AttendRow, Elems, Matrix, PagedKv, Query, RopeTables, Write};

/// The kernels of one instruction set and the threads that run them.
///
/// Every method asserts the shapes of its operands: a wrong shape is a bug of the caller.
pub struct Cpu {
    isa: Isa,
    threads: usize,
}

impl Cpu {
    /// Starts `threads - 1` threads; the caller of a kernel is the remaining one. `None` when
    /// this machine lacks the instruction set.
    pub fn new(isa: Isa, threads: usize) -> Option<Cpu> {
        assert!(threads >= 1, "kernels need a thread");
        isa.is_available().then_some(Cpu { isa, threads })
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that work on a kernel, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// `y[M, rows] (+)= x[M, cols] · wᵀ + bias[rows]`, where M is `x.len() / cols`.
    pub fn matmul(
        &self,
        x: &[f32],
        w: Matrix<'_>,
        bias: Option<&[f32]>,
        write: Write,
        y: &mut [f32],
    ) {
        check_matmul(x, w, bias, y);
        naive::matmul(x, w, bias, write, y);
    }

    /// `y[M, N] = x / sqrt(mean(x²) + eps) * weight[N]`
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        assert!(!weight.is_empty() && x.len().is_multiple_of(weight.len()), "rms_norm: x");
        assert_eq!(x.len(), y.len(), "rms_norm: y");
        naive::rms_norm(x, weight, eps, y);
    }

    /// Rotates in place the first `heads` heads of each row of `x[M, stride]`: the halves of a
    /// head are the two coordinates. `positions[M]` are rows of the tables.
    pub fn rope(
        &self,
        x: &mut [f32],
        stride: usize,
        heads: usize,
        head_dim: usize,
        tables: RopeTables<'_>,
        positions: &[u32],
    ) {
        assert!(head_dim > 0 && head_dim.is_multiple_of(2), "rope: head_dim {head_dim} is odd");
        assert!(heads * head_dim <= stride, "rope: heads beyond the row");
        assert_eq!(x.len(), positions.len() * stride, "rope: x");
        assert_eq!(tables.cos.len(), tables.sin.len(), "rope: tables");
        let context = tables.cos.len() / (head_dim / 2);
        assert!(positions.iter().all(|&p| (p as usize) < context), "rope: position beyond tables");
        naive::rope(x, stride, heads, head_dim, tables, positions);
    }

    /// `y[M, width] = silu(gate_up[M, ..width]) * gate_up[M, width..]`
    pub fn swiglu(&self, gate_up: &[f32], y: &mut [f32], width: usize) {
        assert!(width > 0 && y.len().is_multiple_of(width), "swiglu: y");
        assert_eq!(gate_up.len(), 2 * y.len(), "swiglu: gate_up");
        naive::swiglu(gate_up, y, width);
    }

    /// Grouped-query attention: row `m` attends to the first `rows[m].len` positions of its
    /// sequence, found through the block table at `blocks[rows[m].blocks_start..]`.
    /// `y[M, heads * head_dim]`.
    pub fn attention(
        &self,
        query: Query<'_>,
        kv: PagedKv<'_>,
        blocks: &[u32],
        rows: &[AttendRow],
        y: &mut [f32],
    ) {
        check_attention(query, kv, blocks, rows, y);
        naive::attention(query, kv, blocks, rows, y);
    }

    /// The lowest index of the highest number. NaN never wins; all NaN is 0.
    pub fn argmax(&self, x: &[f32]) -> usize {
        assert!(!x.is_empty(), "argmax of nothing");
        naive::argmax(x)
    }

    /// `ln Σ exp(x)`
    pub fn log_sum_exp(&self, x: &[f32]) -> f32 {
        assert!(!x.is_empty(), "log_sum_exp of nothing");
        naive::log_sum_exp(x)
    }

    /// Read bandwidth of memory in bytes per second, with all threads: the best of several
    /// sums over a buffer of `bytes`.
    pub fn read_bandwidth(&self, bytes: usize) -> f64 {
        let buffer = vec![1.0f32; (bytes / 4).max(1)];
        let mut best = 0.0f64;
        for _ in 0..5 {
            let start = Instant::now();
            std::hint::black_box(buffer.iter().sum::<f32>());
            best = best.max((buffer.len() * 4) as f64 / start.elapsed().as_secs_f64());
        }
        best
    }
}

fn check_matmul(x: &[f32], w: Matrix<'_>, bias: Option<&[f32]>, y: &[f32]) {
    assert!(w.rows > 0 && w.cols > 0, "matmul: empty weights");
    assert_eq!(w.elems.len(), w.rows * w.cols, "matmul: weights");
    assert!(x.len().is_multiple_of(w.cols), "matmul: x");
    assert_eq!(y.len(), x.len() / w.cols * w.rows, "matmul: y");
    assert!(bias.is_none_or(|bias| bias.len() == w.rows), "matmul: bias");
}

fn check_attention(
    query: Query<'_>,
    kv: PagedKv<'_>,
    blocks: &[u32],
    rows: &[AttendRow],
    y: &[f32],
) {
    let width = query.heads * kv.head_dim;
    assert!(width > 0 && kv.kv_heads > 0 && kv.block_tokens > 0, "attention: empty shape");
    assert!(query.heads.is_multiple_of(kv.kv_heads), "attention: heads");
    assert!(query.stride >= width, "attention: heads beyond the row");
    assert_eq!(y.len(), rows.len() * width, "attention: y");
    assert!(
        rows.is_empty() || query.q.len() >= (rows.len() - 1) * query.stride + width,
        "attention: q"
    );
    let same_format =
        matches!((kv.k, kv.v), (Elems::F32(_), Elems::F32(_)) | (Elems::Bf16(_), Elems::Bf16(_)));
    assert!(same_format && kv.k.len() == kv.v.len(), "attention: K and V differ");
    let block_len = kv.kv_heads * kv.block_tokens * kv.head_dim;
    assert!(kv.k.len().is_multiple_of(block_len), "attention: cache");
    let cache_blocks = kv.k.len() / block_len;
    for row in rows {
        assert!(row.len > 0, "attention: a row sees at least itself");
        let table =
            &blocks[row.blocks_start as usize..][..(row.len as usize).div_ceil(kv.block_tokens)];
        assert!(
            table.iter().all(|&block| (block as usize) < cache_blocks),
            "attention: block beyond the cache"
        );
    }
}
