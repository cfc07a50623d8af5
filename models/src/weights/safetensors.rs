//! Weights in safetensors: a folder with one file or an index of shards, or bytes in the binary.
//! Files are read, never mapped: a mapped file that shrinks kills the process.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Metadata, TensorInfo};

use super::source::{LLAMA, Spelling, TensorName, WeightSource};
use crate::cache::{FileIdentity, read_at};
use crate::error::LoadError;
use crate::model::read_bounded;

/// Bytes of the header's length, before the header.
const LENGTH_BYTES: u64 = 8;
/// The format's own limit.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Some thousand times the index of the largest open model.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// Files that are open at one time while loading; the largest open models have under 200.
const SHARDS_MAX: usize = 512;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Tensors in one or several safetensors files.
pub struct Safetensors {
    shards: Vec<Shard>,
    /// By the names in the files.
    tensors: HashMap<String, Place>,
    spelling: &'static Spelling,
}

struct Shard {
    file: PathBuf,
    bytes: Bytes,
    /// None where there is no file, or nothing is known of it.
    identity: Option<FileIdentity>,
    /// Where the tensors' own offsets count from.
    data_start: u64,
}

enum Bytes {
    File(File),
    Static(&'static [u8]),
}

struct Place {
    shard: usize,
    info: TensorInfo,
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Safetensors {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        let single = folder.join(SINGLE);
        let index = folder.join(INDEX);
        if single.exists() || !index.exists() {
            let (shard, header) = Shard::open(single)?;
            return Ok(Self::of_one(shard, header));
        }
        Self::open_shards(folder, index)
    }

    /// A file that is already in memory.
    pub fn embedded(bytes: &'static [u8]) -> Result<Self, LoadError> {
        let len = bytes.len() as u64;
        let (shard, header) = Shard::parse(PathBuf::from(SINGLE), Bytes::Static(bytes), len)?;
        Ok(Self::of_one(shard, header))
    }

    fn of_one(shard: Shard, header: Metadata) -> Self {
        let tensors = header
            .tensors()
            .into_iter()
            .map(|(name, info)| (name, Place { shard: 0, info: info.clone() }))
            .collect();
        Self { shards: vec![shard], tensors, spelling: &LLAMA }
    }

    fn open_shards(folder: &Path, index: PathBuf) -> Result<Self, LoadError> {
        let corrupt = |what: String| LoadError::Corrupt { file: index.clone(), what };
        let bytes = read_bounded(&index, INDEX_BYTES_MAX)?
            .ok_or_else(|| LoadError::Missing(index.clone()))?;
        let Index { weight_map } =
            serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        let mut source = Self { shards: Vec::new(), tensors: HashMap::new(), spelling: &LLAMA };
        let mut headers: HashMap<String, (usize, Metadata)> = HashMap::new();
        for (name, file) in weight_map {
            if !headers.contains_key(&file) {
                if source.shards.len() == SHARDS_MAX {
                    return Err(corrupt(format!("more than {SHARDS_MAX} shards")));
                }
                if !is_plain_file_name(&file) {
                    return Err(LoadError::ShardName { index, name: file });
                }
                let (shard, header) = Shard::open(folder.join(&file))?;
                headers.insert(file.clone(), (source.shards.len(), header));
                source.shards.push(shard);
            }
            let (shard, header) = &headers[&file];
            let info = header
                .info(&name)
                .ok_or_else(|| corrupt(format!("{file} does not hold the tensor {name}")))?;
            source.tensors.insert(name, Place { shard: *shard, info: info.clone() });
        }
        Ok(source)
    }

    /// The files as they were opened, always in the same order; None where one of them cannot be
    /// told from another.
    pub(crate) fn identity(&self) -> Option<Vec<&FileIdentity>> {
        self.shards.iter().map(|shard| shard.identity.as_ref()).collect()
    }

    fn place(&self, tensor: TensorName) -> Result<&Place, LoadError> {
        let name = self.spelling.of(tensor);
        self.tensors.get(&name).ok_or(LoadError::TensorMissing(name))
    }
}

impl WeightSource for Safetensors {
    fn shape(&self, tensor: TensorName) -> Option<&[usize]> {
        self.tensors.get(&self.spelling.of(tensor)).map(|place| place.info.shape.as_slice())
    }

