//! What each kernel computes, in the fewest words: the oracle. Sums run in f64, so that a
//! test's tolerance measures the kernel and not the oracle.

use crate::inputs::Norm;
use crate::kv::KvCache;
use crate::packed::{GROUP, GateUp, Packed, Packing};
use crate::shape::{AttendRow, Query, RopeTables, Write};

/// The numbers that a product with `w` multiplies, for rows `x[M, cols]`: normed, then rounded as
/// the packing asks. `rounds_bf16`: whether the machine multiplies bf16.
pub fn prepare(x: &[f32], norm: Option<Norm<'_>>, w: &Packed, rounds_bf16: bool) -> Vec<f32> {
    let mut rows = x.to_vec();
    if let Some(Norm { weight, eps }) = norm {
        rms_norm(x, weight, eps, &mut rows);
    }
    match w.packing() {
        Packing::Bf16Rounded if rounds_bf16 => {
            rows.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
        }
        Packing::Q8 | Packing::Q4 => {
            let rows = rows.chunks_exact_mut(w.cols());
            rows.flat_map(|row| row.chunks_mut(GROUP)).for_each(round_q8);
        }
        Packing::F32 | Packing::Bf16 | Packing::Bf16Rounded => {}
    }
    rows
}

fn round_q8(group: &mut [f32]) {
    let highest = group.iter().fold(0f32, |highest, x| highest.max(x.abs()));
    for x in group {
        let whole = (*x * (127.0 / highest)).round_ties_even();
        *x = if highest == 0.0 { 0.0 } else { whole * (highest / 127.0) };
    }
}

/// `y[M, rows] (+)= x[M, cols] · wᵀ + bias[rows]` of rows that [`prepare`] made.
pub fn product(x: &[f32], w: &Packed, bias: Option<&[f32]>, write: Write, y: &mut [f32]) {
    let mut weights = vec![0.0; w.cols()];
    for n in 0..w.rows() {
        w.gather(n, &mut weights);
        for (x, y) in x.chunks_exact(w.cols()).zip(y.chunks_exact_mut(w.rows())) {
            let dot: f64 = x.iter().zip(&weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            let product = dot as f32 + bias.map_or(0.0, |bias| bias[n]);
            match write {
                Write::Replace => y[n] = product,
                Write::Add => y[n] += product,
            }
        }
    }
}

/// `y[M, width] = silu(x · gateᵀ) * (x · upᵀ)` of rows that [`prepare`] made.
pub fn product_swiglu(x: &[f32], w: &Packed, bias: Option<&[f32]>, y: &mut [f32], width: usize) {
    let mut both = vec![0.0; x.len() / w.cols() * w.rows()];
    product(x, w, bias, Write::Replace, &mut both);
    for (both, y) in both.chunks_exact(w.rows()).zip(y.chunks_exact_mut(width)) {
        for (n, y) in y.iter_mut().enumerate() {
            let gate = both[GateUp::Gate.packed_row(n)];
            *y = gate / (1.0 + (-gate).exp()) * both[GateUp::Up.packed_row(n)];
        }
    }
}

/// `y[M, N] = x / sqrt(mean(x²) + eps) * weight[N]`
fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let width = weight.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let scale = 1.0 / (squares / width as f64 + f64::from(eps)).sqrt();
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = (f64::from(*x) * scale * f64::from(*weight)) as f32;
        }
    }
}

/// Rotates the halves of the first `heads` heads of each row of `x[M, stride]`.
pub fn rope(
    x: &mut [f32],
    stride: usize,
    heads: usize,
    head_dim: usize,
    tables: RopeTables<'_>,
    positions: &[u32],
) {
    let half = head_dim / 2;
    for (row, position) in x.chunks_exact_mut(stride).zip(positions) {
        for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
            for i in 0..half {
                let at = *position as usize * half + i;
                let (cos, sin) = (tables.cos[at], tables.sin[at]);
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = b * cos + a * sin;
            }
        }
    }
}

/// Grouped-query attention through block tables. `y[M, heads * head_dim]`
pub fn attention(
    query: Query<'_>,
    kv: &KvCache,
    blocks: &[u32],
    rows: &[AttendRow],
    y: &mut [f32],
) {
    let (dim, tokens) = (kv.shape().head_dim, kv.shape().block_tokens);
    let (group, width) = (query.heads / kv.shape().kv_heads, kv.shape().kv_heads * dim);
    for (m, row) in rows.iter().enumerate() {
        let table = &blocks[row.blocks_start as usize..];
        let seen: Vec<(Vec<f32>, Vec<f32>)> = (0..row.len as usize)
            .map(|position| {
                let (mut k, mut v) = (vec![0.0; width], vec![0.0; width]);
                kv.read(table[position / tokens], position % tokens, &mut k, &mut v);
                (k, v)
            })
            .collect();
        for head in 0..query.heads {
            let q = &query.q[m * query.stride + head * dim..][..dim];
            let shared = head / group * dim;
            let score = |(k, _): &(Vec<f32>, Vec<f32>)| {
                let products =
                    q.iter().zip(&k[shared..]).map(|(q, k)| f64::from(*q) * f64::from(*k));
                products.sum::<f64>() * f64::from(query.scale)
            };
            let scores: Vec<f64> = seen.iter().map(score).collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..dim {
                let products = weights
                    .iter()
                    .zip(&seen)
                    .map(|(weight, (_, v))| weight * f64::from(v[shared + i]));
                y[(m * query.heads + head) * dim + i] = (products.sum::<f64>() / total) as f32;
            }
        }
    }
}

/// The lowest index of the highest number. NaN never wins; all NaN is 0.
pub fn argmax(x: &[f32]) -> usize {
    let mut best = None;
    for (i, x) in x.iter().enumerate() {
        if !x.is_nan() && best.is_none_or(|(_, highest)| *x > highest) {
            best = Some((i, *x));
        }
    }
    best.map_or(0, |(i, _)| i)
}

/// `ln Σ exp(x)`
pub fn log_sum_exp(x: &[f32]) -> f32 {
    let highest = f64::from(x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    if highest.is_infinite() {
        return highest as f32;
    }
    let sum: f64 = x.iter().map(|x| (f64::from(*x) - highest).exp()).sum();
    (highest + sum.ln()) as f32
}
