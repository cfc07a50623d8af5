//! What a product needs beside the arithmetic of f32: units of packed weights in registers.
//!
//! A trait beside [`Vector`], because one register type may have several ways to multiply small
//! integers, by what the machine has.

use crate::vector::Vector;

/// The instructions that multiply packed weights.
///
/// # Safety
/// All methods need the instruction set of the implementor to be present on this machine, and
/// pointers to what they say they read.
pub(crate) trait Dot {
    /// The f32 lanes: one output each.
    type Float: Vector;
    /// As many lanes of four bytes.
    type Int: Copy;

    /// Whether [`Dot::dot_q8`] takes bytes as they are stored, 128 more than the weight. The sum
    /// then begins at -128 times the sum of x.
    const BIASED: bool;

    unsafe fn splat(x: i32) -> Self::Int;
    /// Four bytes for each lane.
    unsafe fn load(p: *const u8) -> Self::Int;
    /// The same four bytes, which may lie anywhere, for all lanes.
    unsafe fn splat_four(p: *const u8) -> Self::Int;
    /// An f16 for each lane.
    unsafe fn load_f16(p: *const u8) -> Self::Float;
    unsafe fn to_float(x: Self::Int) -> Self::Float;

    /// The lower four bits of each byte.
    unsafe fn low_bits(w: Self::Int) -> Self::Int;
    /// The upper four bits of each byte.
    unsafe fn high_bits(w: Self::Int) -> Self::Int;
    /// `sum + Σ w x` over the four bytes of each lane; w in `0..=15`, x in `-127..=127`.
    unsafe fn dot_q4(sum: Self::Int, w: Self::Int, x: Self::Int) -> Self::Int;
    /// `sum + Σ w x`, or `sum + Σ (w - 128) x` unless [`Dot::BIASED`]; w in `1..=255`.
    unsafe fn dot_q8(sum: Self::Int, w: Self::Int, x: Self::Int) -> Self::Int;

    /// The lower bf16 of each lane.
    unsafe fn low_half(w: Self::Int) -> Self::Float;
    /// The upper bf16 of each lane.
    unsafe fn high_half(w: Self::Int) -> Self::Float;
}

/// What the sums of tiles need, where an instruction set goes beside them.
///
/// # Safety
/// As for [`Dot`].
#[cfg(any(target_arch = "x86_64", test))]
pub(crate) trait DotTiles: Dot {
    unsafe fn add(a: Self::Int, b: Self::Int) -> Self::Int;
    /// Four bytes of each lane.
    unsafe fn store(x: Self::Int, p: *mut u8);
}

/// Instruction sets that multiply bf16 themselves: so far, one of x86.
///
/// # Safety
/// As for [`Dot`].
#[cfg(target_arch = "x86_64")]
pub(crate) trait DotBf16: Dot {
    /// Lanes that were loaded as f32 and are pairs of bf16.
    unsafe fn pairs(lanes: Self::Float) -> Self::Int;
    /// The first of each pair, and zero beside it.
    unsafe fn first_of_pairs(pairs: Self::Int) -> Self::Int;
    /// Writes each lane rounded to the nearest, ties to even, side by side.
    unsafe fn store_rounded(x: Self::Float, p: *mut half::bf16);
    /// `sum + Σ w x` over the two bf16 of each lane.
    unsafe fn dot_bf16(sum: Self::Float, w: Self::Int, x: Self::Int) -> Self::Float;
}

/// Instruction sets that multiply two rows of x by two outputs at once: so far, one of ARM. What
/// [`Dot::dot_q4`] multiplies may here be any signed bytes.
///
/// # Safety
/// As for [`Dot`].
#[cfg(target_arch = "aarch64")]
pub(crate) trait DotPairs: Dot {
    /// Weights of q8 as signed bytes.
    unsafe fn signed(w: Self::Int) -> Self::Int;
    /// Four columns and the next four of each lane's output, as eight columns of two outputs in
    /// the first register and of two in the second.
    unsafe fn interleave(w: [Self::Int; 2]) -> [Self::Int; 2];
    /// Eight bytes of each of two rows.
    unsafe fn load_pair(x: [*const u8; 2]) -> Self::Int;
    /// `sum + Σ w x` over eight columns: the first row's two outputs, then the second row's.
    unsafe fn dot_pairs(sum: Self::Int, w: Self::Int, x: Self::Int) -> Self::Int;
    /// The sums of two rows, from a register for each row to one for each pair of outputs, or
    /// back.
    unsafe fn swap(sums: [Self::Int; 2]) -> [Self::Int; 2];
}
