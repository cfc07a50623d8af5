//! Text to ids, and ids back to bytes.
//!
//! Control tokens (`<|fim_prefix|>`, `<s>`, ...) are never made from the text of a user: code
//! that contains their spelling is encoded as the characters it is. Where a template wants the
//! token itself it asks for it by string.

mod bytes;
mod source;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use aho_corasick::{AhoCorasick, MatchKind};

use self::bytes::ByteTable;
use self::source::Source;

/// Bytes of one text to encode: a request body is no larger.
pub const ENCODE_BYTES_MAX: usize = 8 << 20;

/// A normalizer makes of so many bytes one: NFC of three Hangul letters, the most it ever does.
const NORMALISED_SHRINK_MAX: usize = 3;

/// Stands between the characters of a guarded token: a noncharacter, which no text that is meant
/// for anyone else contains.
const GUARD: char = '\u{FDD0}';

/// Why there is no tokenizer, or no encoding.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("cannot read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("{file} is not valid JSON")]
    Json { file: &'static str, source: serde_json::Error },
    #[error("tokenizer.json is not usable: {0}")]
    Invalid(String),
    #[error("a text of {bytes} bytes is too long to encode, at most {ENCODE_BYTES_MAX} are")]
    TooLong { bytes: usize },
    #[error("the text cannot be encoded: {0}")]
    Encode(String),
}

