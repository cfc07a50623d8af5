//! Products of quantised weights where one instruction multiplies two rows of x by two outputs,
//! eight columns deep.
//!
//! Rows beyond the last pair, a row alone among them, are multiplied as elsewhere. Sums within a
//! group are exact, so that neither way shows in a bit of a result.

use std::marker::PhantomData;

use crate::dot::DotPairs;
use crate::packed::{GROUP, UNIT_BYTES};

use super::product::{Multiply, Product, Q4, Q8, quantised};

/// q8 weights.
pub(crate) struct Q8Pairs<D>(PhantomData<D>);

impl<D: DotPairs> Multiply for Q8Pairs<D> {
    type Float = D::Float;

    #[inline(always)]
    unsafe fn tile<const M: usize>(
        p: &Product<'_>,
        strip: *const u8,
        lane: usize,
        row: usize,
    ) -> [[D::Float; 2]; M] {
        // SAFETY: GROUP / 4 units of w and GROUP numbers of each row of x follow in each group.
        unsafe {
            if M == 1 {
                return Q8::<D>::tile(p, strip, lane, row);
            }
            quantised::<D, 4, M>(p, strip, lane, row, D::BIASED, |units, x, sums| {
                add_pairs::<D, M>(x, sums, |eight| {
                    [0, UNIT_BYTES / 2].map(|half| {
                        let w = units.add(2 * eight * UNIT_BYTES + half);
                        [w, w.add(UNIT_BYTES)].map(|w| D::signed(D::load(w)))
                    })
                });
            })
        }
    }
}

/// q4 weights.
pub(crate) struct Q4Pairs<D>(PhantomData<D>);

impl<D: DotPairs> Multiply for Q4Pairs<D> {
    type Float = D::Float;

    #[inline(always)]
    unsafe fn tile<const M: usize>(
        p: &Product<'_>,
        strip: *const u8,
        lane: usize,
        row: usize,
    ) -> [[D::Float; 2]; M] {
        // SAFETY: GROUP / 8 units of w and GROUP numbers of each row of x follow in each group.
        unsafe {
            if M == 1 {
                return Q4::<D>::tile(p, strip, lane, row);
            }
            quantised::<D, 8, M>(p, strip, lane, row, true, |units, x, sums| {
                add_pairs::<D, M>(x, sums, |eight| {
                    [0, UNIT_BYTES / 2].map(|half| {
                        let w = D::load(units.add(eight * UNIT_BYTES + half));
                        [D::low_bits(w), D::high_bits(w)]
                    })
                });
            })
        }
    }
}

/// Adds a group's products to exact sums. `w`: both halves' outputs of the first four and the
/// last four of eight columns.
///
/// # Safety
/// The machine has D's instructions, and each row of x has GROUP numbers.
#[inline(always)]
unsafe fn add_pairs<D: DotPairs, const M: usize>(
    x: [*const u8; M],
    sums: &mut [[D::Int; 2]; M],
    w: impl Fn(usize) -> [[D::Int; 2]; 2],
) {
    let (pairs, last) = sums.as_chunks_mut::<2>();
    let (pairs_x, last_x) = x.as_chunks::<2>();
    // SAFETY: the caller's promise.
    unsafe {
        swap::<D>(pairs);
        for eight in 0..GROUP / 8 {
            let w = w(eight);
            for (sums, x) in last.iter_mut().zip(last_x) {
                let x = [8 * eight, 8 * eight + 4].map(|at| D::splat_four(x.add(at)));
                for half in 0..2 {
                    let sum = D::dot_q4(sums[half], w[half][0], x[0]);
                    sums[half] = D::dot_q4(sum, w[half][1], x[1]);
                }
            }
            let w = w.map(|fours| D::interleave(fours));
            for ([a, b], x) in pairs.iter_mut().zip(pairs_x) {
                let x = D::load_pair(x.map(|x| x.add(8 * eight)));
                for half in 0..2 {
                    a[half] = D::dot_pairs(a[half], w[half][0], x);
                    b[half] = D::dot_pairs(b[half], w[half][1], x);
                }
            }
        }
        swap::<D>(pairs);
    }
}

/// # Safety
/// The machine has D's instructions.
#[inline(always)]
unsafe fn swap<D: DotPairs>(pairs: &mut [[[D::Int; 2]; 2]]) {
    for [a, b] in pairs {
        for half in 0..2 {
            // SAFETY: the caller's promise.
            [a[half], b[half]] = unsafe { D::swap([a[half], b[half]]) };
        }
    }
}
