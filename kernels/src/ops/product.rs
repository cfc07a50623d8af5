//! The product of prepared activations and packed weights.
//!
//! A tile is some rows of x times two registers of outputs: those at the same place in the two
//! halves of a strip. Each output is one chain of additions over the columns from first to last,
//! so its bits do not know the tile, and one pass over the strip's bytes serves all rows of x.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{Ordering, compiler_fence};

use crate::dot::Dot;
#[cfg(target_arch = "x86_64")]
use crate::dot::DotBf16;
use crate::inputs::InputView;
use crate::out::Out;
use crate::packed::{GROUP, SCALES_BYTES, STRIP, UNIT_BYTES};
use crate::vector::{LANES_MAX, Vector};

use super::even_tile;
use super::rows::silu;

/// Outputs in half a strip.
pub(super) const HALF: usize = STRIP / 2;

/// What becomes of an output.
#[derive(Clone, Copy)]
pub(crate) enum Epilogue {
    /// `y = value`
    Replace,
    /// `y += value`
    Add,
    /// `y = silu(gate) * up`: the halves of a strip.
    SwiGlu,
    /// `y = value`, and the highest of a strip.
    Peaks,
    /// The highest of a strip, and nothing else.
    PeaksAlone,
}

/// Operands as in [`crate::Cpu::product`].
pub(crate) struct Product<'a> {
    pub(crate) x: InputView,
    /// Rows of x that are multiplied.
    pub(crate) rows: usize,
    /// `[strips, strip_bytes]`
    pub(crate) w: &'a [u8],
    pub(crate) strip_bytes: usize,
    /// Columns of x and w, the padding included.
    pub(crate) cols: usize,
    /// By row of w.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) epilogue: Epilogue,
    pub(crate) y: Out<'a>,
    /// Columns of y.
    pub(crate) width: usize,
    /// The highest output of each strip: `[rows, strips]`, for the epilogues that want it.
    pub(crate) peaks: Out<'a>,
}

impl Product<'_> {
    /// The same of the rows from `row` on.
    ///
    /// # Safety
    /// It is a row of x.
    #[cfg(any(target_arch = "x86_64", test))]
    pub(super) unsafe fn rows_from(&self, row: usize) -> Product<'_> {
        Product {
            // SAFETY: the caller's promise.
            x: unsafe { self.x.from(row) },
            rows: self.rows - row,
            y: self.y.from(row * self.width),
            peaks: self.peaks.from(row * self.width.div_ceil(STRIP)),
            ..*self
        }
    }
}

/// How a tile is multiplied, by the packing of w and the form of x.
pub(crate) trait Multiply {
    type Float: Vector;

    /// Rows `row..row + M` of x times the outputs whose lanes begin `lane` into each half.
    ///
    /// # Safety
    /// The machine has the instruction set, and the product's operands have these rows and this
    /// strip.
    unsafe fn tile<const M: usize>(
        p: &Product<'_>,
        strip: *const u8,
        lane: usize,
        row: usize,
    ) -> [[Self::Float; 2]; M];
}

/// Computes the outputs of some strips for all rows of x. M is the most rows in a tile.
///
/// # Safety
/// The machine has T's instruction set, the shapes agree, the strips lie within w, and nobody
/// else touches their outputs meanwhile.
#[inline(always)]
pub(crate) unsafe fn product<T: Multiply, const M: usize>(p: &Product<'_>, strips: Range<usize>) {
    for strip in strips {
        let bytes = p.w[strip * p.strip_bytes..][..p.strip_bytes].as_ptr();
        for lane in (0..HALF).step_by(T::Float::LANES) {
            let mut row = 0;
            while row < p.rows {
                let tile = even_tile(p.rows - row, M);
                // SAFETY: the rows are rows of x; the rest is the caller's promise.
                unsafe {
                    match tile {
                        1 => step::<T, 1>(p, strip, bytes, lane, row),
                        2 => step::<T, 2>(p, strip, bytes, lane, row),
                        3 => step::<T, 3>(p, strip, bytes, lane, row),
                        4 => step::<T, 4>(p, strip, bytes, lane, row),
                        5 => step::<T, 5>(p, strip, bytes, lane, row),
                        _ => step::<T, M>(p, strip, bytes, lane, row),
                    }
                }
                row += tile;
            }
        }
    }
}

