//! The rule of row bits: a row's result is the same to the bit whatever the number of rows, its
//! neighbours, the number of threads and the layout of the KV blocks.

use kernels::{Query, RopeTables};
use proptest::prelude::*;

use crate::support::{Cache, bits, cases, chunk_rows, cpus, few_cases, length, numbers};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn rope(m in 2usize..300, heads in 1usize..8, half in 1usize..70, seed: u64) {
        let dim = 2 * half;
        let stride = heads * dim + 1;
        let x = numbers(seed, m * stride);
        let (cos, sin) = (numbers(seed + 1, m * half), numbers(seed + 2, m * half));
        let tables = RopeTables { cos: &cos, sin: &sin };
        let positions: Vec<u32> = (0..m as u32).rev().collect();
        for (solo, team) in cpus(1).into_iter().zip(cpus(3)) {
            let mut batch = x.clone();
            team.rope(&mut batch, stride, heads, dim, tables, &positions);
            for (row, position) in positions.iter().enumerate() {
                let mut alone = x[row * stride..][..stride].to_vec();
                solo.rope(&mut alone, stride, heads, dim, tables, &[*position]);
                prop_assert_eq!(bits(&alone), bits(&batch[row * stride..][..stride]));
            }
        }
    }

    /// What reduces a row to one number knows no other row, but must not know the threads.
    #[test]
    fn reductions(len in 1usize..5000, threads in 2usize..5, seed: u64) {
        let x = numbers(seed, len);
        for (solo, team) in cpus(1).into_iter().zip(cpus(threads)) {
            prop_assert_eq!(solo.argmax(&x), team.argmax(&x));
            prop_assert_eq!(solo.log_sum_exp(&x).to_bits(), team.log_sum_exp(&x).to_bits());
        }
    }
}

proptest! {
    #![proptest_config(few_cases())]

    #[test]
    fn attention(
        lens in prop::collection::vec(length(), 2..5), kv_heads in 1usize..4,
        group in 1usize..10, half in 1usize..50, threads in 2usize..5, seed: u64,
    ) {
        let (heads, dim) = (kv_heads * group, 2 * half);
        let width = heads * dim;
        let q = numbers(seed, lens.len() * width);
        let scale = 3.0 / (dim as f32).sqrt();
        let query = Query { q: &q, stride: width, heads, scale };
        let small = Cache::new(&lens, 16, kv_heads, dim, seed + 1);
        let large = Cache::new(&lens, 32, kv_heads, dim, seed + 2);
        for (solo, team) in cpus(1).into_iter().zip(cpus(threads)) {
            for (small_kv, large_kv) in small.formats.iter().zip(&large.formats) {
                let mut batch = vec![0.0; q.len()];
                team.attention(query, small_kv, &small.blocks, &small.rows, &mut batch);
                let mut other = vec![0.0; q.len()];
                solo.attention(query, large_kv, &large.blocks, &large.rows, &mut other);
                prop_assert_eq!(bits(&batch), bits(&other));
                for (row, batch) in batch.chunks(width).enumerate() {
                    let query = Query { q: &q[row * width..][..width], ..query };
                    let rows = &small.rows[row..=row];
                    let mut alone = vec![0.0; width];
                    team.attention(query, small_kv, &small.blocks, rows, &mut alone);
                    prop_assert_eq!(bits(&alone), bits(batch));
                }
            }
        }
    }

    /// A chunk of a prefill, many rows of one sequence, is what its rows are one after another.
    #[test]
    fn attention_of_a_chunk(
        len in length(), chunk in 1usize..60, group in 1usize..10, half in 1usize..40,
        threads in 2usize..5, seed: u64,
    ) {
        let (kv_heads, dim) = (2, 2 * half);
        let (heads, chunk) = (kv_heads * group, chunk.min(len));
        let width = heads * dim;
        let q = numbers(seed, chunk * width);
        let query = Query { q: &q, stride: width, heads, scale: 1.0 };
        let cache = Cache::new(&[len], 16, kv_heads, dim, seed + 1);
        let rows = chunk_rows(len, chunk);
        for (solo, team) in cpus(1).into_iter().zip(cpus(threads)) {
            for kv in &cache.formats {
                let mut together = vec![0.0; q.len()];
                team.attention(query, kv, &cache.blocks, &rows, &mut together);
                for (row, together) in together.chunks(width).enumerate() {
                    let query = Query { q: &q[row * width..][..width], ..query };
                    for cpu in [&solo, &team] {
                        let mut alone = vec![0.0; width];
                        cpu.attention(query, kv, &cache.blocks, &rows[row..=row], &mut alone);
                        prop_assert_eq!(bits(&alone), bits(together));
                    }
                }
            }
        }
    }
}

/// A row of many spans, which a single thread takes one after the other and several threads deal.
#[test]
fn attention_of_a_long_row() {
    let (kv_heads, group, dim) = (2, 7, 64);
    let (heads, width) = (kv_heads * group, kv_heads * group * dim);
    let cache = Cache::new(&[2000, 300], 16, kv_heads, dim, 1);
    let q = numbers(2, 2 * width);
    let query = Query { q: &q, stride: width, heads, scale: 0.5 };
    for (solo, team) in cpus(1).into_iter().zip(cpus(4)) {
        for kv in &cache.formats {
            let (mut one, mut many) = (vec![0.0; 2 * width], vec![0.0; 2 * width]);
            solo.attention(query, kv, &cache.blocks, &cache.rows, &mut one);
            team.attention(query, kv, &cache.blocks, &cache.rows, &mut many);
            assert_eq!(bits(&one), bits(&many));
        }
    }
}

/// What a later row of the chunk stored, be it no number, does not reach an earlier row.
#[test]
fn attention_is_causal_even_to_what_is_no_number() {
    let (heads, dim, len) = (7, 64, 40);
    let width = heads * dim;
    let mut cache = Cache::new(&[len], 16, 1, dim, 1);
    let rows = chunk_rows(len, len);
    let q = numbers(2, len * width);
    let query = Query { q: &q, stride: width, heads, scale: 0.5 };
    for cpu in cpus(1) {
        for kv in &mut cache.formats {
            let mut want = vec![0.0; len * width];
            cpu.attention(query, kv, &cache.blocks, &rows, &mut want);
            let (mut k, mut v) = (vec![0.0; dim], vec![0.0; dim]);
            let last = cache.blocks[(len - 1) / 16];
            kv.read(last, (len - 1) % 16, &mut k, &mut v);
            kv.write(last, (len - 1) % 16, &[f32::NAN; 64], &[f32::NAN; 64]);
            let mut got = vec![0.0; len * width];
            cpu.attention(query, kv, &cache.blocks, &rows, &mut got);
            kv.write(last, (len - 1) % 16, &k, &v);
            let (seen, blind) = got.split_at((len - 1) * width);
            assert_eq!(bits(seen), bits(&want[..seen.len()]));
            assert!(blind.iter().all(|y| y.is_nan()));
        }
    }
}
