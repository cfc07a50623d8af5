//! AVX-512 F, BW, VL and DQ: sixteen lanes.

use std::arch::x86_64::*;

use crate::arch::table::kernels;
use crate::vector::Vector;

#[derive(Clone, Copy)]
pub(crate) struct F32x16(pub(crate) __m512);

// Twenty-four accumulators, six rows of x and one of w fit the thirty-two registers.
kernels!(
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    F32x16,
    6
);

/// A mask of the first `n <= 16` lanes.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// `x` folded in half beside `y` folded in half.
///
/// # Safety
/// A machine with AVX-512.
#[inline(always)]
unsafe fn fold_halves(x: __m512, y: __m512) -> __m512 {
    const LOWER: i32 = 0b01_00_01_00;
    const UPPER: i32 = 0b11_10_11_10;
    // SAFETY: AVX-512 is the caller's promise.
    unsafe {
        _mm512_add_ps(_mm512_shuffle_f32x4::<LOWER>(x, y), _mm512_shuffle_f32x4::<UPPER>(x, y))
    }
}

// In each method the caller vouches for AVX-512, and for the memory behind a pointer.
impl Vector for F32x16 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_loadu_ps(p) })
    }

    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> F32x16 {
        // SAFETY: the trait's contract; masked lanes are not read.
        F32x16(unsafe { _mm512_maskz_loadu_ps(mask(n), p) })
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) })
    }

    #[inline(always)]
    unsafe fn load_first_i8(p: *const i8, n: usize) -> F32x16 {
        // SAFETY: the trait's contract; masked lanes are not read.
        unsafe {
            let bytes = _mm_maskz_loadu_epi8(mask(n), p);
            F32x16(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_ps(p, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: the trait's contract; masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(p, mask(n), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: F32x16) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: F32x16) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: F32x16) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: F32x16) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: F32x16, term: F32x16) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }

    // `min` and `max` of x86 return the second operand when either is NaN.

    #[inline(always)]
    unsafe fn at_most(self, bound: F32x16) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_min_ps(bound.0, self.0) })
    }

    #[inline(always)]
    unsafe fn at_least(self, bound: F32x16) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_max_ps(bound.0, self.0) })
    }

    #[inline(always)]
    unsafe fn max_number(self, other: F32x16) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_max_ps(other.0, self.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> F32x16 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_roundscale_ps::<NEAREST>(self.0) })
    }

    #[inline(always)]
    unsafe fn low_bf16(self) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(self.0))) })
    }

    #[inline(always)]
    unsafe fn high_bf16(self) -> F32x16 {
        const UPPER: i32 = 0xffff_0000_u32 as i32;
        // SAFETY: the trait's contract.
        unsafe {
            F32x16(_mm512_castsi512_ps(_mm512_and_si512(
                _mm512_castps_si512(self.0),
                _mm512_set1_epi32(UPPER),
            )))
        }
    }

    #[inline(always)]
    unsafe fn scale(self, n: F32x16) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }

    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [F32x16; 4]) -> [f32; 4] {
        /// Even quarters of both operands, and odd ones.
        const EVEN: i32 = 0b10_00_10_00;
        const ODD: i32 = 0b11_01_11_01;
        let mut sums = [0.0; 4];
        // SAFETY: the trait's contract. The four registers fold together, all by one tree:
        // halves, quarters, pairs, neighbours.
        unsafe {
            let (ab, cd) = (fold_halves(a.0, b.0), fold_halves(c.0, d.0));
            let (even, odd) =
                (_mm512_shuffle_f32x4::<EVEN>(ab, cd), _mm512_shuffle_f32x4::<ODD>(ab, cd));
            let quarters = _mm512_add_ps(even, odd);
            let pairs = _mm512_add_ps(quarters, _mm512_permute_ps::<0b01_00_11_10>(quarters));
            let all = _mm512_add_ps(pairs, _mm512_permute_ps::<0b10_11_00_01>(pairs));
            let firsts = _mm512_maskz_compress_ps(0b0001_0001_0001_0001, all);
            _mm_storeu_ps(sums.as_mut_ptr(), _mm512_castps512_ps128(firsts));
        }
        sums
    }
}
