//! Every kernel of every instruction set against the oracle, on odd shapes.

use kernels::{Cpu, GateUp, Inputs, Packed, Packing, Query, RopeTables, Rounds, naive};
use proptest::prelude::*;

use crate::support::{
    Cache, assert_attention, assert_close, cases, chunk_rows, cpus, few_cases, length, numbers,
};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn rope(
        m in 1usize..9, heads in 1usize..5, half in 1usize..70, spare in 0usize..9, seed: u64,
    ) {
        let (dim, context) = (2 * half, 40);
        let stride = heads * dim + spare;
        let x = numbers(seed, m * stride);
        let (cos, sin) = (numbers(seed + 1, context * half), numbers(seed + 2, context * half));
        let tables = RopeTables { cos: &cos, sin: &sin };
        let positions: Vec<u32> = (0..m as u32).map(|i| (i * 7 + 3) % context as u32).collect();
        let mut want = x.clone();
        naive::rope(&mut want, stride, heads, dim, tables, &positions);
        for cpu in cpus(2) {
            let mut got = x.clone();
            cpu.rope(&mut got, stride, heads, dim, tables, &positions);
            assert_close(&got, &want, 1e-6, &cpu.isa().to_string());
        }
    }

    #[test]
    fn argmax(
        len in 1usize..5000, specials in prop::collection::vec((any::<u16>(), 0usize..4), 0..6),
        seed: u64,
    ) {
        // Few different numbers, so that the highest is there more than once.
        let mut x: Vec<f32> = numbers(seed, len).iter().map(|x| (x * 8.0).round()).collect();
        for (at, which) in specials {
            let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX][which];
            x[at as usize % len] = special;
        }
        for cpu in cpus(1) {
            prop_assert_eq!(cpu.argmax(&x), naive::argmax(&x), "{}", cpu.isa());
        }
    }

    #[test]
    fn log_sum_exp(len in 1usize..5000, scale in 0.1f32..200.0, shift in -500f32..500.0, seed: u64) {
        let x: Vec<f32> = numbers(seed, len).iter().map(|x| x * scale + shift).collect();
        let want = naive::log_sum_exp(&x);
        for cpu in cpus(1) {
            let got = cpu.log_sum_exp(&x);
            prop_assert!((got - want).abs() <= 1e-6 * want.abs().max(10.0), "{got} {want}");
        }
    }
}

proptest! {
    #![proptest_config(few_cases())]

    #[test]
    fn attention(
        lens in prop::collection::vec(length(), 1..4), kv_heads in 1usize..4,
        group in 1usize..10, half in 1usize..50,
        block_tokens in prop::sample::select(&[16usize, 32][..]),
        sharp in 0.1f32..40.0, threads in 1usize..4, seed: u64,
    ) {
        let (heads, dim) = (kv_heads * group, 2 * half);
        let cache = Cache::new(&lens, block_tokens, kv_heads, dim, seed);
        let stride = heads * dim + 3;
        let q = numbers(seed + 1, lens.len() * stride);
        let query = Query { q: &q, stride, heads, scale: sharp / (dim as f32).sqrt() };
        for format in 0..cache.formats.len() {
            for cpu in cpus(threads) {
                assert_attention(&cpu, query, &cache, &cache.rows, format);
            }
        }
    }

    /// A chunk of prefill, which crosses the borders of blocks and spans.
    #[test]
    fn attention_of_a_chunk(
        len in length(), chunk in 1usize..80, kv_heads in 1usize..3, group in 1usize..10,
        half in 1usize..50, threads in 1usize..4, seed: u64,
    ) {
        let (heads, dim, chunk) = (kv_heads * group, 2 * half, chunk.min(len));
        let cache = Cache::new(&[len], 16, kv_heads, dim, seed);
        let q = numbers(seed + 1, chunk * heads * dim);
        let query = Query { q: &q, stride: heads * dim, heads, scale: 2.0 / (dim as f32).sqrt() };
        let rows = chunk_rows(len, chunk);
        for format in 0..cache.formats.len() {
            for cpu in cpus(threads) {
                assert_attention(&cpu, query, &cache, &rows, format);
            }
        }
    }
}

#[test]
fn argmax_of_what_is_not_a_number() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    for cpu in cpus(1) {
        assert_eq!(cpu.argmax(&[nan]), 0);
        assert_eq!(cpu.argmax(&[nan; 3000]), 0);
        assert_eq!(cpu.argmax(&[nan, -inf, nan]), 1);
        assert_eq!(cpu.argmax(&[nan, 1.0, inf, inf, nan]), 2);
        assert_eq!(cpu.argmax(&[-inf; 40]), 0);
        let mut late = vec![nan; 3000];
        late[2345] = -inf;
        assert_eq!(cpu.argmax(&late), 2345);
        late[2999] = -3.0;
        assert_eq!(cpu.argmax(&late), 2999);
    }
}

