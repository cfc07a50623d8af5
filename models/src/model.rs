//! From a folder, or from the bytes in the binary, to weights ready to run.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;
use kernels::Packing;

use crate::cache::{Cache, Key, Unwritten};
use crate::config::DecoderConfig;
use crate::error::LoadError;
use crate::kv::KvMemory;
use crate::weights::{
    LARGE_PARAMETERS, Safetensors, TensorName, WeightFormat, WeightSource, Weights,
};
use crate::{KvFormat, Quant};

/// Far above any real config.json.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// The embedded model: file name and bytes.
const BUILTIN: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../default/config.json")),
    ("weir.json", include_bytes!("../default/weir.json")),
    ("tokenizer.json", include_bytes!("../default/tokenizer.json")),
];
const BUILTIN_NAME: &str = "weir-fim-8m";
const BUILTIN_WEIGHTS: &[u8] = include_bytes!("../default/model.safetensors");

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// The one in the binary.
    Builtin,
    /// A folder as transformers writes it.
    Directory(PathBuf),
}

impl ModelSource {
    /// One of the model's small files, None where it has no such file.
    pub fn read(
        &self,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<Cow<'static, [u8]>>, LoadError> {
        match self {
            ModelSource::Builtin => {
                let file = BUILTIN.iter().find(|(file, _)| *file == name);
                Ok(file.map(|(_, bytes)| Cow::Borrowed(*bytes)))
            }
            ModelSource::Directory(folder) => {
                Ok(read_bounded(&folder.join(name), bytes_max)?.map(Cow::Owned))
            }
        }
    }

    fn weights(&self) -> Result<Safetensors, LoadError> {
        match self {
            ModelSource::Builtin => Safetensors::embedded(BUILTIN_WEIGHTS),
            ModelSource::Directory(folder) => Safetensors::open(folder),
        }
    }

    /// The config alone: enough to plan memory, and to refuse a model before reading it.
    pub fn config(&self) -> Result<DecoderConfig, LoadError> {
        let config = self
            .read("config.json", CONFIG_BYTES_MAX)?
            .ok_or_else(|| LoadError::Missing(self.path("config.json")))?;
        let generation = self.read("generation_config.json", CONFIG_BYTES_MAX)?;
        DecoderConfig::parse(&config, generation.as_deref())
    }

    /// What the model is called in answers: the folder's name.
    pub fn name(&self) -> String {
        match self {
            ModelSource::Builtin => BUILTIN_NAME.to_owned(),
            ModelSource::Directory(folder) => {
                let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
                let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
                name.unwrap_or_else(|| "model".to_owned())
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match self {
            ModelSource::Builtin => PathBuf::from(name),
            ModelSource::Directory(folder) => folder.join(name),
        }
    }
}

/// Weights and what is known of them.
pub struct LoadedModel {
    pub config: DecoderConfig,
    pub weights: Arc<Weights>,
    pub kv_format: kernels::KvFormat,
}

/// A model and how it came into memory.
pub struct Loaded {
    pub model: LoadedModel,
    /// Whether its matrices were there packed.
    pub from_cache: bool,
    /// What the cache does not have and should.
    pub unwritten: Option<Unwritten>,
}

/// Reads a model into memory.
pub fn load(source: &ModelSource, quant: Quant, kv: KvFormat) -> Result<LoadedModel, LoadError> {
    Ok(load_cached(source, quant, kv, None)?.model)
}

/// Reads a model into memory, from the cache if it is there. Small models are packed sooner than
/// they are looked for.
pub fn load_cached(
    source: &ModelSource,
    quant: Quant,
    kv: KvFormat,
    cache: Option<&Cache>,
) -> Result<Loaded, LoadError> {
    let config = source.config()?;
    let cache = cache.filter(|_| config.parameters() >= LARGE_PARAMETERS);
    load_config(config, source, (quant, kv), cache)
}

/// As [`load_cached`], whatever the model's size.
pub(crate) fn load_config(
    config: DecoderConfig,
    source: &ModelSource,
    (quant, kv): (Quant, KvFormat),
    cache: Option<&Cache>,
) -> Result<Loaded, LoadError> {
    let tensors = source.weights()?;
    let format = weight_format(quant, &config, &tensors)?;
    let cache = cache.and_then(|cache| {
        let files = tensors.identity()?;
        Some((cache.clone(), Key::new(&files, &config, format)))
    });
    let reader = cache.as_ref().and_then(|(cache, key)| cache.open(key));
    let (weights, from_cache) = Weights::load(&config, &tensors, format, reader)?;
    let weights = Arc::new(weights);
    let unwritten = cache.filter(|_| !from_cache).map(|(cache, key)| {
        let weights = weights.clone();
        Unwritten { cache, key, weights }
    });
    let model = LoadedModel { config, weights, kv_format: kv_format(kv, format) };
    Ok(Loaded { model, from_cache, unwritten })
}

impl LoadedModel {
    /// A model of a given shape that knows nothing, for benches.
    pub fn random(config: DecoderConfig, quant: Quant, kv: KvFormat, seed: u64) -> Self {
        // As the well-known models are stored.
        let format = WeightFormat::choose(quant, config.parameters(), DType::BF16);
        let weights = Arc::new(Weights::random(&config, format, seed));
        Self { config, weights, kv_format: kv_format(kv, format) }
    }

    pub fn weight_format(&self) -> WeightFormat {
        self.weights.format()
    }

    /// KV memory that one position of one sequence takes, in all layers.
    pub fn kv_bytes_per_token(&self) -> usize {
        KvMemory::bytes_per_token(&self.config, self.kv_format)
    }
}

pub(crate) fn weight_format(
    quant: Quant,
    config: &DecoderConfig,
    source: &dyn WeightSource,
) -> Result<WeightFormat, LoadError> {
    // Asked for in every case, so that a checkpoint of another type is refused before it is read.
    let stored = source.dtype(TensorName::Embedding)?;
    Ok(WeightFormat::choose(quant, config.parameters(), stored))
}

fn kv_format(kv: KvFormat, weights: WeightFormat) -> kernels::KvFormat {
    match kv {
        KvFormat::Auto if weights.body == Packing::F32 => kernels::KvFormat::F32,
        KvFormat::Auto | KvFormat::Bf16 => kernels::KvFormat::Bf16,
        KvFormat::F32 => kernels::KvFormat::F32,
        KvFormat::Q8 => kernels::KvFormat::Q8,
    }
}

/// A whole file of at most `max` bytes; None where there is none.
pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Option<Vec<u8>>, LoadError> {
    let read = |source| LoadError::Read { file: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > max {
        return Err(LoadError::TooLarge { file: path.to_owned(), max });
    }
    Ok(Some(bytes))
}
