//! Why a model cannot be loaded. Every message is a sentence for the operator; the chain below
//! it is for the log.

use std::path::PathBuf;

use kernels::Isa;

/// A model that cannot be loaded, and why.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),

    #[error("{} cannot be read", file.display())]
    Read { file: PathBuf, source: std::io::Error },

    #[error("{} is larger than {max} bytes", file.display())]
    TooLarge { file: PathBuf, max: u64 },

    #[error("{} is corrupt: {what}", file.display())]
    Corrupt { file: PathBuf, what: String },

    /// The name in an index of shards points out of the model's folder.
    #[error("{}: {name:?} is not the name of a file beside it", index.display())]
    ShardName { index: PathBuf, name: String },

    #[error("config.json: {key} is missing")]
    KeyMissing { key: &'static str },

    #[error("config.json: {key} must be {expected}, not {found}")]
    KeyInvalid { key: String, expected: String, found: String },

    /// Ignoring the key would compute another model's logits.
    #[error("config.json: {key} = {value} changes the mathematics and is not supported")]
    KeyUnsupported { key: String, value: String },

    #[error("architecture {0} is not supported (LlamaForCausalLM and Qwen2ForCausalLM are)")]
    Architecture(String),

    #[error("the weights lack the tensor {0}")]
    TensorMissing(String),

    #[error("the weights hold the tensor {0}, which config.json does not ask for")]
    TensorUnexpected(String),

    #[error("tensor {name} has shape {found:?}, but config.json asks for {expected:?}")]
    TensorShape { name: String, expected: Vec<usize>, found: Vec<usize> },

    #[error("tensor {name} holds {dtype}, which is not supported (F32, F16 and BF16 are)")]
    TensorDtype { name: String, dtype: String },

    #[error("tensor {name} cannot be converted")]
    Convert { name: String, source: candle_core::Error },

    #[error("this machine has no {0}")]
    Isa(Isa),

    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),

    #[error(transparent)]
    Fim(#[from] crate::fim::FimError),
}