/// # Safety
/// As for [`product`]; rows `row..row + M` are rows of x.
#[inline(always)]
unsafe fn step<T: Multiply, const M: usize>(
    p: &Product<'_>,
    strip: usize,
    bytes: *const u8,
    lane: usize,
    row: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let sums = T::tile::<M>(p, bytes, lane, row);
        for (m, [low, high]) in sums.into_iter().enumerate() {
            finish(p, strip, lane, row + m, low, high);
        }
    }
}

/// # Safety
/// As for [`product`]; `row` is a row of x.
#[inline(always)]
pub(super) unsafe fn finish<V: Vector>(
    p: &Product<'_>,
    strip: usize,
    lane: usize,
    row: usize,
    low: V,
    high: V,
) {
    let first = strip * STRIP + lane;
    // SAFETY: the caller's promise; outputs beyond the width are left out.
    unsafe {
        let (low, high) = (biased(p, first, low), biased(p, first + HALF, high));
        match p.epilogue {
            Epilogue::SwiGlu => write(p, row, strip * HALF + lane, silu(low).mul(high), false),
            Epilogue::Replace => {
                write(p, row, first, low, false);
                write(p, row, first + HALF, high, false);
            }
            Epilogue::Add => {
                write(p, row, first, low, true);
                write(p, row, first + HALF, high, true);
            }
            Epilogue::Peaks => {
                write(p, row, first, low, false);
                write(p, row, first + HALF, high, false);
                raise(
                    p,
                    (row, strip),
                    lane,
                    highest(p, first, low).max(highest(p, first + HALF, high)),
                );
            }
            Epilogue::PeaksAlone => {
                raise(
                    p,
                    (row, strip),
                    lane,
                    highest(p, first, low).max(highest(p, first + HALF, high)),
                );
            }
        }
    }
}

/// The highest lane that is an output and a number; minus infinity if there is none.
///
/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
unsafe fn highest<V: Vector>(p: &Product<'_>, first: usize, value: V) -> f32 {
    let n = p.width.saturating_sub(first).min(V::LANES);
    // SAFETY: the instruction set is the caller's promise; the array has room for all lanes.
    unsafe {
        if n == V::LANES {
            return V::splat(f32::NEG_INFINITY).max_number(value).highest();
        }
        let mut lanes = [0.0; LANES_MAX];
        value.store(lanes.as_mut_ptr());
        lanes[..n].iter().fold(f32::NEG_INFINITY, |highest, &x| highest.max(x))
    }
}

/// Takes the highest of some of a strip's lanes into the strip's; the first come first.
///
/// # Safety
/// The strip is this call's alone.
#[inline(always)]
unsafe fn raise(p: &Product<'_>, (row, strip): (usize, usize), lane: usize, highest: f32) {
    let at = row * p.width.div_ceil(STRIP) + strip;
    // SAFETY: the caller's promise.
    let peak = unsafe { &mut p.peaks.slice(at..at + 1)[0] };
    *peak = if lane == 0 { highest } else { peak.max(highest) };
}

/// # Safety
/// The machine has V's instruction set.
#[inline(always)]
unsafe fn biased<V: Vector>(p: &Product<'_>, first: usize, value: V) -> V {
    let Some(bias) = p.bias else { return value };
    let n = bias.len().saturating_sub(first).min(V::LANES);
    // SAFETY: `n` numbers lie there.
    unsafe {
        match n {
            0 => value,
            n if n == V::LANES => value.add(V::load(bias.as_ptr().add(first))),
            n => value.add(V::load_first(bias.as_ptr().add(first), n)),
        }
    }
}

/// # Safety
/// The machine has V's instruction set, and these columns of y are the caller's alone.
#[inline(always)]
unsafe fn write<V: Vector>(p: &Product<'_>, row: usize, first: usize, value: V, add: bool) {
    let n = p.width.saturating_sub(first).min(V::LANES);
    if n == 0 {
        return;
    }
    let start = row * p.width + first;
    // SAFETY: the slice is `n` long and the caller's alone.
    unsafe {
        let y = p.y.slice(start..start + n).as_mut_ptr();
        if n == V::LANES {
            if add { V::load(y).add(value) } else { value }.store(y);
        } else {
            if add { V::load_first(y, n).add(value) } else { value }.store_first(y, n);
        }
    }
}

/// f32 weights times f32.
pub(crate) struct F32<D>(PhantomData<D>);

impl<D: Dot> Multiply for F32<D> {
    type Float = D::Float;

