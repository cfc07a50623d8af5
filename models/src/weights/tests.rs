use ::safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use half::{bf16, f16};

use super::*;
use crate::model::{LoadedModel, ModelSource, load};
use crate::{KvFormat, Quant};

/// More than one slab of embedding (`[5000, 64]`), biases everywhere, an untied head.
const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 5000, "attention_bias": true, "mlp_bias": true}"#;

/// A tensor's numbers, different for every tensor, exact in no 16-bit format.
fn numbers(config: &DecoderConfig, name: TensorName) -> Vec<f32> {
    let salt = source::LLAMA.of(name).bytes().fold(7u64, |h, b| h * 31 % 99991 + u64::from(b));
    let len: usize = config.shape(name).iter().product();
    Random { state: salt }.uniform(len, 1.7, |x| x * 1.00001)
}

fn names(config: &DecoderConfig) -> Vec<TensorName> {
    let mut names = vec![TensorName::Embedding, TensorName::FinalNorm, TensorName::Head];
    for layer in 0..config.layers {
        let mut push = |tensor| names.push(TensorName::Layer(layer, tensor));
        push(LayerTensor::AttentionNorm);
        push(LayerTensor::MlpNorm);
        for projection in Projection::ALL {
            push(LayerTensor::Weight(projection));
            push(LayerTensor::Bias(projection));
        }
    }
    names
}

/// Writes a checkpoint of one type and loads it.
fn loaded(stored: Dtype, quant: Quant) -> LoadedModel {
    let config = DecoderConfig::parse(CONFIG.as_bytes(), None).expect("a config");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = names(&config)
        .into_iter()
        .map(|name| {
            let bytes = numbers(&config, name).into_iter().flat_map(|x| match stored {
                Dtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
                Dtype::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
                _ => x.to_le_bytes().to_vec(),
            });
            (source::LLAMA.of(name), config.shape(name), bytes.collect())
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(stored, shape.clone(), bytes).expect("a tensor"))
    });
    serialize_to_file(views, None, &folder.path().join("model.safetensors")).expect("written");
    std::fs::write(folder.path().join("config.json"), CONFIG).expect("written");
    let source = ModelSource::Directory(folder.path().to_owned());
    load(&source, quant, KvFormat::Auto).unwrap_or_else(|error| panic!("{error}"))
}

fn widened(linear: &Linear) -> Vec<f32> {
    let mut wide = vec![0.0; linear.numbers.len()];
    kernels::to_f32(linear.numbers.elems(), &mut wide);
    wide
}

/// What reaches memory, by where it was rounded: in the file, then in the packed format.
#[test]
fn every_tensor_arrives_in_its_place_and_format() {
    type Round = fn(f32) -> f32;
    let keep: Round = |x| x;
    let by_bf16: Round = |x| bf16::from_f32(x).to_f32();
    let by_f16: Round = |x| f16::from_f32(x).to_f32();
    let cases = [
        (Dtype::F32, Quant::F32, keep, keep, Format::F32),
        (Dtype::F32, Quant::Auto, keep, keep, Format::F32),
        (Dtype::F32, Quant::Bf16, keep, by_bf16, Format::Bf16),
        (Dtype::F16, Quant::F32, by_f16, keep, Format::F32),
        (Dtype::F16, Quant::Auto, by_f16, by_bf16, Format::Bf16),
        (Dtype::BF16, Quant::Auto, by_bf16, keep, Format::Bf16),
        (Dtype::BF16, Quant::F32, by_bf16, keep, Format::F32),
    ];
    for (stored, quant, file, packed, format) in cases {
        let model = loaded(stored, quant);
        let what = format!("{stored} as {quant:?}");
        assert_eq!(model.weight_format(), format, "{what}");
        let kv =
            if format == Format::F32 { kernels::KvFormat::F32 } else { kernels::KvFormat::Bf16 };
        assert_eq!(model.kv_format, kv, "{what}");
        let wanted = |names: &[TensorName], round: Round| -> Vec<f32> {
            let all = names.iter().flat_map(|&name| numbers(&model.config, name));
            all.map(|x| round(file(x))).collect()
        };
        let weights = &model.weights;
        assert_eq!(widened(&weights.embedding), wanted(&[TensorName::Embedding], packed), "{what}");
        assert_eq!(widened(weights.head()), wanted(&[TensorName::Head], packed), "{what}");
        assert_eq!(weights.final_norm, wanted(&[TensorName::FinalNorm], keep), "{what}");
        for (i, layer) in weights.layers.iter().enumerate() {
            use Projection::{Down, Gate, K, O, Q, Up, V};
            let linears: [(&Linear, &[Projection]); 4] = [
                (&layer.qkv, &[Q, K, V]),
                (&layer.o, &[O]),
                (&layer.gate_up, &[Gate, Up]),
                (&layer.down, &[Down]),
            ];
            for (linear, projections) in linears {
                let named = |tensor: fn(Projection) -> LayerTensor| -> Vec<TensorName> {
                    projections.iter().map(|&p| TensorName::Layer(i, tensor(p))).collect()
                };
                let weight = wanted(&named(LayerTensor::Weight), packed);
                assert_eq!(widened(linear), weight, "{what}: {projections:?}");
                let bias = wanted(&named(LayerTensor::Bias), keep);
                assert_eq!(linear.bias(), Some(bias.as_slice()), "{what}: {projections:?}");
            }
            let norm = |tensor| wanted(&[TensorName::Layer(i, tensor)], keep);
            assert_eq!(layer.attention_norm, norm(LayerTensor::AttentionNorm), "{what}");
            assert_eq!(layer.mlp_norm, norm(LayerTensor::MlpNorm), "{what}");
        }
    }
}

