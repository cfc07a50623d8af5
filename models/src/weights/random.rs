//! Weights that know nothing, for benches that need a model's shape.

use kernels::{Arena, GateUp, Packed, Packing, STRIP};

use super::{LayerWeights, Linear, WeightFormat, Weights};
use crate::config::DecoderConfig;

/// Random numbers that are packed for one matrix before they repeat, so that a gigabyte is filled
/// at the speed of copying.
const PATTERN: usize = 1 << 19;

/// SplitMix64, four numbers from each word.
pub(super) struct Random {
    state: u64,
    arena: Arena,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed, arena: Arena::default() }
    }

    pub(super) fn weights(&mut self, config: &DecoderConfig, format: WeightFormat) -> Weights {
        let (hidden, biases) = (config.hidden, config.biases);
        let mut linear = |rows, cols, bias| self.linear(rows, cols, format.body, bias);
        let qkv = config.q_width() + 2 * config.kv_width();
        let gate_up = GateUp::packed_rows(config.intermediate);
        let layers = (0..config.layers)
            .map(|_| LayerWeights {
                attention_norm: vec![1.0; hidden],
                qkv: linear(qkv, hidden, biases.qkv),
                o: linear(hidden, config.q_width(), biases.o),
                mlp_norm: vec![1.0; hidden],
                gate_up: linear(gate_up, hidden, biases.mlp),
                down: linear(hidden, config.intermediate, biases.mlp),
            })
            .collect();
        let embedding = self.matrix(config.vocab, hidden, format.head);
        let head = (!config.tied).then(|| self.matrix(config.vocab, hidden, format.head));
        Weights { format, embedding, layers, final_norm: vec![1.0; hidden], head }
    }

    fn linear(&mut self, rows: usize, cols: usize, packing: Packing, bias: bool) -> Linear {
        let bias = bias.then(|| self.uniform(rows, 0.1));
        Linear { packed: self.matrix(rows, cols, packing), bias }
    }

    /// Uniform, of the variance that keeps activations near 1.
    fn matrix(&mut self, rows: usize, cols: usize, packing: Packing) -> Packed {
        let mut packed = Packed::zeroed_in(&self.arena, packing, rows, cols);
        let (strips, full) = (rows.div_ceil(STRIP), rows / STRIP);
        let drawn = (PATTERN / (STRIP * cols)).clamp(2, strips.max(2));
        let scale = (3.0 / cols as f32).sqrt();
        for (i, mut strip) in packed.strips_mut(1).enumerate() {
            // The last strip is not full, or one of the repeated ones.
            if i < drawn || i == full {
                for row in strip.rows() {
                    strip.set(row, &self.uniform(cols, scale));
                }
            }
        }
        if full > drawn {
            packed.repeat(drawn);
        }
        packed
    }

    /// Numbers in `[-scale, scale)`, 16 bits of chance in each.
    pub(super) fn uniform(&mut self, len: usize, scale: f32) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(len + 3);
        while numbers.len() < len {
            let bits = self.next();
            let whole = [0, 16, 32, 48].map(|shift| (bits >> shift) as i16);
            numbers.extend(whole.map(|whole| f32::from(whole) * (scale / 32768.0)));
        }
        numbers.truncate(len);
        numbers
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
