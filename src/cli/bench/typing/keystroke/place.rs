//! A cursor in the middle of real text, with so many tokens before it and behind.

use models::language::Language;

use super::super::edits::key;
use super::super::sources::Source;
use crate::cli::Failure;

/// Text that is looked at for a token; more than any tokenizer's mean.
const BYTES_PER_TOKEN: usize = 8;

/// What a prompt is to hold, in tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) prefix: usize,
    pub(super) suffix: usize,
}

/// Text around a cursor, and the keys that its author pressed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) prefix: String,
    pub(super) suffix: String,
    pub(super) path: String,
    pub(super) keys: Vec<String>,
}

/// Draws places; those of a seed are always the same.
pub(super) struct Places<'a> {
    files: &'a [Source],
    language: &'a Language,
    luck: fastrand::Rng,
}

impl<'a> Places<'a> {
    pub(super) fn new(files: &'a [Source], language: &'a Language, seed: u64) -> Self {
        Self { files, language, luck: fastrand::Rng::with_seed(seed) }
    }

    /// `keys`: how many are pressed, none of which ends the line.
    pub(super) fn draw(&mut self, size: Size, keys: usize) -> Result<Place, Failure> {
        let first = self.luck.usize(..self.files.len());
        // One file is seldom long enough: others lie before it and behind, as if in one.
        let (before, behind) = self.files.split_at(first);
        let all = behind.iter().chain(before).map(|file| &*file.text).collect::<Vec<_>>();
        let text = [all.concat(), all.concat()].concat();
        let middle = text.len() / 2;
        let about = text.floor_char_boundary(middle + self.luck.usize(..middle / 2));
        let cursor = cursor(&text[about..], keys).map(|at| about + at);
        let cursor = cursor.ok_or_else(|| Failure::Other("no line is long enough".into()))?;
        let (mut pressed, mut at) = (Vec::new(), cursor);
        for _ in 0..keys {
            let next = key(&text[at..]);
            pressed.push(next.to_owned());
            at += next.len();
        }
        // What is pressed is missing from the text until then, with the rest of its line.
        let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
        Ok(Place {
            prefix: self.ending(&text[..cursor], size.prefix)?,
            suffix: self.beginning(&text[end..], size.suffix)?,
            path: self.files[first].path.clone(),
            keys: pressed,
        })
    }

    /// The longest end of a text that has no more tokens.
    fn ending(&self, text: &str, tokens: usize) -> Result<String, Failure> {
        let begin = text.ceil_char_boundary(text.len().saturating_sub(tokens * BYTES_PER_TOKEN));
        let text = &text[begin..];
        let part = |bytes: usize| &text[text.ceil_char_boundary(text.len() - bytes)..];
        self.longest(text.len(), tokens, part)
    }

    fn beginning(&self, text: &str, tokens: usize) -> Result<String, Failure> {
        let text = &text[..text.floor_char_boundary(tokens * BYTES_PER_TOKEN)];
        self.longest(text.len(), tokens, |bytes| &text[..text.floor_char_boundary(bytes)])
    }

    fn longest<'t>(
        &self,
        bytes: usize,
        tokens: usize,
        part: impl Fn(usize) -> &'t str,
    ) -> Result<String, Failure> {
        let (mut fits, mut too_long) = (0, bytes + 1);
        while too_long - fits > 1 {
            let middle = usize::midpoint(fits, too_long);
            let ids = self.language.tokenizer.encode_rest(part(middle));
            let ids = ids.map_err(|error| Failure::Other(error.to_string()))?;
            if ids.len() <= tokens { fits = middle } else { too_long = middle }
        }
        Ok(part(fits).to_owned())
    }
}

/// Bytes to the first place where so many keys are pressed in one line, somewhere inside it.
fn cursor(text: &str, keys: usize) -> Option<usize> {
    let mut start = text.find('\n')? + 1;
    for line in text[start..].split_inclusive('\n') {
        let indentation = line.len() - line.trim_start().len();
        let typed = line.trim().chars().count();
        if typed >= 2 * keys.max(2) {
            let inside = line.trim().char_indices().nth(typed / 2 - keys / 2)?.0;
            return Some(start + indentation + inside);
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use models::FimOrder;
    use models::model::ModelSource;

    use super::super::super::sources;
    use super::*;

    #[test]
    fn a_place_has_as_many_tokens_as_it_should() {
        let files = sources::own();
        let language = Language::load(&ModelSource::Builtin, FimOrder::Auto).unwrap();
        let size = Size { prefix: 600, suffix: 300 };
        let mut places = Places::new(&files, &language, 1);
        for _ in 0..5 {
            let place = places.draw(size, 4).unwrap();
            let count = |text: &str| language.tokenizer.encode_rest(text).unwrap().len();
            let near = |count: usize, wanted: usize| (wanted - 3..=wanted).contains(&count);
            assert!(near(count(&place.prefix), 600), "{}", count(&place.prefix));
            assert!(near(count(&place.suffix), 300), "{}", count(&place.suffix));
            assert_eq!(place.keys.len(), 4);
            assert!(place.keys.iter().all(|key| !key.contains('\n')), "{:?}", place.keys);
        }
        let again = |seed| Places::new(&files, &language, seed).draw(size, 2).unwrap();
        assert_eq!(again(7), again(7));
        assert_ne!(again(7), again(8));
    }
}
