//! What is measured: a model, or random weights of a shape.

use models::config::DecoderConfig;
use models::model::{self, LoadedModel};
use serde::Serialize;

use super::{CONTEXT, Common, Failure};
use crate::app::LocalError;
use crate::config::{ModelConfig, ModelPath};

/// Weights that are made up are the same in every run.
const SEED: u64 = 1;

pub(super) struct Subject {
    pub(super) name: String,
    pub(super) model: LoadedModel,
    /// Tokens in the cache before what is measured, or of the prompt that is read.
    pub(super) context: usize,
}

impl Subject {
    /// `tokens`: how many come after the context.
    pub(super) fn load(
        common: &Common,
        config: &ModelConfig,
        tokens: usize,
    ) -> Result<Self, Failure> {
        let (name, model) = match &common.shape {
            None => {
                let source = config.path.source();
                let model = model::load(&source, config.quant, config.kv);
                (source.name(), model.map_err(LocalError::from)?)
            }
            Some(_) if config.path != ModelPath::Builtin => {
                return Err(Failure::Other("--shape is instead of a model, not beside one".into()));
            }
            Some(shape) => {
                let model = LoadedModel::random(self::shape(shape)?, config.quant, config.kv, SEED);
                (format!("{shape} (random weights)"), model)
            }
        };
        let context = config.context.unwrap_or(CONTEXT);
        let most = model.config.context;
        if context + tokens > most {
            return Err(Failure::Other(format!(
                "{context} tokens of context and {tokens} after them are more than the model's \
                 {most}"
            )));
        }
        if common.runs == 0 {
            return Err(Failure::Other("--runs must be at least 1".into()));
        }
        Ok(Self { name, model, context })
    }
}

fn shape(name: &str) -> Result<DecoderConfig, Failure> {
    DecoderConfig::of_shape(name).ok_or_else(|| {
        let known: Vec<_> = DecoderConfig::shapes().collect();
        // The one shape that people who compare engines will miss.
        let why = if name.starts_with("starcoder2") {
            " (StarCoder2 has LayerNorm and an MLP without a gate, which this decoder does not run)"
        } else {
            ""
        };
        Failure::Other(format!("--shape must be one of {}{why}", known.join(", ")))
    })
}

/// What every report says of its subject and of where it ran.
#[derive(Debug, Serialize)]
pub(super) struct Circumstances {
    pub(super) model: String,
    pub(super) parameters: u64,
    /// Format of the weights.
    pub(super) quant: String,
    /// Format of the KV cache.
    pub(super) kv: String,
    pub(super) isa: String,
    pub(super) threads: usize,
    pub(super) context: usize,
    pub(super) runs: usize,
}

impl std::fmt::Display for Circumstances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { model, quant, kv, isa, threads, context, runs, .. } = self;
        writeln!(f, "model      {model}, {:.1} million parameters", self.parameters as f64 / 1e6)?;
        writeln!(f, "format     weights {quant}, KV {kv}; {isa}, {threads} threads")?;
        writeln!(f, "work       {context} tokens of context, median of {runs}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_does_not_exist_is_answered_with_those_that_do() {
        for (name, why) in [("qwen", false), ("starcoder2-3b", true)] {
            let said = shape(name).unwrap_err().to_string();
            for known in DecoderConfig::shapes() {
                assert!(said.contains(known), "{said}");
            }
            assert_eq!(said.contains("LayerNorm"), why, "{said}");
        }
        assert!(shape("qwen2.5-coder-3b").is_ok());
    }
}
