//! Weights as the kernels read them: row-major, matrices that share an input packed into one.

mod safetensors;
mod source;
#[cfg(test)]
mod tests;

use candle_core::{DType, Tensor};

use crate::config::DecoderConfig;
use crate::error::LoadError;
use crate::numbers::{Format, Numbers};
use kernels::Matrix;
pub use safetensors::Safetensors;
pub use source::{LayerTensor, Projection, TensorName, WeightSource};

/// Bytes of a tensor that are in memory unpacked at one time. Small beside the smallest model,
/// so that loading never needs much more than the packed weights; large beside a read's cost.
const SLAB_BYTES_MAX: usize = 1 << 19;

/// All weights of a model. Immutable once loaded.
pub struct Weights {
    /// `[vocab, hidden]`
    pub(crate) embedding: Linear,
    pub(crate) layers: Vec<LayerWeights>,
    /// `[hidden]`
    pub(crate) final_norm: Vec<f32>,
    /// `[vocab, hidden]`; None: the embedding.
    pub(crate) head: Option<Linear>,
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
    /// `[2 intermediate, hidden]`: the rows of gate and up.
    pub(crate) gate_up: Linear,
    /// `[hidden, intermediate]`
    pub(crate) down: Linear,
}

/// A matrix and its bias.
pub(crate) struct Linear {
    numbers: Numbers,
    /// Outputs.
    rows: usize,
    /// Inputs.
    cols: usize,
    /// `[rows]`; in f32 whatever the format, as norms are: they are a thousandth of the bytes.
    bias: Option<Vec<f32>>,
}

impl Linear {
    pub(crate) fn matrix(&self) -> Matrix<'_> {
        Matrix { elems: self.numbers.elems(), rows: self.rows, cols: self.cols }
    }

    pub(crate) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    fn bytes(&self) -> usize {
        self.numbers.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
    }
}

impl Weights {
    /// Reads, converts and packs every tensor, one slab at a time.
    pub fn load(
        config: &DecoderConfig,
        source: &dyn WeightSource,
        format: Format,
    ) -> Result<Self, LoadError> {
        let packer = Packer { config, source, format };
        packer.refuse_unused_biases()?;
        Ok(Self {
            embedding: packer.matrix(&[TensorName::Embedding])?,
            layers: (0..config.layers).map(|i| packer.layer(i)).collect::<Result<_, _>>()?,
            final_norm: packer.vector(TensorName::FinalNorm)?,
            head: match config.tied {
                true => None,
                false => Some(packer.matrix(&[TensorName::Head])?),
            },
        })
    }

    /// Weights of a plausible scale, the same for the same seed: for benches that need a
    /// model's shape and not its knowledge.
    pub fn random(config: &DecoderConfig, format: Format, seed: u64) -> Self {
        let mut random = Random { state: seed };
        let (hidden, inter) = (config.hidden, config.intermediate);
        let biases = config.biases;
        let layers = (0..config.layers)
            .map(|_| LayerWeights {
                attention_norm: vec![1.0; hidden],
                qkv: random.linear(
                    config.q_width() + 2 * config.kv_width(),
                    hidden,
                    format,
                    biases.qkv,
                ),
                o: random.linear(hidden, config.q_width(), format, biases.o),
                mlp_norm: vec![1.0; hidden],
                gate_up: random.linear(2 * inter, hidden, format, biases.mlp),
                down: random.linear(hidden, inter, format, biases.mlp),
            })
            .collect();
        let embedding = random.linear(config.vocab, hidden, format, false);
        let head = (!config.tied).then(|| random.linear(config.vocab, hidden, format, false));
        Self { embedding, layers, final_norm: vec![1.0; hidden], head }
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        let layer = |layer: &LayerWeights| {
            4 * (layer.attention_norm.len() + layer.mlp_norm.len())
                + [&layer.qkv, &layer.o, &layer.gate_up, &layer.down]
                    .map(Linear::bytes)
                    .iter()
                    .sum::<usize>()
        };
        self.embedding.bytes()
            + self.layers.iter().map(layer).sum::<usize>()
            + 4 * self.final_norm.len()
            + self.head.as_ref().map_or(0, Linear::bytes)
    }

    /// Bytes of weights that one decode step reads: all but the rows of the embedding that it
    /// does not look up.
    pub fn bytes_per_step(&self) -> usize {
        match self.head {
            Some(_) => self.bytes() - self.embedding.bytes(),
            None => self.bytes(),
        }
    }

    /// How the matrices are stored.
    pub fn format(&self) -> Format {
        self.embedding.numbers.format()
    }

    pub(crate) fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

/// Turns a source's tensors into packed ones.
struct Packer<'a> {
    config: &'a DecoderConfig,
    source: &'a dyn WeightSource,
    format: Format,
}

