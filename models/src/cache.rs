//! Packed weights kept on disk, so that the second start of a large model is fast.
//!
//! An entry is one file: [`MAGIC`], the key with its length, and for each matrix the checksums of
//! its chunks before its bytes. It is written beside its place and renamed into it, and every
//! chunk is verified while it is read; there is no other promise that a file could keep. Without
//! a disk there is no cache, never a failure: whatever goes wrong with reading, the weights are
//! packed again. The layout of packed weights is the same on every instruction set.

mod checksum;
mod key;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::weights::{Weights, deal};
pub(crate) use checksum::checksum;
pub(crate) use key::{FileIdentity, Key};

const MAGIC: &[u8; 8] = b"weirpack";
/// Bytes that share a checksum: a part for a thread, and the unit of writing.
const CHUNK: usize = 1 << 20;
const SUFFIX: &str = ".packed";
/// A file that is still being written after so long belongs to nobody.
const UNFINISHED_MAX: Duration = Duration::from_secs(3600);

/// A folder of packed weights and how much it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    pub folder: PathBuf,
    /// The least recently used entries are deleted before there is more.
    pub bytes_max: u64,
}

/// What is in a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub files: usize,
    pub bytes: u64,
}

/// One of the cache's files.
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
    finished: bool,
}

impl Cache {
    /// Entries, unfinished ones too. A folder that does not exist is empty.
    pub fn contents(&self) -> io::Result<Contents> {
        Ok(self.entries()?.iter().fold(Contents::default(), Contents::with))
    }

    /// Deletes all entries, and nothing else that may be in the folder.
    pub fn clear(&self) -> io::Result<Contents> {
        let mut cleared = Contents::default();
        for entry in self.entries()? {
            fs::remove_file(&entry.path)?;
            cleared = cleared.with(&entry);
        }
        Ok(cleared)
    }

    /// The entry of a key, now the most recently used one.
    pub(crate) fn open(&self, key: &Key) -> Option<Reader> {
        Reader::open(&self.path(key), key)
    }

    /// Writes an entry, once older ones have made room for it.
    pub(crate) fn write(&self, key: &Key, weights: &Weights) -> io::Result<()> {
        let bytes = size(key, weights);
        if bytes > self.bytes_max {
            let message = format!("{bytes} bytes are more than the cache may hold");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, message));
        }
        make_folder(&self.folder)?;
        let path = self.path(key);
        self.make_room(bytes, &path)?;
        let unfinished = self.folder.join(format!(".{}.{}", key.name(), std::process::id()));
        let written =
            write_entry(&unfinished, key, weights).and_then(|()| fs::rename(&unfinished, &path));
        if written.is_err() {
            // On a full disk this is what helps; where it fails too, `make_room` will do it.
            let _removed = fs::remove_file(&unfinished);
        }
        written
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(key.name() + SUFFIX)
    }

    /// Deletes what nobody writes any more, then the least recently used entries, until `bytes`
    /// fit beside those that stay; the entry at `replaced` goes anyway.
    fn make_room(&self, bytes: u64, replaced: &Path) -> io::Result<()> {
        let mut entries = self.entries()?;
        let is_old = |entry: &Entry| entry.used.elapsed().is_ok_and(|age| age > UNFINISHED_MAX);
        let goes = |entry: &Entry| entry.path == replaced || !entry.finished && is_old(entry);
        entries.sort_by_key(|entry| (!goes(entry), entry.used));
        let mut left: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for entry in entries {
            if goes(&entry) || entry.finished && left.saturating_add(bytes) > self.bytes_max {
                fs::remove_file(&entry.path)?;
                left -= entry.bytes;
            }
        }
        Ok(())
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        let folder = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            folder => folder?,
        };
        let mut entries = Vec::new();
        for file in folder {
            let file = file?;
            let Some(finished) = file.file_name().to_str().and_then(is_entry) else { continue };
            // It may be gone by now: another weir makes room too.
            let Ok(metadata) = file.metadata() else { continue };
            if metadata.is_file() {
                let (path, bytes) = (file.path(), metadata.len());
                entries.push(Entry { path, bytes, used: metadata.modified()?, finished });
            }
        }
        Ok(entries)
    }
}

