//! Which weights an entry holds.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::{checksum, read_at};
use crate::config::DecoderConfig;
use crate::weights::WeightFormat;

/// To be raised with every change to the bytes that packing gives for the same weights.
const PACKER: u32 = 2;

/// Places of a file that are looked at: two fine-tunings of a model have the same size and
/// header, and where archives are unpacked with a fixed date they have the same age too.
const SAMPLES: u64 = 16;
const SAMPLE_BYTES: usize = 4096;

/// Everything that packed weights depend on, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(String);

/// A weight file as it is now.
pub(crate) struct FileIdentity(String);

impl FileIdentity {
    pub(crate) fn of(file: &File, path: &Path, header: &[u8]) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let metadata = file.metadata()?;
        let len = metadata.len();
        let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut samples = Vec::new();
        for i in 0..SAMPLES {
            let mut sample = [0; SAMPLE_BYTES];
            let room = len.saturating_sub(SAMPLE_BYTES as u64);
            let within = SAMPLE_BYTES.min(usize::try_from(len).unwrap_or(SAMPLE_BYTES));
            read_at(file, &mut sample[..within], room * i / (SAMPLES - 1))?;
            samples.extend_from_slice(&sample);
        }
        Ok(Self(format!(
            "file {path:?} of {len} bytes, changed {}.{:09}, header {:016x}, samples {:016x}\n",
            changed.as_secs(),
            changed.subsec_nanos(),
            checksum(header, 0),
            checksum(&samples, 0),
        )))
    }
}

impl Key {
    pub(crate) fn new(
        files: &[&FileIdentity],
        config: &DecoderConfig,
        format: WeightFormat,
    ) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let mut text = format!("weir {version}, packer {PACKER}\n{format:?}\n{config:?}\n");
        files.iter().for_each(|file| text.push_str(&file.0));
        Self(text)
    }

    pub(super) fn text(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(super) fn hash(&self) -> u64 {
        checksum(self.text(), 0)
    }

    /// The entry's, without its suffix.
    pub(super) fn name(&self) -> String {
        format!("{:016x}", self.hash())
    }
}
