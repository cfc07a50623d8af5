use std::path::PathBuf;

use kernels::Packed;
use tempfile::TempDir;

use super::*;
use crate::model::{Loaded, ModelSource, load_config};
use crate::{KvFormat, Quant};

/// A model's folder that may be changed, and a cache.
struct Scene {
    model: TempDir,
    folder: TempDir,
    cache: Cache,
}

impl Scene {
    fn new() -> Self {
        let fixture =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/llama-gqa5-mlp-bias");
        let (model, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for file in ["config.json", "model.safetensors"] {
            fs::copy(fixture.join(file), model.path().join(file)).unwrap();
        }
        let cache = Cache { folder: folder.path().join("a/weir"), bytes_max: 1 << 30 };
        Self { model, folder, cache }
    }

    fn load(&self, quant: Quant) -> Loaded {
        let source = ModelSource::Directory(self.model.path().to_owned());
        let config = source.config().unwrap();
        load_config(config, &source, (quant, KvFormat::Auto), Some(&self.cache)).unwrap()
    }

    /// Loads and writes what is not there; whether it was.
    fn start(&self, quant: Quant) -> bool {
        let loaded = self.load(quant);
        let plain = ModelSource::Directory(self.model.path().to_owned());
        let plain = crate::model::load(&plain, quant, KvFormat::Auto).unwrap();
        assert!(
            loaded
                .model
                .weights
                .matrices()
                .map(Packed::bytes)
                .eq(plain.weights.matrices().map(Packed::bytes)),
            "the cache changed the weights"
        );
        assert_eq!(loaded.unwritten.is_none(), loaded.from_cache);
        if let Some(unwritten) = loaded.unwritten {
            unwritten.write().unwrap();
        }
        loaded.from_cache
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = self.cache.entries().unwrap();
        entries.into_iter().map(|entry| entry.path).collect()
    }

    /// The one entry.
    fn entry(&self) -> PathBuf {
        let [entry] = &self.files()[..] else { panic!("one entry") };
        entry.clone()
    }
}

#[test]
fn the_second_start_reads_what_the_first_one_wrote() {
    let scene = Scene::new();
    for quant in [Quant::F32, Quant::Bf16, Quant::Q8, Quant::Q4] {
        assert!(!scene.start(quant), "{quant:?}");
        assert!(scene.start(quant), "{quant:?}");
    }
    assert_eq!(scene.files().len(), 4);
    let contents = scene.cache.contents().unwrap();
    let len = |path: &PathBuf| fs::metadata(path).unwrap().len();
    assert_eq!(contents.bytes, scene.files().iter().map(len).sum::<u64>());
    let other = scene.cache.folder.join("notes.txt");
    fs::write(&other, "mine").unwrap();
    assert_eq!(scene.cache.clear().unwrap(), contents);
    assert_eq!(scene.cache.contents().unwrap(), Contents::default());
    assert!(other.exists());
    assert!(!scene.start(Quant::Q8));
}

#[test]
fn every_changed_byte_and_every_cut_is_noticed_and_mended() {
    let scene = Scene::new();
    scene.start(Quant::Q8);
    let good = fs::read(scene.entry()).unwrap();
    let places = [0, 9, 40, good.len() / 3, good.len() / 2, good.len() - 1];
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(scene.entry(), bad).unwrap();
        assert!(!scene.start(Quant::Q8), "byte {at} of {}", good.len());
        assert_eq!(fs::read(scene.entry()).unwrap(), good);
    }
    for len in [0, 8, 100, good.len() / 2, good.len() - 1] {
        fs::write(scene.entry(), &good[..len]).unwrap();
        assert!(!scene.start(Quant::Q8), "{len} of {}", good.len());
        assert!(scene.start(Quant::Q8));
    }
}

#[test]
fn weights_that_changed_in_the_least_are_other_weights() {
    let scene = Scene::new();
    let file = scene.model.path().join("model.safetensors");
    scene.start(Quant::Q8);
    let age = fs::metadata(&file).unwrap().modified().unwrap();

    // As unpacked by a tool that gives every file the same age: only the content tells.
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, &bytes).unwrap();
    File::options().write(true).open(&file).unwrap().set_modified(age).unwrap();
    assert!(!scene.start(Quant::Q8));
    assert!(scene.start(Quant::Q8));

    let later = age + Duration::from_nanos(1_000_000);
    File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
    assert!(!scene.start(Quant::Q8));
    assert!(!scene.start(Quant::Q4), "another format");
}

