//! The softmax over several spans from the softmax of each.

use std::ops::Range;

use crate::vector::{LANES_MAX, Vector, exp};

use super::{Attention, Partials};

/// The softmax of one (row, head) over some spans, beside its weighted sum of V.
#[derive(Clone, Copy)]
pub(crate) struct State {
    pub(super) highest: f32,
    /// Σ exp(score - highest)
    pub(super) total: f32,
}

impl State {
    /// Before the first span.
    pub(super) const NONE: State = State { highest: f32::NEG_INFINITY, total: 0.0 };
}

/// What sums are multiplied with when spans join, for each pair of a tile.
pub(super) struct Factors {
    /// Of the sums so far.
    pub(super) keep: [f32; LANES_MAX],
    /// Of the new span's.
    pub(super) take: [f32; LANES_MAX],
}

/// Joins each of `states` with the span that follows it.
///
/// # Safety
/// The machine has V's instruction set. Both have one length, at most `LANES_MAX`.
#[inline(always)]
pub(super) unsafe fn join<V: Vector>(states: &mut [State], spans: &[State]) -> Factors {
    let mut factors = Factors { keep: [0.0; LANES_MAX], take: [0.0; LANES_MAX] };
    for (i, (state, span)) in states.iter_mut().zip(spans).enumerate() {
        let highest = state.highest.max(span.highest);
        factors.keep[i] = state.highest - highest;
        factors.take[i] = span.highest - highest;
        state.highest = highest;
    }
    for factors in [&mut factors.keep, &mut factors.take] {
        for start in (0..LANES_MAX).step_by(V::LANES) {
            // SAFETY: LANES_MAX is a multiple of LANES, so registers tile the array.
            unsafe {
                let place = factors.as_mut_ptr().add(start);
                exp(V::load(place)).store(place);
            }
        }
    }
    for (i, (state, span)) in states.iter_mut().zip(spans).enumerate() {
        state.total = state.total * factors.keep[i] + span.total * factors.take[i];
    }
    factors
}

/// `sums * keep + span * take`
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
pub(super) unsafe fn join_sums<V: Vector>(sums: V, keep: f32, span: V, take: f32) -> V {
    // SAFETY: the caller's promise.
    unsafe { span.mul_add(V::splat(take), sums.mul(V::splat(keep))) }
}

/// `sums / total`
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
pub(super) unsafe fn divide<V: Vector>(sums: &mut [f32], total: f32) {
    // SAFETY: `n` numbers are left at `i`; the instruction set is the caller's promise.
    unsafe {
        let total = V::splat(total);
        for i in (0..sums.len()).step_by(V::LANES) {
            let n = (sums.len() - i).min(V::LANES);
            let place = sums.as_mut_ptr().add(i);
            if n == V::LANES {
                V::load(place).div(total).store(place);
            } else {
                V::load_first(place, n).div(total).store_first(place, n);
            }
        }
    }
}

/// Joins the spans of the given (row, head) pairs into y, as [`super::attention`] left them.
///
/// # Safety
/// The machine has V's instruction set, all partials that the rows have are there, and no pair
/// is joined twice at once.
#[inline(always)]
pub(crate) unsafe fn join_spans<V: Vector>(
    a: &Attention<'_>,
    partials: &Partials<'_>,
    pairs: Range<usize>,
) {
    let dim = a.shape.head_dim;
    for pair in pairs {
        let spans = (a.rows[pair / a.query.heads].len as usize).div_ceil(super::SPAN);
        // SAFETY: the pair is this call's alone, in y and in the partials.
        let (y, first) =
            unsafe { (a.y.slice(pair * dim..(pair + 1) * dim), partials.slot(pair, 0, dim)) };
        y.copy_from_slice(&first[..dim]);
        let mut state = State { highest: first[dim], total: first[dim + 1] };
        for span in 1..spans {
            // SAFETY: as above; y and a partial are `dim` long.
            unsafe { join_span::<V>(&mut state, y, partials.slot(pair, span, dim)) };
        }
        // SAFETY: the caller's promise.
        unsafe { divide::<V>(y, state.total) };
    }
}

/// # Safety
/// The machine has V's instruction set. Behind the numbers of `partial`, as many as y has, lies
/// its state.
#[inline(always)]
unsafe fn join_span<V: Vector>(state: &mut State, y: &mut [f32], partial: &[f32]) {
    let dim = y.len();
    let span = State { highest: partial[dim], total: partial[dim + 1] };
    // SAFETY: one state joins one; `n` numbers are left at `i` in y and in the partial.
    unsafe {
        let factors = join::<V>(std::slice::from_mut(state), &[span]);
        let (keep, take) = (factors.keep[0], factors.take[0]);
        for i in (0..dim).step_by(V::LANES) {
            let n = (dim - i).min(V::LANES);
            let (place, partial) = (y.as_mut_ptr().add(i), partial.as_ptr().add(i));
            if n == V::LANES {
                join_sums(V::load(place), keep, V::load(partial), take).store(place);
            } else {
                let (sums, partial) = (V::load_first(place, n), V::load_first(partial, n));
                join_sums(sums, keep, partial, take).store_first(place, n);
            }
        }
    }
}
