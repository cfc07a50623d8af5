//! Secrets back into an answer: a filter of text that comes in parts.
//!
//! Nothing is held back but what may be the beginning of a placeholder. What only resembles one
//! is damage: the model spelled it otherwise, or made one up, and nobody knows what was meant.

use std::ops::Range;
use std::sync::Arc;

/// Letters of a placeholder's beginning, or digits of its end, from which an answer that ends
/// within them is taken for a cut placeholder.
const TELLING: usize = 5;
/// Signs between two letters of a placeholder that still count as its spelling.
const SIGNS_MAX: usize = 2;

/// A placeholder came back damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Placeholders and what they stand for.
pub(super) struct Names {
    /// Letters of their common beginning; see [`letters`].
    pub(super) stem: String,
    /// Their common end, in lower case.
    pub(super) nonce: String,
    /// Placeholders and secrets; no placeholder begins another.
    pub(super) pairs: Vec<(String, String)>,
}

/// Knows the placeholders of one request.
pub struct Restorer(Names);

impl std::fmt::Debug for Restorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Restorer(of {})", self.0.pairs.len())
    }
}

/// What a text begins with.
enum Look {
    /// A placeholder, by its number.
    Is(usize),
    /// The text ends before one can tell.
    MayBe,
    Damaged,
    Other,
}

impl Restorer {
    pub(super) fn new(names: Names) -> Self {
        Self(names)
    }

    pub(super) fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.0.pairs.iter().map(|(placeholder, _)| placeholder.as_str())
    }

    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.0.pairs.iter().map(|(_, secret)| secret.as_str())
    }

    /// The placeholder of a secret.
    pub(super) fn placeholder(&self, secret: &str) -> Option<&str> {
        let pair = self.0.pairs.iter().find(|(_, known)| known == secret);
        pair.map(|(placeholder, _)| placeholder.as_str())
    }

    /// Where placeholders stand in a text.
    pub(super) fn places(&self, text: &str) -> Vec<Range<usize>> {
        let of = |placeholder: &str| {
            let all = text.match_indices(placeholder).map(|(at, found)| at..at + found.len());
            all.collect::<Vec<_>>()
        };
        self.placeholders().flat_map(of).collect()
    }

    fn look(&self, rest: &str) -> Look {
        let first = rest.as_bytes().first().map(u8::to_ascii_lowercase);
        let beginnings = [self.0.stem.as_bytes().first(), self.0.nonce.as_bytes().first()];
        if !beginnings.contains(&first.as_ref()) {
            return Look::Other;
        }
        if let Some(number) = self.placeholders().position(|one| rest.starts_with(one)) {
            return Look::Is(number);
        }
        let (stem, ended) = self.of_stem(rest);
        let digits = self.of_nonce(rest);
        if self.placeholders().any(|placeholder| placeholder.starts_with(rest)) {
            Look::MayBe
        } else if stem == self.0.stem.len() || digits == self.0.nonce.len() {
            Look::Damaged
        } else if (stem > 0 && ended) || digits == rest.len() {
            Look::MayBe
        } else {
            Look::Other
        }
    }

    /// Letters of the stem that a text begins with, in whatever spelling, and whether it ends
    /// with them.
    fn of_stem(&self, rest: &str) -> (usize, bool) {
        let stem = self.0.stem.as_bytes();
        let (mut count, mut signs) = (0, 0);
        for byte in rest.bytes() {
            if count == stem.len() {
                return (count, false);
            }
            if byte.to_ascii_lowercase() == stem[count] {
                count += 1;
                signs = 0;
            } else if count > 0 && is_sign(byte) && signs < SIGNS_MAX {
                signs += 1;
            } else {
                return (count, false);
            }
        }
        (count, true)
    }

    /// Digits of the nonce that a text begins with.
    fn of_nonce(&self, rest: &str) -> usize {
        let same = |(a, b): &(u8, u8)| a.eq_ignore_ascii_case(b);
        rest.bytes().zip(self.0.nonce.bytes()).take_while(same).count()
    }

    /// Whether an answer that ends with this text ended within a placeholder. `cut`: it did not
    /// end by itself, so that even one letter is too many.
    fn is_cut_placeholder(&self, rest: &str, cut: bool) -> bool {
        let begins_one = self.placeholders().any(|placeholder| placeholder.starts_with(rest));
        let (stem, ended) = self.of_stem(rest);
        let digits = self.of_nonce(rest);
        (begins_one && (cut || rest.len() > self.0.stem.len()))
            || (ended && stem >= TELLING)
            || (digits == rest.len() && digits >= TELLING)
    }
}

/// One choice of an answer on its way to the client.
#[derive(Clone, Debug)]
pub struct Restoring {
    restorer: Arc<Restorer>,
    /// What may be the beginning of a placeholder.
    held: String,
    damaged: bool,
}

impl Restoring {
    pub fn new(restorer: Arc<Restorer>) -> Self {
        Self { restorer, held: String::new(), damaged: false }
    }

    /// Takes the next text and appends what is certain to `out`. After damage nothing is.
    pub fn push(&mut self, text: &str, out: &mut String) -> Result<(), Damaged> {
        self.held += text;
        self.release(None, out)
    }

    /// The answer ended; `cut`: not by itself.
    pub fn finish(&mut self, cut: bool, out: &mut String) -> Result<(), Damaged> {
        self.release(Some(cut), out)
    }

    /// `ends`: nothing follows, and whether that is a cut.
    fn release(&mut self, ends: Option<bool>, out: &mut String) -> Result<(), Damaged> {
        let mut at = 0;
        while let Some(first) = self.held[at..].chars().next().filter(|_| !self.damaged) {
            let rest = &self.held[at..];
            match self.restorer.look(rest) {
                Look::Is(number) => {
                    let (placeholder, secret) = &self.restorer.0.pairs[number];
                    out.push_str(secret);
                    at += placeholder.len();
                    continue;
                }
                Look::MayBe => match ends {
                    None => break,
                    Some(cut) => self.damaged = self.restorer.is_cut_placeholder(rest, cut),
                },
                Look::Damaged => self.damaged = true,
                Look::Other => {}
            }
            if !self.damaged {
                out.push(first);
                at += first.len_utf8();
            }
        }
        self.held.drain(..at);
        if self.damaged { Err(Damaged) } else { Ok(()) }
    }
}

/// What may stand between the letters of a placeholder that somebody spells otherwise.
fn is_sign(byte: u8) -> bool {
    matches!(byte, b'_' | b'-' | b'\\' | b' ' | b'.')
}

/// A text's letters and digits, in lower case, without what may stand between them.
pub(super) fn letters(text: &str) -> String {
    let between = |c: &char| u8::try_from(*c).is_ok_and(is_sign);
    text.chars().filter(|c| !between(c)).map(|c| c.to_ascii_lowercase()).collect()
}
