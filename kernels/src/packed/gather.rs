//! One row of a strip as f32: the way back, for embeddings.

use half::f16;

use super::{GROUP, Packing, SCALES_BYTES, UNIT_BYTES};

/// Row `row` of a strip to `dst[cols]`.
pub(super) fn gather(packing: Packing, strip: &[u8], row: usize, dst: &mut [f32]) {
    match packing {
        Packing::F32 => {
            for (x, unit) in dst.iter_mut().zip(strip.chunks_exact(UNIT_BYTES)) {
                *x = f32::from_le_bytes(four(unit, row));
            }
        }
        Packing::Bf16 | Packing::Bf16Rounded => {
            for (pair, unit) in dst.chunks_mut(2).zip(strip.chunks_exact(UNIT_BYTES)) {
                let [a, b, c, d] = four(unit, row);
                let numbers = [[0, 0, a, b], [0, 0, c, d]].map(f32::from_le_bytes);
                pair.copy_from_slice(&numbers[..pair.len()]);
            }
        }
        Packing::Q8 => groups(4, strip, row, dst, |bytes, numbers| {
            for (x, byte) in numbers.iter_mut().zip(bytes) {
                *x = (i32::from(byte) - 128) as f32;
            }
        }),
        Packing::Q4 => groups(8, strip, row, dst, |bytes, numbers| {
            for (i, x) in numbers.iter_mut().enumerate() {
                let byte = bytes[i % 4] >> (i / 4 * 4);
                *x = (i32::from(byte & 15) - 8) as f32;
            }
        }),
    }
}

/// Walks over the groups of a quantised row: `unpack` turns a unit into whole numbers.
fn groups(
    unit_cols: usize,
    strip: &[u8],
    row: usize,
    dst: &mut [f32],
    unpack: impl Fn([u8; 4], &mut [f32]),
) {
    let group_bytes = SCALES_BYTES + GROUP / unit_cols * UNIT_BYTES;
    for (dst, bytes) in dst.chunks_mut(GROUP).zip(strip.chunks_exact(group_bytes)) {
        let (scales, units) = bytes.split_at(SCALES_BYTES);
        let scale = f16::from_le_bytes([scales[2 * row], scales[2 * row + 1]]).to_f32();
        for (numbers, unit) in dst.chunks_mut(unit_cols).zip(units.chunks_exact(UNIT_BYTES)) {
            unpack(four(unit, row), numbers);
            numbers.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

fn four(unit: &[u8], row: usize) -> [u8; 4] {
    unit[4 * row..][..4].try_into().expect("a unit has four bytes for each row")
}