impl Packer<'_> {
    fn layer(&self, i: usize) -> Result<LayerWeights, LoadError> {
        use Projection::{Down, Gate, K, O, Q, Up, V};
        Ok(LayerWeights {
            attention_norm: self.vector(TensorName::Layer(i, LayerTensor::AttentionNorm))?,
            qkv: self.linear(i, &[Q, K, V])?,
            o: self.linear(i, &[O])?,
            mlp_norm: self.vector(TensorName::Layer(i, LayerTensor::MlpNorm))?,
            gate_up: self.linear(i, &[Gate, Up])?,
            down: self.linear(i, &[Down])?,
        })
    }

    /// Projections of the same input, packed, with their biases.
    fn linear(&self, layer: usize, projections: &[Projection]) -> Result<Linear, LoadError> {
        let weights: Vec<_> = projections
            .iter()
            .map(|&projection| TensorName::Layer(layer, LayerTensor::Weight(projection)))
            .collect();
        let mut linear = self.matrix(&weights)?;
        if projections.iter().all(|&projection| self.config.has_bias(projection)) {
            let biases: Vec<_> = projections
                .iter()
                .map(|&projection| TensorName::Layer(layer, LayerTensor::Bias(projection)))
                .collect();
            linear.bias = Some(self.f32s(&biases)?);
        }
        Ok(linear)
    }

    fn matrix(&self, names: &[TensorName]) -> Result<Linear, LoadError> {
        let rows = names.iter().map(|&name| self.config.shape(name)[0]).sum();
        let cols = self.config.shape(names[0])[1];
        Ok(Linear { numbers: self.pack(names, self.format)?, rows, cols, bias: None })
    }

    fn vector(&self, name: TensorName) -> Result<Vec<f32>, LoadError> {
        self.f32s(&[name])
    }

    fn f32s(&self, names: &[TensorName]) -> Result<Vec<f32>, LoadError> {
        match self.pack(names, Format::F32)? {
            Numbers::F32(numbers) => Ok(numbers),
            Numbers::Bf16(_) => unreachable!("packed as f32"),
        }
    }

    /// The tensors one after the other. Nothing is allocated before every shape is known to be
    /// what the config asks for, so a config cannot ask for more memory than its file holds.
    fn pack(&self, names: &[TensorName], format: Format) -> Result<Numbers, LoadError> {
        let mut len = 0;
        for &name in names {
            let shape = self.config.shape(name);
            self.check_shape(name, &shape)?;
            len += shape.iter().product::<usize>();
        }
        let mut numbers = Numbers::with_capacity(format, len);
        for &name in names {
            let shape = self.config.shape(name);
            let row_bytes = shape[1..].iter().product::<usize>() * 4;
            let slab = (SLAB_BYTES_MAX / row_bytes).max(1);
            for start in (0..shape[0]).step_by(slab) {
                let rows = self.source.read(name, start..(start + slab).min(shape[0]))?;
                append(&mut numbers, &rows).map_err(|source| LoadError::Convert {
                    name: self.source.spelling(name),
                    source,
                })?;
            }
        }
        assert_eq!(numbers.len(), len, "a source answered with other rows than asked for");
        Ok(numbers)
    }

    fn check_shape(&self, name: TensorName, expected: &[usize]) -> Result<(), LoadError> {
        let Some(found) = self.source.shape(name) else {
            return Err(LoadError::TensorMissing(self.source.spelling(name)));
        };
        if found != expected {
            return Err(LoadError::TensorShape {
                name: self.source.spelling(name),
                expected: expected.to_vec(),
                found: found.to_vec(),
            });
        }
        Ok(())
    }

    /// A bias in the file that the config does not mention would be dropped in silence.
    fn refuse_unused_biases(&self) -> Result<(), LoadError> {
        for layer in 0..self.config.layers {
            for projection in Projection::ALL {
                let name = TensorName::Layer(layer, LayerTensor::Bias(projection));
                if !self.config.has_bias(projection) && self.source.shape(name).is_some() {
                    return Err(LoadError::TensorUnexpected(self.source.spelling(name)));
                }
            }
        }
        Ok(())
    }
}

fn append(numbers: &mut Numbers, rows: &Tensor) -> candle_core::Result<()> {
    let rows = rows.flatten_all()?;
    match numbers {
        Numbers::F32(to) => to.extend(rows.to_dtype(DType::F32)?.to_vec1::<f32>()?),
        Numbers::Bf16(to) => to.extend(rows.to_dtype(DType::BF16)?.to_vec1::<half::bf16>()?),
    }
    Ok(())
}

/// SplitMix64: two numbers per multiplication chain, fast enough to fill a gigabyte in a second.
struct Random {
    state: u64,
}

impl Random {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `[-scale, scale)`, of the variance that keeps activations near 1.
    fn linear(&mut self, rows: usize, cols: usize, format: Format, bias: bool) -> Linear {
        let scale = (3.0 / cols as f32).sqrt();
        let bias = bias.then(|| self.uniform(rows, 0.1).collect());
        let len = rows * cols;
        let numbers = match format {
            Format::F32 => Numbers::F32(self.uniform(len, scale).collect()),
            Format::Bf16 => {
                Numbers::Bf16(self.uniform(len, scale).map(half::bf16::from_f32).collect())
            }
        };
        Linear { numbers, rows, cols, bias }
    }

    fn uniform(&mut self, len: usize, scale: f32) -> impl Iterator<Item = f32> {
        let mut pending = None;
        (0..len).map(move |_| {
            let bits = pending.take().unwrap_or_else(|| {
                let bits = self.next();
                pending = Some((bits >> 32) as u32);
                bits as u32
            });
            (bits as i32) as f32 * (scale / 2f32.powi(31))
        })
    }
}
