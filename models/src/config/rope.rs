//! Rotary position embedding as config.json describes it, in the spelling of transformers 4
//! (`rope_theta`, `rope_scaling` with `type` or `rope_type`) or 5 (`rope_parameters`).

use super::json::{Keys, invalid};
use super::refused;
use crate::error::LoadError;

const THETA_MAX: f64 = 1e12;
const FACTOR_MAX: f64 = 1e6;

/// Base and scaling of the rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// How frequencies are stretched beyond the context of pretraining.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// Every frequency divided by the factor.
    Linear {
        factor: f64,
    },
    /// Low frequencies divided by the factor, high ones kept, a blend between them.
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        /// Context of pretraining, in tokens.
        original_context: usize,
    },
}

impl Default for RopeConfig {
    fn default() -> Self {
        Self { theta: 10000.0, scaling: RopeScaling::None }
    }
}

impl RopeConfig {
    /// `context` stands in for an absent context of pretraining.
    pub(super) fn parse(
        keys: &Keys<'_>,
        context: usize,
        context_max: usize,
    ) -> Result<Self, LoadError> {
        let old = keys.nested("rope_scaling", "rope_scaling.")?;
        let new = keys.nested("rope_parameters", "rope_parameters.")?;
        let outer = keys.number("rope_theta", 1.0..=THETA_MAX)?;
        // transformers prefers the old key where a file has both.
        let Some(rope) = old.or(new) else {
            return Ok(Self { theta: outer.unwrap_or(10000.0), scaling: RopeScaling::None });
        };
        refused::check_rope(&rope)?;
        let inner = rope.number("rope_theta", 1.0..=THETA_MAX)?;
        let original = keys
            .optional_count("original_max_position_embeddings", context_max)?
            .or(rope.optional_count("original_max_position_embeddings", context_max)?)
            .unwrap_or(context);
        Ok(Self {
            theta: inner.or(outer).unwrap_or(10000.0),
            scaling: RopeScaling::parse(&rope, original)?,
        })
    }
}

impl RopeScaling {
    fn parse(rope: &Keys<'_>, original_context: usize) -> Result<Self, LoadError> {
        let key = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
        let Some(kind) = rope.get(key) else { return Ok(RopeScaling::None) };
        match kind.as_str() {
            Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear { factor: factor(rope, "factor")? }),
            Some("llama3") => {
                let low_freq_factor = factor(rope, "low_freq_factor")?;
                let high_freq_factor = factor(rope, "high_freq_factor")?;
                if high_freq_factor <= low_freq_factor {
                    let key = rope.name("high_freq_factor");
                    let expected = format!("above low_freq_factor ({low_freq_factor})");
                    return Err(invalid(&key, expected, high_freq_factor));
                }
                let factor = factor(rope, "factor")?;
                Ok(RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_context,
                })
            }
            _ => Err(LoadError::KeyUnsupported {
                key: rope.name(key),
                value: super::json::shown(kind),
            }),
        }
    }
}

fn factor(rope: &Keys<'_>, key: &'static str) -> Result<f64, LoadError> {
    rope.number(key, 1e-3..=FACTOR_MAX)?.ok_or(LoadError::KeyMissing { key })
}
