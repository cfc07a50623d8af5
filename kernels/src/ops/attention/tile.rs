//! One span of positions for a tile of (row, head) pairs: what is read of K and V, and widened,
//! serves all pairs of the tile.

use std::mem::MaybeUninit;

use crate::kv::{HEAD_DIM_MAX, KvElem, Planes};
use crate::prefetch::prefetch_near;
use crate::vector::{Vector, exp, sum};

use super::join::{Factors, State, join, join_sums};
use super::scheme::Scheme;
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
/// The machine has S's instruction set, the places lie within K and V, and M pairs from
/// `work.pair` on are this call's alone and see some of the span.
#[inline(always)]
pub(crate) unsafe fn tile<S: Scheme, const M: usize>(work: &Work<'_, S::E>, states: &mut [State]) {
    if M > tile_pairs_max::<S::V>() {
        unreachable!("tiles beyond the registers are not chosen");
    }
    let mut q = MaybeUninit::<[[f32; Q_STRIDE]; M]>::uninit();
    let mut weights = MaybeUninit::<[[f32; WEIGHTS_STRIDE]; M]>::uninit();
    let (q, weights) = (q.as_mut_ptr().cast::<f32>(), weights.as_mut_ptr().cast::<f32>());
    // SAFETY: `head_dim` queries and the weights of all positions that are read were written
    // before, each within its stride; the rest is the caller's promise.
    unsafe {
        let pairs = gather::<S, M>(work, q);
        scores::<S, M>(work, q, weights, pairs.longest);
        let mut spans = [State::NONE; M];
        for (m, span) in spans.iter_mut().enumerate() {
            *span = weigh::<S>(work, weights.add(m * WEIGHTS_STRIDE), pairs.lens[m]);
        }
        let factors = join::<S::V>(states, &spans);
        // A span that is dealt alone is joined later.
        let first = work.span == 0 || work.a.partials.is_some();
        accumulate_all::<S, M>(work, weights, &pairs, (!first).then_some(&factors));
    }
}