#[test]
fn without_a_disk_there_is_no_cache_and_no_failure() {
    let scene = Scene::new();
    fs::write(scene.folder.path().join("a"), "a file where a folder should be").unwrap();
    let loaded = scene.load(Quant::Q8);
    assert!(!loaded.from_cache);
    assert!(loaded.unwritten.unwrap().write().is_err());
}

/// Who may write everywhere cannot see this.
#[cfg(unix)]
#[test]
fn a_folder_that_may_only_be_read_still_serves() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new();
    scene.start(Quant::Q8);
    let set = |mode| fs::set_permissions(&scene.cache.folder, fs::Permissions::from_mode(mode));
    set(0o500).unwrap();
    let (served, other) = (scene.load(Quant::Q8), scene.load(Quant::Q4));
    let refused = other.unwritten.unwrap().write().is_err();
    let files = scene.files();
    set(0o700).unwrap();
    assert!(served.from_cache);
    if refused {
        assert_eq!(files.len(), 1, "an unfinished file is left");
    }
}

#[test]
fn the_least_recently_used_entry_makes_room() {
    let mut scene = Scene::new();
    scene.start(Quant::F32);
    let f32s = scene.entry();
    scene.start(Quant::Bf16);
    let bf16s = scene.files().into_iter().find(|file| *file != f32s).unwrap();
    let age = |path: &Path, seconds| {
        let when = SystemTime::now() - Duration::from_secs(seconds);
        File::options().write(true).open(path).unwrap().set_modified(when).unwrap();
    };
    age(&f32s, 2000);
    age(&bf16s, 1000);
    // Used, so younger than the other one.
    assert!(scene.start(Quant::F32));
    scene.cache.bytes_max = scene.cache.contents().unwrap().bytes + 1;
    scene.start(Quant::Q4);
    assert!(f32s.exists() && !bf16s.exists());
    assert_eq!(scene.files().len(), 2);

    // Of a weir that was killed while it wrote, long ago and just now.
    let abandoned = scene.cache.folder.join(".0123456789abcdef.77");
    let running = scene.cache.folder.join(".0123456789abcdef.78");
    fs::write(&abandoned, "half").unwrap();
    fs::write(&running, "half").unwrap();
    age(&abandoned, 4000);
    scene.start(Quant::Q8);
    assert!(!abandoned.exists() && running.exists());

    scene.cache.bytes_max = 1000;
    assert!(scene.load(Quant::Bf16).unwritten.unwrap().write().is_err());
    assert!(!scene.files().is_empty(), "what does not fit drives nothing out");
}

#[test]
fn names_of_entries_are_told_from_others() {
    for (name, wanted) in [
        ("0123456789abcdef.packed", Some(true)),
        (".0123456789abcdef.4711", Some(false)),
        ("0123456789abcde.packed", None),
        ("0123456789abcdeg.packed", None),
        (".0123456789abcdef.tmp", None),
        ("config.json", None),
        (".packed", None),
    ] {
        assert_eq!(is_entry(name), wanted, "{name}");
    }
}

#[test]
fn a_checksum_sees_every_bit_and_the_order() {
    let bytes: Vec<u8> = (0..200u8).map(|i| i.wrapping_mul(37)).collect();
    let sum = checksum(&bytes, 1);
    assert_eq!(sum, checksum(&bytes, 1));
    assert_ne!(sum, checksum(&bytes, 2));
    assert_ne!(sum, checksum(&bytes[..199], 1));
    for bit in 0..8 * bytes.len() {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(sum, checksum(&other, 1), "bit {bit}");
    }
    for (a, b) in [(0, 8), (0, 64), (64, 128), (192, 199)] {
        let mut other = bytes.clone();
        other.swap(a, b);
        assert_ne!(sum, checksum(&other, 1), "bytes {a} and {b}");
    }
    assert_ne!(checksum(&[], 0), checksum(&[0], 0));
}
