use serde_json::json;

use super::*;

/// A small Llama, with some keys replaced (null: removed).
fn parse(keys: Value) -> Result<DecoderConfig, LoadError> {
    parse_with(keys, None)
}

fn parse_with(keys: Value, generation: Option<Value>) -> Result<DecoderConfig, LoadError> {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
    });
    let all = config.as_object_mut().expect("an object");
    all.extend(keys.as_object().expect("an object").clone());
    let generation = generation.map(|generation| generation.to_string());
    DecoderConfig::parse(config.to_string().as_bytes(), generation.as_ref().map(|g| g.as_bytes()))
}

#[test]
fn silence_means_what_transformers_means() {
    let config = parse(json!({})).expect("a config");
    assert_eq!((config.kv_heads, config.head_dim, config.context), (4, 16, 2048));
    assert_eq!((config.rms_eps, config.tied), (1e-6, false));
    assert_eq!(config.rope, RopeConfig { theta: 10000.0, scaling: RopeScaling::None });
    assert_eq!(config.biases, Biases::default());
    assert!(config.eos_ids.is_empty());
    let qwen = parse(json!({ "architectures": null, "model_type": "qwen2" })).expect("a config");
    assert_eq!(qwen.biases, Biases { qkv: true, o: false, mlp: false });
    assert_eq!(qwen.context, 32768);
}

#[test]
fn eos_is_absent_one_or_several_and_from_both_files() {
    let eos = |value: Value, generation: Option<Value>| {
        let generation = generation.map(|ids| json!({ "eos_token_id": ids }));
        parse_with(json!({ "eos_token_id": value }), generation).expect("a config").eos_ids
    };
    assert_eq!(eos(Value::Null, None), [0u32; 0]);
    assert_eq!(eos(json!(7), None), [7]);
    assert_eq!(eos(json!([7, 8, 7]), None), [7, 8]);
    assert_eq!(eos(json!(7), Some(json!([9, 7]))), [7, 9]);
    assert_eq!(eos(Value::Null, Some(json!(3))), [3]);
    assert_eq!(eos(json!(5), Some(Value::Null)), [5]);
}

#[test]
fn both_spellings_of_rope_mean_the_same() {
    let linear = RopeConfig { theta: 5e5, scaling: RopeScaling::Linear { factor: 2.0 } };
    let llama3 = RopeConfig {
        theta: 5e5,
        scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 2048,
        },
    };
    let scaled = json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0 });
    let mut scaled_new = scaled.clone();
    scaled_new["rope_theta"] = json!(500000);
    let cases = [
        (json!({ "rope_theta": 5e5, "rope_scaling": { "type": "linear", "factor": 2 } }), linear),
        (
            json!({ "rope_theta": 5e5, "rope_scaling": { "rope_type": "linear", "factor": 2.0 } }),
            linear,
        ),
        (
            json!({ "rope_parameters": { "rope_type": "linear", "rope_theta": 5e5, "factor": 2 } }),
            linear,
        ),
        (json!({ "rope_theta": 5e5, "rope_scaling": scaled }), llama3),
        (json!({ "rope_parameters": scaled_new }), llama3),
        (
            json!({ "rope_theta": 5e5, "rope_scaling": null,
                "rope_parameters": { "rope_type": "default" } }),
            RopeConfig { theta: 5e5, scaling: RopeScaling::None },
        ),
    ];
    for (keys, wanted) in cases {
        assert_eq!(parse(keys.clone()).expect("a config").rope, wanted, "{keys}");
    }
}

#[test]
fn keys_that_change_nothing_are_accepted() {
    for keys in [
        json!({ "hidden_act": "silu", "partial_rotary_factor": 1.0, "logit_scale": 1 }),
        json!({ "use_sliding_window": false, "sliding_window": 32768, "max_window_layers": 21 }),
        json!({ "quantization_config": null, "num_local_experts": 0, "pretraining_tp": 2 }),
        json!({ "layer_types": ["full_attention", "full_attention"], "sliding_window": null }),
        json!({ "torch_dtype": "bfloat16", "dtype": "float32", "some_future_key": { "a": 1 } }),
    ] {
        assert!(parse(keys.clone()).is_ok(), "{keys}");
    }
}

#[test]
fn shapes_have_the_parameters_that_their_cards_name() {
    let of = |name| DecoderConfig::of_shape(name).expect("a known shape").parameters();
    assert_eq!(of("qwen2.5-coder-0.5b"), 494_032_768);
    assert_eq!(of("qwen2.5-coder-1.5b"), 1_543_714_304);
    assert_eq!(of("qwen2.5-coder-3b"), 3_085_938_688);
    assert_eq!(DecoderConfig::of_shape("qwen"), None);
    assert_eq!(DecoderConfig::shapes().count(), SHAPES.len());
}