/// Looks the pairs up and copies their queries, scaled.
///
/// # Safety
/// As for [`tile`]; room for M queries lies `Q_STRIDE` apart at `q`.
#[inline(always)]
unsafe fn gather<S: Scheme, const M: usize>(work: &Work<'_, S::E>, q: *mut f32) -> Pairs<M> {
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
            let q = q.add(m * Q_STRIDE);
            scale::<S::V>(source, a.query.scale, q);
            S::keep(q, dim);
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
unsafe fn scores<S: Scheme, const M: usize>(
    work: &Work<'_, S::E>,
    q: *const f32,
    scores: *mut f32,
    longest: usize,
) {
    let registers = longest.div_ceil(GROUP) * (GROUP / S::V::LANES);
    let mut at = 0;
    // SAFETY: `at` and the registers after it are within the groups of the span.
    unsafe {
        // Few pairs take more positions at once, or the chains would wait for themselves.
        while M <= S::V::REGISTERS / 8 && at + 4 <= registers {
            score::<S, M, 4>(work, q, scores, at);
            at += 4;
        }
        while at + 2 <= registers {
            score::<S, M, 2>(work, q, scores, at);
            at += 2;
        }
        if S::V::LANES == GROUP && at < registers {
            score::<S, M, 1>(work, q, scores, at);
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

    /// One group of `head_dim` numbers of what is wanted.
    #[inline(always)]
    fn prefetch(&self, group: usize, k_step: usize) {
        for n in 0..N {
            prefetch_near(self.k[n].wrapping_add(group * k_step));
            prefetch_near(self.v[n].wrapping_add(group * GROUP * E::WIDE));
        }
    }
}

/// N registers of scores for each of M pairs, from register `at` of the span on.
///
/// # Safety
/// As for [`scores`].
#[inline(always)]
unsafe fn score<S: Scheme, const M: usize, const N: usize>(
    work: &Work<'_, S::E>,
    q: *const f32,
    scores: *mut f32,
    at: usize,
) {
    let shape = &work.a.shape;
    let k_step = shape.k_step::<S::E>();
    let start = |n: usize| ((at + n) * S::V::LANES / GROUP, (at + n) * S::V::LANES % GROUP);
    // SAFETY: `head_dim` registers lie a block's positions apart from each place on, and
    // `head_dim` numbers in each query.
    unsafe {
        let mut k = [work.planes.k.as_ptr(); N];
        for (n, k) in k.iter_mut().enumerate() {
            let (group, lane) = start(n);
            *k = k.add(work.places[group].k + lane * S::E::WIDE);
        }
        let ahead = Ahead::<S::E, N>::new(work, at * S::V::LANES / GROUP);
        let mut sums = [[S::V::splat(0.0); N]; M];
        for i in 0..shape.head_dim.div_ceil(S::E::WIDE) {
            if M <= DECODE_PAIRS_MAX && S::V::LANES == GROUP {
                ahead.prefetch(i, k_step);
            }
            for phase in 0..S::PHASES {
                // (a closure would not have the instruction set)
                let mut lanes = [S::load(k[0], phase); N];
                for (lanes, k) in lanes.iter_mut().zip(&k).skip(1) {
                    *lanes = S::load(*k, phase);
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let q = S::factor(q.add(m * Q_STRIDE), i, phase);
                    for n in 0..N {
                        sums[n] = S::add(sums[n], q, lanes[n]);
                    }
                }
            }
            for k in &mut k {
                *k = k.add(k_step);
            }
        }
        for n in 0..N {
            let (group, lane) = start(n);
            let scale = if S::E::SCALED {
                S::V::load(work.planes.k_scales.as_ptr().add(work.places[group].position + lane))
            } else {
                S::V::splat(1.0)
            };
            for (m, sums) in sums.iter().enumerate() {
                let score = if S::E::SCALED { sums[n].mul(scale) } else { sums[n] };
                score.store(scores.add(m * WEIGHTS_STRIDE + (at + n) * S::V::LANES));
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
unsafe fn weigh<S: Scheme>(work: &Work<'_, S::E>, weights: *mut f32, len: usize) -> State {
    let end = len.next_multiple_of(GROUP);
    // SAFETY: GROUP is a multiple of LANES, so registers tile the groups.
    unsafe {
        // What is beyond may be no number at all.
        for i in len..end {
            *weights.add(i) = f32::NEG_INFINITY;
        }
        let mut best = S::V::splat(f32::NEG_INFINITY);
        for i in (0..end).step_by(S::V::LANES) {
            best = best.max_number(S::V::load(weights.add(i)));
        }
        let highest = best.highest();
        let (shift, mut total) = (S::V::splat(highest), S::V::splat(0.0));
        for i in (0..end).step_by(S::V::LANES) {
            let mut weight = exp(S::V::load(weights.add(i)).sub(shift));
            total = total.add(weight);
            if S::E::SCALED {
                let position = work.places[i / GROUP].position + i % GROUP;
                weight = weight.mul(S::V::load(work.planes.v_scales.as_ptr().add(position)));
            }
            weight.store(weights.add(i));
        }
        S::keep(weights, end);
        State { highest, total: sum(total) }
    }
}

/// The weighted sums of V, joined with those so far if there are any.
///
/// # Safety
/// As for [`tile`]; the weights of the pairs lie at `weights`.
#[inline(always)]
unsafe fn accumulate_all<S: Scheme, const M: usize>(
    work: &Work<'_, S::E>,
    weights: *const f32,
    pairs: &Pairs<M>,
    factors: Option<&Factors>,
) {
    let dim = work.a.shape.head_dim;
    let mut i = 0;
    // SAFETY: N whole registers, or `dim - i` numbers, are left in each head.
    unsafe {
        while M <= S::V::REGISTERS / 8 && i + 4 * S::V::LANES <= dim {
            accumulate::<S, M, 4>(work, weights, pairs, factors, i);
            i += 4 * S::V::LANES;
        }
        while i + 2 * S::V::LANES <= dim {
            accumulate::<S, M, 2>(work, weights, pairs, factors, i);
            i += 2 * S::V::LANES;
        }
        while i < dim {
            accumulate::<S, M, 1>(work, weights, pairs, factors, i);
            i += S::V::LANES;
        }
    }
}

/// N registers of the weighted sums, from number `i` of the head on.
///
/// # Safety
/// As for [`accumulate_all`]; all N registers lie within the head, or N is 1.
#[inline(always)]
unsafe fn accumulate<S: Scheme, const M: usize, const N: usize>(
    work: &Work<'_, S::E>,
    weights: *const f32,
    pairs: &Pairs<M>,
    factors: Option<&Factors>,
    i: usize,
) {
    let dim = work.a.shape.head_dim;
    let n_last = (dim - i).min(S::V::LANES);
    let wide = dim * S::E::WIDE;
    // SAFETY: the caller's promise; `n_last` numbers are left of a register that N = 1 holds.
    unsafe {
        let mut sums = [[S::V::splat(0.0); N]; M];
        for (group, place) in work.places[..pairs.longest.div_ceil(GROUP)].iter().enumerate() {
            let start = group * GROUP;
            let v = work.planes.v.as_ptr().add(place.position * dim + i * S::E::WIDE);
            let weights = weights.add(S::kept(start));
            let shared = pairs.shortest.saturating_sub(start).min(GROUP) / S::E::WIDE;
            for i in 0..shared {
                for phase in 0..S::PHASES {
                    let v = load::<S, N>(v.add(i * wide), n_last, phase);
                    for (m, sums) in sums.iter_mut().enumerate() {
                        add::<S, N>(sums, S::factor(weights.add(m * WEIGHTS_STRIDE), i, phase), v);
                    }
                }
            }
            // Positions that only some of the pairs see. The others' weights are zero, but zero
            // times what a later row stored may be no number.
            for i in shared..(pairs.longest - start).min(GROUP).div_ceil(S::E::WIDE) {
                let position = start + i * S::E::WIDE;
                for phase in 0..S::PHASES {
                    let v = load::<S, N>(v.add(i * wide), n_last, phase);
                    for (m, sums) in sums.iter_mut().enumerate() {
                        let seen = pairs.lens[m].saturating_sub(position);
                        let factor = S::factor(weights.add(m * WEIGHTS_STRIDE), i, phase);
                        for n in 0..N {
                            if let Some(v) = S::of_seen(v[n], seen, phase) {
                                sums[n] = S::add(sums[n], factor, v);
                            }
                        }
                    }
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                let place = pairs.sums[m].add(i + n * S::V::LANES);
                let n = if N > 1 { S::V::LANES } else { n_last };
                let joined = match factors {
                    None => sum,
                    Some(factors) => {
                        let so_far = S::V::load_first(place, n);
                        join_sums(so_far, factors.keep[m], sum, factors.take[m])
                    }
                };
                joined.store_first(place, n);
            }
        }
    }
}

/// N registers of V; only `last` groups of one that N = 1 holds.
///
/// # Safety
/// The machine has S's instruction set, and so many groups lie at `v`.
#[inline(always)]
unsafe fn load<S: Scheme, const N: usize>(
    v: *const S::E,
    last: usize,
    phase: usize,
) -> [S::Lanes; N] {
    // SAFETY: the caller's promise.
    unsafe {
        if N == 1 && last < S::V::LANES {
            return [S::load_first(v, last, phase); N];
        }
        let mut lanes = [S::load(v, phase); N];
        for (n, lanes) in lanes.iter_mut().enumerate().skip(1) {
            *lanes = S::load(v.add(n * S::V::LANES * S::E::WIDE), phase);
        }
        lanes
    }
}

/// `sums += factor * v`
///
/// # Safety
/// The machine has S's instruction set.
#[inline(always)]
unsafe fn add<S: Scheme, const N: usize>(
    sums: &mut [S::V; N],
    factor: S::Factor,
    v: [S::Lanes; N],
) {
    for n in 0..N {
        // SAFETY: the caller's promise.
        sums[n] = unsafe { S::add(sums[n], factor, v[n]) };
    }
}
