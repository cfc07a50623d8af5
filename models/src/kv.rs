//! The KV cache: memory in blocks of tokens, allocated once. Who refers to which block is the
//! business of whoever owns the sequences.

use kernels::{Arena, KvCache, KvFormat, KvShape};

use crate::config::DecoderConfig;
use crate::step::BlockCopy;

/// Tokens in a block unless asked otherwise. Smaller blocks share more of a prefix and waste
/// less at its end; larger ones make shorter tables.
pub const BLOCK_TOKENS: usize = 16;

/// K and V of every position that any sequence has been through.
pub struct KvMemory {
    layers: Vec<KvCache>,
    shape: KvShape,
}

impl KvMemory {
    /// Allocates all of it. A block holds 16 or 32 tokens.
    pub fn new(
        config: &DecoderConfig,
        format: KvFormat,
        blocks: usize,
        block_tokens: usize,
    ) -> Self {
        assert!(matches!(block_tokens, 16 | 32), "blocks of {block_tokens} tokens");
        assert!(u32::try_from(blocks).is_ok(), "{blocks} blocks need ids beyond 32 bits");
        let (kv_heads, head_dim) = (config.kv_heads, config.head_dim);
        let shape = KvShape { blocks, block_tokens, kv_heads, head_dim };
        let arena = Arena::default();
        let layers = (0..config.layers).map(|_| KvCache::new(&arena, format, shape)).collect();
        Self { layers, shape }
    }

    /// What one position of one sequence takes, in all layers.
    pub fn bytes_per_token(config: &DecoderConfig, format: KvFormat) -> usize {
        config.layers * format.bytes(config.kv_heads, config.head_dim)
    }

    /// Number of blocks; ids are below it.
    pub fn blocks(&self) -> usize {
        self.shape.blocks
    }

    /// Tokens in a block.
    pub fn block_tokens(&self) -> usize {
        self.shape.block_tokens
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(KvCache::bytes).sum()
    }

    pub(crate) fn layer(&self, layer: usize) -> &KvCache {
        &self.layers[layer]
    }

    /// Stores one position's K and V, each `[kv_heads, head_dim]`, at `token` inside a block.
    pub(crate) fn write(&mut self, layer: usize, at: (u32, usize), k: &[f32], v: &[f32]) {
        let (block, token) = at;
        self.layers[layer].write(block, token, k, v);
    }

    /// Copies the first tokens of a block to another, in every layer.
    pub(crate) fn copy(&mut self, copy: BlockCopy) {
        for layer in &mut self.layers {
            layer.copy(copy.from, copy.to, copy.tokens as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [KvFormat; 3] = [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8];

    fn config() -> DecoderConfig {
        let config = DecoderConfig::of_shape("qwen2.5-coder-0.5b").expect("a known shape");
        DecoderConfig { layers: 2, ..config }
    }

    fn memory(format: KvFormat, block_tokens: usize) -> KvMemory {
        KvMemory::new(&config(), format, 3, block_tokens)
    }

    #[test]
    fn a_copy_takes_the_first_tokens_of_every_layer_and_head() {
        for format in FORMATS {
            let mut kv = memory(format, 16);
            // Small whole numbers survive bf16, and q8 nearly.
            let row = |token: usize| vec![token as f32 + 1.0; 2 * 64];
            for (layer, token) in [(0, 0), (0, 4), (0, 5), (1, 0), (1, 4), (1, 5)] {
                kv.write(layer, (2, token), &row(token), &row(token + 100));
            }
            kv.copy(BlockCopy { from: 2, to: 0, tokens: 5 });
            for layer in 0..2 {
                for (token, wanted) in [(0, [1.0, 101.0]), (4, [5.0, 105.0]), (5, [0.0, 0.0])] {
                    let (mut k, mut v) = (vec![0.0; 2 * 64], vec![0.0; 2 * 64]);
                    kv.layer(layer).read(0, token, &mut k, &mut v);
                    let near = |x: &f32, wanted: f32| (x - wanted).abs() <= wanted * 1e-6;
                    assert!(k.iter().all(|k| near(k, wanted[0])), "{format} {token}: {k:?}");
                    assert!(v.iter().all(|v| near(v, wanted[1])), "{format} {token}: {v:?}");
                }
            }
        }
    }

    #[test]
    fn memory_is_what_the_shape_says() {
        // layers * (k + v) * blocks * tokens * kv heads * head_dim
        assert_eq!(memory(KvFormat::Bf16, 32).bytes(), 2 * 2 * 3 * 32 * 2 * 64 * 2);
        assert_eq!(memory(KvFormat::F32, 16).bytes(), 2 * 2 * 3 * 16 * 2 * 64 * 4);
        // A byte each, and an f32 to each head.
        assert_eq!(memory(KvFormat::Q8, 16).bytes(), 2 * 2 * 3 * 16 * 2 * (64 + 4));
        for format in FORMATS {
            let tokens = 3 * 16;
            let bytes = KvMemory::bytes_per_token(&config(), format);
            assert_eq!(memory(format, 16).bytes(), tokens * bytes);
        }
    }
}
