//! From a row to one number.

use crate::vector::{Vector, exp, load_first_or, sum};

/// Numbers whose highest is found before looking where it lies: few enough that the second
/// look, one number at a time, costs next to nothing.
const ARGMAX_CHUNK: usize = 1024;

/// The lowest index of the highest number. NaN never wins; all NaN is 0.
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
pub(crate) unsafe fn argmax<V: Vector>(x: &[f32]) -> usize {
    let mut best = (f32::NEG_INFINITY, 0);
    for (chunk, numbers) in x.chunks(ARGMAX_CHUNK).enumerate() {
        // SAFETY: the instruction set is the caller's promise.
        let highest = unsafe { max::<V>(numbers) };
        if highest > best.0 {
            best = (highest, chunk * ARGMAX_CHUNK);
        }
    }
    let (highest, start) = best;
    if highest == f32::NEG_INFINITY {
        return x.iter().position(|x| !x.is_nan()).unwrap_or(0);
    }
    let chunk = &x[start..];
    start + chunk.iter().position(|x| *x == highest).unwrap_or(0)
}

/// The highest number, minus infinity when there is none.
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
unsafe fn max<V: Vector>(x: &[f32]) -> f32 {
    let (x, len) = (x.as_ptr(), x.len());
    // SAFETY: full registers are read while `i + LANES <= len`, then the `len - i` numbers
    // that remain; the instruction set is the caller's promise.
    unsafe {
        let mut best = V::splat(f32::NEG_INFINITY);
        let mut i = 0;
        while i + V::LANES <= len {
            best = best.max_number(V::load(x.add(i)));
            i += V::LANES;
        }
        best.max_number(load_first_or(x.add(i), len - i, f32::NEG_INFINITY)).highest()
    }
}

/// `ln Σ exp(x)`
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
pub(crate) unsafe fn log_sum_exp<V: Vector>(x: &[f32]) -> f32 {
    // SAFETY: the instruction set is the caller's promise.
    let highest = unsafe { max::<V>(x) };
    if highest.is_infinite() {
        return highest;
    }
    let (x, len) = (x.as_ptr(), x.len());
    // SAFETY: full registers are read while `i + LANES <= len`, then the `len - i` numbers
    // that remain; the instruction set is the caller's promise.
    unsafe {
        let shift = V::splat(highest);
        let mut total = V::splat(0.0);
        let mut i = 0;
        while i + V::LANES <= len {
            total = total.add(exp(V::load(x.add(i)).sub(shift)));
            i += V::LANES;
        }
        let tail: V = load_first_or(x.add(i), len - i, f32::NEG_INFINITY);
        highest + sum(total.add(exp(tail.sub(shift)))).ln()
    }
}
