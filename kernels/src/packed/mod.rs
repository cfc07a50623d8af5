//! Weights in the order in which a product reads them, in one of several formats.
//!
//! Rows are interleaved by [`STRIP`]: whatever the instruction set, one pass over a strip's bytes
//! from first to last computes its outputs side by side in the lanes of registers, and nothing is
//! summed across lanes. A strip is a list of units, each `[STRIP, 4 bytes]` in memory:
//!
//! | packing | a unit's four bytes of one row | before each group of columns |
//! |---|---|---|
//! | f32 | one number | |
//! | bf16 | two numbers | |
//! | q8 | four numbers, each 128 more than its value | a scale for each row, f16 |
//! | q4 | eight numbers, each 8 more than its value: the first four in the low halves | as q8 |
//!
//! Rows and columns beyond the matrix are zeros: their scale or their value is.

mod format;
mod gather;
mod quantise;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::memory::{Arena, Pages};
pub use format::Packing;

/// Rows that are interleaved: two registers of the widest instruction set.
pub const STRIP: usize = 32;

/// Columns of a quantised row that share a scale.
pub(crate) const GROUP: usize = 32;

/// Bytes of a unit.
pub(crate) const UNIT_BYTES: usize = 4 * STRIP;

/// Bytes of the scales of one group of columns: f16 for each row of a strip.
pub(crate) const SCALES_BYTES: usize = 2 * STRIP;

/// A matrix of weights, `[rows, cols]`; a linear layer's `[out, in]`.
pub struct Packed {
    packing: Packing,
    rows: usize,
    cols: usize,
    /// `[strips, strip_bytes]`
    pages: Pages,
}

impl Packed {
    /// A matrix of zeros, to be filled by [`Packed::strips_mut`].
    pub fn zeroed(packing: Packing, rows: usize, cols: usize) -> Packed {
        Packed { packing, rows, cols, pages: Pages::zeroed(bytes(packing, rows, cols)) }
    }

    /// The same, in memory that it shares with a model's other matrices.
    pub fn zeroed_in(arena: &Arena, packing: Packing, rows: usize, cols: usize) -> Packed {
        Packed { packing, rows, cols, pages: arena.zeroed(bytes(packing, rows, cols)) }
    }

    pub fn packing(&self) -> Packing {
        self.packing
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub fn strips(&self) -> usize {
        self.rows.div_ceil(STRIP)
    }

    /// All of it, as a cache on disk keeps it: `[strips, strip_bytes]`.
    pub fn bytes(&self) -> &[u8] {
        &self.pages
    }

    /// To be filled from what [`Packed::bytes`] gave for the same packing and shape.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.pages
    }

    /// The matrix in disjoint parts of `strips_each` strips, the last one perhaps shorter, that
    /// several threads may fill.
    pub fn strips_mut(&mut self, strips_each: usize) -> impl Iterator<Item = Strips<'_>> {
        let (packing, rows, cols) = (self.packing, self.rows, self.cols);
        let chunks = self.pages.chunks_mut(strips_each * packing.strip_bytes(cols));
        chunks.enumerate().map(move |(i, bytes)| {
            let start = i * strips_each * STRIP;
            let rows = start..rows.min(start + strips_each * STRIP);
            Strips { packing, rows, cols, bytes }
        })
    }

    /// Fills all full strips after the first `strips` with what those hold, again and again: for
    /// weights that need a shape and no meaning, at the speed of copying. Each copy begins a group
    /// of columns later than the one before, where the columns fill their groups, so that rows
    /// far apart are not the same.
    pub fn repeat(&mut self, strips: usize) {
        let strip_bytes = self.packing.strip_bytes(self.cols);
        let (start, end) = (strips * strip_bytes, self.rows / STRIP * strip_bytes);
        let shift = match self.packing.padded_cols(self.cols) == self.cols {
            true => self.packing.block_bytes(),
            false => 0,
        };
        assert!(start > shift, "nothing to repeat");
        let period = start - shift;
        for at in (start..end).step_by(period) {
            let from = at - period..(at - period) + period.min(end - at);
            self.pages.copy_within(from, at);
        }
    }

    /// Copies one row, as f32, to `dst[cols]`.
    pub fn gather(&self, row: usize, dst: &mut [f32]) {
        assert!(row < self.rows, "row {row} of a matrix of {}", self.rows);
        assert_eq!(dst.len(), self.cols, "gather: dst");
        let strip_bytes = self.packing.strip_bytes(self.cols);
        let strip = &self.pages[row / STRIP * strip_bytes..][..strip_bytes];
        gather::gather(self.packing, strip, row % STRIP, dst);
    }
}

fn bytes(packing: Packing, rows: usize, cols: usize) -> usize {
    assert!(rows > 0 && cols > 0, "a packed matrix of nothing");
    let bytes = packing.strip_bytes(cols).checked_mul(rows.div_ceil(STRIP));
    bytes.expect("a packed matrix beyond memory")
}

/// Some strips of a [`Packed`], to be filled.
pub struct Strips<'a> {
    packing: Packing,
    rows: Range<usize>,
    cols: usize,
    bytes: &'a mut [u8],
}

impl Strips<'_> {
    /// The matrix's rows in these strips.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Rounds one row of the matrix, `numbers[cols]`, to the packing.
    pub fn set(&mut self, row: usize, numbers: &[f32]) {
        assert!(self.rows.contains(&row), "row {row} is not in these strips");
        assert_eq!(numbers.len(), self.cols, "set: numbers");
        let strip_bytes = self.packing.strip_bytes(self.cols);
        let at = row - self.rows.start;
        let strip = &mut self.bytes[at / STRIP * strip_bytes..][..strip_bytes];
        quantise::set(self.packing, strip, at % STRIP, numbers);
    }
}

/// Where rows of gate and up go in the one matrix that holds both, so that a strip has sixteen
/// of each and the gate's activation is applied before anything is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateUp {
    Gate,
    Up,
}

impl GateUp {
    /// The packed row of row `row` of gate or of up.
    pub fn packed_row(self, row: usize) -> usize {
        let half = match self {
            GateUp::Gate => 0,
            GateUp::Up => STRIP / 2,
        };
        row / (STRIP / 2) * STRIP + half + row % (STRIP / 2)
    }

    /// Rows of the matrix that holds gate and up of `width` rows each.
    pub fn packed_rows(width: usize) -> usize {
        width.div_ceil(STRIP / 2) * STRIP
    }
}
