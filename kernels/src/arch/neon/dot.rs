//! Dot products of signed bytes, summed exactly in i32.
//!
//! The extensions' instructions are written as assembly: their intrinsics are not stable, and an
//! instruction in assembly needs no target feature around it to be inlined.

use std::arch::aarch64::*;
use std::arch::asm;

/// Adds to each lane the products of four bytes: `acc[i] + Σ a[4i + j] · b[4i + j]`, j < 4.
///
/// # Safety
/// A machine with `dotprod`.
#[inline(always)]
pub(crate) unsafe fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction is the caller's promise; it touches these registers alone.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// What [`sdot`] computes, without its extension.
///
/// # Safety
/// A machine with NEON.
#[inline(always)]
pub(crate) unsafe fn sdot_plain(acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: NEON is the caller's promise. A product of two bytes fits i16, of which only the
    // sum of two would not: pairs are widened as they are added.
    unsafe {
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
        let high = vpaddlq_s16(vmull_high_s8(a, b));
        vaddq_s32(acc, vpaddq_s32(low, high))
    }
}

/// Adds to the 2 by 2 sums in `acc` the products of two rows of eight bytes with two others:
/// `acc[2i + j] + Σ a[8i + k] · b[8j + k]`, k < 8.
///
/// # Safety
/// A machine with `i8mm`.
#[inline(always)]
pub(crate) unsafe fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction is the caller's promise; it touches these registers alone.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

#[cfg(test)]
mod tests {
    use std::arch::is_aarch64_feature_detected;

    use proptest::prelude::*;

    use super::*;

    type Kernel = unsafe fn(int32x4_t, int8x16_t, int8x16_t) -> int32x4_t;

    /// # Safety
    /// A machine with what the kernel needs.
    unsafe fn run(kernel: Kernel, acc: [i32; 4], a: [i8; 16], b: [i8; 16]) -> [i32; 4] {
        let mut sums = [0; 4];
        // SAFETY: the kernel's needs are the caller's promise; all arrays are a register long.
        unsafe {
            let (a, b) = (vld1q_s8(a.as_ptr()), vld1q_s8(b.as_ptr()));
            vst1q_s32(sums.as_mut_ptr(), kernel(vld1q_s32(acc.as_ptr()), a, b));
        }
        sums
    }

    fn dot(a: &[i8], b: &[i8]) -> i32 {
        a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
    }

    /// `acc[i]` and the product of the i-th four of `a` with the i-th four of `b`.
    fn fours(acc: [i32; 4], a: &[i8], b: &[i8]) -> [i32; 4] {
        std::array::from_fn(|i| acc[i].wrapping_add(dot(&a[4 * i..][..4], &b[4 * i..][..4])))
    }

    /// `acc` and the products of each eight of `a` with each eight of `b`.
    fn two_by_two(acc: [i32; 4], a: &[i8], b: &[i8]) -> [i32; 4] {
        std::array::from_fn(|i| {
            acc[i].wrapping_add(dot(&a[i / 2 * 8..][..8], &b[i % 2 * 8..][..8]))
        })
    }

    fn check(acc: [i32; 4], a: [i8; 16], b: [i8; 16]) {
        let dots: [(Kernel, bool); 2] =
            [(sdot_plain, true), (sdot, is_aarch64_feature_detected!("dotprod"))];
        for (kernel, _) in dots.into_iter().filter(|(_, available)| *available) {
            // SAFETY: this machine has what the kernel needs.
            assert_eq!(unsafe { run(kernel, acc, a, b) }, fours(acc, &a, &b));
        }
        if is_aarch64_feature_detected!("i8mm") {
            // SAFETY: this machine has it.
            assert_eq!(unsafe { run(smmla, acc, a, b) }, two_by_two(acc, &a, &b));
        }
    }

    proptest! {
        #[test]
        fn sums_are_exact(acc: [i32; 4], a: [i8; 16], b: [i8; 16]) {
            check(acc, a, b);
        }
    }

    #[test]
    fn the_largest_products_do_not_overflow() {
        for a in [i8::MIN, i8::MAX] {
            for b in [i8::MIN, i8::MAX] {
                check([0; 4], [a; 16], [b; 16]);
            }
        }
    }
}
