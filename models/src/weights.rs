//! Weights as the kernels read them: packed, matrices that share an input in one.

mod deal;
mod format;
mod pack;
mod random;
mod safetensors;
mod source;
#[cfg(test)]
mod tests;

use kernels::{Arena, Packed};

use crate::cache::Reader;
use crate::config::DecoderConfig;
use crate::error::LoadError;
pub(crate) use deal::deal;
pub(crate) use format::LARGE_PARAMETERS;
pub use format::WeightFormat;
use pack::Packer;
use random::Random;
pub use safetensors::Safetensors;
pub use source::{LayerTensor, Projection, TensorName, WeightSource};

/// All weights of a model. Immutable once loaded.
pub struct Weights {
    format: WeightFormat,
    /// `[vocab, hidden]`
    pub(crate) embedding: Packed,
    pub(crate) layers: Vec<LayerWeights>,
    /// `[hidden]`
    pub(crate) final_norm: Vec<f32>,
    /// `[vocab, hidden]`; None: the embedding.
    head: Option<Packed>,
}

/// One layer's weights.
pub(crate) struct LayerWeights {
    /// `[hidden]`
    pub(crate) attention_norm: Vec<f32>,
    /// `[q_width + 2 kv_width, hidden]`: the rows of q, k and v.
    pub(crate) qkv: Linear,
    /// `[hidden, q_width]`
    pub(crate) o: Linear,
    /// `[hidden]`
    pub(crate) mlp_norm: Vec<f32>,
    /// The rows of gate and up as [`kernels::GateUp`] says.
    pub(crate) gate_up: Linear,
    /// `[hidden, intermediate]`
    pub(crate) down: Linear,
}

/// A matrix and its bias.
pub(crate) struct Linear {
    pub(crate) packed: Packed,
    /// `[packed rows]`; in f32 whatever the format, as norms are: they are a thousandth of the
    /// bytes.
    bias: Option<Vec<f32>>,
}

impl Linear {
    pub(crate) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    fn bytes(&self) -> usize {
        self.packed.bytes().len() + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
    }
}

impl Weights {
    /// Reads and packs every tensor, one slab at a time. The matrices come from the cache as far
    /// as it has them in order; whether all did is the second answer.
    pub(crate) fn load(
        config: &DecoderConfig,
        source: &dyn WeightSource,
        format: WeightFormat,
        cached: Option<Reader>,
    ) -> Result<(Self, bool), LoadError> {
        let mut packer = Packer { config, source, format, cached, arena: Arena::default() };
        let weights = packer.weights()?;
        Ok((weights, packer.cached.is_some()))
    }

    /// Weights of a plausible scale, the same for the same seed: for benches that need a
    /// model's shape and not its knowledge.
    pub fn random(config: &DecoderConfig, format: WeightFormat, seed: u64) -> Self {
        Random::new(seed).weights(config, format)
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        let layer = |layer: &LayerWeights| {
            4 * (layer.attention_norm.len() + layer.mlp_norm.len())
                + layer.linears().map(Linear::bytes).iter().sum::<usize>()
        };
        self.embedding.bytes().len()
            + self.layers.iter().map(layer).sum::<usize>()
            + 4 * self.final_norm.len()
            + self.head.as_ref().map_or(0, |head| head.bytes().len())
    }

    /// Bytes of weights that one decode step reads, scales, norms and biases among them: all but
    /// the rows of the embedding that it does not look up.
    pub fn bytes_per_step(&self) -> usize {
        match self.head {
            Some(_) => self.bytes() - self.embedding.bytes().len(),
            None => self.bytes(),
        }
    }

    /// How the matrices are stored.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    pub(crate) fn head(&self) -> &Packed {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// In the order in which they are loaded.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Packed> {
        let layers = self.layers.iter().flat_map(LayerWeights::linears);
        std::iter::once(&self.embedding)
            .chain(layers.map(|linear| &linear.packed))
            .chain(self.head.as_ref())
    }
}

impl LayerWeights {
    fn linears(&self) -> [&Linear; 4] {
        [&self.qkv, &self.o, &self.gate_up, &self.down]
    }
}