impl Contents {
    fn with(self, entry: &Entry) -> Self {
        Self { files: self.files + 1, bytes: self.bytes + entry.bytes }
    }
}

/// Weights that were packed and are not in the cache yet.
pub struct Unwritten {
    pub(crate) cache: Cache,
    pub(crate) key: Key,
    pub(crate) weights: Arc<Weights>,
}

impl Unwritten {
    /// Writes them: hundreds of megabytes, so after the model serves.
    pub fn write(&self) -> io::Result<()> {
        self.cache.write(&self.key, &self.weights)
    }
}

/// An entry while its matrices are read, in their order.
pub(crate) struct Reader {
    file: File,
    /// Where the next matrix begins.
    at: u64,
    seed: u64,
}

impl Reader {
    fn open(path: &Path, key: &Key) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let head = head(key);
        let mut found = vec![0; head.len()];
        file.read_exact(&mut found).ok()?;
        if found != head {
            return None;
        }
        // The file's age is when it was last used. Where that cannot be set it is when it was
        // written, and the cache forgets it sooner.
        let _set = file.set_modified(SystemTime::now());
        Some(Self { file, at: head.len() as u64, seed: key.hash() })
    }

    /// Fills a matrix; false where it is not to be had, and then no later one is.
    pub(crate) fn read(&mut self, matrix: &mut [u8]) -> bool {
        self.read_verified(matrix).is_ok()
    }

    fn read_verified(&mut self, matrix: &mut [u8]) -> io::Result<()> {
        let mut sums = vec![0; 8 * matrix.len().div_ceil(CHUNK)];
        read_at(&self.file, &mut sums, self.at)?;
        let start = self.at + sums.len() as u64;
        self.at = start + matrix.len() as u64;
        let chunks = matrix.chunks_mut(CHUNK).zip(sums.as_chunks().0).enumerate();
        deal(chunks, |(i, (chunk, sum))| {
            let at = start + (i * CHUNK) as u64;
            read_at(&self.file, chunk, at)?;
            match checksum(chunk, self.seed ^ at) == u64::from_le_bytes(*sum) {
                true => Ok(()),
                false => Err(io::Error::from(io::ErrorKind::InvalidData)),
            }
        })
    }
}

fn head(key: &Key) -> Vec<u8> {
    let text = key.text();
    [MAGIC.as_slice(), &(text.len() as u64).to_le_bytes(), text].concat()
}

fn size(key: &Key, weights: &Weights) -> u64 {
    let matrix = |bytes: usize| (bytes + 8 * bytes.div_ceil(CHUNK)) as u64;
    let matrices = weights.matrices().map(|packed| matrix(packed.bytes().len()));
    head(key).len() as u64 + matrices.sum::<u64>()
}

fn write_entry(path: &Path, key: &Key, weights: &Weights) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    // Weights may be nobody else's business.
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let head = head(key);
    file.write_all(&head)?;
    let mut at = head.len() as u64;
    for matrix in weights.matrices().map(kernels::Packed::bytes) {
        at += 8 * matrix.len().div_ceil(CHUNK) as u64;
        let chunk_sum = |(i, chunk): (usize, &[u8])| {
            checksum(chunk, key.hash() ^ (at + (i * CHUNK) as u64)).to_le_bytes()
        };
        let sums: Vec<u8> = matrix.chunks(CHUNK).enumerate().flat_map(chunk_sum).collect();
        file.write_all(&sums)?;
        matrix.chunks(CHUNK).try_for_each(|chunk| file.write_all(chunk))?;
        at += matrix.len() as u64;
    }
    Ok(())
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Whether a name is an entry's, and a finished one's.
fn is_entry(name: &str) -> Option<bool> {
    let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(hash) = name.strip_suffix(SUFFIX) {
        return is_hash(hash).then_some(true);
    }
    let (hash, process) = name.strip_prefix('.')?.split_once('.')?;
    (is_hash(hash) && process.bytes().all(|b| b.is_ascii_digit())).then_some(false)
}

/// Any number of threads may read a file at once.
pub(crate) fn read_at(file: &File, to: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, at)
}
