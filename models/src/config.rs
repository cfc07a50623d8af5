//! What `config.json` says of a decoder, checked: every number in range, every key that would
//! change the mathematics either understood or refused by name.

mod json;
mod refused;
mod rope;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::error::LoadError;
use crate::weights::{LayerTensor, Projection, TensorName};
use json::Keys;
pub use rope::{RopeConfig, RopeScaling};

// Upper ends of what a config may ask for: several times the largest open model of any kind, and
// small enough that no product of two of them (nor the number of parameters) overflows 64 bits.
const HIDDEN_MAX: usize = 1 << 17;
const INTERMEDIATE_MAX: usize = 1 << 20;
const LAYERS_MAX: usize = 1 << 10;
const HEADS_MAX: usize = 1 << 10;
const HEAD_DIM_MAX: usize = 1 << 10;
const VOCAB_MAX: usize = 1 << 22;
const CONTEXT_MAX: usize = 1 << 24;
/// Ids that end a sequence; models in use have at most a handful.
const EOS_MAX: usize = 64;

/// Everything the decoder needs to know of a model, besides its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between gate/up and down.
    pub intermediate: usize,
    pub layers: usize,
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    pub kv_heads: usize,
    /// Even, because rotary embedding turns pairs.
    pub head_dim: usize,
    pub vocab: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    pub rms_eps: f32,
    pub rope: RopeConfig,
    /// Whether the head is the embedding matrix.
    pub tied: bool,
    pub biases: Biases,
    /// Ids that end a sequence, from both config.json and generation_config.json; may be empty.
    pub eos_ids: Vec<u32>,
}

/// Which linear layers have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    pub qkv: bool,
    pub o: bool,
    pub mlp: bool,
}

/// What differs between the families that this decoder runs.
struct Family {
    architecture: &'static str,
    model_type: &'static str,
    qkv_bias: Bias,
    o_bias: Bias,
    mlp_bias: Bias,
    /// What transformers assumes where config.json is silent.
    context: usize,
}

enum Bias {
    Always,
    Never,
    Key(&'static str),
}

const FAMILIES: [Family; 2] = [
    Family {
        architecture: "LlamaForCausalLM",
        model_type: "llama",
        qkv_bias: Bias::Key("attention_bias"),
        o_bias: Bias::Key("attention_bias"),
        mlp_bias: Bias::Key("mlp_bias"),
        context: 2048,
    },
    Family {
        architecture: "Qwen2ForCausalLM",
        model_type: "qwen2",
        qkv_bias: Bias::Always,
        o_bias: Bias::Never,
        mlp_bias: Bias::Never,
        context: 32768,
    },
];

impl DecoderConfig {
    /// Reads `config.json` and, where there is one, `generation_config.json`.
    pub fn parse(config: &[u8], generation: Option<&[u8]>) -> Result<Self, LoadError> {
        let root = json::object("config.json", config)?;
        let keys = Keys::of(&root);
        let family = family(&keys)?;
        refused::check(&keys)?;
        let mut config = Self {
            hidden: keys.count("hidden_size", HIDDEN_MAX)?,
            intermediate: keys.count("intermediate_size", INTERMEDIATE_MAX)?,
            layers: keys.count("num_hidden_layers", LAYERS_MAX)?,
            heads: keys.count("num_attention_heads", HEADS_MAX)?,
            kv_heads: 0,
            head_dim: 0,
            vocab: keys.count("vocab_size", VOCAB_MAX)?,
            context: keys
                .optional_count("max_position_embeddings", CONTEXT_MAX)?
                .unwrap_or(family.context),
            rms_eps: keys.number("rms_norm_eps", 1e-12..=0.1)?.unwrap_or(1e-6) as f32,
            rope: RopeConfig::default(),
            tied: keys.flag("tie_word_embeddings")?,
            biases: Biases {
                qkv: family.qkv_bias.of(&keys)?,
                o: family.o_bias.of(&keys)?,
                mlp: family.mlp_bias.of(&keys)?,
            },
            eos_ids: Vec::new(),
        };
        config.kv_heads =
            keys.optional_count("num_key_value_heads", HEADS_MAX)?.unwrap_or(config.heads);
        config.head_dim = keys.optional_count("head_dim", HEAD_DIM_MAX)?.unwrap_or(0);
        config.settle_heads()?;
        config.rope = RopeConfig::parse(&keys, config.context, CONTEXT_MAX)?;
        config.add_eos("eos_token_id", keys.get("eos_token_id"))?;
        if let Some(generation) = generation {
            let root = json::object("generation_config.json", generation)?;
            let key = "eos_token_id (generation_config.json)";
            config.add_eos(key, Keys::of(&root).get("eos_token_id"))?;
        }
        Ok(config)
    }

    /// A well-known model by name, for benches with random weights.
    pub fn of_shape(name: &str) -> Option<Self> {
        let (_, json) = SHAPES.iter().find(|(shape, _)| *shape == name)?;
        Some(Self::parse(json.as_bytes(), None).expect("the shapes in the table are valid"))
    }

