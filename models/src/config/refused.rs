//! Keys that change the mathematics in ways this decoder does not implement.

use serde_json::Value;

use super::json::{Keys, shown};
use crate::error::LoadError;

/// The value at which a key changes nothing (null and absence never do).
#[derive(Clone, Copy)]
enum Neutral {
    Nothing,
    False,
    /// The number that multiplies or divides without effect.
    Number(f64),
    /// Zero or one: counts of experts and groups.
    AtMostOne,
    /// These strings, or a list of nothing else.
    Text(&'static [&'static str]),
}

use Neutral::{AtMostOne, False, Nothing, Number, Text};

const KEYS: &[(&str, Neutral)] = &[
    ("hidden_act", Text(&["silu", "swish"])),
    ("hidden_activation", Text(&["silu", "swish"])),
    ("layer_types", Text(&["full_attention"])),
    ("position_embedding_type", Text(&["rope", "rotary"])),
    ("use_sliding_window", False),
    ("quantization_config", Nothing),
    ("quantization", Nothing),
    ("compression_config", Nothing),
    ("partial_rotary_factor", Number(1.0)),
    ("rotary_pct", Number(1.0)),
    ("rope_interleaved", False),
    ("rope_local_base_freq", Nothing),
    ("no_rope_layers", Nothing),
    ("no_rope_layer_interval", Nothing),
    ("alibi", False),
    ("logit_scale", Number(1.0)),
    ("logits_scaling", Number(1.0)),
    ("embedding_multiplier", Number(1.0)),
    ("residual_multiplier", Number(1.0)),
    ("attention_multiplier", Nothing),
    ("scale_emb", Number(1.0)),
    ("scale_depth", Nothing),
    ("dim_model_base", Nothing),
    ("query_pre_attn_scalar", Nothing),
    ("final_logit_softcapping", Nothing),
    ("attn_logit_softcapping", Nothing),
    ("attn_logit_softcap", Nothing),
    ("clip_qkv", Nothing),
    ("qk_norm", False),
    ("use_qk_norm", False),
    ("use_parallel_residual", False),
    ("parallel_attn", False),
    ("num_experts", AtMostOne),
    ("num_local_experts", AtMostOne),
    ("n_routed_experts", AtMostOne),
    ("moe_intermediate_size", Nothing),
    ("kv_lora_rank", Nothing),
    ("q_lora_rank", Nothing),
    ("is_encoder_decoder", False),
    ("add_cross_attention", False),
];

pub(super) fn check(keys: &Keys<'_>) -> Result<(), LoadError> {
    for (key, neutral) in KEYS {
        refuse_unless(keys, key, *neutral)?;
    }
    // Qwen2 configs name a window and switch it off; elsewhere a window is in force.
    if keys.get("use_sliding_window").is_none() {
        refuse_unless(keys, "sliding_window", Nothing)?;
    }
    Ok(())
}

/// The same for the keys of the rope's own object.
pub(super) fn check_rope(keys: &Keys<'_>) -> Result<(), LoadError> {
    refuse_unless(keys, "partial_rotary_factor", Number(1.0))?;
    refuse_unless(keys, "mrope_section", Nothing)?;
    // One rope per kind of layer.
    match keys.iter().find(|(_, value)| value.is_object()) {
        Some((key, _)) => refuse_unless(keys, key, Nothing),
        None => Ok(()),
    }
}

fn refuse_unless(keys: &Keys<'_>, key: &str, neutral: Neutral) -> Result<(), LoadError> {
    match keys.get(key) {
        Some(value) if !neutral.is(value) => {
            Err(LoadError::KeyUnsupported { key: keys.name(key), value: shown(value) })
        }
        _ => Ok(()),
    }
}

impl Neutral {
    fn is(self, value: &Value) -> bool {
        match self {
            Nothing => false,
            False => value == &Value::Bool(false),
            Number(number) => value.as_f64() == Some(number),
            AtMostOne => value.as_u64().is_some_and(|count| count <= 1),
            Text(texts) => match value {
                Value::Array(all) => all.iter().all(|one| texts.iter().any(|text| one == text)),
                one => texts.iter().any(|text| one == text),
            },
        }
    }
}
