//! The KV cache: memory in blocks of tokens, allocated once. Who refers to which block is the
//! business of whoever owns the sequences.

use kernels::PagedKv;

use crate::config::DecoderConfig;
use crate::numbers::{Format, Numbers};
use crate::step::BlockCopy;

/// Tokens in a block unless asked otherwise. Smaller blocks share more of a prefix and waste
/// less at its end; larger ones make shorter tables.
pub const BLOCK_TOKENS: usize = 16;

/// K and V of every position that any sequence has been through.
pub struct KvMemory {
    /// One per layer.
    layers: Vec<LayerKv>,
    blocks: usize,
    block_tokens: usize,
    kv_heads: usize,
    head_dim: usize,
}

struct LayerKv {
    /// `[blocks, kv_heads, block_tokens, head_dim]`
    k: Numbers,
    /// `[blocks, kv_heads, block_tokens, head_dim]`
    v: Numbers,
}

impl KvMemory {
    /// Allocates all of it. A block holds 16 or 32 tokens.
    pub fn new(config: &DecoderConfig, format: Format, blocks: usize, block_tokens: usize) -> Self {
        assert!(matches!(block_tokens, 16 | 32), "blocks of {block_tokens} tokens");
        assert!(u32::try_from(blocks).is_ok(), "{blocks} blocks need ids beyond 32 bits");
        let len = blocks * block_tokens * config.kv_width();
        let layers = (0..config.layers)
            .map(|_| LayerKv { k: Numbers::zeros(format, len), v: Numbers::zeros(format, len) })
            .collect();
        let (kv_heads, head_dim) = (config.kv_heads, config.head_dim);
        Self { layers, blocks, block_tokens, kv_heads, head_dim }
    }

    /// Number of blocks; ids are below it.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Tokens in a block.
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.k.bytes() + layer.v.bytes()).sum()
    }

    pub(crate) fn layer(&self, layer: usize) -> PagedKv<'_> {
        let LayerKv { k, v } = &self.layers[layer];
        PagedKv {
            k: k.elems(),
            v: v.elems(),
            block_tokens: self.block_tokens,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
        }
    }

    /// Stores one position's K and V, each `[kv_heads, head_dim]`, at `token` inside a block.
    pub(crate) fn write(&mut self, layer: usize, at: (u32, usize), k: &[f32], v: &[f32]) {
        let (block, token) = at;
        assert!((block as usize) < self.blocks && token < self.block_tokens, "KV write outside");
        let LayerKv { k: k_cache, v: v_cache } = &mut self.layers[layer];
        let heads = k.chunks_exact(self.head_dim).zip(v.chunks_exact(self.head_dim));
        for (head, (k, v)) in heads.enumerate() {
            let row = (block as usize * self.kv_heads + head) * self.block_tokens + token;
            k_cache.write(row * self.head_dim, k);
            v_cache.write(row * self.head_dim, v);
        }
    }

    /// Copies the first tokens of a block to another, in every layer.
    pub(crate) fn copy(&mut self, copy: BlockCopy) {
        let BlockCopy { from, to, tokens } = copy;
        let (from, to) = (from as usize, to as usize);
        assert!(from < self.blocks && to < self.blocks && from != to, "copy of blocks outside");
        assert!(tokens as usize <= self.block_tokens, "copy beyond a block");
        let head_len = self.block_tokens * self.head_dim;
        let copied = tokens as usize * self.head_dim;
        for LayerKv { k, v } in &mut self.layers {
            for head in 0..self.kv_heads {
                let source = (from * self.kv_heads + head) * head_len;
                let target = (to * self.kv_heads + head) * head_len;
                k.copy_within(source..source + copied, target);
                v.copy_within(source..source + copied, target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(format: Format, block_tokens: usize) -> KvMemory {
        let config = DecoderConfig::of_shape("qwen2.5-coder-0.5b").expect("a known shape");
        KvMemory::new(&DecoderConfig { layers: 2, ..config }, format, 3, block_tokens)
    }

    #[test]
    fn a_copy_takes_the_first_tokens_of_every_layer_and_head() {
        for format in [Format::F32, Format::Bf16] {
            let mut kv = memory(format, 16);
            // Small whole numbers survive bf16.
            let row = |token: usize| vec![token as f32 + 1.0; 2 * 64];
            for (layer, token) in [(0, 0), (0, 4), (0, 5), (1, 0), (1, 4), (1, 5)] {
                kv.write(layer, (2, token), &row(token), &row(token + 100));
            }
            kv.copy(BlockCopy { from: 2, to: 0, tokens: 5 });
            for layer in 0..2 {
                let paged = kv.layer(layer);
                let mut k = vec![0.0; paged.k.len()];
                kernels::to_f32(paged.k, &mut k);
                let mut v = vec![0.0; paged.v.len()];
                kernels::to_f32(paged.v, &mut v);
                for head in 0..2 {
                    for (token, wanted) in [(0, 1.0), (4, 5.0), (5, 0.0)] {
                        let at = (head * 16 + token) * 64;
                        assert_eq!(k[at..at + 64], [wanted; 64]);
                        let wanted = if wanted == 0.0 { 0.0 } else { wanted + 100.0 };
                        assert_eq!(v[at..at + 64], [wanted; 64]);
                    }
                }
            }
        }
    }

    #[test]
    fn memory_is_what_the_shape_says() {
        // layers * (k + v) * blocks * tokens * kv heads * head_dim
        assert_eq!(memory(Format::Bf16, 32).bytes(), 2 * 2 * 3 * 32 * 2 * 64 * 2);
        assert_eq!(memory(Format::F32, 16).bytes(), 2 * 2 * 3 * 16 * 2 * 64 * 4);
    }
}
