//! Attention of query rows over a KV cache in blocks.

use crate::out::Out;
use crate::shape::{AttendRow, PagedKv, Query};
use crate::vector::{Elem, LANES_MAX, Vector, exp, highest, sum};

use super::{dots, even_tile};

/// Positions whose scores enter the running softmax together. Groups begin at multiples of it
/// in the sequence, so that neither blocks nor chunks show in a result.
const GROUP: usize = LANES_MAX;

/// Positions in a tile of scores.
const TILE: usize = 4;

/// Query heads to a KV head: the most that any known model has is 71 (Falcon 7B).
pub(crate) const HEADS_PER_KV_MAX: usize = 128;

/// `y[M, heads * head_dim]`: operands as in [`crate::Cpu::attention`].
pub(crate) struct Attention<'a, E> {
    pub(crate) query: Query<'a>,
    /// For its shape; the numbers, their format known, are `k` and `v`.
    pub(crate) kv: PagedKv<'a>,
    pub(crate) k: &'a [E],
    pub(crate) v: &'a [E],
    pub(crate) blocks: &'a [u32],
    pub(crate) rows: &'a [AttendRow],
    /// Into how many parts the (row, KV head) pairs are dealt, one after the other.
    pub(crate) parts: usize,
    pub(crate) y: Out<'a>,
}

impl<E> Attention<'_, E> {
    /// Where the positions `start..start + count` of a row lie in K and V. The places beyond
    /// `count` repeat the last.
    #[inline(always)]
    fn places(&self, table: &[u32], kv_head: usize, start: usize, count: usize) -> [usize; GROUP] {
        let mut places = [0; GROUP];
        let (mut block, mut slot) = (start / self.kv.block_tokens, start % self.kv.block_tokens);
        for place in &mut places[..count] {
            let row = table[block] as usize * self.kv.kv_heads + kv_head;
            *place = (row * self.kv.block_tokens + slot) * self.kv.head_dim;
            slot += 1;
            if slot == self.kv.block_tokens {
                (block, slot) = (block + 1, 0);
            }
        }
        let last = places[count - 1];
        places[count..].fill(last);
        places
    }
}

/// The softmax of one query head so far. The weighted sum of V lies in y, not yet divided.
#[derive(Clone, Copy)]
struct Running<V> {
    highest: f32,
    /// The sum of the weights, lane by lane.
    total: V,
}

/// The weights of one group of positions, for a tile of M heads.
struct Weights<V, const M: usize> {
    /// `exp(score - highest)`
    weights: [[f32; GROUP]; M],
    /// What the sums so far are multiplied with, now that the highest score is another.
    decay: [V; M],
}

/// Computes part `part` of the (row, KV head) pairs. M is the most query heads in a tile.
///
/// # Safety
/// The machine has V's instruction set, the door has checked the shapes and the block ids, and
/// no part is computed twice at once.
#[inline(always)]
pub(crate) unsafe fn attention<V: Vector, E: Elem, const M: usize>(
    attention: &Attention<'_, E>,
    part: usize,
) {
    let pairs = attention.rows.len() * attention.kv.kv_heads;
    for pair in (part..pairs).step_by(attention.parts) {
        // SAFETY: the caller's promise; no pair is in two parts.
        unsafe {
            attend::<V, E, M>(
                attention,
                pair / attention.kv.kv_heads,
                pair % attention.kv.kv_heads,
            );
        }
    }
}

/// One row and one KV head: a single pass over K and V serves all its query heads.
///
/// # Safety
/// As for [`attention`]; the pair lies within the rows and KV heads.
#[inline(always)]
unsafe fn attend<V: Vector, E: Elem, const M: usize>(
    a: &Attention<'_, E>,
    row: usize,
    kv_head: usize,
) {
    let (query, dim) = (&a.query, a.kv.head_dim);
    let heads = query.heads / a.kv.kv_heads;
    let q = &query.q[row * query.stride + kv_head * heads * dim..][..heads * dim];
    let start = (row * query.heads + kv_head * heads) * dim;
    // SAFETY: the heads of this pair are this call's alone.
    let y = unsafe { a.y.slice(start..start + heads * dim) };
    y.fill(0.0);
    // SAFETY: the instruction set is the caller's promise.
    let zero = unsafe { V::splat(0.0) };
    let mut running = [Running { highest: f32::NEG_INFINITY, total: zero }; HEADS_PER_KV_MAX];
    let table = &a.blocks[a.rows[row].blocks_start as usize..];
    let len = a.rows[row].len as usize;
    for start in (0..len).step_by(GROUP) {
        let count = (len - start).min(GROUP);
        let places = a.places(table, kv_head, start, count);
        let mut head = 0;
        while head < heads {
            let tile = even_tile(heads - head, M);
            let (q, y) = (&q[head * dim..], &mut y[head * dim..]);
            let running = &mut running[head..head + tile];
            // SAFETY: the places lie within K and V, `tile` heads begin at q and y, and the
            // rest is the caller's promise.
            unsafe {
                match tile {
                    1 => step::<V, E, 1>(a, q, &places, count, running, y),
                    2 => step::<V, E, 2>(a, q, &places, count, running, y),
                    3 => step::<V, E, 3>(a, q, &places, count, running, y),
                    4 => step::<V, E, 4>(a, q, &places, count, running, y),
                    5 => step::<V, E, 5>(a, q, &places, count, running, y),
                    _ => step::<V, E, M>(a, q, &places, count, running, y),
                }
            }
            head += tile;
        }
    }
    for (y, running) in y.chunks_exact_mut(dim).zip(&running) {
        // SAFETY: the instruction set is the caller's promise.
        let total = unsafe { sum(running.total) };
        for y in y {
            *y /= total;
        }
    }
}

