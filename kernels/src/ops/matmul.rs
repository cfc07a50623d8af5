//! The product of activations and weights.

use std::ops::Range;

use crate::out::Out;
use crate::shape::Write;
use crate::vector::{Elem, Vector};

use super::{dots, even_tile};

/// Rows of w in a tile.
const TILE: usize = 4;

/// Rows of w in a tile of one row of x, where the tile above would leave too few chains of
/// additions to hide their latency. Threads split the rows of w at multiples of it.
pub(crate) const TILE_COLS: usize = 8;

/// Weights that stay in the cache while all rows of x walk over them: a quarter of the L2 that
/// current server cores have, which leaves room for the rows of x.
const BLOCK_BYTES: usize = 256 * 1024;

/// `y[M, rows] (+)= x[M, cols] · wᵀ + bias[rows]`
pub(crate) struct RowMajor<'a, E> {
    pub(crate) x: &'a [f32],
    pub(crate) w: &'a [E],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) write: Write,
    pub(crate) y: Out<'a>,
}

/// Computes the columns `rows` of y, which are rows of w. M is the most rows of x in a tile.
///
/// # Safety
/// The machine has V's instruction set, the shapes of `product` agree, `rows` lies within w,
/// and nobody else touches these columns of y meanwhile.
#[inline(always)]
pub(crate) unsafe fn matmul<V: Vector, E: Elem, const M: usize>(
    product: &RowMajor<'_, E>,
    rows: Range<usize>,
) {
    let x_rows = product.x.len() / product.cols;
    // A row may be wider than the block.
    let block = BLOCK_BYTES / (product.cols * size_of::<E>());
    let block = block.max(1).next_multiple_of(TILE_COLS);
    for start in rows.clone().step_by(block) {
        let block = start..(start + block).min(rows.end);
        let mut m = 0;
        while m < x_rows {
            let tile = even_tile(x_rows - m, M);
            // SAFETY: rows `m..m + tile` are rows of x, the block lies in `rows`, and the rest
            // is the caller's promise.
            unsafe {
                match tile {
                    1 => matvec::<V, E>(product, m, block.clone()),
                    2 => stripe::<V, E, 2>(product, m, block.clone()),
                    3 => stripe::<V, E, 3>(product, m, block.clone()),
                    4 => stripe::<V, E, 4>(product, m, block.clone()),
                    5 => stripe::<V, E, 5>(product, m, block.clone()),
                    _ => stripe::<V, E, M>(product, m, block.clone()),
                }
            }
            m += tile;
        }
    }
}

/// # Safety
/// As for [`matmul`]; row `m` is a row of x.
#[inline(always)]
unsafe fn matvec<V: Vector, E: Elem>(product: &RowMajor<'_, E>, m: usize, rows: Range<usize>) {
    let wide = rows.start + rows.len() / TILE_COLS * TILE_COLS;
    let mut n = rows.start;
    while n < wide {
        // SAFETY: TILE_COLS rows of w begin at `n`; the rest is the caller's promise.
        unsafe { tile::<V, E, 1, TILE_COLS>(product, m, n, rows.end) };
        n += TILE_COLS;
    }
    // SAFETY: the caller's promise.
    unsafe { stripe::<V, E, 1>(product, m, wide..rows.end) };
}

/// # Safety
/// As for [`matmul`]; rows `m..m + M` are rows of x.
#[inline(always)]
unsafe fn stripe<V: Vector, E: Elem, const M: usize>(
    product: &RowMajor<'_, E>,
    m: usize,
    rows: Range<usize>,
) {
    for n in rows.clone().step_by(TILE) {
        // SAFETY: `n` lies in `rows`; the rest is the caller's promise.
        unsafe { tile::<V, E, M, TILE>(product, m, n, rows.end) };
    }
}

/// # Safety
/// As for [`matmul`]; `m..m + M` are rows of x, and `n < end` are rows of w.
#[inline(always)]
unsafe fn tile<V: Vector, E: Elem, const M: usize, const N: usize>(
    product: &RowMajor<'_, E>,
    m: usize,
    n: usize,
    end: usize,
) {
    let cols = product.cols;
    let mut w = [product.w.as_ptr(); N];
    for (i, w) in w.iter_mut().enumerate() {
        // A tile that hangs over the end repeats the last row.
        *w = product.w[(n + i).min(end - 1) * cols..].as_ptr();
    }
    let x = product.x[m * cols..].as_ptr();
    // SAFETY: a row of w is `cols` long, and M rows of x begin at row `m`.
    let sums = unsafe { dots::<V, E, M, N>(x, cols, w, cols) };
    for (i, sums) in sums.iter().enumerate() {
        let width = N.min(end - n);
        let start = (m + i) * product.rows + n;
        // SAFETY: these columns of y are this call's alone.
        let y = unsafe { product.y.slice(start..start + width) };
        for (j, y) in y.iter_mut().enumerate() {
            let value = match product.bias {
                Some(bias) => sums[j] + bias[n + j],
                None => sums[j],
            };
            match product.write {
                Write::Replace => *y = value,
                Write::Add => *y += value,
            }
        }
    }
}