    /// The names that [`DecoderConfig::of_shape`] knows.
    pub fn shapes() -> impl Iterator<Item = &'static str> {
        SHAPES.iter().map(|(name, _)| *name)
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all KV heads together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Number of weights, a tied head counted once.
    pub fn parameters(&self) -> u64 {
        let len = |tensor| self.shape(tensor).iter().map(|&n| n as u64).product::<u64>();
        let mut layer = len(TensorName::Layer(0, LayerTensor::AttentionNorm))
            + len(TensorName::Layer(0, LayerTensor::MlpNorm));
        for projection in Projection::ALL {
            layer += len(TensorName::Layer(0, LayerTensor::Weight(projection)));
            if self.has_bias(projection) {
                layer += len(TensorName::Layer(0, LayerTensor::Bias(projection)));
            }
        }
        let head = if self.tied { 0 } else { len(TensorName::Head) };
        len(TensorName::Embedding) + len(TensorName::FinalNorm) + head + self.layers as u64 * layer
    }

    pub(crate) fn has_bias(&self, projection: Projection) -> bool {
        match projection {
            Projection::Q | Projection::K | Projection::V => self.biases.qkv,
            Projection::O => self.biases.o,
            Projection::Gate | Projection::Up | Projection::Down => self.biases.mlp,
        }
    }

    /// The shape a tensor must have: `[out, in]` of a matrix, `[n]` of a norm or bias.
    pub(crate) fn shape(&self, tensor: TensorName) -> Vec<usize> {
        match tensor {
            TensorName::Embedding | TensorName::Head => vec![self.vocab, self.hidden],
            TensorName::FinalNorm => vec![self.hidden],
            TensorName::Layer(_, LayerTensor::AttentionNorm | LayerTensor::MlpNorm) => {
                vec![self.hidden]
            }
            TensorName::Layer(_, LayerTensor::Weight(projection)) => {
                let (rows, cols) = self.projection(projection);
                vec![rows, cols]
            }
            TensorName::Layer(_, LayerTensor::Bias(projection)) => {
                vec![self.projection(projection).0]
            }
        }
    }

    fn projection(&self, projection: Projection) -> (usize, usize) {
        match projection {
            Projection::Q => (self.q_width(), self.hidden),
            Projection::K | Projection::V => (self.kv_width(), self.hidden),
            Projection::O => (self.hidden, self.q_width()),
            Projection::Gate | Projection::Up => (self.intermediate, self.hidden),
            Projection::Down => (self.hidden, self.intermediate),
        }
    }

    fn settle_heads(&mut self) -> Result<(), LoadError> {
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of num_attention_heads ({})", self.heads);
            return Err(json::invalid("num_key_value_heads", expected, self.kv_heads));
        }
        if self.head_dim == 0 {
            if !self.hidden.is_multiple_of(self.heads) {
                let expected = format!("a multiple of num_attention_heads ({})", self.heads);
                return Err(json::invalid("hidden_size", expected, self.hidden));
            }
            self.head_dim = self.hidden / self.heads;
        }
        if !self.head_dim.is_multiple_of(2) || self.head_dim > HEAD_DIM_MAX {
            let expected = format!("even and at most {HEAD_DIM_MAX}");
            return Err(json::invalid("head_dim", expected, self.head_dim));
        }
        Ok(())
    }

    /// One id, several, or none.
    fn add_eos(&mut self, key: &str, value: Option<&Value>) -> Result<(), LoadError> {
        let ids = match value {
            None => return Ok(()),
            Some(Value::Array(ids)) if ids.len() <= EOS_MAX => ids.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        for value in ids {
            let id = value.as_u64().filter(|&id| id < self.vocab as u64).ok_or_else(|| {
                let expected = format!("ids below vocab_size ({})", self.vocab);
                json::invalid(key, expected, json::shown(value))
            })? as u32;
            if !self.eos_ids.contains(&id) {
                self.eos_ids.push(id);
            }
        }
        Ok(())
    }
}

impl Bias {
    fn of(&self, keys: &Keys<'_>) -> Result<bool, LoadError> {
        match self {
            Bias::Always => Ok(true),
            Bias::Never => Ok(false),
            Bias::Key(key) => keys.flag(key),
        }
    }
}

/// By `architectures`, or by `model_type` where that is absent.
fn family(keys: &Keys<'_>) -> Result<&'static Family, LoadError> {
    let architecture = match keys.get("architectures") {
        Some(Value::Array(names)) => names.first(),
        other => other,
    };
    let model_type = keys.get("model_type");
    let Some(named) = architecture.or(model_type) else {
        return Err(LoadError::KeyMissing { key: "architectures" });
    };
    FAMILIES
        .iter()
        .find(|family| match architecture {
            Some(name) => name == family.architecture,
            None => named == family.model_type,
        })
        .ok_or_else(|| LoadError::Architecture(json::shown(named)))
}

/// Models that exist, for benches that need their shape and not their weights.
const SHAPES: [(&str, &str); 3] = [
    (
        "qwen2.5-coder-0.5b",
        r#"{"architectures": ["Qwen2ForCausalLM"], "hidden_size": 896, "intermediate_size": 4864,
            "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
            "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0, "tie_word_embeddings": true, "eos_token_id": 151643}"#,
    ),
    (
        "qwen2.5-coder-1.5b",
        r#"{"architectures": ["Qwen2ForCausalLM"], "hidden_size": 1536, "intermediate_size": 8960,
            "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
            "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0, "tie_word_embeddings": true, "eos_token_id": 151643}"#,
    ),
    (
        "qwen2.5-coder-3b",
        r#"{"architectures": ["Qwen2ForCausalLM"], "hidden_size": 2048, "intermediate_size": 11008,
            "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
            "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0, "tie_word_embeddings": true, "eos_token_id": 151643}"#,
    ),
];