/// Takes one group of positions into the softmax and the sums of M heads.
///
/// # Safety
/// The machine has V's instruction set; M heads lie at `q` and `y`, and `head_dim` numbers at
/// each of `places` in K and V.
#[inline(always)]
unsafe fn step<V: Vector, E: Elem, const M: usize>(
    a: &Attention<'_, E>,
    q: &[f32],
    places: &[usize; GROUP],
    count: usize,
    running: &mut [Running<V>],
    y: &mut [f32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let scores = scores::<V, E, M>(a, q, places, count);
        let weights = weigh::<V, M>(&scores, running);
        accumulate::<V, E, M>(a, &weights, &places[..count], y);
    }
}

/// The scaled scores of a group; minus infinity beyond `count`.
///
/// # Safety
/// As for [`step`].
#[inline(always)]
unsafe fn scores<V: Vector, E: Elem, const M: usize>(
    a: &Attention<'_, E>,
    q: &[f32],
    places: &[usize; GROUP],
    count: usize,
) -> [[f32; GROUP]; M] {
    let mut scores = [[f32::NEG_INFINITY; GROUP]; M];
    for start in (0..count).step_by(TILE) {
        let mut k = [a.k.as_ptr(); TILE];
        for (i, k) in k.iter_mut().enumerate() {
            *k = a.k[places[start + i]..].as_ptr();
        }
        // SAFETY: `head_dim` numbers lie at each place, and M heads at `q`.
        let dots = unsafe { dots::<V, E, M, TILE>(q.as_ptr(), a.kv.head_dim, k, a.kv.head_dim) };
        for m in 0..M {
            for i in 0..TILE.min(count - start) {
                scores[m][start + i] = dots[m][i] * a.query.scale;
            }
        }
    }
    scores
}

/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
unsafe fn weigh<V: Vector, const M: usize>(
    scores: &[[f32; GROUP]; M],
    running: &mut [Running<V>],
) -> Weights<V, M> {
    // SAFETY: the instruction set is the caller's promise.
    let mut out = Weights { weights: [[0.0; GROUP]; M], decay: [unsafe { V::splat(0.0) }; M] };
    for m in 0..M {
        let running = &mut running[m];
        // SAFETY: GROUP is a multiple of LANES, so registers tile the arrays.
        unsafe {
            let mut best = V::splat(running.highest);
            for i in (0..GROUP).step_by(V::LANES) {
                best = best.max_number(V::load(scores[m].as_ptr().add(i)));
            }
            let highest = highest(best);
            let shift = V::splat(highest);
            let decay = exp(V::splat(running.highest).sub(shift));
            let mut total = running.total.mul(decay);
            for i in (0..GROUP).step_by(V::LANES) {
                let weight = exp(V::load(scores[m].as_ptr().add(i)).sub(shift));
                weight.store(out.weights[m].as_mut_ptr().add(i));
                total = total.add(weight);
            }
            out.decay[m] = decay;
            *running = Running { highest, total };
        }
    }
    out
}

/// `y = y * decay + Σ weight * v`, position after position.
///
/// # Safety
/// As for [`step`].
#[inline(always)]
unsafe fn accumulate<V: Vector, E: Elem, const M: usize>(
    a: &Attention<'_, E>,
    weights: &Weights<V, M>,
    places: &[usize],
    y: &mut [f32],
) {
    let dim = a.kv.head_dim;
    let mut i = 0;
    // SAFETY: `i + n <= dim` numbers are read at each place and in each of M heads of y.
    unsafe {
        while i < dim {
            let n = (dim - i).min(V::LANES);
            let full = n == V::LANES;
            let mut sums = [V::splat(0.0); M];
            for (m, sum) in sums.iter_mut().enumerate() {
                let y = y.as_ptr().add(m * dim + i);
                let so_far = if full { V::load(y) } else { V::load_first(y, n) };
                *sum = so_far.mul(weights.decay[m]);
            }
            for (position, place) in places.iter().enumerate() {
                let v = a.v.as_ptr().add(place + i);
                let v = if full { E::load::<V>(v) } else { E::load_first::<V>(v, n) };
                for (m, sum) in sums.iter_mut().enumerate() {
                    *sum = V::splat(weights.weights[m][position]).mul_add(v, *sum);
                }
            }
            for (m, sum) in sums.iter().enumerate() {
                let y = y.as_mut_ptr().add(m * dim + i);
                if full { sum.store(y) } else { sum.store_first(y, n) }
            }
            i += n;
        }
    }
}
