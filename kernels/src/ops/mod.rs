//! The algorithms, each written once for all instruction sets and number formats.
//!
//! Each keeps the rule of row bits by its shape: whatever is summed is summed by one register
//! in steps of its width, from the first number to the last, and reduced by one tree. How rows
//! are tiled, blocked for the cache or split over threads then changes only the order in which
//! results are made, never a result.

mod attention;
mod matmul;
mod prepare;
mod product;
mod reduce;
mod rows;

pub(crate) use attention::{Attention, HEADS_PER_KV_MAX, attention};
pub(crate) use matmul::{RowMajor, TILE_COLS, matmul};
pub(crate) use prepare::{Prepare, prepare};
pub(crate) use product::{Bf16, Bf16Rounded, Epilogue, F32, Product, Q4, Q8, product};
pub(crate) use reduce::{argmax, log_sum_exp};
pub(crate) use rows::{Heads, rms_norm, rope, swiglu};

use crate::vector::{Elem, Vector};

/// How many of `left` rows to take next, at most `max`, so that all tiles are of about one
/// height: 7 by 6 is 4 and 3, where 6 and 1 would have the last read everything for one row.
#[inline(always)]
fn even_tile(left: usize, max: usize) -> usize {
    left.div_ceil(left.div_ceil(max))
}

/// Dot products of M rows of x with N rows of w, all `len` long: `[M][N]`.
///
/// Every product has one register of its own, whatever M and N are, so its bits are those of
/// the product computed alone.
///
/// # Safety
/// The machine has V's instruction set. M rows of `len` numbers lie `x_stride` apart at `x`,
/// and `len` numbers at each of `w`. N is a multiple of 4.
#[inline(always)]
unsafe fn dots<V: Vector, E: Elem, const M: usize, const N: usize>(
    x: *const f32,
    x_stride: usize,
    w: [*const E; N],
    len: usize,
) -> [[f32; N]; M] {
    // SAFETY: `k + LANES <= len` in the loop and `k + (len - k) = len` after it, so all loads
    // lie within the rows that the caller vouches for, as it does for the instruction set.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        let mut xs = [V::splat(0.0); M];
        let mut k = 0;
        while k + V::LANES <= len {
            for (m, x_row) in xs.iter_mut().enumerate() {
                *x_row = V::load(x.add(m * x_stride + k));
            }
            for n in 0..N {
                let w = E::load(w[n].add(k));
                for m in 0..M {
                    sums[m][n] = xs[m].mul_add(w, sums[m][n]);
                }
            }
            k += V::LANES;
        }
        if k < len {
            for (m, x_row) in xs.iter_mut().enumerate() {
                *x_row = V::load_first(x.add(m * x_stride + k), len - k);
            }
            for n in 0..N {
                let w = E::load_first(w[n].add(k), len - k);
                for m in 0..M {
                    sums[m][n] = xs[m].mul_add(w, sums[m][n]);
                }
            }
        }
        reduce(sums)
    }
}

/// # Safety
/// The machine has V's instruction set. N is a multiple of 4.
#[inline(always)]
unsafe fn reduce<V: Vector, const M: usize, const N: usize>(sums: [[V; N]; M]) -> [[f32; N]; M] {
    let mut out = [[0.0; N]; M];
    for m in 0..M {
        let mut n = 0;
        while n < N {
            let four = [sums[m][n], sums[m][n + 1], sums[m][n + 2], sums[m][n + 3]];
            // SAFETY: the instruction set is the caller's promise.
            let four = unsafe { V::sum4(four) };
            out[m][n..n + 4].copy_from_slice(&four);
            n += 4;
        }
    }
    out
}
