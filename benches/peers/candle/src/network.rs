//! The models of candle-transformers that have weir's shapes, unchanged.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{quantized_llama, quantized_qwen2, qwen2};

enum Model {
    QuantizedQwen2(quantized_qwen2::ModelWeights),
    QuantizedLlama(quantized_llama::ModelWeights),
    Qwen2(qwen2::ModelForCausalLM),
}

pub struct Network {
    model: Model,
    vocab: usize,
    weights: String,
}

impl Network {
    /// A GGUF file, or a Hugging Face folder of a Qwen2 model whose weights become `dtype`.
    pub fn load(path: &Path, dtype: DType) -> Result<Self> {
        match path.is_dir() {
            true => Self::folder(path, dtype),
            false => Self::gguf(path),
        }
    }

    fn gguf(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        let content = Content::read(&mut file)?;
        let architecture =
            content.metadata.get("general.architecture").context("no architecture")?;
        let architecture = architecture.to_string()?.clone();
        let embedding = &content.tensor_infos["token_embd.weight"];
        let vocab = embedding.shape.dims()[0];
        let body = &content.tensor_infos["blk.0.ffn_up.weight"];
        let weights = format!("body {:?}, embedding {:?}", body.ggml_dtype, embedding.ggml_dtype);
        let model = match architecture.as_str() {
            "qwen2" => Model::QuantizedQwen2(quantized_qwen2::ModelWeights::from_gguf(
                content,
                &mut file,
                &Device::Cpu,
            )?),
            "llama" => Model::QuantizedLlama(quantized_llama::ModelWeights::from_gguf(
                content,
                &mut file,
                &Device::Cpu,
            )?),
            other => bail!("{other} is not among the models compared"),
        };
        Ok(Self { model, vocab, weights })
    }

    fn folder(path: &Path, dtype: DType) -> Result<Self> {
        let config = std::fs::read(path.join("config.json"))?;
        let config: qwen2::Config = serde_json::from_slice(&config)?;
        let tensors = candle_core::safetensors::load(path.join("model.safetensors"), &Device::Cpu)?;
        let builder = VarBuilder::from_tensors(tensors, dtype, &Device::Cpu);
        let model = Model::Qwen2(qwen2::ModelForCausalLM::new(&config, builder)?);
        Ok(Self { model, vocab: config.vocab_size, weights: format!("{dtype:?}") })
    }

    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// How the weights are stored.
    pub fn weights(&self) -> String {
        self.weights.clone()
    }

    /// Logits of the last token of every sequence of `ids`, `[batch, tokens]`.
    pub fn forward(&mut self, ids: &Tensor, position: usize) -> Result<Tensor> {
        Ok(match &mut self.model {
            Model::QuantizedQwen2(model) => model.forward(ids, position)?,
            Model::QuantizedLlama(model) => model.forward(ids, position)?,
            Model::Qwen2(model) => model.forward(ids, position)?,
        })
    }

    pub fn clear(&mut self) {
        match &mut self.model {
            Model::QuantizedQwen2(model) => model.clear_kv_cache(),
            Model::QuantizedLlama(model) => model.clear_kv_cache(),
            Model::Qwen2(model) => model.clear_kv_cache(),
        }
    }
}