#[test]
fn auto_keeps_small_f32_checkpoints_and_nothing_else() {
    let tensors = |dtype: &'static str| Stored { dtype };
    let small = DecoderConfig::parse(CONFIG.as_bytes(), None).expect("a config");
    let large = DecoderConfig::of_shape("qwen2.5-coder-0.5b").expect("a known shape");
    for (config, dtype, wanted) in [
        (&small, "f32", Format::F32),
        (&small, "f16", Format::Bf16),
        (&large, "f32", Format::Bf16),
        (&large, "bf16", Format::Bf16),
    ] {
        let format = crate::model::weight_format(Quant::Auto, config, &tensors(dtype));
        assert_eq!(format.expect("a supported type"), wanted);
    }
}

/// A source that knows its type and nothing else.
struct Stored {
    dtype: &'static str,
}

impl WeightSource for Stored {
    fn shape(&self, _: TensorName) -> Option<&[usize]> {
        None
    }

    fn dtype(&self, _: TensorName) -> Result<DType, LoadError> {
        Ok(self.dtype.parse().expect("a type of candle"))
    }

    fn read(&self, name: TensorName, _: std::ops::Range<usize>) -> Result<Tensor, LoadError> {
        Err(LoadError::TensorMissing(self.spelling(name)))
    }

    fn spelling(&self, name: TensorName) -> String {
        source::LLAMA.of(name)
    }
}

#[test]
fn random_weights_are_of_the_shape_and_repeat_with_the_seed() {
    let config = DecoderConfig::parse(CONFIG.as_bytes(), None).expect("a config");
    for format in [Format::F32, Format::Bf16] {
        let weights = Weights::random(&config, format, 5);
        let same = Weights::random(&config, format, 5);
        let other = Weights::random(&config, format, 6);
        assert_eq!(weights.layers[1].qkv.numbers, same.layers[1].qkv.numbers);
        assert_ne!(weights.layers[1].qkv.numbers, other.layers[1].qkv.numbers);
        // Norms and biases are f32 in both.
        let f32s = config.layers * (2 * 64 + (128 + 64 + 192 + 64)) + 64;
        let matrices = config.parameters() as usize - f32s;
        assert_eq!(weights.bytes(), 4 * f32s + format.bytes() * matrices);
        assert_eq!(weights.bytes_per_step(), weights.bytes() - weights.embedding.bytes());
        let down = widened(&weights.layers[0].down);
        let mean_square = down.iter().map(|x| x * x).sum::<f32>() / down.len() as f32;
        assert!((mean_square * 96.0 - 1.0).abs() < 0.1, "{mean_square}");
    }
}

#[test]
fn the_embedded_model_is_what_its_card_says() {
    let model = load(&ModelSource::Builtin, Quant::Auto, KvFormat::Auto).expect("embedded");
    assert_eq!((model.weight_format(), model.kv_format), (Format::Bf16, kernels::KvFormat::Bf16));
    assert_eq!(model.config.parameters(), 13_048_320 / 2);
    assert_eq!(model.config.eos_ids, [0]);
    assert_eq!(model.kv_bytes_per_token(), 2 * 6 * 2 * 64 * 2);
    let mixed = load(&ModelSource::Builtin, Quant::Bf16, KvFormat::F32).expect("embedded");
    assert_eq!((mixed.weight_format(), mixed.kv_format), (Format::Bf16, kernels::KvFormat::F32));
}
