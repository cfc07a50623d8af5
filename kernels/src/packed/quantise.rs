//! One row of f32 numbers into its place in a strip.
//!
//! Plain loops over whole groups in arrays, so that the compiler turns them into vectors; on x86
//! a second copy of them is compiled for AVX2. Sums run in lanes of a fixed number and nothing is
//! fused, so every machine packs the same bytes.

use half::{bf16, f16};

use super::{GROUP, Packing, SCALES_BYTES, UNIT_BYTES};

/// Scales that [`fit_q8`] tries, the one that uses the range exactly among them.
const TRIALS_Q8: u32 = 19;
/// Whole numbers by which the range shrinks from one of them to the next: enough that rounding
/// falls out anew.
const TRIAL_STEP_Q8: f32 = 0.5;

/// Scales that [`fit_q4`] tries on each side of the one that uses the range exactly.
const TRIALS: i32 = 9;
/// Steps between them, as a part of the range.
const TRIAL_STEP: f32 = 0.1;
/// Times that the scale of a trial's whole numbers is taken as the next trial.
const REFINEMENTS: usize = 3;

/// Numbers that are summed side by side.
const LANES: usize = 16;

/// Added to a number of less than 2^22, it leaves in the lowest bits the nearest whole number,
/// ties to even: the rounding of the addition itself.
const TO_WHOLE: f32 = (3 << 22) as f32;

/// Rounds `numbers[cols]` to row `row` of a strip.
pub(super) fn set(packing: Packing, strip: &mut [u8], row: usize, numbers: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: this machine has AVX2.
        return unsafe { set_avx2(packing, strip, row, numbers) };
    }
    set_here(packing, strip, row, numbers);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn set_avx2(packing: Packing, strip: &mut [u8], row: usize, numbers: &[f32]) {
    set_here(packing, strip, row, numbers);
}

#[inline(always)]
fn set_here(packing: Packing, strip: &mut [u8], row: usize, numbers: &[f32]) {
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
        Packing::Q8 => groups(strip, row, numbers, false),
        Packing::Q4 => groups(strip, row, numbers, true),
    }
}

/// Walks over the groups of a row, the last one filled up with zeros.
#[inline(always)]
fn groups(strip: &mut [u8], row: usize, numbers: &[f32], four_bits: bool) {
    let unit_cols = if four_bits { 8 } else { 4 };
    let group_bytes = SCALES_BYTES + GROUP / unit_cols * UNIT_BYTES;
    for (numbers, bytes) in numbers.chunks(GROUP).zip(strip.chunks_exact_mut(group_bytes)) {
        let mut whole = [0.0; GROUP];
        whole[..numbers.len()].copy_from_slice(numbers);
        let (scales, units) = bytes.split_at_mut(SCALES_BYTES);
        let scale = if four_bits { set_q4(&whole, units, row) } else { set_q8(&whole, units, row) };
        scales[2 * row..][..2].copy_from_slice(&scale.to_le_bytes());
    }
}

#[inline(always)]
fn put(unit: &mut [u8], row: usize, bytes: [u8; 4]) {
    unit[4 * row..][..4].copy_from_slice(&bytes);
}

#[inline(always)]
fn set_q8(numbers: &[f32; GROUP], units: &mut [u8], row: usize) -> f16 {
    let scale = fit_q8(numbers);
    let inverse = inverse(scale);
    let mut bytes = [0u8; GROUP];
    for (byte, &x) in bytes.iter_mut().zip(numbers) {
        *byte = (clamp(x * inverse, -127.0, 127.0) + (TO_WHOLE + 128.0)).to_bits() as u8;
    }
    for (bytes, unit) in bytes.as_chunks().0.iter().zip(units.chunks_exact_mut(UNIT_BYTES)) {
        put(unit, row, *bytes);
    }
    scale
}

/// The scale of least squared error among some. Errors of rounding are as good as random, and of
/// a few dozen numbers their sum differs from scale to scale by more than what is lost to a range
/// that is not used to its end.
#[inline(always)]
fn fit_q8(numbers: &[f32; GROUP]) -> f16 {
    let highest = Range::of(numbers).highest();
    let plain = f16::from_f32(highest / 127.0);
    if highest == 0.0 || !highest.is_finite() {
        return plain;
    }
    let mut best = (f32::INFINITY, plain);
    for trial in 0..TRIALS_Q8 {
        let scale = f16::from_f32(highest / (127.0 - trial as f32 * TRIAL_STEP_Q8));
        let error = error_q8(numbers, scale);
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

/// The square of the error. Not by way of [`Fit`]: it is a difference of two sums, of which the
/// error of 8 bits is too small a part.
#[inline(always)]
fn error_q8(numbers: &[f32; GROUP], scale: f16) -> f32 {
    let (scale, inverse) = (scale.to_f32(), inverse(scale));
    let mut errors = [0.0; LANES];
    for numbers in numbers.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let x = numbers[lane];
            let whole = clamp((x * inverse + TO_WHOLE) - TO_WHOLE, -127.0, 127.0);
            let error = x - whole * scale;
            errors[lane] += error * error;
        }
    }
    sum(errors)
}

