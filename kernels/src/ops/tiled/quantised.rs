//! Whole numbers: a product of tiles for each group of columns, scaled and added up in registers.

use std::ops::Range;

use crate::arch::ProductFn;
use crate::dot::{Dot, DotTiles};
use crate::ops::product::{HALF, Multiply, Product, Q4, Q8, finish};
use crate::packed::{GROUP, SCALES_BYTES, UNIT_BYTES};
use crate::tiles::{Shape, TILE_BYTES, TILE_ROWS, TILES, Tiles};
use crate::vector::Vector;

/// Rows from which tiles are worth it. A tile's sums cost sixteen rows' scaling however many
/// there are, and fewer than this are multiplied in registers within that time.
const ROWS_MIN: usize = 8;

/// Bytes of half a unit: a row of a tile of weights.
const HALF_UNIT: usize = UNIT_BYTES / 2;

/// Rows of four columns in a group, which are a tile of weights.
const GROUP_ROWS: usize = GROUP / 4;

/// Room for half of a group's weights as bytes.
#[repr(align(64))]
pub(crate) struct Room([[u8; HALF_UNIT]; GROUP_ROWS]);

/// Room for a tile of sums.
#[repr(align(64))]
struct Sums([[i32; HALF]; TILE_ROWS]);

/// Weights that tiles multiply, beside the way in registers.
pub(crate) trait Quantised: Multiply<Float = <Self::Dot as Dot>::Float> {
    type Dot: DotTiles;
    /// Bytes of a group's units.
    const BYTES: usize;

    /// Half of a group's weights as bytes, four columns to a row: where they begin, and how far
    /// apart rows are.
    ///
    /// # Safety
    /// The machine has the instruction set, and the group's units follow `half`.
    unsafe fn bytes(half: *const u8, room: &mut Room) -> (*const u8, usize);
}

impl<D: DotTiles> Quantised for Q8<D> {
    type Dot = D;
    const BYTES: usize = GROUP / 4 * UNIT_BYTES;

    /// They are loaded as they lie.
    #[inline(always)]
    unsafe fn bytes(half: *const u8, _: &mut Room) -> (*const u8, usize) {
        (half, UNIT_BYTES)
    }
}

impl<D: DotTiles> Quantised for Q4<D> {
    type Dot = D;
    const BYTES: usize = GROUP / 8 * UNIT_BYTES;

    #[inline(always)]
    unsafe fn bytes(half: *const u8, room: &mut Room) -> (*const u8, usize) {
        let rows = room.0.as_chunks_mut::<2>().0;
        for (unit, [first, second]) in rows.iter_mut().enumerate().take(GROUP / 8) {
            for lane in (0..HALF).step_by(D::Float::LANES) {
                // SAFETY: a unit for each pair of rows, and a lane of four bytes for each output.
                unsafe {
                    let w = D::load(half.add(unit * UNIT_BYTES + 4 * lane));
                    D::store(D::low_bits(w), first.as_mut_ptr().add(4 * lane));
                    D::store(D::high_bits(w), second.as_mut_ptr().add(4 * lane));
                }
            }
        }
        (room.0.as_ptr().cast(), HALF_UNIT)
    }
}

/// Computes the outputs of some strips for all rows of x: by tiles, except a last few rows where
/// there is `rest`, the product in registers of the same operands.
///
/// # Safety
/// As for [`super::super::product`], and the machine has T's tiles.
#[inline(always)]
pub(crate) unsafe fn tiled<T: Tiles, W: Quantised>(
    p: &Product<'_>,
    strips: Range<usize>,
    rest: Option<ProductFn>,
) {
    let few = p.rows % TILE_ROWS;
    let rest = rest.filter(|_| few < ROWS_MIN);
    let tiled = if rest.is_some() { p.rows - few } else { p.rows };
    let mut work = Work::<T>::new();
    for strip in strips {
        for row in (0..tiled).step_by(TILE_ROWS) {
            let rows = row..tiled.min(row + TILE_ROWS);
            // SAFETY: the rows are rows of x; the rest is the caller's promise.
            unsafe {
                work.shape::<W>(rows.len());
                work.rows::<W>(p, strip, rows);
            }
        }
        if let Some(rest) = rest.filter(|_| few > 0) {
            // SAFETY: there are as many rows after those, and the rest is the caller's promise.
            unsafe { rest(&p.rows_from(tiled), strip..strip + 1) };
        }
    }
}

/// Tiles, and memory for what goes in and comes out. Two products are under way at a time: while
/// the sums of one are scaled, the tiles multiply the next group.
struct Work<T> {
    tiles: T,
    /// Rows that the tiles are configured for; none before they are.
    rows: usize,
    room: Room,
    sums: [Sums; 2],
}

/// Sums, activations and weights of the groups of even and of odd numbers.
const EVEN: [usize; 3] = [0, 1, 2];
const ODD: [usize; 3] = [3, 4, 5];

/// A half of a strip's outputs for some rows of x.
struct Half {
    /// The strip's bytes.
    strip: *const u8,
    /// 0 or 1.
    half: usize,
    /// Numbers, scales and zeros of the first row.
    x: (*const u8, *const f32, *const i32),
    /// Bytes of a row of x.
    stride: usize,
}

