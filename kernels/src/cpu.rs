//! The door to the kernels of one instruction set: checks shapes, deals work to the threads.

use std::ops::Range;

use crate::arch::{self, ProductFn, Products, Table};
use crate::isa::Isa;
use crate::ops::{Attention, HEADS_PER_KV_MAX, Heads, RowMajor, TILE_COLS};
use crate::out::Out;
use crate::pool::{PARTS_MAX, Pool};
use crate::shape::{AttendRow, Elems, Matrix, PagedKv, Query, RopeTables, Write};

/// Multiplications from which a phase is dealt to the threads that are awake: a few microseconds
/// of one core, some times what dealing costs.
const PARALLEL_MIN: usize = 64 * 1024;

/// Multiplications from which sleeping threads are woken, which costs about as much as these.
const WAKE_MIN: usize = 512 * 1024;

/// Multiplications of a part of a large phase: small enough that a thread which loses its core
/// in the middle of one keeps the others waiting for little work.
const PART: usize = 512 * 1024;

/// Parts of a large phase for each thread; more would only cost.
const PARTS_PER_THREAD_MAX: usize = 8;

/// What an `exp` and its division cost, in multiplications.
const EXP_COST: usize = 8;

/// The kernels of one instruction set and the threads that run them.
///
/// Every method asserts the shapes of its operands: a wrong shape is a bug of the caller.
/// `Send` but not `Sync`: kernels run one at a time, each on all threads.
pub struct Cpu {
    isa: Isa,
    /// Of `isa`, which this machine has.
    pub(crate) table: &'static Table,
    pub(crate) products: &'static Products,
    /// bf16 times bf16, where the machine multiplies it.
    pub(crate) bf16_rounded: Option<ProductFn>,
    pool: Pool,
}

impl Cpu {
    /// Starts `threads - 1` threads; the caller of a kernel is the remaining one. `None` when
    /// this machine lacks the instruction set.
    pub fn new(isa: Isa, threads: usize) -> Option<Cpu> {
        assert!(threads >= 1, "kernels need a thread");
        let table = arch::table(isa)?;
        let (products, bf16_rounded) = arch::products(isa);
        Some(Cpu { isa, table, products, bf16_rounded, pool: Pool::new(threads) })
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that work on a kernel, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
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
        let (Matrix { rows, cols, .. }, y) = (w, Out::new(y));
        match w.elems {
            Elems::F32(w) => {
                self.row_major(
                    &RowMajor { x, w, rows, cols, bias, write, y },
                    self.table.matmul_f32,
                );
            }
            Elems::Bf16(w) => {
                self.row_major(
                    &RowMajor { x, w, rows, cols, bias, write, y },
                    self.table.matmul_bf16,
                );
            }
        }
    }

    fn row_major<E: Sync>(
        &self,
        product: &RowMajor<'_, E>,
        kernel: unsafe fn(&RowMajor<'_, E>, Range<usize>),
    ) {
        self.deal(product.rows, TILE_COLS, product.x.len() * product.rows, |rows| {
            // SAFETY: the table is of an instruction set that this machine has, the shapes
            // were checked, and no row of w is dealt twice.
            unsafe { kernel(product, rows) };
        });
    }

    /// `y[M, N] = x / sqrt(mean(x²) + eps) * weight[N]`
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
        let width = weight.len();
        assert!(width > 0 && x.len().is_multiple_of(width), "rms_norm: x");
        assert_eq!(x.len(), y.len(), "rms_norm: y");
        let (out, work) = (Out::new(y), 2 * x.len());
        self.deal(x.len() / width, 1, work, |rows| {
            let rows = rows.start * width..rows.end * width;
            // SAFETY: the table is of an instruction set that this machine has, and no row is
            // dealt twice.
            unsafe { (self.table.rms_norm)(&x[rows.clone()], weight, eps, out.slice(rows)) };
        });
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
        let within = heads.checked_mul(head_dim).is_some_and(|width| width <= stride);
        assert!(stride > 0 && within, "rope: heads beyond the row");
        assert_eq!(Some(x.len()), positions.len().checked_mul(stride), "rope: x");
        assert_eq!(tables.cos.len(), tables.sin.len(), "rope: tables");
        let context = tables.cos.len() / (head_dim / 2);
        assert!(positions.iter().all(|&p| (p as usize) < context), "rope: position beyond tables");
        let work = 2 * positions.len() * heads * head_dim;
        let heads = Heads { stride, count: heads, dim: head_dim };
        let out = Out::new(x);
        self.deal(positions.len(), 1, work, |rows| {
            // SAFETY: the table is of an instruction set that this machine has, the shapes
            // were checked, and no row is dealt twice.
            unsafe {
                let x = out.slice(rows.start * stride..rows.end * stride);
                (self.table.rope)(x, heads, tables, &positions[rows]);
            }
        });
    }

