//! Packed weights on disk, as an operator meets them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 512, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 8, "vocab_size": 200000,
    "tie_word_embeddings": true}"#;

/// A model just large enough to be cached: 100 million zeros, which take no room on a disk.
fn write_model(folder: &Path) {
    let layer = "model.layers.0.";
    let tensors: [(String, &[u64]); 11] = [
        ("model.embed_tokens.weight".into(), &[200_000, 512]),
        ("model.norm.weight".into(), &[512]),
        (format!("{layer}input_layernorm.weight"), &[512]),
        (format!("{layer}post_attention_layernorm.weight"), &[512]),
        (format!("{layer}self_attn.q_proj.weight"), &[512, 512]),
        (format!("{layer}self_attn.k_proj.weight"), &[512, 512]),
        (format!("{layer}self_attn.v_proj.weight"), &[512, 512]),
        (format!("{layer}self_attn.o_proj.weight"), &[512, 512]),
        (format!("{layer}mlp.gate_proj.weight"), &[64, 512]),
        (format!("{layer}mlp.up_proj.weight"), &[64, 512]),
        (format!("{layer}mlp.down_proj.weight"), &[512, 64]),
    ];
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        let offsets = [start, end];
        let info = serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": offsets});
        header.insert(name, info);
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let mut file = File::create(folder.join("model.safetensors")).expect("a writable folder");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("room");
    file.write_all(&header).expect("room");
    file.set_len(8 + header.len() as u64 + end).expect("a sparse file");
    fs::write(folder.join("config.json"), CONFIG).expect("room");
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/default/tokenizer.json");
    fs::copy(tokenizer, folder.join("tokenizer.json")).expect("room");
}

/// A model, a text and a configuration that names a cache.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        let toml = format!(
            "[model]\npath = {:?}\ncache_dir = {:?}\ncontext = 64\nslots = 1\n",
            path.join("model"),
            path.join("cache"),
        );
        fs::create_dir(path.join("model")).expect("a folder");
        fs::write(path.join("weir.toml"), toml).expect("room");
        fs::write(path.join("a.py"), "x = 1\n").expect("room");
        Self { folder }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn weir(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(arguments)
            .args(["--config", "weir.toml"])
            .current_dir(self.folder.path())
            .env("RUST_LOG", "weir=info")
            .output()
            .expect("the binary starts")
    }

    /// What a command says where it succeeds.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.weir(arguments);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {log}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

#[test]
fn a_large_model_starts_from_its_cache_until_that_is_damaged() {
    let scene = Scene::new();
    write_model(&scene.folder.path().join("model"));
    let start = || {
        let output = scene.weir(&["complete", "a.py:1:3", "--max-tokens", "2"]);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        (log.contains("from_cache=true"), output.stdout)
    };
    let (from_cache, text) = start();
    assert!(!from_cache);
    let shown = scene.says(&["cache", "show"]);
    assert!(shown.contains("holds 1 files, 10"), "{shown}");
    assert_eq!(start(), (true, text.clone()));

    let entry = fs::read_dir(scene.cache()).expect("a cache").next().expect("an entry");
    let entry = File::options().write(true).open(entry.expect("an entry").path()).expect("ours");
    entry.set_len(50 << 20).expect("shorter");
    assert_eq!(start(), (false, text.clone()));
    assert_eq!(start(), (true, text));

    let cleared = scene.says(&["cache", "clear"]);
    assert!(cleared.contains("held 1 files"), "{cleared}");
    assert!(scene.says(&["cache", "show"]).contains("holds 0 files, 0.0 MiB of at most 8192"));
}

#[test]
fn clearing_takes_only_what_is_the_caches_own() {
    let scene = Scene::new();
    assert!(scene.says(&["cache", "show"]).contains("holds 0 files"), "a folder that is not there");
    fs::create_dir(scene.cache()).expect("a folder");
    for name in ["0123456789abcdef.packed", ".0123456789abcdef.9", "letters.packed", "notes"] {
        fs::write(scene.cache().join(name), vec![0; 1 << 20]).expect("room");
    }
    assert!(scene.says(&["cache", "show"]).contains("holds 2 files, 2.0 MiB"));
    assert!(scene.says(&["cache", "clear"]).contains("held 2 files"));
    let left = fs::read_dir(scene.cache()).expect("a folder").count();
    assert_eq!(left, 2);
    fs::write(scene.folder.path().join("weir.toml"), "model.cache_max_mb = 0").expect("room");
    assert!(scene.says(&["cache", "show"]).starts_with("no cache"));
}
