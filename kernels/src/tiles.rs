//! Tiles: eight registers of up to sixteen rows, and the instructions that multiply them.
//!
//! A product of tiles is `C[m, n] += A[m, k] · B[k, n]`. A row of A holds m's numbers one after
//! the other; a row of B holds four bytes of each n, which is how a unit of packed weights lies.

/// Tiles that there are.
pub(crate) const TILES: usize = 8;

/// Rows of a tile, at most.
pub(crate) const TILE_ROWS: usize = 16;

/// Bytes of a tile's row, at most.
pub(crate) const TILE_BYTES: usize = 64;

/// Rows and bytes of a row; a tile that is not used has none of either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    rows: u8,
    bytes: u8,
}

impl Shape {
    pub(crate) fn new(rows: usize, bytes: usize) -> Shape {
        assert!((1..=TILE_ROWS).contains(&rows), "a tile of {rows} rows");
        assert!((4..=TILE_BYTES).contains(&bytes) && bytes.is_multiple_of(4), "rows of {bytes}");
        Shape { rows: rows as u8, bytes: bytes as u8 }
    }

    pub(crate) fn rows(self) -> usize {
        usize::from(self.rows)
    }

    pub(crate) fn bytes(self) -> usize {
        usize::from(self.bytes)
    }
}

/// The tiles of the thread that it is made on, named by their numbers. Dropped, it gives them
/// back.
///
/// # Safety
/// All methods need the implementor's instructions to be present on this machine, and pointers to
/// a tile's rows of its bytes, `stride` apart. A tile is configured before it is used, the three
/// of a product are different ones, and their shapes fit: A has as many rows as C, B has a row
/// for each four bytes of A's, and C as many bytes as B.
pub(crate) trait Tiles: Default {
    /// Gives each tile its shape and fills it with zeros.
    unsafe fn configure(&mut self, shapes: &[Shape; TILES]);
    unsafe fn zero<const T: usize>(&mut self);
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize);
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize);
    /// Sums of i32; signed bytes of A by unsigned ones of B.
    unsafe fn dot_bytes<const C: usize, const A: usize, const B: usize>(&mut self);
    /// Sums of f32, by pairs of bf16. In what order they are added is the machine's own, but the
    /// same for every n and m, whatever the shapes' rows.
    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self);
}