/// The files that describe a tokenizer, as bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerFiles<'a> {
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`
    pub config: Option<&'a [u8]>,
    /// `chat_template.jinja`; goes before the template in the config.
    pub chat_template: Option<&'a [u8]>,
}

/// A model's vocabulary. Immutable, shared by every thread.
pub struct Tokenizer {
    /// Without control tokens and without the space that some models put before a text.
    inner: tokenizers::Tokenizer,
    lead: Lead,
    control: Control,
    bytes: ByteTable,
    bos: Option<u32>,
    special: SpecialTexts,
    chat_template: Option<String>,
}

/// The space that a model expects before the first word of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lead {
    None,
    Always,
    /// Unless the text begins with a space.
    UnlessSpace,
    /// Unless the text begins with any white space.
    UnlessWhite,
}

/// The control tokens, found in text only by [`Tokenizer::encode_special`].
struct Control {
    finder: AhoCorasick,
    /// In the finder's order.
    tokens: Vec<ControlToken>,
}

#[derive(Clone, Copy, Debug)]
struct ControlToken {
    id: u32,
    /// White space before or after it belongs to it.
    strip_left: bool,
    strip_right: bool,
}

/// How bos and eos are spelled, for chat templates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTexts {
    pub bos: String,
    pub eos: String,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` and, where they are, `tokenizer_config.json` and
    /// `chat_template.jinja`.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        let tokenizer = read(folder, "tokenizer.json")?;
        let config = read_optional(folder, "tokenizer_config.json")?;
        let chat_template = read_optional(folder, "chat_template.jinja")?;
        Self::from_files(&TokenizerFiles {
            tokenizer: &tokenizer,
            config: config.as_deref(),
            chat_template: chat_template.as_deref(),
        })
    }

    pub fn from_files(files: &TokenizerFiles<'_>) -> Result<Self, TokenizerError> {
        let source = Source::parse(files)?;
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(&source.plain))
            .map_err(TokenizerError::Invalid)?;
        let mut inner = inner;
        // what stands in for the control tokens is not to be found in text either
        inner.set_encode_special_tokens(true);
        let control = Control::new(&source)?;
        Ok(Self {
            inner,
            lead: source.lead,
            control,
            bos: source.bos,
            bytes: source.bytes,
            special: source.special,
            chat_template: source.chat_template,
        })
    }

    /// Number of ids: one more than the highest.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// What the model's tokenizer puts before every prompt, if anything.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// How bos and eos are spelled.
    pub fn special_texts(&self) -> &SpecialTexts {
        &self.special
    }

    /// The model's chat template, if it has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The id whose token is spelled exactly so, control tokens included.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.bytes.id(token)
    }

    /// What the token adds to a text: nothing for special tokens and for ids the vocabulary does
    /// not have. Characters may be split over tokens.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id)
    }

    /// Whether the token steers the model and is no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.bytes.is_special(id)
    }

    /// A lower bound for the ids of a text of so many bytes, so that one that cannot fit is refused
    /// before any time is spent on it.
    pub fn tokens_min(&self, text_bytes: usize) -> usize {
        match self.bytes.longest() {
            Some(longest) => text_bytes / (longest.max(1) * NORMALISED_SHRINK_MAX),
            None => 0,
        }
    }

    /// Ids of a prompt: bos where the model wants one, then the text.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids: Vec<u32> = self.bos.into_iter().collect();
        ids.extend(self.encode(text)?);
        Ok(ids)
    }

    /// Ids of a text that begins here; control tokens spelled out in it are plain characters.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let lead = match self.lead {
            _ if text.is_empty() => false,
            Lead::None => false,
            Lead::Always => true,
            Lead::UnlessSpace => !text.starts_with([' ', '▁']),
            Lead::UnlessWhite => !text.starts_with(char::is_whitespace),
        };
        if lead { self.encode_rest(&format!(" {text}")) } else { self.encode_rest(text) }
    }

    /// As [`Tokenizer::encode`], for a text that goes on after something else: no space is put
    /// before it.
    pub fn encode_rest(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > ENCODE_BYTES_MAX {
            return Err(TokenizerError::TooLong { bytes: text.len() });
        }
        guarded(|| self.inner.encode_fast(text, false))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(TokenizerError::Encode)
    }

    /// Breaks up control tokens that are spelled out in a text, so that
    /// [`Tokenizer::encode_special`] takes them for the characters they are.
    pub fn guard<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.control.finder.is_match(text) {
            return Cow::Borrowed(text);
        }
        let mut guarded = String::with_capacity(text.len() + 64);
        let mut done = 0;
        // tokens may overlap, so every character that can begin one is guarded
        for found in self.control.finder.find_iter(text) {
            for (offset, character) in text[found.range()].char_indices() {
                let end = found.start() + offset + character.len_utf8();
                guarded.push_str(&text[done..end]);
                guarded.push(GUARD);
                done = end;
            }
        }
        guarded.push_str(&text[done..]);
        Cow::Owned(guarded)
    }

    /// Ids of a text in which control tokens are meant, except where they are guarded: a rendered
    /// chat template.
    pub fn encode_special(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        let mut done = 0;
        for found in self.control.finder.find_iter(text) {
            let token = self.control.tokens[found.pattern().as_usize()];
            let mut before = text.get(done..found.start()).unwrap_or_default();
            if token.strip_left {
                before = before.trim_end();
            }
            self.encode_part(before, done, &mut ids)?;
            ids.push(token.id);
            done = found.end();
            if token.strip_right {
                done = text.len() - text[done..].trim_start().len();
            }
        }
        self.encode_part(text.get(done..).unwrap_or_default(), done, &mut ids)?;
        Ok(ids)
    }

    fn encode_part(
        &self,
        part: &str,
        offset: usize,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if !part.is_empty() {
            let encode = if offset == 0 { Self::encode } else { Self::encode_rest };
            let part = if part.contains(GUARD) { &part.replace(GUARD, "") } else { part };
            ids.extend(encode(self, part)?);
        }
        Ok(())
    }
}

impl Control {
    fn new(source: &Source) -> Result<Self, TokenizerError> {
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(source.control.iter().map(|added| added.content.as_str()))
            .map_err(|error| TokenizerError::Invalid(error.to_string()))?;
        let tokens = source
            .control
            .iter()
            .map(|added| ControlToken {
                id: added.id,
                strip_left: added.lstrip,
                strip_right: added.rstrip,
            })
            .collect();
        Ok(Self { finder, tokens })
    }
}

/// Runs code of the library on files and texts nobody vouches for: its panics are errors.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizer library panicked".into()),
    }
}

fn read(folder: &Path, file: &str) -> Result<Vec<u8>, TokenizerError> {
    let path = folder.join(file);
    std::fs::read(&path)
        .map_err(|source| TokenizerError::Read { path: path.display().to_string(), source })
}

fn read_optional(folder: &Path, file: &str) -> Result<Option<Vec<u8>>, TokenizerError> {
    match read(folder, file) {
        Err(TokenizerError::Read { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
