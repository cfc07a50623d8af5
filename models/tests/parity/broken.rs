//! Files that are not what they should be: a sentence that names the trouble, never a panic.

use std::fs;
use std::path::Path;

use models::model::{ModelSource, load};
use models::{KvFormat, Quant};
use tempfile::TempDir;

use crate::session::fixtures;

/// A copy of a fixture to break.
fn copy_of(name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for entry in fs::read_dir(fixtures().join(name)).expect("a fixture") {
        let path = entry.expect("a fixture").path();
        fs::copy(&path, folder.path().join(path.file_name().expect("a file"))).expect("a copy");
    }
    folder
}

/// The message with which a folder is refused.
fn refusal(folder: &Path) -> String {
    let source = ModelSource::Directory(folder.to_owned());
    let error = load(&source, Quant::Auto, KvFormat::Auto).err().expect("a refusal");
    let root = folder.display().to_string();
    let message = error.to_string();
    assert!(!message.is_empty() && message.len() < 400, "{message}");
    message.replace(&root, "DIR")
}

/// Config keys (JSON to merge over a working config), and what the refusal must mention.
const CONFIGS: &[(&str, &str)] = &[
    (r#"{"hidden_size": 0}"#, "hidden_size"),
    (r#"{"hidden_size": -32}"#, "hidden_size"),
    (r#"{"hidden_size": 32.5}"#, "hidden_size"),
    (r#"{"hidden_size": "32"}"#, "hidden_size"),
    (r#"{"hidden_size": 18446744073709551615}"#, "hidden_size"),
    (r#"{"hidden_size": 1e300}"#, "hidden_size"),
    (r#"{"hidden_size": null}"#, "hidden_size is missing"),
    (r#"{"hidden_size": 64}"#, "model.embed_tokens.weight has shape [96, 32]"),
    (r#"{"hidden_size": 33, "head_dim": null}"#, "multiple of num_attention_heads"),
    (r#"{"hidden_size": 131072}"#, "embed_tokens"),
    (r#"{"vocab_size": 0}"#, "vocab_size"),
    (r#"{"vocab_size": 4194304}"#, "embed_tokens"),
    (r#"{"vocab_size": 4194305}"#, "vocab_size"),
    (r#"{"intermediate_size": 0}"#, "intermediate_size"),
    (r#"{"intermediate_size": 1048576}"#, "gate_proj"),
    (r#"{"num_hidden_layers": 0}"#, "num_hidden_layers"),
    (r#"{"num_hidden_layers": 3}"#, "model.layers.2."),
    (r#"{"num_hidden_layers": 1024}"#, "model.layers.2."),
    (r#"{"num_hidden_layers": 99999999}"#, "num_hidden_layers"),
    (r#"{"num_attention_heads": 0}"#, "num_attention_heads"),
    (r#"{"num_attention_heads": 3}"#, "num_key_value_heads"),
    (r#"{"num_key_value_heads": 0}"#, "num_key_value_heads"),
    (r#"{"num_key_value_heads": 3}"#, "num_key_value_heads"),
    (r#"{"num_key_value_heads": 2}"#, "k_proj"),
    (r#"{"head_dim": 0}"#, "head_dim"),
    (r#"{"head_dim": 7}"#, "head_dim must be even"),
    (r#"{"head_dim": 1024, "num_attention_heads": 1024, "num_key_value_heads": 1024}"#, "q_proj"),
    (r#"{"head_dim": []}"#, "head_dim"),
    (r#"{"max_position_embeddings": 0}"#, "max_position_embeddings"),
    (r#"{"max_position_embeddings": 1000000000000}"#, "max_position_embeddings"),
    (r#"{"rms_norm_eps": 0}"#, "rms_norm_eps"),
    (r#"{"rms_norm_eps": -1e-6}"#, "rms_norm_eps"),
    (r#"{"rms_norm_eps": 5}"#, "rms_norm_eps"),
    (r#"{"tie_word_embeddings": "yes"}"#, "tie_word_embeddings"),
    (r#"{"attention_bias": true}"#, "self_attn.q_proj.bias"),
    (r#"{"mlp_bias": true}"#, "mlp.gate_proj.bias"),
    (r#"{"mlp_bias": 1}"#, "mlp_bias"),
    (r#"{"eos_token_id": 96}"#, "eos_token_id"),
    (r#"{"eos_token_id": -1}"#, "eos_token_id"),
    (r#"{"eos_token_id": [1, "2"]}"#, "eos_token_id"),
    (r#"{"architectures": ["GPT2LMHeadModel"]}"#, "GPT2LMHeadModel"),
    (r#"{"architectures": null, "model_type": "gemma3"}"#, "gemma3"),
    (r#"{"architectures": null, "model_type": null}"#, "architectures"),
    (r#"{"hidden_act": "gelu"}"#, "hidden_act = \"gelu\""),
    (r#"{"use_sliding_window": true}"#, "use_sliding_window"),
    (r#"{"sliding_window": 4096}"#, "sliding_window"),
    (r#"{"layer_types": ["full_attention", "sliding_attention"]}"#, "layer_types"),
    (r#"{"partial_rotary_factor": 0.5}"#, "partial_rotary_factor"),
    (r#"{"quantization_config": {"quant_method": "gptq"}}"#, "quantization_config"),
    (r#"{"logit_scale": 0.0625}"#, "logit_scale"),
    (r#"{"final_logit_softcapping": 30.0}"#, "final_logit_softcapping"),
    (r#"{"num_local_experts": 8}"#, "num_local_experts"),
    (r#"{"residual_multiplier": 0.22}"#, "residual_multiplier"),
    (r#"{"rope_theta": 0}"#, "rope_theta"),
    (r#"{"rope_parameters": {"rope_theta": -1}}"#, "rope_parameters.rope_theta"),
    (r#"{"rope_parameters": 5}"#, "rope_parameters"),
    (r#"{"rope_scaling": {"type": "yarn", "factor": 4}}"#, "rope_scaling.type = \"yarn\""),
    (r#"{"rope_scaling": {"rope_type": "dynamic", "factor": 4}}"#, "rope_scaling.rope_type"),
    (r#"{"rope_scaling": {"rope_type": "longrope"}}"#, "rope_scaling.rope_type"),
    (r#"{"rope_scaling": {"type": "linear"}}"#, "factor"),
    (r#"{"rope_scaling": {"type": "linear", "factor": 0}}"#, "rope_scaling.factor"),
    (r#"{"rope_scaling": {"type": "linear", "factor": "2"}}"#, "rope_scaling.factor"),
    (
        r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
            "high_freq_factor": 4, "original_max_position_embeddings": 64}}"#,
        "rope_scaling.high_freq_factor",
    ),
    (
        r#"{"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
            "high_freq_factor": 4, "original_max_position_embeddings": 0}}"#,
        "rope_scaling.original_max_position_embeddings",
    ),
    (r#"{"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}"#, "full_attention"),
    (r#"{"rope_parameters": {"mrope_section": [1, 1, 2]}}"#, "mrope_section"),
];

#[test]
fn hostile_configs_are_refused_by_name() {
    let folder = copy_of("llama-mha");
    let path = folder.path().join("config.json");
    let good: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&fs::read(&path).expect("a config")).expect("a config");
    for (keys, mention) in CONFIGS {
        let mut config = good.clone();
        let keys: serde_json::Map<_, _> = serde_json::from_str(keys).expect("a table of JSON");
        config.extend(keys);
        fs::write(&path, serde_json::to_vec(&config).expect("JSON")).expect("written");
        let message = refusal(folder.path());
        assert!(message.contains(mention), "{message:?} does not mention {mention:?}");
    }
}

#[test]
fn broken_json_is_refused() {
    let deep = "[".repeat(100_000);
    let files: &[(&str, &str)] = &[
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "invalid type"),
        ("null", "invalid type"),
        ("{\"hidden_size\": NaN}", "expected value"),
        ("\u{1}\u{2}", "expected value"),
        (&deep, "corrupt"),
    ];
    for file in ["config.json", "generation_config.json"] {
        let folder = copy_of("llama-mha");
        for (content, mention) in files {
            fs::write(folder.path().join(file), content).expect("written");
            let message = refusal(folder.path());
            assert!(message.contains(file) && message.contains(mention), "{message}");
        }
        fs::write(folder.path().join(file), [0xFF, 0xFE, b'{']).expect("written");
        assert!(refusal(folder.path()).contains(file));
        fs::write(folder.path().join(file), vec![b' '; 5 << 20]).expect("written");
        assert!(refusal(folder.path()).contains("is larger than"));
    }
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "model.safetensors"] {
        let folder = copy_of("llama-mha");
        fs::remove_file(folder.path().join(file)).expect("removed");
        assert_eq!(refusal(folder.path()), format!("DIR/{file} is missing"));
        fs::create_dir(folder.path().join(file)).expect("a folder in its place");
        assert!(refusal(folder.path()).contains(file));
    }
    let nowhere = Path::new("no/such/folder");
    assert_eq!(refusal(nowhere), "DIR/config.json is missing");
}

/// A safetensors file of a header and so many bytes.
fn file_of(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn broken_safetensors_are_refused() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(
            r#"{{"model.embed_tokens.weight":
                {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#
        )
    };
    let size = 96 * 32 * 4;
    let whole = format!("[0, {size}]");
    let huge = "[4611686018427387904, 4611686018427387904]";
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "corrupt"),
        (vec![7; 5], "corrupt"),
        (u64::MAX.to_le_bytes().to_vec(), "corrupt"),
        ((1u64 << 40).to_le_bytes().to_vec(), "corrupt"),
        (file_of("", 0), "corrupt"),
        (file_of("{}", 0), "lack the tensor model.embed_tokens.weight"),
        (file_of("{}", 1), "corrupt"),
        (file_of("[1, 2]", 0), "corrupt"),
        (file_of("{\"a\": 1}", 0), "corrupt"),
        (file_of(&"[".repeat(9999), 0), "corrupt"),
        (file_of(&tensor("F32", "[96, 32]", &whole), size - 1), "corrupt"),
        (file_of(&tensor("F32", "[96, 32]", &whole), size + 1), "corrupt"),
        (file_of(&tensor("F32", "[96, 31]", &whole), size), "corrupt"),
        (file_of(&tensor("F32", huge, &whole), size), "corrupt"),
        (file_of(&tensor("F32", "[96, -32]", &whole), size), "corrupt"),
        (file_of(&tensor("F32", "[96, 32]", "[12288, 0]"), size), "corrupt"),
        (file_of(&tensor("F32", "[96, 32]", "[8, 12296]"), size + 8), "corrupt"),
        (file_of(&tensor("F77", "[96, 32]", &whole), size), "corrupt"),
        (file_of(&tensor("I32", "[96, 32]", &whole), size), "holds I32"),
        (file_of(&tensor("F8_E4M3", "[96, 32]", "[0, 3072]"), 3072), "holds F8_E4M3"),
        (file_of(&tensor("F32", "[32, 96]", &whole), size), "has shape [32, 96]"),
        (file_of(&tensor("F32", "[3072]", &whole), size), "has shape [3072]"),
        (file_of(&tensor("F32", "[96, 0]", "[0, 0]"), 0), "has shape [96, 0]"),
        (file_of(&tensor("F32", "[]", "[0, 4]"), 4), "has shape []"),
        (file_of(&tensor("F32", "[96, 32]", &whole), size), "lack the tensor model.layers.0"),
    ];
    let folder = copy_of("llama-mha");
    for (bytes, mention) in cases {
        fs::write(folder.path().join("model.safetensors"), bytes).expect("written");
        let message = refusal(folder.path());
        assert!(message.contains(mention), "{message:?} does not mention {mention:?}");
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let folder = copy_of("llama-mha");
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).expect("a fixture");
    for cut in (0..whole.len()).step_by(7919) {
        fs::write(&path, &whole[..cut]).expect("written");
        assert!(refusal(folder.path()).contains("model.safetensors is corrupt"));
    }
}

#[test]
fn a_tensor_of_another_type_than_the_embedding_is_refused() {
    let folder = copy_of("llama-mha");
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).expect("a fixture");
    let from = br#""model.norm.weight":{"dtype":"F32""#;
    let at = bytes.windows(from.len()).position(|window| window == from).expect("its header");
    let mut bytes = bytes;
    bytes[at + from.len() - 4..at + from.len() - 1].copy_from_slice(b"I32");
    fs::write(&path, bytes).expect("written");
    assert!(refusal(folder.path()).contains("model.norm.weight holds I32"));
}

#[test]
fn an_unasked_bias_is_refused() {
    let folder = copy_of("llama-gqa5-mlp-bias");
    let path = folder.path().join("config.json");
    let config = fs::read_to_string(&path).expect("a config");
    let without = config.replace("\"mlp_bias\": true", "\"mlp_bias\": false");
    assert_ne!(config, without);
    fs::write(&path, without).expect("written");
    assert!(refusal(folder.path()).contains("mlp.gate_proj.bias, which config.json does not"));
}

#[test]
fn an_index_of_shards_is_confined_to_its_folder() {
    let index = |file: &str| format!(r#"{{"weight_map": {{"model.norm.weight": {file}}}}}"#);
    let cases: Vec<(String, &str)> = vec![
        (index(r#""../model.safetensors""#), "is not the name of a file"),
        (index(r#""/etc/hostname""#), "is not the name of a file"),
        (index(r#""a/b.safetensors""#), "is not the name of a file"),
        (index(r#""a\\b.safetensors""#), "is not the name of a file"),
        (index(r#""..""#), "is not the name of a file"),
        (index(r#"".""#), "is not the name of a file"),
        (index(r#""""#), "is not the name of a file"),
        (index(r#""a\u0000b""#), "is not the name of a file"),
        (index("5"), "corrupt"),
        (index(r#""nowhere.safetensors""#), "nowhere.safetensors is missing"),
        (index(r#""config.json""#), "config.json is corrupt"),
        (r#"{"weight_map": {}}"#.to_owned(), "lack the tensor"),
        ("{}".to_owned(), "weight_map"),
        ("{".to_owned(), "corrupt"),
    ];
    let folder = copy_of("qwen2-gqa5-sharded");
    for (content, mention) in cases {
        fs::write(folder.path().join("model.safetensors.index.json"), content).expect("written");
        let message = refusal(folder.path());
        assert!(message.contains(mention), "{message:?} does not mention {mention:?}");
    }
}

#[test]
fn a_shard_that_lacks_its_tensor_is_refused() {
    let folder = copy_of("qwen2-gqa5-sharded");
    let path = folder.path().join("model.safetensors.index.json");
    let index = fs::read_to_string(&path).expect("an index");
    fs::write(&path, index.replace("model.norm.weight", "model.norm.height")).expect("written");
    assert!(refusal(folder.path()).contains("does not hold the tensor model.norm.height"));
    let shard = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .find(|path| path.to_string_lossy().contains("-of-"))
        .expect("a shard");
    fs::remove_file(&shard).expect("removed");
    assert!(refusal(folder.path()).ends_with("is missing"));
}