    /// `y[M, width] = silu(gate_up[M, ..width]) * gate_up[M, width..]`
    pub fn swiglu(&self, gate_up: &[f32], y: &mut [f32], width: usize) {
        assert!(width > 0 && y.len().is_multiple_of(width), "swiglu: y");
        assert_eq!(gate_up.len(), 2 * y.len(), "swiglu: gate_up");
        let (rows, work) = (y.len() / width, EXP_COST * y.len());
        let out = Out::new(y);
        self.deal(rows, 1, work, |rows| {
            let gate_up = &gate_up[2 * width * rows.start..2 * width * rows.end];
            // SAFETY: the table is of an instruction set that this machine has, and no row is
            // dealt twice.
            unsafe {
                let y = out.slice(rows.start * width..rows.end * width);
                (self.table.swiglu)(gate_up, y, width);
            }
        });
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
        let seen: usize = rows.iter().map(|row| row.len as usize).sum();
        let work = 2 * seen * query.heads * kv.head_dim;
        let (parts, wake) = (self.parts(rows.len() * kv.kv_heads, work), work >= WAKE_MIN);
        let y = Out::new(y);
        match (kv.k, kv.v) {
            (Elems::F32(k), Elems::F32(v)) => {
                let attention = Attention { query, kv, k, v, blocks, rows, parts, y };
                self.attend(&attention, wake, self.table.attention_f32);
            }
            (Elems::Bf16(k), Elems::Bf16(v)) => {
                let attention = Attention { query, kv, k, v, blocks, rows, parts, y };
                self.attend(&attention, wake, self.table.attention_bf16);
            }
            _ => unreachable!("the door refused K and V of different formats"),
        }
    }

    fn attend<E: Sync>(
        &self,
        attention: &Attention<'_, E>,
        wake: bool,
        kernel: unsafe fn(&Attention<'_, E>, usize),
    ) {
        self.run(attention.parts, wake, |part| {
            // SAFETY: the table is of an instruction set that this machine has, the shapes and
            // blocks were checked, and each part is computed once.
            unsafe { kernel(attention, part) };
        });
    }

    /// The lowest index of the highest number. NaN never wins; all NaN is 0.
    pub fn argmax(&self, x: &[f32]) -> usize {
        assert!(!x.is_empty(), "argmax of nothing");
        // SAFETY: the table is of an instruction set that this machine has.
        unsafe { (self.table.argmax)(x) }
    }

    /// `ln Σ exp(x)`
    pub fn log_sum_exp(&self, x: &[f32]) -> f32 {
        assert!(!x.is_empty(), "log_sum_exp of nothing");
        // SAFETY: the table is of an instruction set that this machine has.
        unsafe { (self.table.log_sum_exp)(x) }
    }

    /// Runs `job` once for each of `0..parts` on all threads and returns when all are done: for
    /// work that is no kernel, such as packing weights. A panic in any part is passed on then.
    pub fn each(&self, parts: usize, job: impl Fn(usize) + Sync) {
        self.run(parts, true, job);
    }

    /// Deals `0..count` to all threads, however little it is, each thread's ranges side by side.
    pub(crate) fn each_share(&self, count: usize, job: impl Fn(Range<usize>) + Sync) {
        let parts = (self.threads() * PARTS_PER_THREAD_MAX).min(PARTS_MAX);
        self.run(parts, true, |part| job(share(count, 1, part, parts)));
    }

    pub(crate) fn table(&self) -> &'static Table {
        self.table
    }

