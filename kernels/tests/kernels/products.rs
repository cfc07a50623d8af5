//! Products of packed weights: against the oracle on odd shapes, and each row against itself
//! alone.

use kernels::{Cpu, GateUp, Inputs, Norm, Packed, Packing, STRIP, Write, naive};
use proptest::prelude::*;

use crate::support::{assert_close, bits, cases, cpus, numbers};

const PACKINGS: [Packing; 5] =
    [Packing::F32, Packing::Bf16, Packing::Bf16Rounded, Packing::Q8, Packing::Q4];

fn packings() -> impl Strategy<Value = Packing> {
    prop::sample::select(&PACKINGS[..])
}

fn packed(packing: Packing, rows: usize, cols: usize, seed: u64) -> Packed {
    let source = numbers(seed, rows * cols);
    let mut packed = Packed::zeroed(packing, rows, cols);
    for mut strips in packed.strips_mut(2) {
        for row in strips.rows() {
            strips.set(row, &source[row * cols..][..cols]);
        }
    }
    packed
}

fn product(
    cpu: &Cpu,
    x: &[f32],
    norm: Option<Norm<'_>>,
    w: &Packed,
    bias: Option<&[f32]>,
    write: Write,
    y: &mut [f32],
) {
    let mut inputs = Inputs::new(x.len() / w.cols(), w.cols());
    cpu.prepare(&mut inputs, x, norm, w);
    cpu.product(&inputs, w, bias, write, y);
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn against_the_oracle(
        packing in packings(), m in 1usize..20, rows in 1usize..70, cols in 1usize..300,
        threads in 1usize..4, normed: bool, biased: bool, add: bool, seed: u64,
    ) {
        let x = numbers(seed, m * cols);
        let w = packed(packing, rows, cols, seed + 1);
        let (bias, weight) = (numbers(seed + 2, rows), numbers(seed + 4, cols));
        let bias = biased.then_some(&bias[..]);
        let norm = normed.then_some(Norm { weight: &weight, eps: 1e-6 });
        let write = if add { Write::Add } else { Write::Replace };
        for cpu in cpus(threads) {
            let mut got = numbers(seed + 3, m * rows);
            let mut want = got.clone();
            product(&cpu, &x, norm, &w, bias, write, &mut got);
            let prepared = naive::prepare(&x, norm, &w, cpu.rounds_bf16());
            naive::product(&prepared, &w, bias, write, &mut want);
            // A normed number may fall on the other side of a rounding's border.
            let tolerance = match packing {
                Packing::F32 | Packing::Bf16 => 1e-5,
                _ if !normed => 1e-5,
                Packing::Bf16Rounded => 4e-3,
                Packing::Q8 | Packing::Q4 => 1.5e-2,
            };
            let what = format!("{} {packing:?} {m}x{rows}x{cols}", cpu.isa());
            assert_close(&got, &want, tolerance, &what);
        }
    }

    #[test]
    fn swiglu_against_the_oracle(
        packing in packings(), m in 1usize..9, width in 1usize..60, cols in 1usize..200,
        threads in 1usize..4, biased: bool, seed: u64,
    ) {
        let x = numbers(seed, m * cols);
        let rows = GateUp::packed_rows(width);
        let w = packed(packing, rows, cols, seed + 1);
        let bias = numbers(seed + 2, rows);
        let bias = biased.then_some(&bias[..]);
        for cpu in cpus(threads) {
            let (mut got, mut want) = (vec![f32::NAN; m * width], vec![0.0; m * width]);
            let mut inputs = Inputs::new(m, cols);
            cpu.prepare(&mut inputs, &x, None, &w);
            cpu.product_swiglu(&inputs, &w, bias, &mut got, width);
            let prepared = naive::prepare(&x, None, &w, cpu.rounds_bf16());
            naive::product_swiglu(&prepared, &w, bias, &mut want, width);
            assert_close(&got, &want, 1e-5, &format!("{} {packing:?}", cpu.isa()));
        }
    }

    #[test]
    fn peaks_are_the_highest_of_each_strip(
        packing in packings(), m in 1usize..9, rows in 1usize..120, cols in 1usize..100,
        threads in 1usize..4, seed: u64,
    ) {
        let mut x = numbers(seed, m * cols);
        x[seed as usize % cols] = f32::NAN;
        let w = packed(packing, rows, cols, seed + 1);
        for cpu in cpus(threads) {
            let mut inputs = Inputs::new(m, cols);
            cpu.prepare(&mut inputs, &x, None, &w);
            let mut want = vec![0.0; m * rows];
            cpu.product(&inputs, &w, None, Write::Replace, &mut want);
            let (mut y, mut peaks) = (vec![0.0; m * rows], vec![0.0; m * w.strips()]);
            cpu.product_peaks(&inputs, &w, Some(&mut y), &mut peaks);
            let mut alone = peaks.clone();
            cpu.product_peaks(&inputs, &w, None, &mut alone);
            prop_assert_eq!((bits(&y), bits(&peaks)), (bits(&want), bits(&alone)));
            for (row, want) in want.chunks(rows).enumerate() {
                for (strip, want) in want.chunks(STRIP).enumerate() {
                    let highest = want.iter().fold(f32::NEG_INFINITY, |high, &x| high.max(x));
                    prop_assert_eq!(peaks[row * w.strips() + strip], highest);
                    let mut got = [0.0; STRIP];
                    let n = cpu.product_strip(&inputs, row, &w, strip, &mut got);
                    prop_assert_eq!(bits(&got[..n]), bits(want));
                }
            }
        }
    }

    /// Sizes reach beyond the work from which phases are dealt to threads.
    #[test]
    fn row_bits(
        packing in packings(), m in 2usize..16, rows in 1usize..100, cols in 1usize..3000,
        threads in 2usize..5, add: bool, seed: u64,
    ) {
        let x = numbers(seed, m * cols);
        let w = packed(packing, rows, cols, seed + 1);
        let (bias, weight) = (numbers(seed + 2, rows), numbers(seed + 4, cols));
        let norm = Some(Norm { weight: &weight, eps: 1e-6 });
        let before = numbers(seed + 3, m * rows);
        let write = if add { Write::Add } else { Write::Replace };
        for (solo, team) in cpus(1).into_iter().zip(cpus(threads)) {
            let mut batch = before.clone();
            product(&team, &x, norm, &w, Some(&bias), write, &mut batch);
            for row in 0..m {
                for cpu in [&solo, &team] {
                    let mut alone = before[row * rows..][..rows].to_vec();
                    let x = &x[row * cols..][..cols];
                    product(cpu, x, norm, &w, Some(&bias), write, &mut alone);
                    prop_assert_eq!(bits(&alone), bits(&batch[row * rows..][..rows]));
                }
            }
        }
    }
}

