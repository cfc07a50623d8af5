//! One span of positions for a tile of (row, head) pairs: what is read of K and V, and widened,
//! serves all pairs of the tile.

use std::mem::MaybeUninit;

use crate::kv::{HEAD_DIM_MAX, KvElem, Planes};
use crate::prefetch::prefetch_near;
use crate::vector::{Vector, exp, sum};

use super::join::{Factors, State, join, join_sums};
use super::{Attention, GROUP, SPAN, Unit, tile_pairs_max};

/// Distances between the queries and the weights of a tile's pairs: constants, so that one
/// pointer reaches all pairs, and no power of two, which would put all into one set of the cache.
const Q_STRIDE: usize = HEAD_DIM_MAX + GROUP;
const WEIGHTS_STRIDE: usize = SPAN + GROUP;

/// Tiles of more pairs have so much to multiply that K and V come by themselves.
const DECODE_PAIRS_MAX: usize = 8;

/// Where a group of positions lies.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    /// In K: the first number of the first position.
    pub(super) k: usize,
    /// The first position: in the scales, and times `head_dim` in V.
    pub(super) position: usize,
}

/// What a tile computes.
pub(crate) struct Work<'a, E> {
    pub(super) a: &'a Attention<'a>,
    pub(super) planes: &'a Planes<E>,
    pub(super) places: &'a [Place; SPAN / GROUP],
    pub(super) unit: &'a Unit,
    pub(super) span: usize,
    /// The first pair of the tile.
    pub(super) pair: usize,
}

/// The pairs of a tile.
struct Pairs<const M: usize> {
    /// Positions of the span that each sees, at least one.
    lens: [usize; M],
    shortest: usize,
    longest: usize,
    /// Where the sums of each go.
    sums: [*mut f32; M],
}

/// Takes a span into the states and sums of M pairs.
///
/// # Safety
/// The machine has V's instruction set, the places lie within K and V, and M pairs from
/// `work.pair` on are this call's alone and see some of the span.
#[inline(always)]
pub(crate) unsafe fn tile<V: Vector, E: KvElem, const M: usize>(
    work: &Work<'_, E>,
    states: &mut [State],
) {
    if M > tile_pairs_max::<V>() {
        unreachable!("tiles beyond the registers are not chosen");
    }
    let mut q = MaybeUninit::<[[f32; Q_STRIDE]; M]>::uninit();
    let mut weights = MaybeUninit::<[[f32; WEIGHTS_STRIDE]; M]>::uninit();
    let (q, weights) = (q.as_mut_ptr().cast::<f32>(), weights.as_mut_ptr().cast::<f32>());
    // SAFETY: `head_dim` queries and the weights of all positions that are read were written
    // before, each within its stride; the rest is the caller's promise.
    unsafe {
        let pairs = gather::<V, E, M>(work, q);
        scores::<V, E, M>(work, q, weights, pairs.longest);
        let mut spans = [State::NONE; M];
        for (m, span) in spans.iter_mut().enumerate() {
            *span = weigh::<V, E>(work, weights.add(m * WEIGHTS_STRIDE), pairs.lens[m]);
        }
        let factors = join::<V>(states, &spans);
        // A span that is dealt alone is joined later.
        let first = work.span == 0 || work.a.partials.is_some();
        accumulate_all::<V, E, M>(work, weights, &pairs, (!first).then_some(&factors));
    }
}

/// Looks the pairs up and copies their queries, scaled.
///
/// # Safety
/// As for [`tile`]; room for M queries lies `Q_STRIDE` apart at `q`.
#[inline(always)]
unsafe fn gather<V: Vector, E, const M: usize>(work: &Work<'_, E>, q: *mut f32) -> Pairs<M> {
    let (a, heads, dim) = (work.a, work.a.heads_per_kv(), work.a.shape.head_dim);
    let mut pairs =
        Pairs { lens: [0; M], shortest: SPAN, longest: 0, sums: [std::ptr::null_mut(); M] };
    for m in 0..M {
        let row = work.unit.rows.start + (work.pair + m) / heads;
        let head = work.unit.kv_head * heads + (work.pair + m) % heads;
        let len = (a.rows[row].len as usize - work.span * SPAN).min(SPAN);
        pairs.lens[m] = len;
        pairs.shortest = pairs.shortest.min(len);
        pairs.longest = pairs.longest.max(len);
        let source = &a.query.q[row * a.query.stride + head * dim..][..dim];
        // SAFETY: the caller's promise.
        unsafe {
            pairs.sums[m] = a.destination(row, head, work.span).as_mut_ptr();
            scale::<V>(source, a.query.scale, q.add(m * Q_STRIDE));
        }
    }
    pairs
}

/// # Safety
/// The machine has V's instruction set, and room for `source.len()` numbers is at `target`.
#[inline(always)]
unsafe fn scale<V: Vector>(source: &[f32], scale: f32, target: *mut f32) {
    // SAFETY: `n` numbers are left at `i` in both.
    unsafe {
        let scale = V::splat(scale);
        for i in (0..source.len()).step_by(V::LANES) {
            let n = (source.len() - i).min(V::LANES);
            let (source, target) = (source.as_ptr().add(i), target.add(i));
            if n == V::LANES {
                V::load(source).mul(scale).store(target);
            } else {
                V::load_first(source, n).mul(scale).store_first(target, n);
            }
        }
    }
}

