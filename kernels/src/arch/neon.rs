//! NEON: four lanes.

pub(crate) mod dot;

use std::arch::aarch64::*;

use crate::arch::table::kernels;
use crate::vector::Vector;

#[derive(Clone, Copy)]
pub(crate) struct F32x4(pub(crate) float32x4_t);

// Twenty-four accumulators, six rows of x and one of w fit the thirty-two registers.
kernels!(
    #[target_feature(enable = "neon")]
    F32x4,
    6
);

/// # Safety
/// Integers in `-126..=127`, on a machine with NEON.
#[inline(always)]
unsafe fn power_of_two(n: int32x4_t) -> float32x4_t {
    // SAFETY: NEON is the caller's promise.
    unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127)))) }
}

// In each method the caller vouches for NEON, and for the memory behind a pointer.
impl Vector for F32x4 {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vdupq_n_f32(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vld1q_f32(p) })
    }

    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> F32x4 {
        let mut lanes = [0.0f32; 4];
        // SAFETY: the trait's contract; `n <= 4` numbers fit the array.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            F32x4(vld1q_f32(lanes.as_ptr()))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> F32x4 {
        // SAFETY: the trait's contract; four bytes are read, wherever they begin.
        unsafe {
            let bytes = vcreate_s8(u64::from(p.cast::<u32>().read_unaligned()));
            F32x4(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes)))))
        }
    }

    #[inline(always)]
    unsafe fn load_first_i8(p: *const i8, n: usize) -> F32x4 {
        let mut lanes = [0i8; 4];
        // SAFETY: the trait's contract; `n <= 4` numbers fit the array.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            F32x4::load_i8(lanes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { vst1q_f32(p, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        let mut lanes = [0.0f32; 4];
        // SAFETY: the trait's contract; `n <= 4` numbers come from the array.
        unsafe {
            vst1q_f32(lanes.as_mut_ptr(), self.0);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: F32x4) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: F32x4) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vsubq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: F32x4) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vmulq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: F32x4) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vdivq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: F32x4, term: F32x4) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vfmaq_f32(term.0, self.0, factor.0) })
    }

    #[inline(always)]
    unsafe fn at_most(self, bound: F32x4) -> F32x4 {
        // SAFETY: the trait's contract. NaN in either operand is kept.
        F32x4(unsafe { vminq_f32(self.0, bound.0) })
    }

    #[inline(always)]
    unsafe fn at_least(self, bound: F32x4) -> F32x4 {
        // SAFETY: the trait's contract. NaN in either operand is kept.
        F32x4(unsafe { vmaxq_f32(self.0, bound.0) })
    }

    #[inline(always)]
    unsafe fn max_number(self, other: F32x4) -> F32x4 {
        // SAFETY: the trait's contract. A number wins over NaN, quiet or signalling: the
        // comparison with NaN is false.
        F32x4(unsafe { vbslq_f32(vcgtq_f32(other.0, self.0), other.0, self.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vrndnq_f32(self.0) })
    }

    #[inline(always)]
    unsafe fn low_bf16(self) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_f32(self.0))) })
    }

    #[inline(always)]
    unsafe fn high_bf16(self) -> F32x4 {
        const UPPER: u32 = 0xffff_0000;
        // SAFETY: the trait's contract.
        unsafe {
            F32x4(vreinterpretq_f32_u32(vandq_u32(
                vreinterpretq_u32_f32(self.0),
                vdupq_n_u32(UPPER),
            )))
        }
    }

    #[inline(always)]
    unsafe fn scale(self, n: F32x4) -> F32x4 {
        // SAFETY: the trait's contract. In two steps, so that neither power leaves the range
        // of normal numbers.
        unsafe {
            let n = vcvtq_s32_f32(n.0);
            let half = vshrq_n_s32::<1>(n);
            let scaled = vmulq_f32(self.0, power_of_two(half));
            F32x4(vmulq_f32(scaled, power_of_two(vsubq_s32(n, half))))
        }
    }

    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { vmaxvq_f32(self.0) }
    }

    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [F32x4; 4]) -> [f32; 4] {
        let mut sums = [0.0f32; 4];
        // SAFETY: the trait's contract. Pairwise additions treat all four registers alike:
        // pairs of neighbours, then pairs of pairs.
        unsafe {
            let pairs = vpaddq_f32(vpaddq_f32(a.0, b.0), vpaddq_f32(c.0, d.0));
            vst1q_f32(sums.as_mut_ptr(), pairs);
        }
        sums
    }
}