    fn dtype(&self, tensor: TensorName) -> Result<DType, LoadError> {
        let dtype = self.place(tensor)?.info.dtype;
        match DType::try_from(dtype) {
            Ok(dtype @ (DType::F32 | DType::F16 | DType::BF16)) => Ok(dtype),
            _ => Err(LoadError::TensorDtype {
                name: self.spelling(tensor),
                dtype: dtype.to_string(),
            }),
        }
    }

    fn read(&self, tensor: TensorName, rows: Range<usize>) -> Result<Tensor, LoadError> {
        let Place { shard, info } = self.place(tensor)?;
        let dtype = self.dtype(tensor)?;
        let row_len: usize = info.shape[1..].iter().product();
        let row_bytes = row_len * dtype.size_in_bytes();
        let mut bytes = vec![0; rows.len() * row_bytes];
        let start = info.data_offsets.0 + rows.start * row_bytes;
        self.shards[*shard].read(start as u64, &mut bytes)?;
        Tensor::from_raw_buffer(&bytes, dtype, &[rows.len(), row_len], &Device::Cpu)
            .map_err(|source| LoadError::Convert { name: self.spelling(tensor), source })
    }

    fn spelling(&self, tensor: TensorName) -> String {
        self.spelling.of(tensor)
    }
}

impl Shard {
    fn open(file: PathBuf) -> Result<(Self, Metadata), LoadError> {
        let opened = File::open(&file).and_then(|opened| Ok((opened.metadata()?.len(), opened)));
        match opened {
            Ok((len, opened)) => Self::parse(file, Bytes::File(opened), len),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(LoadError::Missing(file))
            }
            Err(source) => Err(LoadError::Read { file, source }),
        }
    }

    /// Reads the header and checks that its tensors fill the rest of `len` bytes exactly.
    fn parse(file: PathBuf, bytes: Bytes, len: u64) -> Result<(Self, Metadata), LoadError> {
        let mut shard = Self { file, bytes, identity: None, data_start: 0 };
        if len < LENGTH_BYTES {
            return Err(shard.corrupt(format!("{len} bytes are too few for a header")));
        }
        let mut header_len = [0; LENGTH_BYTES as usize];
        shard.read(0, &mut header_len)?;
        let header_len = u64::from_le_bytes(header_len);
        if header_len > HEADER_BYTES_MAX || header_len > len - LENGTH_BYTES {
            return Err(shard.corrupt(format!("a header of {header_len} bytes in {len}")));
        }
        let mut header = vec![0; header_len as usize];
        shard.read(LENGTH_BYTES, &mut header)?;
        if let Bytes::File(file) = &shard.bytes {
            shard.identity = FileIdentity::of(file, &shard.file, &header).ok();
        }
        // Parsing checks that shapes, types and offsets agree and leave no gap.
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|error| shard.corrupt(error.to_string()))?;
        shard.data_start = LENGTH_BYTES + header_len;
        let (expected, found) = (header.data_len() as u64, len - shard.data_start);
        if expected != found {
            return Err(shard
                .corrupt(format!("{found} bytes of tensors where its header names {expected}")));
        }
        Ok((shard, header))
    }

    /// Fills `to` from `start` on, counted from the beginning of the data.
    fn read(&self, start: u64, to: &mut [u8]) -> Result<(), LoadError> {
        let start = self.data_start + start;
        let done = match &self.bytes {
            Bytes::Static(bytes) => {
                let start = start as usize;
                to.copy_from_slice(&bytes[start..start + to.len()]);
                Ok(())
            }
            Bytes::File(file) => read_at(file, to, start),
        };
        done.map_err(|source| LoadError::Read { file: self.file.clone(), source })
    }

    fn corrupt(&self, what: String) -> LoadError {
        LoadError::Corrupt { file: self.file.clone(), what }
    }
}

/// Whether a name stays inside its folder, on any system.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let one = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    one && !name.contains(['/', '\\', '\0'])
}
