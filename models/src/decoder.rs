//! The one transformer: Llama-shaped, configured by data.

use std::sync::Arc;

use kernels::{AttendRow, Cpu, Inputs, Norm, Query, STRIP, Write};

use crate::config::DecoderConfig;
use crate::kv::KvMemory;
use crate::rope::Rope;
use crate::step::Step;
use crate::weights::{LayerWeights, Weights};

/// A model ready to run: immutable, everything that changes is in [`KvMemory`] and [`Scratch`].
pub struct Decoder {
    config: DecoderConfig,
    weights: Arc<Weights>,
    rope: Rope,
}

/// Every activation of a pass, allocated once for the largest one.
pub struct Scratch {
    /// The residual stream: `[rows, hidden]`.
    x: Vec<f32>,
    /// Input of a linear layer, as its weights want it.
    inputs: Inputs,
    /// `[rows, q_width + 2 kv_width]`
    qkv: Vec<f32>,
    /// `[rows, q_width]`
    attended: Vec<f32>,
    /// `[rows, intermediate]`
    activated: Vec<f32>,
    /// What each row attends to: `[rows]`.
    attend: Vec<AttendRow>,
    /// Block and place in it where each row's K and V go: `[rows]`.
    places: Vec<(u32, usize)>,
    /// Rows that the head is applied to: `[samples, hidden]`.
    sampled: Vec<f32>,
}

impl Scratch {
    /// For passes of up to `rows_max` rows, `samples_max` of them sampled.
    pub fn new(config: &DecoderConfig, rows_max: usize, samples_max: usize) -> Self {
        let buffer = |width: usize| vec![0.0; rows_max * width];
        let widest = config.hidden.max(config.q_width()).max(config.intermediate);
        Self {
            x: buffer(config.hidden),
            inputs: Inputs::new(rows_max.max(samples_max), widest),
            qkv: buffer(config.q_width() + 2 * config.kv_width()),
            attended: buffer(config.q_width()),
            activated: buffer(config.intermediate),
            attend: Vec::with_capacity(rows_max),
            places: Vec::with_capacity(rows_max),
            sampled: vec![0.0; samples_max * config.hidden],
        }
    }
}

impl Decoder {
    /// `context`: the longest sequence that will be run, in tokens.
    pub fn new(config: DecoderConfig, weights: Arc<Weights>, context: usize) -> Self {
        let rope = Rope::new(&config.rope, config.head_dim, context);
        Self { config, weights, rope }
    }

    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Runs every row of a step through all layers and leaves the sampled rows in the scratch.
    /// The step has passed [`Step::assert_valid`].
    ///
    /// Asks `go_on` before each half of a layer, and stops at a no. Returns whether the step ran
    /// to its end.
    #[must_use]
    pub fn forward(
        &self,
        cpu: &Cpu,
        step: &Step,
        kv: &mut KvMemory,
        scratch: &mut Scratch,
        go_on: &mut dyn FnMut() -> bool,
    ) -> bool {
        self.embed(step, scratch);
        place_rows(step, kv.block_tokens(), scratch);
        for (i, layer) in self.weights.layers.iter().enumerate() {
            if !go_on() {
                return false;
            }
            self.attention(cpu, (i, layer), step, kv, scratch);
            if !go_on() {
                return false;
            }
            self.mlp(cpu, layer, step.rows(), scratch);
        }
        let hidden = self.config.hidden;
        for (sample, to) in step.samples.iter().zip(scratch.sampled.chunks_exact_mut(hidden)) {
            to.copy_from_slice(&scratch.x[sample.row as usize * hidden..][..hidden]);
        }
        true
    }

    /// The head, on samples `first..` of the last pass, as many as `peaks[n, strips]` has rows:
    /// the highest logit of each strip, and `logits[n, vocab]` if they are wanted.
    pub fn peaks(
        &self,
        cpu: &Cpu,
        scratch: &mut Scratch,
        first: usize,
        logits: Option<&mut [f32]>,
        peaks: &mut [f32],
    ) {
        let head = self.weights.head();
        let (hidden, samples) = (self.config.hidden, peaks.len() / head.strips());
        let sampled = &scratch.sampled[first * hidden..][..samples * hidden];
        cpu.prepare(&mut scratch.inputs, sampled, Some(self.norm(&self.weights.final_norm)), head);
        cpu.product_peaks(&scratch.inputs, head, logits, peaks);
    }

