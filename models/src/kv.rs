//! The KV cache: memory in blocks of tokens, allocated once, and who refers to which block.

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

/// Counts references to blocks. Plain bookkeeping for whoever owns the sequences: no memory
/// behind it, every operation in constant time.
pub struct BlockPool {
    /// References of each block; 0 is free.
    references: Vec<u32>,
    /// Free blocks, the next one last.
    free: Vec<u32>,
}

impl BlockPool {
    pub fn new(blocks: usize) -> Self {
        let blocks = u32::try_from(blocks).expect("block ids are 32 bits wide");
        // Reversed, so that low ids go first.
        Self { references: vec![0; blocks as usize], free: (0..blocks).rev().collect() }
    }

    /// Takes a free block, with one reference. None: all are in use.
    pub fn alloc(&mut self) -> Option<u32> {
        let block = self.free.pop()?;
        let references = &mut self.references[block as usize];
        assert_eq!(*references, 0, "block {block} was free and referenced");
        *references = 1;
        Some(block)
    }

    /// Adds a reference to a block in use.
    pub fn retain(&mut self, block: u32) {
        let references = &mut self.references[block as usize];
        assert!(*references > 0, "block {block} is free and cannot be shared");
        *references = references.checked_add(1).expect("fewer references than 32 bits");
    }

    /// Takes a reference away; true when it was the last and the block is free now.
    pub fn release(&mut self, block: u32) -> bool {
        let references = &mut self.references[block as usize];
        assert!(*references > 0, "block {block} released twice");
        *references -= 1;
        let last = *references == 0;
        if last {
            self.free.push(block);
        }
        last
    }

    /// References of a block; 0 is free.
    pub fn references(&self, block: u32) -> u32 {
        self.references[block as usize]
    }

    /// Number of free blocks.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Number of blocks, free or not.
    pub fn total(&self) -> usize {
        self.references.len()
    }
}
