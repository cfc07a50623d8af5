//! Products by modelled tiles through the door, beside those in registers; and the machine's own
//! tiles beside the model, where it has any.

use half::bf16;

use crate::arch::dot::scalar::{self, Scalar};
use crate::arch::scalar::Lanes;
use crate::tiles::{Shape, TILE_BYTES, TILES, Tiles};
use crate::{Cpu, GateUp, Inputs, Isa, Packed, Packing, Write, naive};

use super::*;
use model::Model;

/// The model beside plain Rust.
const MODEL: Products = tiled_products!(scalar::PRODUCTS, Model, Scalar);
const MODEL_BF16: ProductFn = tiled_bf16!(Model, Lanes);

/// The model beside the registers that go with the machine's own tiles.
#[cfg(target_arch = "x86_64")]
const MODEL_VNNI: Products = tiled_products!(
    avx512::PRODUCTS,
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
    Model,
    Vnni
);

/// Rows around the heights of tiles, of blocks of them and of the last rows in registers.
const ROWS: [usize; 10] = [1, 2, 7, 8, 15, 16, 17, 31, 33, 41];

/// Outputs and columns: neither full strips nor full groups or tiles, and both.
const SHAPES: [(usize, usize); 4] = [(1, 1), (33, 31), (47, 161), (64, 96)];

/// Two ways to multiply, by tiles and in registers, that agree to the bit on whole numbers.
struct Pair {
    tiles: Cpu,
    registers: Cpu,
}

impl Pair {
    fn new(isa: Isa, threads: usize, model: &'static Products) -> Pair {
        let [mut tiles, registers] =
            [(); 2].map(|()| Cpu::new(isa, threads).expect("the machine has it"));
        (tiles.products, tiles.bf16_rounded) = (model, Some(MODEL_BF16));
        Pair { tiles, registers }
    }

    /// Modelled tiles, beside all that can go beside them on this machine.
    fn models(threads: usize) -> Vec<Pair> {
        let plain = Pair::new(Isa::Scalar, threads, &MODEL);
        #[cfg(target_arch = "x86_64")]
        if Isa::Avx512.is_available() && is_x86_feature_detected!("avx512vnni") {
            return vec![plain, Pair::new(Isa::Avx512, threads, &MODEL_VNNI)];
        }
        vec![plain]
    }

    /// The machine's own tiles.
    fn machine(threads: usize) -> Option<Pair> {
        let Some(tiles) = Cpu::new(Isa::Amx, threads) else {
            eprintln!("this machine has no tiles to compare");
            return None;
        };
        Some(Pair { tiles, registers: Cpu::new(Isa::Avx512, threads).expect("AMX has it") })
    }
}

/// `len` numbers between -1 and 1, without a pattern that rows could share.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn packed(packing: Packing, rows: usize, cols: usize) -> Packed {
    let source = numbers(1, rows * cols);
    let mut packed = Packed::zeroed(packing, rows, cols);
    for mut strips in packed.strips_mut(2) {
        for row in strips.rows() {
            strips.set(row, &source[row * cols..][..cols]);
        }
    }
    packed
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Every way out of a product of these inputs, one after the other.
fn everything(cpu: &Cpu, x: &[f32], w: &Packed) -> Vec<f32> {
    let (m, rows) = (x.len() / w.cols(), w.rows());
    let mut inputs = Inputs::new(m, w.cols());
    cpu.prepare(&mut inputs, x, None, w);
    let bias = numbers(2, rows);
    let (mut replaced, mut added) = (vec![f32::NAN; m * rows], numbers(3, m * rows));
    cpu.product(&inputs, w, None, Write::Replace, &mut replaced);
    cpu.product(&inputs, w, Some(&bias), Write::Add, &mut added);
    let mut peaks = vec![f32::NAN; m * w.strips()];
    cpu.product_peaks(&inputs, w, Some(&mut vec![0.0; m * rows]), &mut peaks);
    let mut alone = vec![f32::NAN; m * w.strips()];
    cpu.product_peaks(&inputs, w, None, &mut alone);
    assert_eq!(bits(&peaks), bits(&alone));
    let strip = w.strips() - 1;
    let mut outputs = [0.0; crate::STRIP];
    let n = cpu.product_strip(&inputs, m - 1, w, strip, &mut outputs);
    assert_eq!(bits(&outputs[..n]), bits(&replaced[m * rows - n..]));
    [replaced, added, peaks].concat()
}