impl<T: Tiles> Work<T> {
    #[inline(always)]
    fn new() -> Work<T> {
        Work {
            tiles: T::default(),
            rows: 0,
            room: Room([[0; HALF_UNIT]; GROUP_ROWS]),
            sums: [const { Sums([[0; HALF]; TILE_ROWS]) }; 2],
        }
    }

    /// Configures the tiles for so many rows, unless they are.
    ///
    /// # Safety
    /// The machine has the tiles.
    #[inline(always)]
    unsafe fn shape<W: Quantised>(&mut self, rows: usize) {
        if self.rows == rows {
            return;
        }
        self.rows = rows;
        let mut shapes = [Shape::default(); TILES];
        for [sums, x, w] in [EVEN, ODD] {
            shapes[sums] = Shape::new(rows, TILE_BYTES);
            shapes[x] = Shape::new(rows, GROUP);
            shapes[w] = Shape::new(GROUP_ROWS, TILE_BYTES);
        }
        // SAFETY: the caller's promise.
        unsafe { self.tiles.configure(&shapes) };
    }

    /// # Safety
    /// As for [`tiled`]; the tiles are configured for the rows, which are rows of x.
    #[inline(always)]
    unsafe fn rows<W: Quantised>(&mut self, p: &Product<'_>, strip: usize, rows: Range<usize>) {
        let bytes = p.w[strip * p.strip_bytes..][..p.strip_bytes].as_ptr();
        for lane in (0..HALF).step_by(W::Float::LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                let x = p.x.q8(rows.start);
                let low = Half { strip: bytes, half: 0, x, stride: p.cols };
                let high = Half { half: 1, ..low };
                let (low, high) = (self.sum::<W>(&low, lane), self.sum::<W>(&high, lane));
                for ((row, low), high) in rows.clone().zip(low).zip(high) {
                    finish(p, strip, lane, row, low, high);
                }
            }
        }
    }

    /// The outputs whose lanes begin at `lane`. Of rows beyond those that the tiles are
    /// configured for, something comes out that means nothing.
    ///
    /// # Safety
    /// As for [`Self::rows`].
    #[inline(always)]
    unsafe fn sum<W: Quantised>(&mut self, half: &Half, lane: usize) -> [W::Float; TILE_ROWS] {
        let groups = half.stride / GROUP;
        // SAFETY: groups of x and w, by the caller's promise.
        unsafe {
            let mut sums = [W::Float::splat(0.0); TILE_ROWS];
            self.multiply::<W>(half, 0);
            for group in 0..groups {
                if group + 1 < groups {
                    self.multiply::<W>(half, group + 1);
                }
                self.add::<W>(half, group, lane, &mut sums);
            }
            sums
        }
    }

    /// Multiplies a group.
    ///
    /// # Safety
    /// As for [`Self::rows`]; x and w have the group.
    #[inline(always)]
    unsafe fn multiply<W: Quantised>(&mut self, half: &Half, group: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match group % 2 {
                0 => self.multiply_in::<W, { EVEN[0] }, { EVEN[1] }, { EVEN[2] }>(half, group),
                _ => self.multiply_in::<W, { ODD[0] }, { ODD[1] }, { ODD[2] }>(half, group),
            }
        }
    }

    /// # Safety
    /// As for [`Self::multiply`].
    #[inline(always)]
    unsafe fn multiply_in<W: Quantised, const C: usize, const A: usize, const B: usize>(
        &mut self,
        half: &Half,
        group: usize,
    ) {
        // SAFETY: the caller's promise; a tile of weights is a row for each four columns.
        unsafe {
            let units = half.strip.add(group * (SCALES_BYTES + W::BYTES) + SCALES_BYTES);
            let (w, w_stride) = W::bytes(units.add(half.half * HALF_UNIT), &mut self.room);
            let x = half.x.0.add(group * GROUP);
            self.tiles.zero::<C>();
            self.tiles.load::<A>(x, half.stride);
            self.tiles.load::<B>(w, w_stride);
            self.tiles.dot_bytes::<C, A, B>();
            self.tiles.store::<C>(self.sums[group % 2].0.as_mut_ptr().cast(), TILE_BYTES);
        }
    }

    /// Scales a group's sums and adds them up.
    ///
    /// # Safety
    /// As for [`Self::multiply`]; the group was the last or the last but one that was multiplied.
    #[inline(always)]
    unsafe fn add<W: Quantised>(
        &self,
        half: &Half,
        group: usize,
        lane: usize,
        sums: &mut [W::Float; TILE_ROWS],
    ) {
        let exact: *const Sums = &raw const self.sums[group % 2];
        let groups = half.stride / GROUP;
        // SAFETY: the caller's promise; rows beyond those of x take the last one's scale.
        unsafe {
            let scales = half.strip.add(group * (SCALES_BYTES + W::BYTES));
            let scale = W::Dot::load_f16(scales.add(half.half * SCALES_BYTES / 2 + 2 * lane));
            for (m, sum) in sums.iter_mut().enumerate() {
                let at = m.min(self.rows - 1) * groups + group;
                let exact = W::Dot::load(exact.cast::<u8>().add(m * TILE_BYTES + 4 * lane));
                let exact = W::Dot::add(exact, W::Dot::splat(*half.x.2.add(at)));
                let scale = scale.mul(W::Float::splat(*half.x.1.add(at)));
                *sum = W::Dot::to_float(exact).mul_add(scale, *sum);
            }
        }
    }
}
