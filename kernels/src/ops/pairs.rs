//! Products of quantised weights where one instruction multiplies two rows of x by two outputs,
//! eight columns deep.
//!
//! Rows beyond the last pair, a row alone among them, are multiplied as elsewhere. Sums within a
//! group are exact, so that neither way shows in a bit of a result.

use std::marker::PhantomData;

use crate::dot::DotPairs;
use crate::packed::{GROUP, UNIT_BYTES};

use super::product::{Groups, Multiply, Product, Q4, Q8, quantised};

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
        // SAFETY: the caller's promise.
        unsafe {
            if M == 1 {
                return Q8::<D>::tile(p, strip, lane, row);
            }
            quantised::<D, Self, M>(p, strip, lane, row)
        }
    }
}

impl<D: DotPairs> Groups<D> for Q8Pairs<D> {
    const UNIT: usize = 4;
    const BIASED: bool = D::BIASED;

    #[inline(always)]
    unsafe fn add<const M: usize>(
        units: *const u8,
        x: [*const u8; M],
        sums: &mut [[D::Int; 2]; M],
    ) {
        // SAFETY: the caller's promise.
        unsafe { add_pairs::<D, Self, M>(units, x, sums) }
    }
}

impl<D: DotPairs> Eights<D> for Q8Pairs<D> {
    #[inline(always)]
    unsafe fn eight(units: *const u8, eight: usize, half: usize) -> [D::Int; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let w = units.add(2 * eight * UNIT_BYTES + half * UNIT_BYTES / 2);
            [D::signed(D::load(w)), D::signed(D::load(w.add(UNIT_BYTES)))]
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
        // SAFETY: the caller's promise.
        unsafe {
            if M == 1 {
                return Q4::<D>::tile(p, strip, lane, row);
            }
            quantised::<D, Self, M>(p, strip, lane, row)
        }
    }
}

impl<D: DotPairs> Groups<D> for Q4Pairs<D> {
    const UNIT: usize = 8;
    const BIASED: bool = true;

    #[inline(always)]
    unsafe fn add<const M: usize>(
        units: *const u8,
        x: [*const u8; M],
        sums: &mut [[D::Int; 2]; M],
    ) {
        // SAFETY: the caller's promise.
        unsafe { add_pairs::<D, Self, M>(units, x, sums) }
    }
}

impl<D: DotPairs> Eights<D> for Q4Pairs<D> {
    #[inline(always)]
    unsafe fn eight(units: *const u8, eight: usize, half: usize) -> [D::Int; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let w = D::load(units.add(eight * UNIT_BYTES + half * UNIT_BYTES / 2));
            [D::low_bits(w), D::high_bits(w)]
        }
    }
}

/// How eight columns of weights are read.
trait Eights<D: DotPairs> {
    /// The outputs of a half: of the first four and of the last four columns.
    ///
    /// # Safety
    /// As for [`Groups::add`].
    unsafe fn eight(units: *const u8, eight: usize, half: usize) -> [D::Int; 2];
}

/// Adds a group's products to exact sums.
///
/// # Safety
/// As for [`Groups::add`].
#[inline(always)]
unsafe fn add_pairs<D: DotPairs, W: Eights<D>, const M: usize>(
    units: *const u8,
    x: [*const u8; M],
    sums: &mut [[D::Int; 2]; M],
) {
    let (pairs, last) = sums.as_chunks_mut::<2>();
    let (pairs_x, last_x) = x.as_chunks::<2>();
    // SAFETY: the caller's promise.
    unsafe {
        swap::<D>(pairs);
        for eight in 0..GROUP / 8 {
            let w = [W::eight(units, eight, 0), W::eight(units, eight, 1)];
            for (sums, x) in last.iter_mut().zip(last_x) {
                let x = [D::splat_four(x.add(8 * eight)), D::splat_four(x.add(8 * eight + 4))];
                for half in 0..2 {
                    let sum = D::dot_q4(sums[half], w[half][0], x[0]);
                    sums[half] = D::dot_q4(sum, w[half][1], x[1]);
                }
            }
            let w = [D::interleave(w[0]), D::interleave(w[1])];
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