    #[inline(always)]
    unsafe fn tile<const M: usize>(
        p: &Product<'_>,
        strip: *const u8,
        lane: usize,
        row: usize,
    ) -> [[D::Float; 2]; M] {
        // SAFETY: a unit of w and a number of each row of x for each column.
        unsafe {
            let x: [_; M] = std::array::from_fn(|m| p.x.f32(row + m));
            let mut sums = [[D::Float::splat(0.0); 2]; M];
            for k in 0..p.cols {
                let unit = strip.add(k * UNIT_BYTES + 4 * lane);
                let (low, high) =
                    (D::Float::load(unit.cast()), D::Float::load(unit.add(UNIT_BYTES / 2).cast()));
                for (sums, x) in sums.iter_mut().zip(x) {
                    let x = D::Float::splat(*x.add(k));
                    *sums = [x.mul_add(low, sums[0]), x.mul_add(high, sums[1])];
                }
            }
            sums
        }
    }
}

/// bf16 weights times f32.
pub(crate) struct Bf16<D>(PhantomData<D>);

impl<D: Dot> Multiply for Bf16<D> {
    type Float = D::Float;

    #[inline(always)]
    unsafe fn tile<const M: usize>(
        p: &Product<'_>,
        strip: *const u8,
        lane: usize,
        row: usize,
    ) -> [[D::Float; 2]; M] {
        // SAFETY: a unit of w and two numbers of each row of x for each pair of columns.
        unsafe {
            let x: [_; M] = std::array::from_fn(|m| p.x.f32(row + m));
            let mut sums = [[D::Float::splat(0.0); 2]; M];
            for pair in 0..p.cols / 2 {
                let unit = strip.add(pair * UNIT_BYTES + 4 * lane);
                let (low, high) = (D::load(unit), D::load(unit.add(UNIT_BYTES / 2)));
                let first = [D::low_half(low), D::low_half(high)];
                let second = [D::high_half(low), D::high_half(high)];
                for (sums, x) in sums.iter_mut().zip(x) {
                    let (a, b) =
                        (D::Float::splat(*x.add(2 * pair)), D::Float::splat(*x.add(2 * pair + 1)));
                    for half in 0..2 {
                        sums[half] = b.mul_add(second[half], a.mul_add(first[half], sums[half]));
                    }
                }
            }
            sums
        }
    }
}

/// bf16 weights times bf16.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Bf16Rounded<D>(PhantomData<D>);

#[cfg(target_arch = "x86_64")]
impl<D: DotBf16> Multiply for Bf16Rounded<D> {
    type Float = D::Float;

    #[inline(always)]
    unsafe fn tile<const M: usize>(
        p: &Product<'_>,
        strip: *const u8,
        lane: usize,
        row: usize,
    ) -> [[D::Float; 2]; M] {
        // SAFETY: a unit of w and two numbers of each row of x for each pair of columns.
        unsafe {
            let x: [_; M] = std::array::from_fn(|m| p.x.bf16(row + m));
            let mut sums = [[D::Float::splat(0.0); 2]; M];
            for pair in 0..p.cols / 2 {
                let unit = strip.add(pair * UNIT_BYTES + 4 * lane);
                let (low, high) = (D::load(unit), D::load(unit.add(UNIT_BYTES / 2)));
                for (sums, x) in sums.iter_mut().zip(x) {
                    let x = D::splat_four(x.add(4 * pair));
                    *sums = [D::dot_bf16(sums[0], low, x), D::dot_bf16(sums[1], high, x)];
                }
            }
            sums
        }
    }
}

/// q8 weights.
pub(crate) struct Q8<D>(PhantomData<D>);

impl<D: Dot> Multiply for Q8<D> {
    type Float = D::Float;

    #[inline(always)]
    unsafe fn tile<const M: usize>(
        p: &Product<'_>,
        strip: *const u8,
        lane: usize,
        row: usize,
    ) -> [[D::Float; 2]; M] {
        // SAFETY: the caller's promise.
        unsafe { quantised::<D, Self, M>(p, strip, lane, row) }
    }
}

impl<D: Dot> Groups<D> for Q8<D> {
    const UNIT: usize = 4;
    const BIASED: bool = D::BIASED;

    #[inline(always)]
    unsafe fn add<const M: usize>(
        units: *const u8,
        x: [*const u8; M],
        sums: &mut [[D::Int; 2]; M],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for unit in 0..GROUP / 4 {
                let w = units.add(unit * UNIT_BYTES);
                if M == 1 {
                    keep_order();
                }
                let (low, high) = (D::load(w), D::load(w.add(UNIT_BYTES / 2)));
                for (sums, x) in sums.iter_mut().zip(x) {
                    let x = D::splat_four(x.add(4 * unit));
                    *sums = [D::dot_q8(sums[0], low, x), D::dot_q8(sums[1], high, x)];
                }
            }
        }
    }
}

