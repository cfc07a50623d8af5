//! NEON, and the same with its dot-product extension.

use std::arch::aarch64::*;

use crate::arch::dot::products;
use crate::arch::neon::F32x4;
use crate::arch::neon::dot::{sdot, sdot_plain};
use crate::dot::Dot;

/// With `DOTPROD`: the instruction that multiplies bytes and adds up four.
pub(crate) struct Bytes<const DOTPROD: bool>;

type Plain = Bytes<false>;
type Dotprod = Bytes<true>;

// Twelve exact sums, twelve scaled ones, two of w and one of x fit the thirty-two registers.
products!(
    PRODUCTS,
    #[target_feature(enable = "neon")]
    Plain,
    6
);
products!(
    PRODUCTS_DOTPROD,
    #[target_feature(enable = "neon")]
    Dotprod,
    6
);

// In each method the caller vouches for NEON, for the extension where it is said, and for the
// memory behind a pointer.
impl<const DOTPROD: bool> Dot for Bytes<DOTPROD> {
    type Float = F32x4;
    type Int = int32x4_t;

    const BIASED: bool = false;

    #[inline(always)]
    unsafe fn splat(x: i32) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vdupq_n_s32(x) }
    }

    #[inline(always)]
    unsafe fn load(p: *const u8) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vreinterpretq_s32_u8(vld1q_u8(p)) }
    }

    #[inline(always)]
    unsafe fn splat_four(p: *const u8) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vdupq_n_s32(p.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> F32x4 {
        // SAFETY: the trait's contract.
        let numbers = unsafe { p.cast::<[[u8; 2]; 4]>().read() };
        let numbers = numbers.map(|bytes| half::f16::from_le_bytes(bytes).to_f32());
        // SAFETY: the array is four long.
        F32x4(unsafe { vld1q_f32(numbers.as_ptr()) })
    }

    #[inline(always)]
    unsafe fn to_float(x: int32x4_t) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vcvtq_f32_s32(x) })
    }

    #[inline(always)]
    unsafe fn low_bits(w: int32x4_t) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vandq_s32(w, vdupq_n_s32(0x0f0f_0f0f)) }
    }

    #[inline(always)]
    unsafe fn high_bits(w: int32x4_t) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { vreinterpretq_s32_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s32(w))) }
    }

    #[inline(always)]
    unsafe fn dot_q4(sum: int32x4_t, w: int32x4_t, x: int32x4_t) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe {
            let (w, x) = (vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
            if DOTPROD { sdot(sum, w, x) } else { sdot_plain(sum, w, x) }
        }
    }

    #[inline(always)]
    unsafe fn dot_q8(sum: int32x4_t, w: int32x4_t, x: int32x4_t) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { Self::dot_q4(sum, veorq_s32(w, vdupq_n_s32(0x8080_8080_u32 as i32)), x) }
    }

    #[inline(always)]
    unsafe fn low_half(w: int32x4_t) -> F32x4 {
        // SAFETY: the trait's contract.
        F32x4(unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<16>(w)) })
    }

    #[inline(always)]
    unsafe fn high_half(w: int32x4_t) -> F32x4 {
        // SAFETY: the trait's contract.
        unsafe {
            let upper = vdupq_n_s32(0xffff_0000_u32 as i32);
            F32x4(vreinterpretq_f32_s32(vandq_s32(w, upper)))
        }
    }
}
