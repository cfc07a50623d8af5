//! Every kernel of every instruction set against the oracle, on odd shapes.

use kernels::{Query, RopeTables, Rounds, naive};
use proptest::prelude::*;

use crate::support::{Cache, assert_close, cases, chunk_rows, cpus, few_cases, length, numbers};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn rms_norm(m in 1usize..9, width in 1usize..200, scale in 1e-3f32..1e3, seed: u64) {
        let x: Vec<f32> = numbers(seed, m * width).iter().map(|x| x * scale).collect();
        let weight = numbers(seed + 1, width);
        let mut want = vec![0.0; x.len()];
        naive::rms_norm(&x, &weight, 1e-6, &mut want);
        for cpu in cpus(2) {
            let mut got = vec![f32::NAN; x.len()];
            cpu.rms_norm(&x, &weight, 1e-6, &mut got);
            assert_close(&got, &want, 1e-6, &cpu.isa().to_string());
        }
    }

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
    fn swiglu(m in 1usize..9, width in 1usize..200, scale in 0.1f32..60.0, seed: u64) {
        let gate_up: Vec<f32> = numbers(seed, 2 * m * width).iter().map(|x| x * scale).collect();
        let mut want = vec![0.0; m * width];
        naive::swiglu(&gate_up, &mut want, width);
        for cpu in cpus(2) {
            let mut got = vec![f32::NAN; want.len()];
            cpu.swiglu(&gate_up, &mut got, width);
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
        for kv in &cache.formats {
            let mut want = vec![0.0; lens.len() * heads * dim];
            naive::attention(query, kv, &cache.blocks, &cache.rows, &mut want);
            for cpu in cpus(threads) {
                let mut got = vec![f32::NAN; want.len()];
                cpu.attention(query, kv, &cache.blocks, &cache.rows, &mut got);
                assert_close(&got, &want, 2e-5, &cpu.isa().to_string());
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
        for kv in &cache.formats {
            let mut want = vec![0.0; q.len()];
            naive::attention(query, kv, &cache.blocks, &rows, &mut want);
            for cpu in cpus(threads) {
                let mut got = vec![f32::NAN; want.len()];
                cpu.attention(query, kv, &cache.blocks, &rows, &mut got);
                assert_close(&got, &want, 2e-5, &cpu.isa().to_string());
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

/// exp through the gate, where nothing hides its error: `swiglu(-x, 1) = -x / (1 + exp(x))`.
#[test]
fn exp_is_exact_to_a_few_units_and_ends_cleanly() {
    for cpu in cpus(1) {
        for step in -2000..2000 {
            let x = step as f32 * 0.0437;
            let mut y = [0.0; 20];
            let mut gate_up = [1.0; 40];
            gate_up[..20].fill(-x);
            cpu.swiglu(&gate_up, &mut y, 20);
            let want = -f64::from(x) / (1.0 + f64::from(x).exp());
            for y in y {
                let error = (f64::from(y) - want).abs();
                assert!(error <= want.abs() * 6e-7 + 1e-44, "{} {x}: {y} {want}", cpu.isa());
            }
        }
        let mut y = [1.0; 4];
        cpu.swiglu(&[-1e4, 1e4, f32::NAN, -200.0, 1.0, 1.0, 1.0, 1.0], &mut y, 4);
        assert_eq!((y[0], y[1], y[3]), (0.0, 1e4, 0.0), "{}", cpu.isa());
        assert!(y[2].is_nan());
    }
}

#[test]
fn an_empty_batch_is_no_work() {
    let weights = numbers(1, 12);
    let cache = Cache::new(&[5], 16, 1, 4, 1);
    for cpu in cpus(2) {
        cpu.rms_norm(&[], &weights, 1e-6, &mut []);
        cpu.swiglu(&[], &mut [], 4);
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
