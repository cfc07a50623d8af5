//! Models: a decoder-only transformer configured by data, its KV cache, weights, tokenizer, FIM
//! and sampler. Knows no HTTP, no async runtime, no cloud.
//!
//! Read in this order: [`model`] loads a folder or the embedded model, by way of [`config`],
//! [`weights`] and [`cache`]; [`step`] is the device seam, plain data in and out; [`cpu`] implements it with
//! [`decoder`], the one transformer, over the blocks of [`kv`].

#![forbid(unsafe_code)]

pub mod cache;
pub mod chat;
pub mod config;
pub mod cpu;
pub mod decoder;
pub mod error;
pub mod fim;
pub mod fit;
pub mod kv;
pub mod language;
pub mod model;
pub mod rope;
pub mod sampler;
pub mod step;
pub mod text;
pub mod tokenizer;
pub mod weights;

/// Weight format, as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quant {
    /// q8 from a million parameters on. Below, an f32 checkpoint stays f32 and everything else is
    /// bf16.
    #[default]
    Auto,
    F32,
    Bf16,
    /// 8 bits and a scale for each group.
    Q8,
    /// 4 bits and a scale for each group; 8 bits in the head and the embedding.
    Q4,
}

/// KV cache format, as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvFormat {
    /// f32 beside f32 weights, otherwise bf16.
    #[default]
    Auto,
    F32,
    Bf16,
    /// Bytes, with a scale to each position and head.
    Q8,
}

/// Order of prefix and suffix in a FIM prompt, as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FimOrder {
    /// The family's own.
    #[default]
    Auto,
    Psm,
    Spm,
}

/// How far an answer at a cursor may go, as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FimLines {
    /// As far as the model is good for.
    #[default]
    Auto,
    /// To the end of the first line that holds anything.
    One,
    /// As far as the code around the cursor lets it.
    Block,
}
