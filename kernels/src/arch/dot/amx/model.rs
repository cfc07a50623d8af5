//! Tiles in plain Rust, by the description of the instructions in Intel's manual: what the
//! machine's own are checked against, and how all that surrounds them is tested on any machine.

use crate::tiles::{Shape, TILE_BYTES, TILE_ROWS, TILES, Tiles};

/// Tiles in memory.
pub(crate) struct Model {
    shapes: [Shape; TILES],
    tiles: [Tile; TILES],
}

type Tile = [[u8; TILE_BYTES]; TILE_ROWS];

const ZEROS: Tile = [[0; TILE_BYTES]; TILE_ROWS];

impl Default for Model {
    fn default() -> Model {
        Model { shapes: Default::default(), tiles: [ZEROS; TILES] }
    }
}

impl Model {
    /// What is wrong here is an invalid instruction on the machine.
    fn shape(&self, tile: usize) -> Shape {
        assert!(self.shapes[tile].rows() > 0, "tile {tile} is not configured");
        self.shapes[tile]
    }

    /// Walks over the outputs: `sum` is given the lane of C before, the row of A, and the lane's
    /// four bytes in each row of B.
    fn product(
        &mut self,
        [c, a, b]: [usize; 3],
        sum: impl Fn([u8; 4], &[[u8; 4]], &[[u8; 4]]) -> [u8; 4],
    ) {
        assert!(c != a && a != b && b != c, "a product of the same tile");
        let [sums, left, right] = [c, a, b].map(|tile| self.shape(tile));
        assert_eq!(sums.rows(), left.rows(), "rows of C and A");
        assert_eq!(sums.bytes(), right.bytes(), "bytes of C and B");
        assert_eq!(left.bytes(), 4 * right.rows(), "bytes of A and rows of B");
        for m in 0..sums.rows() {
            let row = self.tiles[a][m];
            let left = row[..left.bytes()].as_chunks().0;
            for n in 0..sums.bytes() / 4 {
                let column: [[u8; 4]; TILE_ROWS] =
                    std::array::from_fn(|k| four(&self.tiles[b][k], n));
                let lane = sum(four(&self.tiles[c][m], n), left, &column[..right.rows()]);
                self.tiles[c][m][4 * n..][..4].copy_from_slice(&lane);
            }
        }
    }
}

fn four(row: &[u8; TILE_BYTES], lane: usize) -> [u8; 4] {
    row.as_chunks().0[lane]
}

/// The two numbers of four bytes, denormal ones being taken for zeros.
fn bf16_pair([a, b, c, d]: [u8; 4]) -> [f32; 2] {
    [[0, 0, a, b], [0, 0, c, d]].map(|bytes| flushed(f32::from_le_bytes(bytes)))
}

/// Zero of the same sign for a denormal number.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// `a b + c`, rounded once, to zero where it would be denormal if exponents had no end.
fn flushed_mul_add(a: f32, b: f32, c: f32) -> f32 {
    const UP: f32 = (1u64 << 32) as f32;
    let sum = a.mul_add(b, c);
    if sum.abs() > f32::MIN_POSITIVE {
        return sum;
    }
    // Of the few sums that rounding among denormal numbers lifts to the smallest normal one, it
    // is those beyond half a unit of that one that count as normal.
    let high = (a * UP).mul_add(b * UP, c * UP * UP);
    if high.abs() < f32::MIN_POSITIVE * UP * UP { 0.0f32.copysign(sum) } else { sum }
}

// In each method the caller vouches for the memory behind a pointer; the shapes are asserted.
impl Tiles for Model {
    unsafe fn configure(&mut self, shapes: &[Shape; TILES]) {
        *self = Model { shapes: *shapes, tiles: [ZEROS; TILES] };
    }

    unsafe fn zero<const T: usize>(&mut self) {
        self.shape(T);
        self.tiles[T] = ZEROS;
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        let shape = self.shape(T);
        self.tiles[T] = ZEROS;
        for (m, row) in self.tiles[T].iter_mut().enumerate().take(shape.rows()) {
            // SAFETY: the trait's contract.
            let from = unsafe { std::slice::from_raw_parts(from.add(m * stride), shape.bytes()) };
            row[..shape.bytes()].copy_from_slice(from);
        }
    }

    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        let shape = self.shape(T);
        for (m, row) in self.tiles[T].iter().enumerate().take(shape.rows()) {
            // SAFETY: the trait's contract.
            unsafe { to.add(m * stride).copy_from_nonoverlapping(row.as_ptr(), shape.bytes()) };
        }
    }

    unsafe fn dot_bytes<const C: usize, const A: usize, const B: usize>(&mut self) {
        self.product([C, A, B], |sum, a, b| {
            let products = a.as_flattened().iter().zip(b.as_flattened());
            let products = products.map(|(&a, &b)| i32::from(a as i8) * i32::from(b));
            products.fold(i32::from_le_bytes(sum), i32::wrapping_add).to_le_bytes()
        });
    }

    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        self.product([C, A, B], |sum, a, b| {
            // The first numbers of the pairs are summed apart from the second ones.
            let mut sums = [0.0; 2];
            for (a, b) in a.iter().zip(b) {
                let (a, b) = (bf16_pair(*a), bf16_pair(*b));
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = flushed_mul_add(a[i], b[i], *sum);
                }
            }
            let both = flushed(sums[0] + sums[1]);
            flushed(flushed(f32::from_le_bytes(sum)) + both).to_le_bytes()
        });
    }
}
