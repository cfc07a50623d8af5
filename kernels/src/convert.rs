//! Between f32 and bf16. Plain loops: they run at load and once per row.

use half::bf16;

use crate::shape::{Elems, Matrix};

/// Rounds to the nearest bf16, ties to even. Slices of equal length.
pub fn to_bf16(src: &[f32], dst: &mut [bf16]) {
    assert_eq!(src.len(), dst.len(), "bf16 conversion between slices of different length");
    for (dst, src) in dst.iter_mut().zip(src) {
        *dst = bf16::from_f32(*src);
    }
}

/// Copies or widens, exactly. Slices of equal length.
pub fn to_f32(src: Elems<'_>, dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "f32 conversion between slices of different length");
    match src {
        Elems::F32(src) => dst.copy_from_slice(src),
        Elems::Bf16(src) => {
            for (dst, src) in dst.iter_mut().zip(src) {
                // Not `to_f32`, whose test for NaN keeps the loop from being vectorised.
                *dst = f32::from_bits(u32::from(src.to_bits()) << 16);
            }
        }
    }
}

/// Copies one row of a matrix, as f32, to `dst[cols]`.
pub fn gather(matrix: Matrix<'_>, row: usize, dst: &mut [f32]) {
    assert!(row < matrix.rows, "row {row} of a matrix of {}", matrix.rows);
    let range = row * matrix.cols..(row + 1) * matrix.cols;
    let elems = match matrix.elems {
        Elems::F32(elems) => Elems::F32(&elems[range]),
        Elems::Bf16(elems) => Elems::Bf16(&elems[range]),
    };
    to_f32(elems, dst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_even_and_widens_exactly() {
        let ulp = 2f32.powi(-7);
        let src = [1.0, 1.0 + ulp / 2.0, 1.0 + 1.5 * ulp, 1.0 + 0.6 * ulp, f32::NEG_INFINITY, 3e38];
        let mut half = [bf16::ZERO; 6];
        to_bf16(&src, &mut half);
        let mut back = [0.0; 6];
        to_f32(Elems::Bf16(&half), &mut back);
        let last = bf16::from_f32(3e38).to_f32();
        assert_eq!(back, [1.0, 1.0, 1.0 + 2.0 * ulp, 1.0 + ulp, f32::NEG_INFINITY, last]);

        let mut nan = [bf16::ZERO];
        to_bf16(&[f32::NAN], &mut nan);
        assert!(nan[0].is_nan());
    }

    #[test]
    fn gathers_a_row() {
        let elems: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let mut half = [bf16::ZERO; 6];
        to_bf16(&elems, &mut half);
        for elems in [Elems::F32(&elems), Elems::Bf16(&half)] {
            let mut row = [0.0; 3];
            gather(Matrix { elems, rows: 2, cols: 3 }, 1, &mut row);
            assert_eq!(row, [3.0, 4.0, 5.0]);
        }
    }
}