    /// Deals `0..count` to the threads in ranges that begin at multiples of `granule`.
    pub(crate) fn deal(
        &self,
        count: usize,
        granule: usize,
        work: usize,
        job: impl Fn(Range<usize>) + Sync,
    ) {
        let parts = self.parts(count.div_ceil(granule), work);
        self.run(parts, work >= WAKE_MIN, |part| job(share(count, granule, part, parts)));
    }

    /// Into how many parts to deal `work` multiplications; `most` are possible.
    fn parts(&self, most: usize, work: usize) -> usize {
        let threads = self.threads();
        if threads == 1 || work < PARALLEL_MIN {
            return 1;
        }
        let parts = (work / PART).clamp(threads, threads * PARTS_PER_THREAD_MAX);
        parts.min(most).clamp(1, PARTS_MAX)
    }

    /// Runs `job` once for each of `parts`; a single one here, whatever the threads do.
    fn run(&self, parts: usize, wake: bool, job: impl Fn(usize) + Sync) {
        if parts == 1 { job(0) } else { self.pool.run(parts, wake, &job) }
    }
}

/// The range of `0..count` that is part `part` of `parts`.
fn share(count: usize, granule: usize, part: usize, parts: usize) -> Range<usize> {
    let granules = count.div_ceil(granule);
    let edge = |part: usize| (granules * part / parts * granule).min(count);
    edge(part)..edge(part + 1)
}

fn check_matmul(x: &[f32], w: Matrix<'_>, bias: Option<&[f32]>, y: &[f32]) {
    assert!(w.rows > 0 && w.cols > 0, "matmul: empty weights");
    assert_eq!(Some(w.elems.len()), w.rows.checked_mul(w.cols), "matmul: weights");
    assert!(x.len().is_multiple_of(w.cols), "matmul: x");
    assert_eq!(Some(y.len()), (x.len() / w.cols).checked_mul(w.rows), "matmul: y");
    assert!(bias.is_none_or(|bias| bias.len() == w.rows), "matmul: bias");
}

fn check_attention(
    query: Query<'_>,
    kv: PagedKv<'_>,
    blocks: &[u32],
    rows: &[AttendRow],
    y: &[f32],
) {
    let product = |factors: &[usize]| {
        let product =
            factors.iter().try_fold(1usize, |product, &factor| product.checked_mul(factor));
        product.expect("attention: a shape beyond memory")
    };
    let width = product(&[query.heads, kv.head_dim]);
    assert!(width > 0 && kv.kv_heads > 0 && kv.block_tokens > 0, "attention: empty shape");
    assert!(query.heads.is_multiple_of(kv.kv_heads), "attention: heads");
    assert!(query.heads / kv.kv_heads <= HEADS_PER_KV_MAX, "attention: heads per KV head");
    assert!(query.stride >= width, "attention: heads beyond the row");
    assert_eq!(y.len(), product(&[rows.len(), width]), "attention: y");
    assert!(
        rows.is_empty()
            || product(&[rows.len() - 1, query.stride]).saturating_add(width) <= query.q.len(),
        "attention: q"
    );
    let same_format =
        matches!((kv.k, kv.v), (Elems::F32(_), Elems::F32(_)) | (Elems::Bf16(_), Elems::Bf16(_)));
    assert!(same_format && kv.k.len() == kv.v.len(), "attention: K and V differ");
    let block_len = product(&[kv.kv_heads, kv.block_tokens, kv.head_dim]);
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
