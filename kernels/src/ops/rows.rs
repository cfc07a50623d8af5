//! What happens inside one row: normalisation, rotation, gating.

use crate::shape::RopeTables;
use crate::vector::{Vector, exp, sum};

/// Where the heads of a row lie.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Distance between rows.
    pub(crate) stride: usize,
    pub(crate) count: usize,
    pub(crate) dim: usize,
}

/// `y[M, N] = x / sqrt(mean(x²) + eps) * weight[N]`
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
pub(super) unsafe fn rms_norm<V: Vector>(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let width = weight.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let (x, weight, y) = (x.as_ptr(), weight.as_ptr(), y.as_mut_ptr());
        // SAFETY: x, weight and y are `width` long, and no access reaches beyond it: full
        // registers while `i + LANES <= width`, then the `width - i` numbers that remain.
        unsafe {
            let mut squares = V::splat(0.0);
            let mut i = 0;
            while i + V::LANES <= width {
                let x = V::load(x.add(i));
                squares = x.mul_add(x, squares);
                i += V::LANES;
            }
            let tail = V::load_first(x.add(i), width - i);
            squares = tail.mul_add(tail, squares);

            let scale = V::splat(1.0 / (sum(squares) / width as f32 + eps).sqrt());
            let mut i = 0;
            while i + V::LANES <= width {
                V::load(x.add(i)).mul(scale).mul(V::load(weight.add(i))).store(y.add(i));
                i += V::LANES;
            }
            let weight = V::load_first(weight.add(i), width - i);
            tail.mul(scale).mul(weight).store_first(y.add(i), width - i);
        }
    }
}

/// Rotates the halves of each head of each row of x, by the angles of the row's position.
///
/// # Safety
/// The machine has V's instruction set. The heads lie within the rows, and the tables have a
/// row of `dim / 2` for every position.
#[inline(always)]
pub(crate) unsafe fn rope<V: Vector>(
    x: &mut [f32],
    heads: Heads,
    tables: RopeTables<'_>,
    positions: &[u32],
) {
    let half = heads.dim / 2;
    for (row, position) in x.chunks_exact_mut(heads.stride).zip(positions) {
        let angles = *position as usize * half..(*position as usize + 1) * half;
        let (cos, sin) = (&tables.cos[angles.clone()], &tables.sin[angles]);
        for head in row[..heads.count * heads.dim].chunks_exact_mut(heads.dim) {
            let (a, b) = head.split_at_mut(half);
            // SAFETY: the instruction set is the caller's promise, and all four are `half` long.
            unsafe { rotate::<V>(a, b, cos, sin) };
        }
    }
}

/// # Safety
/// The machine has V's instruction set. All slices have one length.
#[inline(always)]
unsafe fn rotate<V: Vector>(a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
    let len = a.len();
    let (a, b, cos, sin) = (a.as_mut_ptr(), b.as_mut_ptr(), cos.as_ptr(), sin.as_ptr());
    // SAFETY: all are `len` long, and no access reaches beyond it: full registers while
    // `i + LANES <= len`, then the `len - i` numbers that remain.
    unsafe {
        let mut i = 0;
        while i + V::LANES <= len {
            let (cos, sin) = (V::load(cos.add(i)), V::load(sin.add(i)));
            let (x, y) = (V::load(a.add(i)), V::load(b.add(i)));
            x.mul(cos).sub(y.mul(sin)).store(a.add(i));
            y.mul(cos).add(x.mul(sin)).store(b.add(i));
            i += V::LANES;
        }
        if i < len {
            let n = len - i;
            let (cos, sin) = (V::load_first(cos.add(i), n), V::load_first(sin.add(i), n));
            let (x, y) = (V::load_first(a.add(i), n), V::load_first(b.add(i), n));
            x.mul(cos).sub(y.mul(sin)).store_first(a.add(i), n);
            y.mul(cos).add(x.mul(sin)).store_first(b.add(i), n);
        }
    }
}

/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
pub(super) unsafe fn silu<V: Vector>(x: V) -> V {
    // SAFETY: the instruction set is the caller's promise.
    unsafe { x.div(exp(V::splat(0.0).sub(x)).add(V::splat(1.0))) }
}
