//! Rows of activations into the form that a product reads.

use std::ops::Range;

use half::bf16;

use crate::inputs::{Form, InputParts, Norm};
use crate::packed::GROUP;
use crate::vector::Vector;

use super::rows::rms_norm;

/// Numbers whose magnitudes are all below this have no sum worth a scale.
const SMALLEST: f32 = 1e-30;

/// Adding 1.5 · 2²³ leaves the nearest whole number in the lower bits of a small f32.
const ROUNDER: f32 = 12_582_912.0;

/// What [`prepare`] does with which rows: operands as in [`crate::Cpu::prepare`].
pub(crate) struct Prepare<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) cols: usize,
    pub(crate) norm: Option<Norm<'a>>,
    pub(crate) form: Form,
    pub(crate) stride: usize,
    pub(crate) out: InputParts,
    /// `[rows, cols]`: normed rows on their way.
    pub(crate) normed: crate::out::Out<'a>,
}

/// # Safety
/// The machine has V's instruction set, the shapes agree, the rows lie within x, and nobody else
/// touches their places meanwhile.
#[inline(always)]
pub(crate) unsafe fn prepare<V: Vector>(p: &Prepare<'_>, rows: Range<usize>) {
    for row in rows {
        let x = &p.x[row * p.cols..][..p.cols];
        let x = match p.norm {
            Some(norm) => {
                // SAFETY: the row is this call's alone.
                let normed = unsafe { p.normed.slice(row * p.cols..(row + 1) * p.cols) };
                // SAFETY: the instruction set is the caller's promise.
                unsafe { rms_norm::<V>(x, norm.weight, norm.eps, normed) };
                &*normed
            }
            None => x,
        };
        // SAFETY: the row's place is `stride` long and this call's alone.
        unsafe { place(p, row, x) };
    }
}

/// # Safety
/// As for [`prepare`].
#[inline(always)]
unsafe fn place(p: &Prepare<'_>, row: usize, x: &[f32]) {
    let (at, numbers) = (row * p.stride, p.out.numbers);
    match p.form {
        Form::F32 => {
            // SAFETY: the caller's promise.
            let to =
                unsafe { std::slice::from_raw_parts_mut(numbers.cast::<f32>().add(at), p.stride) };
            to[..x.len()].copy_from_slice(x);
            to[x.len()..].fill(0.0);
        }
        Form::Bf16 => {
            // SAFETY: the caller's promise; a bf16 is two bytes of any value.
            let to =
                unsafe { std::slice::from_raw_parts_mut(numbers.cast::<bf16>().add(at), p.stride) };
            for (to, x) in to.iter_mut().zip(x) {
                *to = round_bf16(*x);
            }
            to[x.len()..].fill(bf16::ZERO);
        }
        Form::Q8 { zero } => {
            let groups = p.stride / GROUP;
            // SAFETY: the caller's promise.
            let (to, scales, zeros) = unsafe {
                (
                    std::slice::from_raw_parts_mut(numbers.cast::<i8>().add(at), p.stride),
                    std::slice::from_raw_parts_mut(p.out.scales.add(row * groups), groups),
                    std::slice::from_raw_parts_mut(p.out.zeros.add(row * groups), groups),
                )
            };
            let places = to.chunks_exact_mut(GROUP).zip(scales).zip(zeros);
            let mut rest = x;
            for ((to, scale), zero_sum) in places {
                let (x, after) = rest.split_at(rest.len().min(GROUP));
                rest = after;
                let (s, sum) = quantise(x, to);
                (*scale, *zero_sum) = (s, zero.wrapping_mul(sum));
            }
        }
    }
}

/// To the nearest bf16, ties to even. NaN stays NaN.
#[inline(always)]
fn round_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // Written so that the loop over it becomes vectors.
    let nan = bits & 0x7fff_ffff > 0x7f80_0000;
    bf16::from_bits(if nan { 0x7fc0 } else { rounded as u16 })
}

/// Rounds a group to whole numbers from -127 to 127: its scale and its sum. A scale that is not
/// finite says that the group has a number that is not.
#[inline(always)]
fn quantise(x: &[f32], to: &mut [i8]) -> (f32, i32) {
    // As whole numbers magnitudes keep their order, and NaN is the highest.
    let highest =
        x.iter().fold(0, |highest: i32, x| highest.max((x.to_bits() & 0x7fff_ffff) as i32));
    let highest = f32::from_bits(highest as u32);
    if highest < SMALLEST {
        to.fill(0);
        return (0.0, 0);
    }
    let inverse = 127.0 / highest;
    // Of what is not finite nothing comes out that means anything, but nothing overflows.
    let mut sum = 0i32;
    for (to, x) in to.iter_mut().zip(x) {
        let whole =
            ((x * inverse + ROUNDER).to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
        *to = whole as i8;
        sum = whole.wrapping_add(sum);
    }
    to[x.len()..].fill(0);
    (highest / 127.0, sum)
}