#[test]
fn log_sum_exp_at_the_ends_of_the_range() {
    let inf = f32::INFINITY;
    for cpu in cpus(1) {
        assert_eq!(cpu.log_sum_exp(&[-inf; 20]), -inf);
        assert_eq!(cpu.log_sum_exp(&[1.0, inf, 3.0]), inf);
        assert_eq!(cpu.log_sum_exp(&[5.0, -inf, -inf]), 5.0);
        assert!(cpu.log_sum_exp(&[1.0, f32::NAN, 3.0]).is_nan());
        assert!((cpu.log_sum_exp(&[1e30; 16]) / 1e30 - 1.0).abs() < 1e-6);
    }
}

/// exp through the gate, where nothing hides its error: `silu(-x) = -x / (1 + exp(x))`.
#[test]
fn exp_is_exact_to_a_few_units_and_ends_cleanly() {
    let steps: Vec<f32> = (-2000..2000).map(|step| step as f32 * 0.0437).collect();
    for cpu in cpus(1) {
        for (x, y) in steps.iter().zip(silu(&cpu, &steps)) {
            let want = f64::from(*x) / (1.0 + f64::from(-x).exp());
            for y in y {
                let error = (f64::from(y) - want).abs();
                assert!(error <= want.abs() * 6e-7 + 1e-44, "{} {x}: {y} {want}", cpu.isa());
            }
        }
        let ends = silu(&cpu, &[-1e4, 1e4, f32::NAN, -200.0]);
        assert_eq!([ends[0], ends[1], ends[3]], [[0.0; 20], [1e4; 20], [0.0; 20]], "{}", cpu.isa());
        assert!(ends[2].iter().all(|y| y.is_nan()));
    }
}

/// The gate's activation of each number, in lanes of full registers and of others: 1 times the
/// number through the gate, and 1 through what it is multiplied with.
fn silu(cpu: &Cpu, x: &[f32]) -> Vec<[f32; 20]> {
    let rows = GateUp::packed_rows(20);
    let (mut w, mut bias) = (Packed::zeroed(Packing::F32, rows, 1), vec![0.0; rows]);
    for mut strips in w.strips_mut(rows) {
        (0..20).for_each(|row| strips.set(GateUp::Gate.packed_row(row), &[1.0]));
    }
    (0..20).for_each(|row| bias[GateUp::Up.packed_row(row)] = 1.0);
    let (mut inputs, mut y) = (Inputs::new(x.len(), 1), vec![f32::NAN; 20 * x.len()]);
    cpu.prepare(&mut inputs, x, None, &w);
    cpu.product_swiglu(&inputs, &w, Some(&bias), &mut y, 20);
    y.as_chunks::<20>().0.to_vec()
}

#[test]
fn an_empty_batch_is_no_work() {
    let weights = numbers(1, 12);
    let cache = Cache::new(&[5], 16, 1, 4, 1);
    for cpu in cpus(2) {
        cpu.rope(&mut [], 4, 1, 4, RopeTables { cos: &weights, sin: &weights }, &[]);
        let query = Query { q: &[], stride: 4, heads: 1, scale: 1.0 };
        for kv in &cache.formats {
            cpu.attention(query, kv, &cache.blocks, &[], &mut []);
        }
    }
}

#[test]
#[should_panic(expected = "block beyond the cache")]
fn a_block_beyond_the_cache_is_refused_at_the_door() {
    let cache = Cache::new(&[20], 16, 1, 4, 1);
    let blocks = vec![0, 5];
    let q = numbers(1, 4);
    let query = Query { q: &q, stride: 4, heads: 1, scale: 1.0 };
    for cpu in cpus(1) {
        for kv in &cache.formats {
            cpu.attention(query, kv, &blocks, &cache.rows, &mut [0.0; 4]);
        }
    }
}

#[test]
fn bandwidth_is_a_plausible_number() {
    for cpu in cpus(2) {
        let mut rounds = Rounds::default();
        cpu.bandwidth_probe(8 << 20).round(&cpu, &mut rounds);
        let bandwidth = rounds.bandwidth();
        assert!(bandwidth.mean > 1e8 && bandwidth.best < 1e14, "{bandwidth:?}");
    }
}
