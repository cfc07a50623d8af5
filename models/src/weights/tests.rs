use ::safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use half::{bf16, f16};

use super::*;
use candle_core::{DType, Tensor};
use kernels::{GateUp, Packing};

use crate::model::{LoadedModel, ModelSource, load};
use crate::{KvFormat, Quant};

/// More than one slab of embedding (`[5000, 64]`), biases everywhere, an untied head.
const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 64,
    "intermediate_size": 90, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 5000, "attention_bias": true, "mlp_bias": true}"#;

/// A tensor's numbers, different for every tensor, exact in no 16-bit format.
fn numbers(config: &DecoderConfig, name: TensorName) -> Vec<f32> {
    let salt = source::LLAMA.of(name).bytes().fold(7u64, |h, b| h * 31 % 99991 + u64::from(b));
    let len: usize = config.shape(name).iter().product();
    Random::new(salt).uniform(len, 1.7).into_iter().map(|x| x * 1.00001).collect()
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

/// The rows of a matrix, one after the other.
fn widened(packed: &Packed, rows: impl Iterator<Item = usize>) -> Vec<f32> {
    let mut row = vec![0.0; packed.cols()];
    let mut wide = Vec::new();
    for i in rows {
        packed.gather(i, &mut row);
        wide.extend_from_slice(&row);
    }
    wide
}

fn all(packed: &Packed) -> Vec<f32> {
    widened(packed, 0..packed.rows())
}

/// What reaches memory, by where it was rounded: in the file, then in the packed format.
#[test]
fn every_tensor_arrives_in_its_place_and_format() {
    type Round = fn(f32) -> f32;
    let keep: Round = |x| x;
    let by_bf16: Round = |x| bf16::from_f32(x).to_f32();
    let by_f16: Round = |x| f16::from_f32(x).to_f32();
    let cases = [
        (Dtype::F32, Quant::F32, keep, keep, Packing::F32),
        (Dtype::F32, Quant::Auto, keep, keep, Packing::F32),
        (Dtype::F32, Quant::Bf16, keep, by_bf16, Packing::Bf16),
        (Dtype::F16, Quant::F32, by_f16, keep, Packing::F32),
        (Dtype::F16, Quant::Auto, by_f16, by_bf16, Packing::Bf16),
        (Dtype::BF16, Quant::Auto, by_bf16, keep, Packing::Bf16),
        (Dtype::BF16, Quant::F32, by_bf16, keep, Packing::F32),
    ];
    for (stored, quant, file, packed, packing) in cases {
        let model = loaded(stored, quant);
        let what = format!("{stored} as {quant:?}");
        assert_eq!(model.weight_format(), WeightFormat { body: packing, head: packing }, "{what}");
        let kv =
            if packing == Packing::F32 { kernels::KvFormat::F32 } else { kernels::KvFormat::Bf16 };
        assert_eq!(model.kv_format, kv, "{what}");
        let wanted = |names: &[TensorName], round: Round| -> Vec<f32> {
            let all = names.iter().flat_map(|&name| numbers(&model.config, name));
            all.map(|x| round(file(x))).collect()
        };
        let weights = &model.weights;
        assert_eq!(all(&weights.embedding), wanted(&[TensorName::Embedding], packed), "{what}");
        assert_eq!(all(weights.head()), wanted(&[TensorName::Head], packed), "{what}");
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
                let places: Vec<usize> = match projections {
                    [Gate, Up] => [GateUp::Gate, GateUp::Up]
                        .into_iter()
                        .flat_map(|half| (0..90).map(move |row| half.packed_row(row)))
                        .collect(),
                    _ => (0..linear.packed.rows()).collect(),
                };
                let weight = wanted(&named(LayerTensor::Weight), packed);
                let got = widened(&linear.packed, places.iter().copied());
                assert_eq!(got, weight, "{what}: {projections:?}");
                let bias = wanted(&named(LayerTensor::Bias), keep);
                let got = linear.bias().expect("a bias");
                let got: Vec<f32> = places.iter().map(|&row| got[row]).collect();
                assert_eq!(got, bias, "{what}: {projections:?}");
            }
            let norm = |tensor| wanted(&[TensorName::Layer(i, tensor)], keep);
            assert_eq!(layer.attention_norm, norm(LayerTensor::AttentionNorm), "{what}");
            assert_eq!(layer.mlp_norm, norm(LayerTensor::MlpNorm), "{what}");
        }
    }
}