fn gated(cpu: &Cpu, x: &[f32], w: &Packed, width: usize) -> Vec<f32> {
    let m = x.len() / w.cols();
    let mut inputs = Inputs::new(m, w.cols());
    cpu.prepare(&mut inputs, x, None, w);
    let mut y = vec![f32::NAN; m * width];
    cpu.product_swiglu(&inputs, w, Some(&numbers(2, w.rows())), &mut y, width);
    y
}

fn assert_same_bits(Pair { tiles, registers }: &Pair) {
    for packing in [Packing::Q8, Packing::Q4] {
        for (rows, cols) in SHAPES {
            let w = packed(packing, rows, cols);
            let gate_up = packed(packing, GateUp::packed_rows(rows), cols);
            for m in ROWS {
                let x = numbers(4, m * cols);
                let what = format!("{} {packing:?} {m}x{rows}x{cols}", tiles.isa());
                let [got, want] = [tiles, registers].map(|cpu| everything(cpu, &x, &w));
                assert_eq!(bits(&got), bits(&want), "{what}");
                let [got, want] = [tiles, registers].map(|cpu| gated(cpu, &x, &gate_up, rows));
                assert_eq!(bits(&got), bits(&want), "{what}, gated");
            }
        }
    }
}

/// bf16 is near the oracle, and its rows know no others.
fn assert_bf16(Pair { tiles, .. }: &Pair) {
    for (rows, cols) in SHAPES {
        let w = packed(Packing::Bf16Rounded, rows, cols);
        for m in ROWS {
            let x = numbers(4, m * cols);
            let what = format!("{} {m}x{rows}x{cols}", tiles.isa());
            let got = everything(tiles, &x, &w);
            let mut want = vec![0.0; m * rows];
            let prepared = naive::prepare(&x, None, &w, true);
            naive::product(&prepared, &w, None, Write::Replace, &mut want);
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= 2e-5, "{what}: {got} {want}");
            }
            let last = everything(tiles, &x[(m - 1) * cols..], &w);
            assert_eq!(bits(&last[..rows]), bits(&got[(m - 1) * rows..m * rows]), "{what}");
        }
    }
}

fn assert_bf16_gates(Pair { tiles, .. }: &Pair) {
    let (width, cols) = (37, 75);
    let w = packed(Packing::Bf16Rounded, GateUp::packed_rows(width), cols);
    for m in ROWS {
        let x = numbers(4, m * cols);
        let prepared = naive::prepare(&x, None, &w, true);
        let mut want = vec![0.0; m * width];
        naive::product_swiglu(&prepared, &w, Some(&numbers(2, w.rows())), &mut want, width);
        for (got, want) in gated(tiles, &x, &w, width).iter().zip(&want) {
            let near = 2e-5 * want.abs().max(1.0);
            assert!((got - want).abs() <= near, "{} {m}: {got} {want}", tiles.isa());
        }
    }
}

/// Columns that do not fill a tile are multiplied by nothing of the rows beside them.
fn assert_nan_stays_in_its_row(Pair { tiles, .. }: &Pair) {
    let (m, rows, cols) = (35, 40, 100);
    for packing in [Packing::Bf16Rounded, Packing::Q8, Packing::Q4] {
        let w = packed(packing, rows, cols);
        for broken in [0, 17, 34] {
            let mut x = numbers(4, m * cols);
            x[broken * cols..][..cols].fill(f32::NAN);
            let y = everything(tiles, &x, &w);
            for (row, y) in y[..m * rows].chunks(rows).enumerate() {
                assert!(y.iter().all(|y| y.is_nan() == (row == broken)), "{packing:?} {row}");
            }
        }
    }
}

#[test]
fn whole_numbers_give_the_bits_of_the_product_in_registers() {
    Pair::models(1).iter().for_each(assert_same_bits);
}

#[test]
fn bf16_is_multiplied_row_by_row() {
    Pair::models(1).iter().for_each(assert_bf16);
    Pair::models(2).iter().for_each(assert_bf16_gates);
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    Pair::models(1).iter().for_each(assert_nan_stays_in_its_row);
}

#[test]
fn all_of_it_holds_of_the_tiles_of_the_machine() {
    if let Some(pair) = Pair::machine(2) {
        assert_same_bits(&pair);
        assert_bf16(&pair);
        assert_bf16_gates(&pair);
        assert_nan_stays_in_its_row(&pair);
    }
}

