//! Numbers come back from every packing as close as it promises, from any row and part.

use super::*;

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + 13) % 2003) as f32 / 1001.5 - 1.0).collect()
}

const PACKINGS: [Packing; 5] =
    [Packing::F32, Packing::Bf16, Packing::Bf16Rounded, Packing::Q8, Packing::Q4];

#[test]
fn rows_come_back() {
    for packing in PACKINGS {
        // A bf16's rounding, or half a step where the scale is the coarsest that is tried.
        let error_max = match packing {
            Packing::F32 => 0.0,
            Packing::Bf16 | Packing::Bf16Rounded => 1.0 / 256.0,
            Packing::Q8 => 0.51 / 118.0,
            Packing::Q4 => 1.2 / 7.5,
        };
        for (rows, cols) in [(1, 1), (33, 7), (70, 129), (32, 256)] {
            let source = numbers(rows * cols);
            let mut packed = Packed::zeroed(packing, rows, cols);
            let mut seen = 0;
            for mut strips in packed.strips_mut(2) {
                for row in strips.rows() {
                    strips.set(row, &source[row * cols..][..cols]);
                    seen += 1;
                }
            }
            assert_eq!(seen, rows);
            let mut back = vec![f32::NAN; cols];
            for row in 0..rows {
                packed.gather(row, &mut back);
                for (x, y) in source[row * cols..].iter().zip(&back) {
                    assert!((x - y).abs() <= error_max, "{packing:?} {rows}x{cols}: {x} {y}");
                }
            }
        }
    }
}

#[test]
fn four_bits_are_closer_than_a_scale_of_the_plain_range() {
    let source = numbers(32);
    let mut packed = Packed::zeroed(Packing::Q4, 1, 32);
    packed.strips_mut(1).for_each(|mut strips| strips.set(0, &source));
    let mut back = vec![0.0; 32];
    packed.gather(0, &mut back);
    let error =
        |back: &[f32]| -> f32 { source.iter().zip(back).map(|(x, y)| (x - y) * (x - y)).sum() };
    let scale = source.iter().fold(0f32, |m, x| m.max(x.abs())) / 8.0;
    let plain: Vec<f32> =
        source.iter().map(|x| (x / scale).round().clamp(-8.0, 7.0) * scale).collect();
    assert!(error(&back) <= error(&plain));
}

#[test]
fn bytes_are_what_the_format_says() {
    let strip = |packing: Packing| packing.strip_bytes(4864);
    assert_eq!(strip(Packing::F32), 4 * 32 * 4864);
    assert_eq!(strip(Packing::Bf16), 2 * 32 * 4864);
    assert_eq!(strip(Packing::Q8), 34 * 4864);
    assert_eq!(strip(Packing::Q4), 18 * 4864);
}

#[test]
fn gate_and_up_share_strips() {
    let rows: Vec<usize> = (0..20).map(|row| GateUp::Gate.packed_row(row)).collect();
    assert_eq!(rows[..16], (0..16).collect::<Vec<_>>());
    assert_eq!(rows[16..], [32, 33, 34, 35]);
    assert_eq!(GateUp::Up.packed_row(17), 49);
    assert_eq!(GateUp::packed_rows(20), 64);
}

#[test]
fn what_is_not_a_number_stays_none_or_is_zero_but_never_panics() {
    let source = [f32::NAN, f32::INFINITY, 1.0, -1.0];
    for packing in PACKINGS {
        let mut packed = Packed::zeroed(packing, 1, 4);
        packed.strips_mut(1).for_each(|mut strips| strips.set(0, &source));
        packed.gather(0, &mut [0.0; 4]);
    }
}

/// Sums of uniform numbers: near enough to how weights are spread.
fn bell(len: usize) -> Vec<f32> {
    let uniform = numbers(len * 8);
    uniform.chunks_exact(8).map(|eight| eight.iter().sum::<f32>() / 80.0).collect()
}