/// The scores of all groups that the longest pair sees.
///
/// # Safety
/// As for [`tile`]; M queries lie at `q`, room for M rows of weights at `scores`.
#[inline(always)]
unsafe fn scores<V: Vector, E: KvElem, const M: usize>(
    work: &Work<'_, E>,
    q: *const f32,
    scores: *mut f32,
    longest: usize,
) {
    let registers = longest.div_ceil(GROUP) * (GROUP / V::LANES);
    let mut at = 0;
    // SAFETY: `at` and the registers after it are within the groups of the span.
    unsafe {
        // Few pairs take more positions at once, or the chains would wait for themselves.
        while M <= V::REGISTERS / 8 && at + 4 <= registers {
            score::<V, E, M, 4>(work, q, scores, at);
            at += 4;
        }
        while at + 2 <= registers {
            score::<V, E, M, 2>(work, q, scores, at);
            at += 2;
        }
        if V::LANES == GROUP && at < registers {
            score::<V, E, M, 1>(work, q, scores, at);
        }
    }
}

/// What is wanted soon, while a decode scores N groups: the K of the next N, and the V of these.
/// Blocks lie anywhere, and are too short for a prefetcher to notice.
struct Ahead<E, const N: usize> {
    k: [*const E; N],
    v: [*const E; N],
}

impl<E: KvElem, const N: usize> Ahead<E, N> {
    /// # Safety
    /// The groups from `group` on are places of the span.
    #[inline(always)]
    unsafe fn new(work: &Work<'_, E>, group: usize) -> Ahead<E, N> {
        let (planes, dim) = (work.planes, work.a.shape.head_dim);
        let place = |n: usize| work.places[n.min(SPAN / GROUP - 1)];
        Ahead {
            k: std::array::from_fn(|n| planes.k.as_ptr().wrapping_add(place(group + N + n).k)),
            v: std::array::from_fn(|n| {
                planes.v.as_ptr().wrapping_add(place(group + n).position * dim)
            }),
        }
    }

    /// One number in `head_dim` of what is wanted.
    #[inline(always)]
    fn prefetch(&self, i: usize, block_tokens: usize) {
        for n in 0..N {
            prefetch_near(self.k[n].wrapping_add(i * block_tokens));
            prefetch_near(self.v[n].wrapping_add(i * GROUP));
        }
    }
}

/// N registers of scores for each of M pairs, from register `at` of the span on.
///
/// # Safety
/// As for [`scores`].
#[inline(always)]
unsafe fn score<V: Vector, E: KvElem, const M: usize, const N: usize>(
    work: &Work<'_, E>,
    q: *const f32,
    scores: *mut f32,
    at: usize,
) {
    let shape = &work.a.shape;
    let start = |n: usize| ((at + n) * V::LANES / GROUP, (at + n) * V::LANES % GROUP);
    // SAFETY: `head_dim` registers lie a block's positions apart from each place on, and
    // `head_dim` numbers in each query.
    unsafe {
        let mut k = [work.planes.k.as_ptr(); N];
        for (n, k) in k.iter_mut().enumerate() {
            let (group, lane) = start(n);
            *k = k.add(work.places[group].k + lane);
        }
        let ahead = Ahead::<E, N>::new(work, at * V::LANES / GROUP);
        let mut sums = [[V::splat(0.0); N]; M];
        for i in 0..shape.head_dim {
            if M <= DECODE_PAIRS_MAX && V::LANES == GROUP {
                ahead.prefetch(i, shape.block_tokens);
            }
            let mut widened = [V::splat(0.0); N];
            for n in 0..N {
                widened[n] = E::load::<V>(k[n]);
                k[n] = k[n].add(shape.block_tokens);
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let q = V::splat(*q.add(m * Q_STRIDE + i));
                for n in 0..N {
                    sums[n] = q.mul_add(widened[n], sums[n]);
                }
            }
        }
        for n in 0..N {
            let (group, lane) = start(n);
            let scale = if E::SCALED {
                V::load(work.planes.k_scales.as_ptr().add(work.places[group].position + lane))
            } else {
                V::splat(1.0)
            };
            for (m, sums) in sums.iter().enumerate() {
                let score = if E::SCALED { sums[n].mul(scale) } else { sums[n] };
                score.store(scores.add(m * WEIGHTS_STRIDE + (at + n) * V::LANES));
            }
        }
    }
}