/// One product of tiles: C of 16 rows and 16 outputs.
fn dot<T: Tiles>(bf16: bool, left: &[[u8; 64]; 16], right: &[[u8; 64]; 16]) -> [[u8; 64]; 16] {
    let (mut tiles, mut sums) = (T::default(), [[0; 64]; 16]);
    // SAFETY: the caller has tiles of its kind, and all arrays are of whole ones.
    unsafe {
        tiles.configure(&[Shape::new(16, TILE_BYTES); TILES]);
        tiles.load::<2>(left.as_ptr().cast(), TILE_BYTES);
        tiles.load::<5>(right.as_ptr().cast(), TILE_BYTES);
        tiles.zero::<7>();
        match bf16 {
            true => tiles.dot_bf16::<7, 2, 5>(),
            false => tiles.dot_bytes::<7, 2, 5>(),
        }
        tiles.store::<7>(sums.as_mut_ptr().cast(), TILE_BYTES);
    }
    sums
}

/// A tile whose rows hold these pairs at their beginning, and zeros.
fn pairs_of(pairs: &[[f32; 2]]) -> [[u8; 64]; 16] {
    let mut row = [0; 64];
    for (four, pair) in row.as_chunks_mut::<4>().0.iter_mut().zip(pairs) {
        let [[a, b], [c, d]] = pair.map(|x| bf16::from_f32(x).to_le_bytes());
        *four = [a, b, c, d];
    }
    [row; 16]
}

/// The same as B: a row for each pair, the same for all outputs.
fn column_of(pairs: &[[f32; 2]]) -> [[u8; 64]; 16] {
    let mut tile = [[0; 64]; 16];
    for (row, pair) in tile.iter_mut().zip(pairs_of(pairs)[0].as_chunks::<4>().0) {
        row.as_chunks_mut::<4>().0.fill(*pair);
    }
    tile
}

fn dot_bf16<T: Tiles>(left: &[[f32; 2]], right: &[[f32; 2]]) -> f32 {
    let sums = dot::<T>(true, &pairs_of(left), &column_of(right));
    assert!(sums.iter().flat_map(|row| row.as_chunks::<4>().0).all(|four| *four == sums[0][..4]));
    f32::from_le_bytes(sums[0][..4].try_into().expect("four bytes"))
}

#[test]
fn the_model_adds_in_the_order_of_the_manual_and_has_no_denormals() {
    let big = 2f32.powi(24);
    // The two numbers of a pair go to sums of their own, or the 1 would be lost in the big one.
    assert_eq!(dot_bf16::<Model>(&[[big, 1.0], [-big, 0.0]], &[[1.0; 2]; 2]), 1.0);
    assert_eq!(dot_bf16::<Model>(&[[big, 0.0], [1.0, 0.0], [-big, 0.0]], &[[1.0; 2]; 3]), 0.0);
    let tiny = f32::MIN_POSITIVE;
    assert_eq!(dot_bf16::<Model>(&[[tiny, 0.0]], &[[1.0, 0.0]]), tiny);
    assert_eq!(dot_bf16::<Model>(&[[tiny / 2.0, 0.0]], &[[2.0, 0.0]]), 0.0, "denormal operand");
    assert_eq!(dot_bf16::<Model>(&[[tiny, 0.0]], &[[0.5, 0.0]]), 0.0, "denormal product");
    assert_eq!(dot_bf16::<Model>(&[[1.5 * tiny, -tiny]], &[[1.0; 2]]), 0.0, "denormal sum");
}

/// Bytes of all values, signed beside unsigned.
#[test]
fn the_model_multiplies_signed_by_unsigned() {
    let mut left = [[0; 64]; 16];
    let mut right = [[0; 64]; 16];
    left[3][..4].copy_from_slice(&[0x80, 0x7f, 0xff, 1]);
    right[0][20..24].fill(0xff);
    let sums = dot::<Model>(false, &left, &right);
    let mut want = [[0; 64]; 16];
    want[3][20..24].copy_from_slice(&(255 * (-128i32 + 127 - 1 + 1)).to_le_bytes());
    assert_eq!(sums, want);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_machine_multiplies_as_the_model_does() {
    if Pair::machine(1).is_none() {
        return;
    }
    for seed in 0..50 {
        let random = |seed| -> [[u8; 64]; 16] {
            let bytes = numbers(seed, 16 * 64);
            std::array::from_fn(|row| {
                std::array::from_fn(|i| (bytes[row * 64 + i] * 128.0) as i8 as u8)
            })
        };
        let (left, right) = (random(seed), random(seed + 1000));
        assert_eq!(
            dot::<registers::Registers>(false, &left, &right),
            dot::<Model>(false, &left, &right)
        );
        let pairs = |seed| numbers(seed, 32).as_chunks::<2>().0.to_vec();
        let (left, right) = (pairs(seed), pairs(seed + 1000));
        let got = dot_bf16::<registers::Registers>(&left, &right);
        let want = dot_bf16::<Model>(&left, &right);
        assert!((got - want).abs() <= 4e-6, "{got} {want}");
    }
}