#[inline(always)]
fn set_q4(numbers: &[f32; GROUP], units: &mut [u8], row: usize) -> f16 {
    let scale = fit_q4(numbers);
    let inverse = inverse(scale);
    let mut nibbles = [0u8; GROUP];
    for (nibble, &x) in nibbles.iter_mut().zip(numbers) {
        *nibble = (clamp(x * inverse, -8.0, 7.0) + (TO_WHOLE + 8.0)).to_bits() as u8 & 15;
    }
    for (nibbles, unit) in nibbles.as_chunks::<8>().0.iter().zip(units.chunks_exact_mut(UNIT_BYTES))
    {
        put(unit, row, std::array::from_fn(|i| nibbles[i] | nibbles[i + 4] << 4));
    }
    scale
}

/// The scale of least squared error among some: the range has one step more on its negative side,
/// so the number of the largest magnitude goes there, and a little clipping of it often pays.
#[inline(always)]
fn fit_q4(numbers: &[f32; GROUP]) -> f16 {
    let widest = Range::of(numbers).widest();
    if widest == 0.0 || !widest.is_finite() {
        return f16::from_f32(widest);
    }
    let mut best = Fit::default();
    for trial in -TRIALS..=TRIALS {
        let fit = Fit::of(numbers, (-8.0 + trial as f32 * TRIAL_STEP) / widest);
        // The square of the error is least at the scale that `Fit::scale` gives, and there it is
        // the numbers' own square less this.
        if fit.dot * fit.dot * best.square > best.dot * best.dot * fit.square {
            best = fit;
        }
    }
    let mut scale = best.scale();
    let mut chosen = (0.0, f16::ZERO);
    for _ in 0..REFINEMENTS {
        let fit = Fit::of(numbers, inverse(scale));
        let gain = fit.gain(scale.to_f32());
        if gain > chosen.0 {
            chosen = (gain, scale);
        }
        scale = fit.scale();
    }
    chosen.1
}

/// Whole numbers for a group, by what its error depends on.
struct Fit {
    /// Products of numbers and whole numbers.
    dot: f32,
    /// Squares of the whole numbers.
    square: f32,
}

impl Default for Fit {
    /// Worse than any.
    fn default() -> Self {
        Fit { dot: 0.0, square: 1.0 }
    }
}

impl Fit {
    #[inline(always)]
    fn of(numbers: &[f32; GROUP], inverse: f32) -> Self {
        let (mut dots, mut squares) = ([0.0; LANES], [0.0; LANES]);
        for numbers in numbers.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                let x = numbers[lane];
                let whole = clamp((x * inverse + TO_WHOLE) - TO_WHOLE, -8.0, 7.0);
                dots[lane] += x * whole;
                squares[lane] += whole * whole;
            }
        }
        Fit { dot: sum(dots), square: sum(squares) }
    }

    /// The best one for these whole numbers.
    #[inline(always)]
    fn scale(&self) -> f16 {
        f16::from_f32(if self.square > 0.0 { self.dot / self.square } else { 0.0 })
    }

    /// By how much these whole numbers times `scale` lessen the square of the error of all zeros.
    #[inline(always)]
    fn gain(&self, scale: f32) -> f32 {
        scale * (2.0 * self.dot - scale * self.square)
    }
}

/// Lowest and highest of a group's numbers; NaN where one of them is no finite number, so that
/// its scale says so and nothing is hidden.
struct Range {
    low: f32,
    high: f32,
}

impl Range {
    #[inline(always)]
    fn of(numbers: &[f32; GROUP]) -> Self {
        let (mut low, mut high, mut zeros) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for numbers in numbers.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                let x = numbers[lane];
                low[lane] = if x < low[lane] { x } else { low[lane] };
                high[lane] = if x > high[lane] { x } else { high[lane] };
                zeros[lane] += x * 0.0;
            }
        }
        let zero = sum(zeros);
        let low = low.iter().fold(0.0, |a, &b| if b < a { b } else { a });
        let high = high.iter().fold(0.0, |a, &b| if b > a { b } else { a });
        Range { low: low + zero, high: high + zero }
    }

    #[inline(always)]
    fn highest(&self) -> f32 {
        self.widest().abs()
    }

    /// The one of the largest magnitude, with its sign.
    #[inline(always)]
    fn widest(&self) -> f32 {
        if -self.low > self.high { self.low } else { self.high }
    }
}

/// By halves, which is the shortest way through a register.
#[inline(always)]
fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Not [`f32::clamp`], whose care for NaN keeps loops from being vectorised well.
#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// 0 for a scale of 0: all numbers of its group are, or are too small for f16.
#[inline(always)]
fn inverse(scale: f16) -> f32 {
    if scale == f16::ZERO { 0.0 } else { scale.to_f32().recip() }
}
