//! bf16: sums stay in the tiles from the first column to the last.

use std::ops::Range;

use crate::ops::product::{HALF, Product, finish};
use crate::packed::{STRIP, UNIT_BYTES};
use crate::tiles::{Shape, TILE_BYTES, TILE_ROWS, TILES, Tiles};
use crate::vector::Vector;

/// Rows of x that are multiplied at a time: two tiles of them by the two halves of a strip.
const ROWS: usize = 2 * TILE_ROWS;

/// Units of w, which are pairs of columns, in a tile.
const UNITS: usize = TILE_BYTES / 4;

/// The tiles of sums of the first rows and of the second ones, for each half of a strip.
const SUMS: [usize; 4] = [0, 1, 2, 3];
/// The tiles of the first rows of x and of the second ones.
const X: [usize; 2] = [4, 5];
/// The tiles of the two halves of a strip.
const W: [usize; 2] = [6, 7];

/// Computes the outputs of some strips for all rows of x.
///
/// # Safety
/// As for [`super::super::product`], and the machine has T's tiles.
#[inline(always)]
pub(crate) unsafe fn tiled_bf16<T: Tiles, V: Vector>(p: &Product<'_>, strips: Range<usize>) {
    let mut work = Work::<T>::new();
    for strip in strips {
        let bytes = &p.w[strip * p.strip_bytes..][..p.strip_bytes];
        work.keep_last_units(bytes);
        for row in (0..p.rows).step_by(ROWS) {
            let rows = row..p.rows.min(row + ROWS);
            // SAFETY: the rows are rows of x; the rest is the caller's promise.
            unsafe {
                work.shape(rows.len());
                work.multiply(p, bytes.as_ptr(), row);
                work.finish::<V>(p, strip, rows);
            }
        }
    }
}

/// Tiles, and memory for what goes in and comes out.
struct Work<T> {
    tiles: T,
    /// Rows that the tiles are configured for; none before they are.
    rows: usize,
    /// The columns that do not fill tiles, filled up with zeros.
    x_rest: Aligned<[[u8; TILE_BYTES]; ROWS]>,
    w_rest: Aligned<[u8; UNITS * UNIT_BYTES]>,
    sums: Aligned<[[f32; STRIP]; ROWS]>,
}

#[repr(align(64))]
struct Aligned<N>(N);

impl<T: Tiles> Work<T> {
    #[inline(always)]
    fn new() -> Work<T> {
        Work {
            tiles: T::default(),
            rows: 0,
            x_rest: Aligned([[0; TILE_BYTES]; ROWS]),
            w_rest: Aligned([0; UNITS * UNIT_BYTES]),
            sums: Aligned([[0.0; STRIP]; ROWS]),
        }
    }

