//! AVX2 with FMA: eight lanes.

use std::arch::x86_64::*;

use crate::arch::table::kernels;
use crate::vector::Vector;

#[derive(Clone, Copy)]
pub(crate) struct F32x8(pub(crate) __m256);

// Twelve accumulators, three rows of x and one of w fill the sixteen registers.
kernels!(
    #[target_feature(enable = "avx2,fma")]
    F32x8,
    3
);

/// Eight ones and eight zeros: eight of them from `8 - n` on are a mask of the first `n`.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// # Safety
/// `n <= 8`, on a machine with AVX2.
#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    // SAFETY: eight of the sixteen numbers begin at `8 - n`.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast()) }
}

/// # Safety
/// Integers in `-126..=127`, on a machine with AVX2.
#[inline(always)]
unsafe fn power_of_two(n: __m256i) -> __m256 {
    // SAFETY: AVX2 is the caller's promise.
    unsafe {
        let biased = _mm256_add_epi32(n, _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
}

// In each method the caller vouches for AVX2 and FMA, and for the memory behind a pointer.
impl Vector for F32x8 {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_loadu_ps(p) })
    }

    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> F32x8 {
        // SAFETY: the trait's contract; masked lanes are not read.
        F32x8(unsafe { _mm256_maskload_ps(p, mask(n)) })
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) })
    }

    #[inline(always)]
    unsafe fn load_first_i8(p: *const i8, n: usize) -> F32x8 {
        let mut lanes = [0i8; 8];
        // SAFETY: the trait's contract; `n <= 8` numbers fit the array.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            F32x8::load_i8(lanes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { _mm256_storeu_ps(p, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        // SAFETY: the trait's contract; masked lanes are not written.
        unsafe { _mm256_maskstore_ps(p, mask(n), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: F32x8) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: F32x8) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: F32x8) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: F32x8) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: F32x8, term: F32x8) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_fmadd_ps(self.0, factor.0, term.0) })
    }

    // `min` and `max` of x86 return the second operand when either is NaN.

    #[inline(always)]
    unsafe fn at_most(self, bound: F32x8) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_min_ps(bound.0, self.0) })
    }

    #[inline(always)]
    unsafe fn at_least(self, bound: F32x8) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_max_ps(bound.0, self.0) })
    }

    #[inline(always)]
    unsafe fn max_number(self, other: F32x8) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_max_ps(other.0, self.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> F32x8 {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_round_ps::<NEAREST>(self.0) })
    }

    #[inline(always)]
    unsafe fn low_bf16(self) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(self.0))) })
    }

    #[inline(always)]
    unsafe fn high_bf16(self) -> F32x8 {
        const UPPER: i32 = 0xffff_0000_u32 as i32;
        // SAFETY: the trait's contract.
        unsafe {
            F32x8(_mm256_castsi256_ps(_mm256_and_si256(
                _mm256_castps_si256(self.0),
                _mm256_set1_epi32(UPPER),
            )))
        }
    }

    #[inline(always)]
    unsafe fn scale(self, n: F32x8) -> F32x8 {
        // SAFETY: the trait's contract. In two steps, so that neither power leaves the range
        // of normal numbers.
        unsafe {
            let n = _mm256_cvtps_epi32(n.0);
            let half = _mm256_srai_epi32::<1>(n);
            let scaled = _mm256_mul_ps(self.0, power_of_two(half));
            F32x8(_mm256_mul_ps(scaled, power_of_two(_mm256_sub_epi32(n, half))))
        }
    }

    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        // SAFETY: the trait's contract.
        unsafe {
            let (low, high) = (_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let four = _mm_max_ps(low, high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [F32x8; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        // SAFETY: the trait's contract. Horizontal additions treat all four registers alike:
        // pairs of neighbours, pairs of pairs, then the two halves.
        unsafe {
            let ab = _mm256_hadd_ps(a.0, b.0);
            let cd = _mm256_hadd_ps(c.0, d.0);
            let halves = _mm256_hadd_ps(ab, cd);
            let (low, high) = (_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_add_ps(low, high));
        }
        sums
    }
}
