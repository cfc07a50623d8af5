//! Real prompts, in ids: drawn from files of text, or recorded in traces.

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use models::fim::FimText;
use models::language::Language;

use super::{Failure, trace};

/// Tokens of a prompt that is drawn.
const TOKENS: RangeInclusive<usize> = 100..=400;
/// Text that is read for a token; more than any tokenizer's mean.
const BYTES_PER_TOKEN: usize = 8;
/// Far above any file that somebody wrote.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Places that are looked at for each prompt before the files are found too short.
const TRIES: usize = 50;
const SEED: u64 = 1;

/// What prompts are for.
pub(super) struct Reader<'a> {
    pub(super) language: &'a Language,
    pub(super) vocab: usize,
    /// The model's longest sequence, in tokens.
    pub(super) context: usize,
    /// Longest prompt, in tokens.
    pub(super) most: usize,
}

struct Text {
    path: String,
    text: String,
}

impl Reader<'_> {
    /// `count` prompts, the same for the same files: those of the traces among them (`.json`) as
    /// they are, if they are short enough, then as many as are missing from the others in turn, every second one with the
    /// text after a cursor where the model can fill in the middle.
    pub(super) fn prompts(
        &self,
        files: &[PathBuf],
        count: usize,
    ) -> Result<Vec<Vec<u32>>, Failure> {
        let (mut prompts, mut texts) = (Vec::new(), Vec::new());
        for file in files {
            if file.extension().is_some_and(|extension| extension == "json") {
                let traces = trace::read(file, self.vocab, self.context)?;
                let recorded = traces.into_iter().map(|trace| trace.prompt);
                prompts.extend(recorded.filter(|prompt| prompt.len() <= self.most));
            } else {
                texts.push(read(file)?);
            }
        }
        let mut rng = fastrand::Rng::with_seed(SEED);
        for turn in 0..count * TRIES {
            if prompts.len() >= count || texts.is_empty() {
                break;
            }
            let text = &texts[turn % texts.len()];
            prompts.extend(self.draw(text, prompts.len() % 2 == 1, &mut rng)?);
        }
        if prompts.len() < count {
            return Err(Failure::Other(format!(
                "the files have text for {} prompts of {TOKENS:?} tokens, not {count}",
                prompts.len()
            )));
        }
        prompts.truncate(count);
        Ok(prompts)
    }

    /// A prompt from somewhere in a text; None where too little follows.
    fn draw(
        &self,
        Text { path, text }: &Text,
        middle: bool,
        rng: &mut fastrand::Rng,
    ) -> Result<Option<Vec<u32>>, Failure> {
        let most = rng.usize(TOKENS).min(self.most);
        let at = text.floor_char_boundary(rng.usize(..=text.len()));
        let tokenizer = &self.language.tokenizer;
        let wrong = |error: &dyn std::fmt::Display| Failure::Other(format!("{path}: {error}"));
        let ids = match &self.language.fim {
            Some(fim) if middle => {
                let (prefix, suffix) = text.split_at(at);
                let cut = FimText { prefix, suffix, path: Some(path), ..FimText::default() };
                let pieces = fim.tokenise(tokenizer, &cut, most);
                let rendered = pieces.and_then(|pieces| fim.render(&pieces, most));
                rendered.map_err(|error| wrong(&error))?.ids
            }
            _ => {
                let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
                let end = text.floor_char_boundary(start + most * BYTES_PER_TOKEN);
                let ids = tokenizer.encode_prompt(&text[start..end]);
                let mut ids = ids.map_err(|error| wrong(&error))?;
                ids.truncate(most);
                ids
            }
        };
        Ok((ids.len() >= *TOKENS.start()).then_some(ids))
    }
}

fn read(file: &Path) -> Result<Text, Failure> {
    let mut text = String::new();
    File::open(file)
        .and_then(|open| open.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| Failure::Other(format!("{}: {error}", file.display())))?;
    Ok(Text { path: file.display().to_string(), text })
}
