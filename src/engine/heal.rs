//! Token healing: a prompt that ends inside of a word ends in tokens that the whole word would not
//! have, and a model that never saw them in a row goes on badly. The word so far is taken back, and
//! the first tokens of the answer are chosen among those that begin with it, or that it begins with.
//! docs/experiments.md has what it is worth.

use std::sync::Arc;

use models::tokenizer::Tokenizer;

/// Tokens of a word that are taken back.
const TOKENS_MAX: usize = 8;

/// The word that a prompt ended in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    bytes: Arc<[u8]>,
    /// Its tokens: how many more the answer may need.
    pub(super) tokens: usize,
}

/// Takes the word back that a prompt ends in.
pub(super) fn take_back(ids: &mut Vec<u32>, tokenizer: &Tokenizer) -> Option<Taken> {
    let bytes = |back: usize| {
        ids.len().checked_sub(back).and_then(|at| ids.get(at)).map(|id| tokenizer.bytes(*id))
    };
    let ends_in_word =
        |back| bytes(back).and_then(<[u8]>::last).is_some_and(u8::is_ascii_alphanumeric);
    let begins_in_word =
        |back| bytes(back).and_then(<[u8]>::first).is_some_and(u8::is_ascii_alphanumeric);
    if !ends_in_word(1) {
        return None;
    }
    let mut tokens = 1;
    while tokens < TOKENS_MAX && begins_in_word(tokens) && ends_in_word(tokens + 1) {
        tokens += 1;
    }
    // something must be left to go on from
    let kept = ids.len().checked_sub(tokens).filter(|kept| *kept > 0)?;
    let word: Vec<u8> = ids.drain(kept..).flat_map(|id| tokenizer.bytes(id)).copied().collect();
    Some(Taken { bytes: word.into(), tokens })
}

/// What of a word is still to be said again.
#[derive(Debug)]
pub(super) struct Healing {
    taken: Taken,
    said: usize,
    /// Tokens that said nothing new.
    tokens: usize,
}

impl Healing {
    pub(super) fn new(taken: Taken) -> Self {
        Self { taken, said: 0, tokens: 0 }
    }

    pub(super) fn is_over(&self) -> bool {
        self.left().is_empty()
    }

    /// Tokens of the answer that said nothing new.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Most of the sequence's tokens that are the answer's own.
    pub(super) fn own_tokens(&self, all: usize) -> usize {
        all - self.taken.tokens
    }

    fn left(&self) -> &[u8] {
        &self.taken.bytes[self.said..]
    }

    /// Leaves only tokens that say the word again: `logits` of the whole vocabulary.
    pub(super) fn mask(&self, logits: &mut [f32], tokenizer: &Tokenizer) {
        let left = self.left();
        for (id, logit) in (0..).zip(logits) {
            let bytes = tokenizer.bytes(id);
            if bytes.is_empty() || !(bytes.starts_with(left) || left.starts_with(bytes)) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// Takes a token's bytes; those that are new.
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let again = self.left().len().min(bytes.len());
        self.said += again;
        self.tokens += usize::from(again == bytes.len());
        &bytes[again..]
    }
}

#[cfg(test)]
mod tests {
    use models::tokenizer::TokenizerFiles;

    use super::*;

    fn tokenizer() -> Tokenizer {
        let tokenizer = include_bytes!("../../models/default/tokenizer.json");
        let files = TokenizerFiles { tokenizer, ..TokenizerFiles::default() };
        Tokenizer::from_files(&files).expect("the default tokenizer loads")
    }

    #[test]
    fn a_word_is_taken_back_whole() {
        let tokenizer = tokenizer();
        for (text, word) in [
            ("x = retu", "retu"),
            ("foo(qqxyzw", "qqxyzw"),
            ("foo(", ""),
            ("foo ", ""),
            ("caf\u{e9}", ""),
        ] {
            let mut ids = tokenizer.encode(text).expect("short");
            let before = ids.len();
            let taken = take_back(&mut ids, &tokenizer);
            let bytes = taken.as_ref().map_or(&[][..], |taken| &taken.bytes);
            let letters = std::str::from_utf8(bytes).expect("ASCII");
            let letters = letters.trim_start_matches(|c: char| !c.is_alphanumeric());
            assert_eq!(letters, word, "{text}");
            assert_eq!(before, ids.len() + taken.map_or(0, |taken| taken.tokens));
        }
        assert_eq!(take_back(&mut Vec::new(), &tokenizer), None);
        let mut alone = tokenizer.encode("re").expect("short");
        let before = alone.clone();
        assert!(alone.len() > 1 || take_back(&mut alone, &tokenizer).is_none());
        assert_eq!(alone, before);
    }

    #[test]
    fn only_what_says_the_word_again_is_left() {
        let tokenizer = tokenizer();
        let taken = Taken { bytes: b"retu".as_slice().into(), tokens: 2 };
        let mut healing = Healing::new(taken);
        assert_eq!(healing.own_tokens(10), 8);
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        healing.mask(&mut logits, &tokenizer);
        for (id, logit) in (0..).zip(&logits) {
            let bytes = tokenizer.bytes(id);
            let says =
                !bytes.is_empty() && (b"retu".starts_with(bytes) || bytes.starts_with(b"retu"));
            assert_eq!(logit.is_finite(), says, "{id}");
        }
        assert_eq!(healing.take(b"re"), b"");
        assert!(!healing.is_over());
        assert_eq!(healing.take(b"turn x"), b"rn x");
        assert!(healing.is_over());
        assert_eq!((healing.tokens(), healing.take(b"y")), (1, b"y".as_slice()));
    }
}