/// Keeps the compiler from reading a later unit before an earlier one. A single row waits for
/// nothing but memory, whose prefetchers follow a stream that is read from first to last, and
/// lose one of which the odd lines are read first: 0.76 of the bandwidth where this gives 0.95.
#[inline(always)]
fn keep_order() {
    compiler_fence(Ordering::SeqCst);
}

/// q4 weights.
pub(crate) struct Q4<D>(PhantomData<D>);

impl<D: Dot> Multiply for Q4<D> {
    type Float = D::Float;

    #[inline(always)]
    unsafe fn tile<const M: usize>(
        p: &Product<'_>,
        strip: *const u8,
        lane: usize,
        row: usize,
    ) -> [[D::Float; 2]; M] {
        // SAFETY: the caller's promise.
        unsafe { quantised::<D, Self, M>(p, strip, lane, row) }
    }
}

impl<D: Dot> Groups<D> for Q4<D> {
    const UNIT: usize = 8;
    const BIASED: bool = true;

    #[inline(always)]
    unsafe fn add<const M: usize>(
        units: *const u8,
        x: [*const u8; M],
        sums: &mut [[D::Int; 2]; M],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for unit in 0..GROUP / 8 {
                let w = units.add(unit * UNIT_BYTES);
                if M == 1 {
                    keep_order();
                }
                let (low, high) = (D::load(w), D::load(w.add(UNIT_BYTES / 2)));
                let first = [D::low_bits(low), D::low_bits(high)];
                let second = [D::high_bits(low), D::high_bits(high)];
                for (sums, x) in sums.iter_mut().zip(x) {
                    let (a, b) =
                        (D::splat_four(x.add(8 * unit)), D::splat_four(x.add(8 * unit + 4)));
                    for half in 0..2 {
                        let sum = D::dot_q4(sums[half], first[half], a);
                        sums[half] = D::dot_q4(sum, second[half], b);
                    }
                }
            }
        }
    }
}

/// How a group's products become exact sums.
///
/// No closure: one that the compiler does not inline is compiled without the instruction set, and
/// each of its instructions becomes a call.
pub(super) trait Groups<D: Dot> {
    /// Columns of a unit.
    const UNIT: usize;
    /// Whether the sums begin at what the stored weights are too much.
    const BIASED: bool;

    /// Adds a group's products to exact sums.
    ///
    /// # Safety
    /// The machine has D's instructions; GROUP / UNIT units of w lie at `units`, and GROUP numbers
    /// at each row of x.
    unsafe fn add<const M: usize>(units: *const u8, x: [*const u8; M], sums: &mut [[D::Int; 2]; M]);
}

/// Walks over the groups: exact sums of each are scaled and added up, group after group.
///
/// # Safety
/// As for [`Multiply::tile`].
#[inline(always)]
pub(super) unsafe fn quantised<D: Dot, G: Groups<D>, const M: usize>(
    p: &Product<'_>,
    strip: *const u8,
    lane: usize,
    row: usize,
) -> [[D::Float; 2]; M] {
    // SAFETY: the caller's promise: for each group there are scales and units in w, and numbers,
    // a scale and a zero in x.
    unsafe {
        let x: [_; M] = std::array::from_fn(|m| p.x.q8(row + m));
        let mut sums = [[D::Float::splat(0.0); 2]; M];
        let mut bytes = strip;
        for group in 0..p.cols / GROUP {
            let mut exact = [[D::splat(0); 2]; M];
            if G::BIASED {
                for (exact, (_, _, zeros)) in exact.iter_mut().zip(x) {
                    *exact = [D::splat(*zeros.add(group)); 2];
                }
            }
            let units = bytes.add(SCALES_BYTES + 4 * lane);
            G::add(units, x.map(|(numbers, _, _)| numbers.add(group * GROUP)), &mut exact);
            let scales = [
                D::load_f16(bytes.add(2 * lane)),
                D::load_f16(bytes.add(SCALES_BYTES / 2 + 2 * lane)),
            ];
            for (m, (_, x_scales, _)) in x.into_iter().enumerate() {
                let x_scale = D::Float::splat(*x_scales.add(group));
                for half in 0..2 {
                    let scale = scales[half].mul(x_scale);
                    sums[m][half] = D::to_float(exact[m][half]).mul_add(scale, sums[m][half]);
                }
            }
            bytes = bytes.add(SCALES_BYTES + GROUP / G::UNIT * UNIT_BYTES);
        }
        sums
    }
}