/// A number that is none shows in the outputs of its row, and in no other.
#[test]
fn what_is_not_a_number_stays_none() {
    let (rows, cols) = (40, 100);
    for packing in PACKINGS {
        let w = packed(packing, rows, cols, 1);
        let mut x = numbers(2, 2 * cols);
        x[cols + 70] = f32::NAN;
        for cpu in cpus(2) {
            let mut y = vec![0.0; 2 * rows];
            product(&cpu, &x, None, &w, None, Write::Replace, &mut y);
            assert!(y[..rows].iter().all(|y| y.is_finite()), "{} {packing:?}", cpu.isa());
            assert!(y[rows..].iter().all(|y| y.is_nan()), "{} {packing:?}", cpu.isa());
        }
    }
}

#[test]
fn an_empty_batch_is_no_work() {
    let w = packed(Packing::Q8, 3, 4, 1);
    for cpu in cpus(2) {
        product(&cpu, &[], None, &w, None, Write::Replace, &mut []);
    }
}

#[test]
#[should_panic(expected = "product: x")]
fn inputs_of_another_form_are_refused_at_the_door() {
    let (f32, q8) = (packed(Packing::F32, 4, 8, 1), packed(Packing::Q8, 4, 8, 1));
    let cpu = &cpus(1)[0];
    let mut inputs = Inputs::new(1, 8);
    cpu.prepare(&mut inputs, &[1.0; 8], None, &f32);
    cpu.product(&inputs, &q8, None, Write::Replace, &mut [0.0; 4]);
}
