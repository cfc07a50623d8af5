//! Loading needs little more memory than what it loads. Alone in its binary: the process is
//! what is measured.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use models::cache::Cache;
use models::model::{ModelSource, load_cached};
use models::{KvFormat, Quant};

/// Just large enough for the cache.
const HIDDEN: usize = 512;
const VOCAB: usize = 200_000;
const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 512, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 8, "vocab_size": 200000,
    "tie_word_embeddings": true}"#;

/// A checkpoint that is nearly all embedding, the worst case of a loader that takes a tensor
/// at a time.
fn write_checkpoint(folder: &Path) -> std::io::Result<()> {
    let layer = "model.layers.0.";
    let square = vec![HIDDEN, HIDDEN];
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
        (format!("{layer}input_layernorm.weight"), vec![HIDDEN]),
        (format!("{layer}post_attention_layernorm.weight"), vec![HIDDEN]),
        (format!("{layer}self_attn.q_proj.weight"), square.clone()),
        (format!("{layer}self_attn.k_proj.weight"), square.clone()),
        (format!("{layer}self_attn.v_proj.weight"), square.clone()),
        (format!("{layer}self_attn.o_proj.weight"), square),
        (format!("{layer}mlp.gate_proj.weight"), vec![64, HIDDEN]),
        (format!("{layer}mlp.up_proj.weight"), vec![64, HIDDEN]),
        (format!("{layer}mlp.down_proj.weight"), vec![HIDDEN, 64]),
    ];
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let info =
            serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name, info);
    }
    let header = serde_json::to_vec(&header)?;
    let mut file = BufWriter::new(File::create(folder.join("model.safetensors"))?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for i in 0..end / 2 {
        file.write_all(&((i as f32).to_bits() >> 16).to_le_bytes()[..2])?;
    }
    file.flush()?;
    std::fs::write(folder.join("config.json"), CONFIG)
}

/// A line of /proc/self/status, in bytes.
fn status(key: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(key)).expect("a known key");
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok());
    kib.expect("a number of KiB") * 1024
}

/// Loads and returns whether it came from the cache; `share`: how much more than the packed
/// weights the peak may be.
fn load_within(source: &ModelSource, quant: Quant, cache: &Cache, share: f64) -> bool {
    // Makes the peak start from here.
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux 4.0 or newer");
    let before = status("VmRSS");
    let loaded = load_cached(source, quant, KvFormat::Auto, Some(cache)).expect("a checkpoint");
    let peak = status("VmHWM") - before;
    let packed = loaded.model.weights.bytes();
    assert!(packed >= VOCAB * HIDDEN);
    assert!(peak >= packed / 2, "{peak} bytes cannot hold {packed}: the measure is off");
    assert!(peak as f64 <= share * packed as f64, "{peak} bytes for {packed} of weights");
    if let Some(unwritten) = &loaded.unwritten {
        unwritten.write().expect("a disk");
    }
    loaded.from_cache
}

#[test]
fn loading_takes_little_more_memory_than_the_packed_weights() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_checkpoint(folder.path()).expect("written");
    let source = ModelSource::Directory(folder.path().to_owned());
    let cache = Cache { folder: folder.path().join("cache"), bytes_max: 1 << 30 };
    for quant in [Quant::Bf16, Quant::Auto] {
        assert!(!load_within(&source, quant, &cache, 1.15), "{quant:?}");
        assert!(load_within(&source, quant, &cache, 1.1), "{quant:?} from the cache");
    }
}
