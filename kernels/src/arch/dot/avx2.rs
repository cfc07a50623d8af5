//! AVX2 with FMA and F16C, and the same with VNNI.

use std::arch::x86_64::*;

use crate::arch::avx2::F32x8;
use crate::arch::dot::products;
use crate::dot::Dot;

/// With `VNNI`: the instruction that multiplies bytes and adds up four.
pub(crate) struct Bytes<const VNNI: bool>;

type Plain = Bytes<false>;
type Vnni = Bytes<true>;

// Eight sums, two of w and one of x leave room for what the products of bytes need.
products!(
    PRODUCTS,
    #[target_feature(enable = "avx2,fma,f16c")]
    Plain,
    2
);
products!(
    PRODUCTS_VNNI,
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    Vnni,
    3
);

// In each method the caller vouches for AVX2, FMA and F16C, for VNNI where it is said, and for
// the memory behind a pointer.
impl<const VNNI: bool> Dot for Bytes<VNNI> {
    type Float = F32x8;
    type Int = __m256i;

    const BIASED: bool = VNNI;

    #[inline(always)]
    unsafe fn splat(x: i32) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_four(p: *const u8) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) })
    }

    #[inline(always)]
    unsafe fn to_float(x: __m256i) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_cvtepi32_ps(x) })
    }

    #[inline(always)]
    unsafe fn low_bits(w: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_and_si256(w, _mm256_set1_epi8(15)) }
    }

    #[inline(always)]
    unsafe fn high_bits(w: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(w), _mm256_set1_epi8(15)) }
    }

    #[inline(always)]
    unsafe fn dot_q4(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the trait's contract. Two products of at most 15 · 127 fit sixteen bits.
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(sum, w, x);
            }
            let pairs = _mm256_maddubs_epi16(w, x);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn dot_q8(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the trait's contract. The sign of x goes over to w, so that two products of at
        // most 127 · 127 fit sixteen bits.
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(sum, w, x);
            }
            let w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w, x));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn low_half(w: __m256i) -> F32x8 {
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(w)) })
    }

    #[inline(always)]
    unsafe fn high_half(w: __m256i) -> F32x8 {
        const UPPER: i32 = 0xffff_0000_u32 as i32;
        // SAFETY: the trait's contract.
        F32x8(unsafe { _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32(UPPER))) })
    }
}