    /// One strip of logits of a sample of the last call of [`Decoder::peaks`].
    pub fn strip(
        &self,
        cpu: &Cpu,
        scratch: &Scratch,
        sample: usize,
        strip: usize,
        logits: &mut [f32; STRIP],
    ) {
        cpu.product_strip(&scratch.inputs, sample, self.weights.head(), strip, logits);
    }

    fn embed(&self, step: &Step, scratch: &mut Scratch) {
        for (&token, x) in step.tokens.iter().zip(scratch.x.chunks_exact_mut(self.config.hidden)) {
            self.weights.embedding.gather(token as usize, x);
        }
    }

    fn norm<'a>(&self, weight: &'a [f32]) -> Norm<'a> {
        Norm { weight, eps: self.config.rms_eps }
    }

    /// `x += o · attention(rope(qkv · norm(x)))`
    fn attention(
        &self,
        cpu: &Cpu,
        (i, layer): (usize, &LayerWeights),
        step: &Step,
        kv: &mut KvMemory,
        scratch: &mut Scratch,
    ) {
        let config = &self.config;
        let (rows, hidden) = (step.rows(), config.hidden);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        let stride = q_width + 2 * kv_width;
        let x = &mut scratch.x[..rows * hidden];
        let inputs = &mut scratch.inputs;
        let qkv = &mut scratch.qkv[..rows * stride];
        let attended = &mut scratch.attended[..rows * q_width];

        cpu.prepare(inputs, x, Some(self.norm(&layer.attention_norm)), &layer.qkv.packed);
        cpu.product(inputs, &layer.qkv.packed, layer.qkv.bias(), Write::Replace, qkv);
        // K follows Q in each row, so one call turns the heads of both.
        let turned = config.heads + config.kv_heads;
        let tables = self.rope.tables();
        cpu.rope(qkv, stride, turned, config.head_dim, tables, &step.positions);
        for (row, &place) in qkv.chunks_exact(stride).zip(&scratch.places) {
            let (k, v) = row[q_width..].split_at(kv_width);
            kv.write(i, place, k, v);
        }
        let scale = 1.0 / (config.head_dim as f32).sqrt();
        let query = Query { q: qkv, stride, heads: config.heads, scale };
        cpu.attention(query, kv.layer(i), &step.blocks, &scratch.attend, attended);
        cpu.prepare(inputs, attended, None, &layer.o.packed);
        cpu.product(inputs, &layer.o.packed, layer.o.bias(), Write::Add, x);
    }

    /// `x += down · (silu(gate · norm(x)) * (up · norm(x)))`
    fn mlp(&self, cpu: &Cpu, layer: &LayerWeights, rows: usize, scratch: &mut Scratch) {
        let (hidden, inter) = (self.config.hidden, self.config.intermediate);
        let x = &mut scratch.x[..rows * hidden];
        let inputs = &mut scratch.inputs;
        let activated = &mut scratch.activated[..rows * inter];
        let LayerWeights { gate_up, down, .. } = layer;

        cpu.prepare(inputs, x, Some(self.norm(&layer.mlp_norm)), &gate_up.packed);
        cpu.product_swiglu(inputs, &gate_up.packed, gate_up.bias(), activated, inter);
        cpu.prepare(inputs, activated, None, &down.packed);
        cpu.product(inputs, &down.packed, down.bias(), Write::Add, x);
    }
}

/// Looks every row up in its sequence's block table, once for all layers.
fn place_rows(step: &Step, block_tokens: usize, scratch: &mut Scratch) {
    scratch.attend.clear();
    scratch.places.clear();
    for segment in &step.segments {
        let blocks_start = segment.blocks.start;
        for &position in &step.positions[segment.rows.start as usize..segment.rows.end as usize] {
            let at = position as usize;
            let block = step.blocks[blocks_start as usize + at / block_tokens];
            scratch.places.push((block, at % block_tokens));
            scratch.attend.push(AttendRow { blocks_start, len: position + 1 });
        }
    }
}