    /// Configures the tiles for so many rows, unless they are.
    ///
    /// # Safety
    /// The machine has the tiles.
    #[inline(always)]
    unsafe fn shape(&mut self, rows: usize) {
        if self.rows == rows {
            return;
        }
        self.rows = rows;
        let mut shapes = [Shape::default(); TILES];
        W.into_iter().for_each(|w| shapes[w] = Shape::new(UNITS, TILE_BYTES));
        for (i, rows) in [rows.min(TILE_ROWS), rows.saturating_sub(TILE_ROWS)].iter().enumerate() {
            if *rows > 0 {
                let shape = Shape::new(*rows, TILE_BYTES);
                [X[i], SUMS[2 * i], SUMS[2 * i + 1]].into_iter().for_each(|t| shapes[t] = shape);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.tiles.configure(&shapes) };
    }

    /// Keeps the units of a strip that do not fill a tile; zeros follow from the beginning.
    #[inline(always)]
    fn keep_last_units(&mut self, strip: &[u8]) {
        let rest = strip.as_chunks::<{ UNITS * UNIT_BYTES }>().1;
        self.w_rest.0[..rest.len()].copy_from_slice(rest);
    }

    /// Multiplies the rows of x from `row` on, as many as the tiles are configured for.
    ///
    /// # Safety
    /// As for [`tiled_bf16`]; the rows are rows of x.
    #[inline(always)]
    unsafe fn multiply(&mut self, p: &Product<'_>, strip: *const u8, row: usize) {
        let (stride, full) = (2 * p.cols, p.cols / 2 / UNITS);
        // SAFETY: the caller's promise; after the full tiles there are the bytes of the rest.
        unsafe {
            let x = p.x.bf16(row);
            self.zero();
            for k in 0..full {
                self.add(x.add(k * TILE_BYTES), stride, strip.add(k * UNITS * UNIT_BYTES));
            }
            let rest = stride - full * TILE_BYTES;
            if rest > 0 {
                for (m, kept) in self.x_rest.0.iter_mut().enumerate().take(self.rows) {
                    let from = x.add(m * stride + full * TILE_BYTES);
                    kept.as_mut_ptr().copy_from_nonoverlapping(from, rest);
                }
                let (x, w) = (self.x_rest.0.as_ptr(), self.w_rest.0.as_ptr());
                self.add(x.cast(), TILE_BYTES, w);
            }
            self.store();
        }
    }

    /// Whether there are rows for the second tiles of x and of sums.
    #[inline(always)]
    fn second(&self) -> bool {
        self.rows > TILE_ROWS
    }

    /// # Safety
    /// The tiles are configured.
    #[inline(always)]
    unsafe fn zero(&mut self) {
        // SAFETY: the caller's promise.
        unsafe {
            self.tiles.zero::<{ SUMS[0] }>();
            self.tiles.zero::<{ SUMS[1] }>();
            if self.second() {
                self.tiles.zero::<{ SUMS[2] }>();
                self.tiles.zero::<{ SUMS[3] }>();
            }
        }
    }

    /// Adds the products of a tile's columns.
    ///
    /// # Safety
    /// The tiles are configured, x has their rows and w their units.
    #[inline(always)]
    unsafe fn add(&mut self, x: *const u8, stride: usize, w: *const u8) {
        // SAFETY: the caller's promise; the halves of a unit lie side by side.
        unsafe {
            self.tiles.load::<{ X[0] }>(x, stride);
            self.tiles.load::<{ W[0] }>(w, UNIT_BYTES);
            self.tiles.dot_bf16::<{ SUMS[0] }, { X[0] }, { W[0] }>();
            self.tiles.load::<{ W[1] }>(w.add(UNIT_BYTES / 2), UNIT_BYTES);
            self.tiles.dot_bf16::<{ SUMS[1] }, { X[0] }, { W[1] }>();
            if self.second() {
                self.tiles.load::<{ X[1] }>(x.add(TILE_ROWS * stride), stride);
                self.tiles.dot_bf16::<{ SUMS[2] }, { X[1] }, { W[0] }>();
                self.tiles.dot_bf16::<{ SUMS[3] }, { X[1] }, { W[1] }>();
            }
        }
    }

    /// # Safety
    /// The tiles are configured.
    #[inline(always)]
    unsafe fn store(&mut self) {
        const STRIDE: usize = STRIP * size_of::<f32>();
        let first = self.sums.0.as_mut_ptr().cast::<u8>();
        // SAFETY: the caller's promise; a tile of sums is half as wide as the rows here.
        unsafe {
            self.tiles.store::<{ SUMS[0] }>(first, STRIDE);
            self.tiles.store::<{ SUMS[1] }>(first.add(TILE_BYTES), STRIDE);
            if self.second() {
                let second = first.add(TILE_ROWS * STRIDE);
                self.tiles.store::<{ SUMS[2] }>(second, STRIDE);
                self.tiles.store::<{ SUMS[3] }>(second.add(TILE_BYTES), STRIDE);
            }
        }
    }

    /// # Safety
    /// As for [`tiled_bf16`]; the rows are those whose sums were stored.
    #[inline(always)]
    unsafe fn finish<V: Vector>(&self, p: &Product<'_>, strip: usize, rows: Range<usize>) {
        for (row, sums) in rows.zip(&self.sums.0) {
            let (low, high) = sums.split_at(HALF);
            for lane in (0..HALF).step_by(V::LANES) {
                // SAFETY: the caller's promise; a lane for each output.
                unsafe {
                    let [low, high] = [low, high].map(|half| half.as_ptr().add(lane));
                    finish(p, strip, lane, row, V::load(low), V::load(high));
                }
            }
        }
    }
}
