//! NEON, and the same with its extensions for dot products and for products of small matrices.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use crate::arch::dot::{Products, products};
use crate::arch::neon::F32x4;
use crate::arch::neon::dot::{sdot, sdot_plain, smmla};
use crate::dot::{Dot, DotPairs};

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

/// With `i8mm` beside `dotprod`.
pub(crate) const PRODUCTS_I8MM: Products = Products {
    q8: products!(@fn [#[target_feature(enable = "neon")]] Q8Pairs<Dotprod>, 6),
    q4: products!(@fn [#[target_feature(enable = "neon")]] Q4Pairs<Dotprod>, 6),
    ..PRODUCTS_DOTPROD
};

/// What this machine has of these, the fastest first.
fn available() -> impl Iterator<Item = &'static Products> {
    let dotprod = is_aarch64_feature_detected!("dotprod");
    let i8mm = dotprod && is_aarch64_feature_detected!("i8mm");
    let tables = [(i8mm, &PRODUCTS_I8MM), (dotprod, &PRODUCTS_DOTPROD), (true, &PRODUCTS)];
    tables.into_iter().filter_map(|(has, products)| has.then_some(products))
}

/// The fastest products that this machine has.
pub(crate) fn best() -> &'static Products {
    available().next().unwrap_or(&PRODUCTS)
}

/// Bytes that are 128 too much as signed ones.
///
/// # Safety
/// A machine with NEON.
#[inline(always)]
unsafe fn signed(w: int32x4_t) -> int32x4_t {
    // SAFETY: NEON is the caller's promise.
    unsafe { veorq_s32(w, vdupq_n_s32(0x8080_8080_u32 as i32)) }
}

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
        unsafe { Self::dot_q4(sum, signed(w), x) }
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

// Here the caller vouches for `i8mm` too.
impl DotPairs for Dotprod {
    #[inline(always)]
    unsafe fn signed(w: int32x4_t) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { signed(w) }
    }

    #[inline(always)]
    unsafe fn interleave([first, second]: [int32x4_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: the trait's contract.
        unsafe { [vzip1q_s32(first, second), vzip2q_s32(first, second)] }
    }

    #[inline(always)]
    unsafe fn load_pair(x: [*const u8; 2]) -> int32x4_t {
        // SAFETY: the trait's contract.
        let [first, second] = unsafe { x.map(|x| vld1_s8(x.cast())) };
        // SAFETY: the trait's contract.
        unsafe { vreinterpretq_s32_s8(vcombine_s8(first, second)) }
    }

    #[inline(always)]
    unsafe fn dot_pairs(sum: int32x4_t, w: int32x4_t, x: int32x4_t) -> int32x4_t {
        // SAFETY: the trait's contract.
        unsafe { smmla(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w)) }
    }

    #[inline(always)]
    unsafe fn swap(sums: [int32x4_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: the trait's contract.
        unsafe {
            let [a, b] = sums.map(|sums| vreinterpretq_s64_s32(sums));
            [vzip1q_s64(a, b), vzip2q_s64(a, b)].map(|sums| vreinterpretq_s32_s64(sums))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::inputs::Inputs;
    use crate::isa::Isa;
    use crate::packed::{Packed, Packing};
    use crate::shape::Write;

    /// Any numbers between -1 and 1.
    fn numbers(seed: usize, len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i + seed) as f32 * 12.9898).sin()).collect()
    }

    fn packed(packing: Packing, rows: usize, cols: usize) -> Packed {
        let mut packed = Packed::zeroed(packing, rows, cols);
        for mut strips in packed.strips_mut(1) {
            for row in strips.rows() {
                strips.set(row, &numbers(1000 * row, cols));
            }
        }
        packed
    }

    fn product(products: &'static Products, x: &[f32], w: &Packed) -> Vec<u32> {
        let mut cpu = Cpu::new(Isa::Neon, 1).expect("every machine of this target has it");
        cpu.products = products;
        let rows = x.len() / w.cols();
        let (mut inputs, mut y) = (Inputs::new(rows, w.cols()), vec![f32::NAN; rows * w.rows()]);
        cpu.prepare(&mut inputs, x, None, w);
        cpu.product(&inputs, w, None, Write::Replace, &mut y);
        y.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn all_products_agree_in_every_bit() {
        let (rows, cols) = (45, 300);
        for packing in [Packing::Q8, Packing::Q4] {
            let w = packed(packing, rows, cols);
            for m in 1..10 {
                let x = numbers(7, m * cols);
                let want = product(&PRODUCTS, &x, &w);
                for products in available() {
                    assert_eq!(product(products, &x, &w), want, "{packing:?}, {m} rows");
                }
            }
        }
    }

    #[test]
    #[ignore = "only .ci/neon knows which processor it emulates"]
    #[expect(clippy::disallowed_methods, reason = "the script's word")]
    fn the_emulated_processor_has_what_it_is_run_for() {
        let said = std::env::var("WEIR_TEST_NEON_PRODUCTS").expect("said by .ci/neon");
        assert_eq!(available().count().to_string(), said);
    }
}
