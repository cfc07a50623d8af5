//! The door to attention: which rows share a unit of work, and whether spans are dealt alone.

use crate::kv::{AnyPlanes, KvCache, Planes};
use crate::ops::{Attention, HEADS_PER_KV_MAX, PAIRS_MAX, Partials, SPAN, STATE_LEN};
use crate::out::Out;
use crate::shape::{AttendRow, Query};

use super::{Cpu, PARALLEL_MIN, WAKE_MIN};

/// Units of work for each thread from which spans need not be dealt alone.
const UNITS_PER_THREAD: usize = 4;

/// (row, head) pairs that fill the largest register tile: a unit of fewer would waste it.
const TILE_PAIRS: usize = 14;

/// Numbers that the results of spans may take: 16 MiB, of which the system provides what is
/// used. A row of 32 heads of 128 fills it at a quarter of a million positions; what needs more
/// is not dealt by spans.
const PARTIALS_MAX: usize = 4 << 20;

/// Memory for the results of spans.
pub(super) fn partials(threads: usize) -> Vec<f32> {
    if threads == 1 { Vec::new() } else { vec![0.0; PARTIALS_MAX] }
}

impl Cpu {
    /// Grouped-query attention: row `m` attends to the first `rows[m].len` positions of its
    /// sequence, found through the block table at `blocks[rows[m].blocks_start..]`.
    /// `y[M, heads * head_dim]`. Neighbouring rows of one table, none seeing less than the one
    /// before, share what is read of K and V. Beside K and V in bf16, queries and weights are
    /// rounded to that too where the machine multiplies it ([`Cpu::rounds_bf16`]).
    pub fn attention(
        &self,
        query: Query<'_>,
        kv: &KvCache,
        blocks: &[u32],
        rows: &[AttendRow],
        y: &mut [f32],
    ) {
        check(query, kv, blocks, rows, y);
        let shape = kv.shape();
        let seen: usize = rows.iter().map(|row| row.len as usize).sum();
        let work = 2 * seen * query.heads * shape.head_dim;
        let unit_rows = self.unit_rows(rows.len(), shape.kv_heads, query.heads / shape.kv_heads);
        let (parts, y) = (1, Out::new(y));
        let mut attention =
            Attention { query, shape, blocks, rows, unit_rows, parts, y, partials: None };

        let mut memory = self.partials.borrow_mut();
        if work >= PARALLEL_MIN && attention.units() < self.threads() * UNITS_PER_THREAD {
            attention.partials = partials_of(&mut memory, &attention);
        }
        attention.parts = self.parts(attention.units(), work);
        match &kv.planes {
            AnyPlanes::F32(planes) => {
                self.attend(&attention, planes, work, self.table.attention_f32);
            }
            AnyPlanes::Bf16(planes) => {
                let kernel = self.attention_rounded.unwrap_or(self.table.attention_bf16);
                self.attend(&attention, planes, work, kernel);
            }
            AnyPlanes::Q8(planes) => {
                self.attend(&attention, planes, work, self.table.attention_q8);
            }
        }
        self.join(&attention);
    }

    /// Rows of a unit of work: as many as share K and V with profit, and no more than leave some
    /// units for every thread.
    fn unit_rows(&self, rows: usize, kv_heads: usize, heads_per_kv: usize) -> usize {
        let most = PAIRS_MAX / heads_per_kv;
        let least = TILE_PAIRS.div_ceil(heads_per_kv).min(most);
        let fair = rows * kv_heads / (self.threads() * UNITS_PER_THREAD);
        fair.clamp(least, most)
    }

    fn attend<E: Sync>(
        &self,
        attention: &Attention<'_>,
        planes: &Planes<E>,
        work: usize,
        kernel: unsafe fn(&Attention<'_>, &Planes<E>, usize),
    ) {
        self.run(attention.parts, work >= WAKE_MIN, |part| {
            // SAFETY: the table is of an instruction set that this machine has, the shapes and
            // blocks were checked, and each part is computed once.
            unsafe { kernel(attention, planes, part) };
        });
    }

    /// Joins the spans of each row where they were dealt alone.
    fn join(&self, attention: &Attention<'_>) {
        let Some(partials) = &attention.partials else { return };
        let pairs = attention.rows.len() * attention.query.heads;
        let work = pairs * partials.spans * attention.shape.head_dim;
        self.deal(pairs, 1, work, |pairs| {
            // SAFETY: the table is of an instruction set that this machine has, all spans were
            // computed, and no pair is dealt twice.
            unsafe { (self.table.join_spans)(attention, partials, pairs) };
        });
    }
}

/// Room for the results of all spans; None where rows have but one, or the room is too small.
fn partials_of<'a>(memory: &'a mut [f32], attention: &Attention<'_>) -> Option<Partials<'a>> {
    let longest = attention.rows.iter().map(|row| row.len as usize).max()?;
    let spans = longest.div_ceil(SPAN);
    let pairs = attention.rows.len() * attention.query.heads;
    let needed = pairs.checked_mul(spans)?.checked_mul(attention.shape.head_dim + STATE_LEN)?;
    let fits = spans > 1 && needed <= memory.len();
    fits.then(|| Partials { numbers: Out::new(memory), spans })
}

fn check(query: Query<'_>, kv: &KvCache, blocks: &[u32], rows: &[AttendRow], y: &[f32]) {
    let shape = kv.shape();
    let product = |a: usize, b: usize| a.checked_mul(b).expect("attention: a shape beyond memory");
    let width = product(query.heads, shape.head_dim);
    assert!(width > 0, "attention: empty shape");
    assert!(query.heads.is_multiple_of(shape.kv_heads), "attention: heads");
    assert!(query.heads / shape.kv_heads <= HEADS_PER_KV_MAX, "attention: heads per KV head");
    assert!(query.stride >= width, "attention: heads beyond the row");
    assert_eq!(y.len(), product(rows.len(), width), "attention: y");
    assert!(
        rows.is_empty()
            || product(rows.len() - 1, query.stride).saturating_add(width) <= query.q.len(),
        "attention: q"
    );
    for row in rows {
        assert!(row.len > 0, "attention: a row sees at least itself");
        let table =
            &blocks[row.blocks_start as usize..][..(row.len as usize).div_ceil(shape.block_tokens)];
        assert!(
            table.iter().all(|&block| (block as usize) < shape.blocks),
            "attention: block beyond the cache"
        );
    }
}