/// The least squared error of 4 bits over a thousand scales.
fn least_error_q4(group: &[f32]) -> f64 {
    let highest = group.iter().fold(0f32, |m, x| m.max(x.abs()));
    let error = |scale: f32| -> f64 {
        let off = |x: &f32| f64::from(x - (x / scale).round().clamp(-8.0, 7.0) * scale).powi(2);
        group.iter().map(off).sum()
    };
    let scales = (-500..=500).filter(|i: &i32| i.abs() > 250);
    scales.map(|i| error(highest / 8.0 * i as f32 / 400.0)).fold(f64::INFINITY, f64::min)
}

#[test]
fn the_scale_of_four_bits_is_near_the_best_there_is() {
    let source = bell(32 * GROUP);
    let mut packed = Packed::zeroed(Packing::Q4, 32, GROUP);
    let mut strips = packed.strips_mut(1).next().expect("one strip");
    let (mut error, mut least) = (0.0, 0.0);
    for (row, numbers) in source.chunks_exact(GROUP).enumerate() {
        strips.set(row, numbers);
        least += least_error_q4(numbers);
    }
    let mut back = vec![0.0; GROUP];
    for (row, numbers) in source.chunks_exact(GROUP).enumerate() {
        packed.gather(row, &mut back);
        error += numbers.iter().zip(&back).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
    }
    assert!(error <= 1.01 * least, "{error} where {least} is possible");
}

#[test]
fn the_scale_of_eight_bits_is_better_than_the_plain_one() {
    let source = bell(32 * GROUP);
    let mut packed = Packed::zeroed(Packing::Q8, 32, GROUP);
    let mut strips = packed.strips_mut(1).next().expect("one strip");
    let mut back = vec![0.0; GROUP];
    for (row, numbers) in source.chunks_exact(GROUP).enumerate() {
        strips.set(row, numbers);
    }
    let (mut error, mut plain) = (0.0, 0.0);
    for (row, numbers) in source.chunks_exact(GROUP).enumerate() {
        packed.gather(row, &mut back);
        let scale = numbers.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
        for (x, y) in numbers.iter().zip(&back) {
            error += f64::from(x - y).powi(2);
            plain += f64::from(x - (x / scale).round() * scale).powi(2);
        }
    }
    assert!(error <= 0.85 * plain, "{error} where the plain scale has {plain}");
}

#[test]
fn a_number_that_is_none_is_not_hidden() {
    for packing in PACKINGS {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut source = numbers(40);
            source[37] = broken;
            let mut packed = Packed::zeroed(packing, 1, 40);
            packed.strips_mut(1).for_each(|mut strips| strips.set(0, &source));
            let mut back = vec![0.0; 40];
            packed.gather(0, &mut back);
            assert!(!back[37].is_finite(), "{packing:?} made {} of {broken}", back[37]);
        }
    }
}

#[test]
fn a_pattern_repeats_in_full_strips_and_is_shifted_where_it_can_be() {
    for packing in PACKINGS {
        for (cols, shifted) in [(256, true), (129, packing == Packing::F32)] {
            let (rows, source) = (5 * STRIP + 3, numbers(2 * STRIP * cols));
            let mut packed = Packed::zeroed(packing, rows, cols);
            let mut strips = packed.strips_mut(2).next().expect("strips");
            (0..2 * STRIP).for_each(|row| strips.set(row, &source[row * cols..][..cols]));
            packed.repeat(2);
            let row = |row: usize| {
                let mut back = vec![0.0; cols];
                packed.gather(row, &mut back);
                back
            };
            for pair in 1..4 {
                assert_ne!(row(pair * STRIP), row((pair + 1) * STRIP), "{packing:?}");
                assert!(row(pair * STRIP).iter().all(|x| x.abs() <= 1.2), "{packing:?}");
            }
            assert_eq!(row(0) != row(2 * STRIP), shifted, "{packing:?} {cols}");
            assert_eq!(row(5 * STRIP), vec![0.0; cols], "{packing:?}");
        }
    }
}
