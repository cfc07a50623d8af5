//! One row of f32 numbers into its place in a strip.

use half::{bf16, f16};

use super::{Packing, SCALES_BYTES, UNIT_BYTES};

/// Scales that [`fit_q4`] tries on each side of the one that uses the range exactly.
const TRIALS: i32 = 9;
/// Steps between them, as a part of the range.
const TRIAL_STEP: f32 = 0.1;

/// Rounds `numbers[cols]` to row `row` of a strip.
pub(super) fn set(packing: Packing, strip: &mut [u8], row: usize, numbers: &[f32]) {
    match packing {
        Packing::F32 => {
            for (x, unit) in numbers.iter().zip(strip.chunks_exact_mut(UNIT_BYTES)) {
                put(unit, row, x.to_le_bytes());
            }
        }
        Packing::Bf16 | Packing::Bf16Rounded => {
            for (pair, unit) in numbers.chunks(2).zip(strip.chunks_exact_mut(UNIT_BYTES)) {
                let [a, b] = bf16::from_f32(pair[0]).to_le_bytes();
                let [c, d] = bf16::from_f32(pair.get(1).copied().unwrap_or(0.0)).to_le_bytes();
                put(unit, row, [a, b, c, d]);
            }
        }
        Packing::Q8(group) => {
            let group_bytes = SCALES_BYTES + group.cols() / 4 * UNIT_BYTES;
            let groups = strip.chunks_exact_mut(group_bytes);
            for (numbers, bytes) in numbers.chunks(group.cols()).zip(groups) {
                set_q8(bytes, row, numbers);
            }
        }
        Packing::Q4(group) => {
            let group_bytes = SCALES_BYTES + group.cols() / 8 * UNIT_BYTES;
            let groups = strip.chunks_exact_mut(group_bytes);
            for (numbers, bytes) in numbers.chunks(group.cols()).zip(groups) {
                set_q4(bytes, row, numbers);
            }
        }
    }
}

fn put(unit: &mut [u8], row: usize, bytes: [u8; 4]) {
    unit[4 * row..][..4].copy_from_slice(&bytes);
}

fn set_q8(group: &mut [u8], row: usize, numbers: &[f32]) {
    let highest = numbers.iter().fold(0f32, |highest, x| highest.max(x.abs()));
    let scale = f16::from_f32(highest / 127.0);
    let (scales, units) = group.split_at_mut(SCALES_BYTES);
    scales[2 * row..][..2].copy_from_slice(&scale.to_le_bytes());
    let inverse = inverse(scale);
    for (numbers, unit) in numbers.chunks(4).zip(units.chunks_exact_mut(UNIT_BYTES)) {
        let mut bytes = [128; 4];
        for (byte, x) in bytes.iter_mut().zip(numbers) {
            *byte = ((x * inverse).round_ties_even().clamp(-127.0, 127.0) + 128.0) as u8;
        }
        put(unit, row, bytes);
    }
}

fn set_q4(group: &mut [u8], row: usize, numbers: &[f32]) {
    let scale = fit_q4(numbers);
    let (scales, units) = group.split_at_mut(SCALES_BYTES);
    scales[2 * row..][..2].copy_from_slice(&scale.to_le_bytes());
    let inverse = inverse(scale);
    for (numbers, unit) in numbers.chunks(8).zip(units.chunks_exact_mut(UNIT_BYTES)) {
        let mut bytes = [0x88; 4];
        for (i, &x) in numbers.iter().enumerate() {
            let nibble = (round_q4(x, inverse) + 8.0) as u8;
            let (byte, shift) = (i % 4, i / 4 * 4);
            bytes[byte] = bytes[byte] & !(15 << shift) | nibble << shift;
        }
        put(unit, row, bytes);
    }
}

fn round_q4(x: f32, inverse: f32) -> f32 {
    (x * inverse).round_ties_even().clamp(-8.0, 7.0)
}

/// The scale of least squared error among some: the range has one step more on its negative side,
/// so the number of the largest magnitude goes there, and a little clipping of it often pays.
fn fit_q4(numbers: &[f32]) -> f16 {
    let widest =
        numbers.iter().fold(0f32, |widest, &x| if x.abs() > widest.abs() { x } else { widest });
    let mut best = (f32::INFINITY, f16::ZERO);
    for trial in -TRIALS..=TRIALS {
        let scale = f16::from_f32(widest / (-8.0 + trial as f32 * TRIAL_STEP));
        let inverse = inverse(scale);
        // The best scale for these whole numbers follows from them: one step of refinement.
        let (mut dot, mut square) = (0.0, 0.0);
        for &x in numbers {
            let whole = round_q4(x, inverse);
            dot += x * whole;
            square += whole * whole;
        }
        for scale in [scale, f16::from_f32(if square > 0.0 { dot / square } else { 0.0 })] {
            let error = error_q4(numbers, scale);
            if error < best.0 {
                best = (error, scale);
            }
        }
    }
    best.1
}

fn error_q4(numbers: &[f32], scale: f16) -> f32 {
    let (inverse, scale) = (inverse(scale), scale.to_f32());
    numbers.iter().map(|&x| (x - round_q4(x, inverse) * scale).powi(2)).sum()
}

/// 0 for a scale of 0: all numbers of its group are, or are too small for f16.
fn inverse(scale: f16) -> f32 {
    if scale == f16::ZERO { 0.0 } else { scale.to_f32().recip() }
}
