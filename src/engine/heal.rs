//! Token healing: a prompt that ends inside of a word ends in tokens that the whole word would not
//! have, and a model that never saw them in a row goes on badly. The word so far is taken back, and
//! the first tokens of the answer are chosen among those that begin with it, or that it begins with.
//! Blanks and signs at the end likewise: ` x`, `.len` and `(self` are one token each, so a model
//! hardly ever saw a word behind ` `, `.` or `(` alone. docs/experiments.md has what each is worth.

use std::sync::Arc;

use models::tokenizer::Tokenizer;

/// Most tokens that are taken back.
const TOKENS_MAX: usize = 8;

/// The word, the blanks or the sign that a prompt ended in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    bytes: Arc<[u8]>,
    /// Its tokens: how many more the answer may need.
    pub(super) tokens: usize,
}

/// Takes the word back that a prompt ends in, or the blanks, or the token of its last sign.
pub(super) fn take_back(ids: &mut Vec<u32>, tokenizer: &Tokenizer) -> Option<Taken> {
    let last_tokens = ids.iter().rev().map(|id| tokenizer.bytes(*id)).take(TOKENS_MAX);
    let tokens = match ids.last().and_then(|id| tokenizer.bytes(*id).last()) {
        Some(byte) if byte.is_ascii_alphanumeric() => tokens_of_word(last_tokens),
        Some(byte) if byte.is_ascii_punctuation() => 1,
        _ => last_tokens.take_while(|bytes| is_blank(bytes)).count(),
    };
    // something must be left to go on from
    let kept = ids.len().checked_sub(tokens).filter(|kept| tokens > 0 && *kept > 0)?;
    let taken: Vec<u8> = ids.drain(kept..).flat_map(|id| tokenizer.bytes(id)).copied().collect();
    Some(Taken { bytes: taken.into(), tokens })
}

/// How many of the last tokens, the very last first, are of the word that they end in.
fn tokens_of_word<'a>(last: impl Iterator<Item = &'a [u8]>) -> usize {
    let mut tokens = 0;
    for bytes in last {
        if !bytes.last().is_some_and(u8::is_ascii_alphanumeric) {
            break;
        }
        tokens += 1;
        if !bytes[0].is_ascii_alphanumeric() {
            break;
        }
    }
    tokens
}

fn is_blank(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}

/// What of [`Taken`] is still to be said again.
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

    /// Leaves only tokens that say the same again: `logits` of the whole vocabulary. After blanks
    /// come no more of them: the cursor is where the editor put it.
    pub(super) fn mask(&self, logits: &mut [f32], tokenizer: &Tokenizer) {
        let (left, blanks) = (self.left(), is_blank(&self.taken.bytes));
        for (id, logit) in (0..).zip(logits) {
            let bytes = tokenizer.bytes(id);
            let goes_on = bytes.strip_prefix(left).is_some_and(|rest| {
                !(blanks && rest.first().is_some_and(|byte| is_blank(&[*byte])))
            });
            if bytes.is_empty() || !(goes_on || left.starts_with(bytes)) {
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
    fn a_word_or_blanks_or_a_sign_are_taken_back() {
        let tokenizer = tokenizer();
        for (text, taken_back) in [
            ("x = retu", " retu"),
            ("foo(qqxyzw", "(qqxyzw"),
            ("foo(", "("),
            ("foo(a, &", " &"),
            ("self.", "."),
            ("x = [[", " [["),
            ("foo ", " "),
            ("foo() {\n        ", "        "),
            ("foo() {\n\t\t", "\t\t"),
            ("foo();\n", ""),
            ("caf\u{e9}", ""),
        ] {
            let mut ids = tokenizer.encode(text).expect("short");
            let before = ids.len();
            let taken = take_back(&mut ids, &tokenizer);
            let bytes = taken.as_ref().map_or(&[][..], |taken| &taken.bytes);
            assert_eq!(std::str::from_utf8(bytes), Ok(taken_back), "{text}");
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

    #[test]
    fn after_blanks_come_no_more_of_them() {
        let tokenizer = tokenizer();
        let healing = Healing::new(Taken { bytes: b"    ".as_slice().into(), tokens: 1 });
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        healing.mask(&mut logits, &tokenizer);
        let mut left = (0..).zip(&logits).filter(|(_, logit)| logit.is_finite());
        assert!(left.all(|(id, _)| !tokenizer.bytes(id).starts_with(b"     ")));
        let said = tokenizer.encode("   ").expect("short");
        assert!(said.len() == 1 && logits[said[0] as usize].is_finite());
    }
}