#[test]
fn auto_keeps_small_f32_checkpoints_and_quantises_large_ones() {
    let tensors = |dtype: &'static str| Stored { dtype };
    let small = DecoderConfig::parse(CONFIG.as_bytes(), None).expect("a config");
    let large = DecoderConfig::of_shape("qwen2.5-coder-0.5b").expect("a known shape");
    for (config, dtype, quant, wanted) in [
        (&small, "f32", Quant::Auto, "f32"),
        (&small, "f16", Quant::Auto, "bf16"),
        (&small, "f16", Quant::Q8, "q8"),
        (&large, "f32", Quant::Auto, "q8"),
        (&large, "bf16", Quant::Auto, "q8"),
        (&large, "bf16", Quant::Bf16, "bf16"),
        (&large, "bf16", Quant::Q4, "q4, head q8"),
    ] {
        let format = crate::model::weight_format(quant, config, &tensors(dtype));
        assert_eq!(format.expect("a supported type").to_string(), wanted);
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
    let config = DecoderConfig { vocab: 40_000, ..config };
    for quant in [Quant::F32, Quant::Bf16, Quant::Q8, Quant::Q4] {
        let format = WeightFormat::choose(quant, config.parameters(), DType::F32);
        let weights = Weights::random(&config, format, 5);
        let same = Weights::random(&config, format, 5);
        let other = Weights::random(&config, format, 6);
        let qkv = |weights: &Weights| weights.layers[1].qkv.packed.bytes().to_vec();
        assert_eq!(qkv(&weights), qkv(&same));
        assert_ne!(qkv(&weights), qkv(&other));
        for matrix in [&weights.embedding, &weights.layers[0].gate_up.packed] {
            let numbers = all(matrix);
            let mean_square = numbers.iter().map(|x| x * x).sum::<f32>() / numbers.len() as f32;
            assert!((mean_square * 64.0 - 1.0).abs() < 0.1, "{quant:?}: {mean_square}");
            let row = |row| widened(matrix, row..row + 1);
            assert!((1..matrix.rows()).all(|i| row(i) != row(0)), "{quant:?}: rows repeat");
        }
    }
}

/// What a token costs, by hand.
#[test]
fn bytes_of_a_step_are_what_the_shape_says() {
    let config = DecoderConfig::of_shape("qwen2.5-coder-0.5b").expect("a known shape");
    let layer = (896 + 2 * 128) * 896 + 896 * 896 + 2 * 4864 * 896 + 896 * 4864;
    let (body, head) = (24 * layer, 151_936 * 896);
    // Norms and the biases of q, k and v.
    let f32s = 24 * (2 * 896 + 896 + 2 * 128) + 896;
    for (quant, body_bits, head_bits) in [
        (Quant::Bf16, 16.0, 16.0),
        // A scale of 16 bits for each 32 weights.
        (Quant::Q8, 8.5, 8.5),
        (Quant::Q4, 4.5, 8.5),
    ] {
        let format = WeightFormat::choose(quant, config.parameters(), DType::BF16);
        let weights = Weights::random(&config, format, 1);
        let bits = body_bits * f64::from(body) + head_bits * f64::from(head);
        assert_eq!(weights.bytes_per_step(), bits as usize / 8 + 4 * f32s, "{quant:?}");
        assert_eq!(weights.bytes(), weights.bytes_per_step());
    }
    let untied = DecoderConfig { tied: false, layers: 1, vocab: 32, ..config };
    let format = WeightFormat::choose(Quant::Q8, 0, DType::BF16);
    let weights = Weights::random(&untied, format, 1);
    assert_eq!(weights.bytes() - weights.bytes_per_step(), 32 * 896 * 34 / 32);
    assert_eq!(format, WeightFormat { body: Packing::Q8, head: format.body });
}

#[test]
fn the_embedded_model_is_what_its_card_says() {
    let model = load(&ModelSource::Builtin, Quant::Auto, KvFormat::Auto).expect("embedded");
    assert_eq!(model.weight_format().to_string(), "q8");
    assert_eq!(model.kv_format, kernels::KvFormat::Bf16);
    assert_eq!(model.config.parameters(), 7_999_744);
    assert_eq!(model.config.context, 2048);
    assert_eq!(model.config.eos_ids, [0]);
    assert_eq!(model.kv_bytes_per_token(), 2 * 8 * 2 * 64 * 2);
    let mixed = load(&ModelSource::Builtin, Quant::Bf16, KvFormat::F32).expect("embedded");
    assert_eq!(
        (mixed.weight_format().body, mixed.kv_format),
        (Packing::Bf16, kernels::KvFormat::F32)
    );
}
