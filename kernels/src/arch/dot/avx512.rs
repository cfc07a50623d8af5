//! AVX-512 with VNNI, and with BF16.

use std::arch::x86_64::*;

use crate::arch::avx512::F32x16;
use crate::arch::dot::products;
use crate::dot::{Dot, DotBf16, DotTiles};

pub(crate) struct Vnni;

// Twelve exact sums, twelve scaled ones, two of w and one of x fit the thirty-two registers.
products!(
    PRODUCTS,
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
    Vnni,
    6
);

/// Whether this machine multiplies bf16 by bf16.
pub(crate) fn rounds() -> bool {
    is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bf16")
}

/// bf16 times bf16.
pub(crate) const BF16_ROUNDED: crate::arch::dot::ProductFn = {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma")]
    unsafe fn kernel(product: &crate::ops::Product<'_>, strips: std::ops::Range<usize>) {
        // SAFETY: whoever calls through the table vouches for both: this machine has the
        // instruction set, and the shapes were checked.
        unsafe { crate::ops::product::<crate::ops::Bf16Rounded<Vnni>, 6>(product, strips) }
    }
    kernel
};

// In each method the caller vouches for AVX-512 with VNNI, and for the memory behind a pointer.
impl Dot for Vnni {
    type Float = F32x16;
    type Int = __m512i;

    const BIASED: bool = true;

    #[inline(always)]
    unsafe fn splat(x: i32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_four(p: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) })
    }

    #[inline(always)]
    unsafe fn to_float(x: __m512i) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_cvtepi32_ps(x) })
    }

    #[inline(always)]
    unsafe fn low_bits(w: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_and_si512(w, _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    unsafe fn high_bits(w: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(w), _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    unsafe fn dot_q4(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_dpbusd_epi32(sum, w, x) }
    }

    #[inline(always)]
    unsafe fn dot_q8(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_dpbusd_epi32(sum, w, x) }
    }

    #[inline(always)]
    unsafe fn low_half(w: __m512i) -> F32x16 {
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(w)) })
    }

    #[inline(always)]
    unsafe fn high_half(w: __m512i) -> F32x16 {
        const UPPER: i32 = 0xffff_0000_u32 as i32;
        // SAFETY: the trait's contract.
        F32x16(unsafe { _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(UPPER))) })
    }
}

/// Attention over K and V in bf16.
pub(crate) const ATTENTION_ROUNDED: crate::arch::AttentionFn<half::bf16> = crate::arch::table::kernels!(
    @attention [#[target_feature(
        enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma"
    )]] crate::ops::Rounded<Vnni>
);

impl DotBf16 for Vnni {
    #[inline(always)]
    unsafe fn pairs(lanes: F32x16) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_castps_si512(lanes.0) }
    }

    #[inline(always)]
    unsafe fn first_of_pairs(pairs: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff)) }
    }

    #[inline(always)]
    unsafe fn store_rounded(x: F32x16, p: *mut half::bf16) {
        // SAFETY: the trait's contract; both types are one register.
        unsafe {
            let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x.0));
            _mm256_storeu_si256(p.cast(), rounded);
        }
    }

    #[inline(always)]
    unsafe fn dot_bf16(sum: F32x16, w: __m512i, x: __m512i) -> F32x16 {
        // SAFETY: the trait's contract; the three types are one register.
        unsafe {
            let [w, x] = [w, x].map(|halves| std::mem::transmute::<__m512i, __m512bh>(halves));
            F32x16(_mm512_dpbf16_ps(sum.0, w, x))
        }
    }
}

impl DotTiles for Vnni {
    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn store(x: __m512i, p: *mut u8) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_si512(p.cast(), x) }
    }
}
