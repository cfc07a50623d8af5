//! The door to the kernels of one instruction set: checks shapes, deals work to the threads.

mod attention;

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;

use crate::arch::{self, AttentionFn, ProductFn, Products, Table};
use crate::isa::Isa;
use crate::ops::Heads;
use crate::out::Out;
use crate::pool::{PARTS_MAX, Pool};
use crate::shape::RopeTables;

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
    /// Attention over bf16, likewise.
    attention_rounded: Option<AttentionFn<bf16>>,
    pool: Pool,
    /// Where attention keeps the results of spans; empty for a single thread.
    partials: RefCell<Vec<f32>>,
}

impl Cpu {
    /// Starts `threads - 1` threads; the caller of a kernel is the remaining one. `None` when
    /// this machine lacks the instruction set.
    pub fn new(isa: Isa, threads: usize) -> Option<Cpu> {
        assert!(threads >= 1, "kernels need a thread");
        let table = arch::table(isa)?;
        let (products, bf16_rounded) = arch::products(isa);
        let attention_rounded = arch::attention_rounded(isa);
        let partials = RefCell::new(attention::partials(threads));
        let pool = Pool::new(threads);
        Some(Cpu { isa, table, products, bf16_rounded, attention_rounded, pool, partials })
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that work on a kernel, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
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