/// Turns the scores of one pair into weights, `exp(score - highest)`.
///
/// # Safety
/// The machine has V's instruction set; the scores of the groups that hold `len` positions lie
/// at `weights`.
#[inline(always)]
unsafe fn weigh<V: Vector, E: KvElem>(work: &Work<'_, E>, weights: *mut f32, len: usize) -> State {
    let end = len.next_multiple_of(GROUP);
    // SAFETY: GROUP is a multiple of LANES, so registers tile the groups.
    unsafe {
        // What is beyond may be no number at all.
        for i in len..end {
            *weights.add(i) = f32::NEG_INFINITY;
        }
        let mut best = V::splat(f32::NEG_INFINITY);
        for i in (0..end).step_by(V::LANES) {
            best = best.max_number(V::load(weights.add(i)));
        }
        let highest = best.highest();
        let (shift, mut total) = (V::splat(highest), V::splat(0.0));
        for i in (0..end).step_by(V::LANES) {
            let mut weight = exp(V::load(weights.add(i)).sub(shift));
            total = total.add(weight);
            if E::SCALED {
                let position = work.places[i / GROUP].position + i % GROUP;
                weight = weight.mul(V::load(work.planes.v_scales.as_ptr().add(position)));
            }
            weight.store(weights.add(i));
        }
        State { highest, total: sum(total) }
    }
}

/// The weighted sums of V, joined with those so far if there are any.
///
/// # Safety
/// As for [`tile`]; the weights of the pairs lie at `weights`.
#[inline(always)]
unsafe fn accumulate_all<V: Vector, E: KvElem, const M: usize>(
    work: &Work<'_, E>,
    weights: *const f32,
    pairs: &Pairs<M>,
    factors: Option<&Factors>,
) {
    let dim = work.a.shape.head_dim;
    let mut i = 0;
    // SAFETY: N whole registers, or `dim - i` numbers, are left in each head.
    unsafe {
        while M <= V::REGISTERS / 8 && i + 4 * V::LANES <= dim {
            accumulate::<V, E, M, 4>(work, weights, pairs, factors, i);
            i += 4 * V::LANES;
        }
        while i + 2 * V::LANES <= dim {
            accumulate::<V, E, M, 2>(work, weights, pairs, factors, i);
            i += 2 * V::LANES;
        }
        while i < dim {
            accumulate::<V, E, M, 1>(work, weights, pairs, factors, i);
            i += V::LANES;
        }
    }
}

/// N registers of the weighted sums, from number `i` of the head on.
///
/// # Safety
/// As for [`accumulate_all`]; all N registers lie within the head, or N is 1.
#[inline(always)]
unsafe fn accumulate<V: Vector, E: KvElem, const M: usize, const N: usize>(
    work: &Work<'_, E>,
    weights: *const f32,
    pairs: &Pairs<M>,
    factors: Option<&Factors>,
    i: usize,
) {
    let dim = work.a.shape.head_dim;
    let n_last = (dim - i).min(V::LANES);
    // SAFETY: the caller's promise; `n_last` numbers are left of a register that N = 1 holds.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        for (group, place) in work.places[..pairs.longest.div_ceil(GROUP)].iter().enumerate() {
            let start = group * GROUP;
            let v = work.planes.v.as_ptr().add(place.position * dim + i);
            let weights = weights.add(start);
            let shared = pairs.shortest.saturating_sub(start).min(GROUP);
            for position in 0..shared {
                let v = load::<V, E, N>(v.add(position * dim), n_last);
                for (m, sums) in sums.iter_mut().enumerate() {
                    add(sums, *weights.add(m * WEIGHTS_STRIDE + position), v);
                }
            }
            // Positions that only some of the pairs see. The others' weights are zero, but zero
            // times what a later row stored may be no number.
            for position in shared..(pairs.longest - start).min(GROUP) {
                let v = load::<V, E, N>(v.add(position * dim), n_last);
                for (m, sums) in sums.iter_mut().enumerate() {
                    if start + position < pairs.lens[m] {
                        add(sums, *weights.add(m * WEIGHTS_STRIDE + position), v);
                    }
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                let place = pairs.sums[m].add(i + n * V::LANES);
                let n = if N > 1 { V::LANES } else { n_last };
                let joined = match factors {
                    None => sum,
                    Some(factors) => {
                        let so_far = V::load_first(place, n);
                        join_sums(so_far, factors.keep[m], sum, factors.take[m])
                    }
                };
                joined.store_first(place, n);
            }
        }
    }
}

/// N registers of V; only `last` numbers of one that N = 1 holds.
///
/// # Safety
/// The machine has V's instruction set, and so many numbers lie at `v`.
#[inline(always)]
unsafe fn load<V: Vector, E: KvElem, const N: usize>(v: *const E, last: usize) -> [V; N] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut registers = [V::splat(0.0); N];
        for (n, register) in registers.iter_mut().enumerate() {
            let v = v.add(n * V::LANES);
            *register = if N > 1 || last == V::LANES { E::load(v) } else { E::load_first(v, last) };
        }
        registers
    }
}

/// `sums += weight * v`
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
unsafe fn add<V: Vector, const N: usize>(sums: &mut [V; N], weight: f32, v: [V; N]) {
    // SAFETY: the caller's promise.
    unsafe {
        let weight = V::splat(weight);
        for n in 0..N {
            sums[n] = weight.mul_add(v[n], sums[n]);
        }
    }
}
