//! Tensors by our own names, wherever they come from.

use std::ops::Range;

use candle_core::{DType, Tensor};

use crate::error::LoadError;

/// A tensor of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorName {
    /// `[vocab, hidden]`
    Embedding,
    /// `[hidden]`
    FinalNorm,
    /// `[vocab, hidden]`
    Head,
    Layer(usize, LayerTensor),
}

/// A tensor of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerTensor {
    /// `[hidden]`, before attention.
    AttentionNorm,
    /// `[hidden]`, before the MLP.
    MlpNorm,
    /// `[out, in]`
    Weight(Projection),
    /// `[out]`
    Bias(Projection),
}

/// A linear map inside a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Projection {
    pub(crate) const ALL: [Projection; 7] = [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::O,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];
}

/// Where weights come from: a folder, bytes in the binary. Several threads read at once.
pub trait WeightSource: Sync {
    /// None where the source has no such tensor.
    fn shape(&self, tensor: TensorName) -> Option<&[usize]>;

    /// How a tensor is stored there. Fails where the tensor is absent or of an unsupported type.
    fn dtype(&self, tensor: TensorName) -> Result<DType, LoadError>;

    /// Some rows (of the first dimension) of a tensor, in the source's own format.
    fn read(&self, tensor: TensorName, rows: Range<usize>) -> Result<Tensor, LoadError>;

    /// The source's own name of a tensor, for errors.
    fn spelling(&self, tensor: TensorName) -> String;
}

/// How a family of checkpoints spells tensor names.
pub(crate) struct Spelling {
    embedding: &'static str,
    final_norm: &'static str,
    head: &'static str,
    /// Before the layer's number.
    layer: &'static str,
    attention_norm: &'static str,
    mlp_norm: &'static str,
    /// In the order of [`Projection`]; `.weight` or `.bias` follows.
    projections: [&'static str; 7],
}

/// Llama, Qwen2 and everything that transformers derived from them.
pub(crate) const LLAMA: Spelling = Spelling {
    embedding: "model.embed_tokens.weight",
    final_norm: "model.norm.weight",
    head: "lm_head.weight",
    layer: "model.layers",
    attention_norm: "input_layernorm.weight",
    mlp_norm: "post_attention_layernorm.weight",
    projections: [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ],
};

impl Spelling {
    pub(crate) fn of(&self, tensor: TensorName) -> String {
        let (layer, tensor) = match tensor {
            TensorName::Embedding => return self.embedding.to_owned(),
            TensorName::FinalNorm => return self.final_norm.to_owned(),
            TensorName::Head => return self.head.to_owned(),
            TensorName::Layer(layer, tensor) => (format!("{}.{layer}", self.layer), tensor),
        };
        match tensor {
            LayerTensor::AttentionNorm => format!("{layer}.{}", self.attention_norm),
            LayerTensor::MlpNorm => format!("{layer}.{}", self.mlp_norm),
            LayerTensor::Weight(p) => format!("{layer}.{}.weight", self.projections[p as usize]),
            LayerTensor::Bias(p) => format!("{layer}.{}.bias", self.projections[p as usize]),
        }
    }
}
