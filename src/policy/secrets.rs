//! Whether a request holds a secret: scanned before it may leave, and never ignored.
//!
//! All patterns run at once in linear time, whatever the text. What was found is told by the
//! rule's name alone.

mod formats;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::upstream::UpstreamNames;
use crate::completion::{CompletionRequest, Input};
use formats::{Check, FORMATS};

/// Most patterns of the operator's own.
pub const OWN_MAX: usize = 256;
/// Longest of them in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Memory that compiling them may take; a pattern that needs more is refused when it is loaded.
const COMPILED_BYTES_MAX: usize = 16 << 20;
/// Bits of each character from which a text is too random to be a word or a name.
const RANDOM_BITS: f64 = 3.0;

/// A pattern of the operator's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRule {
    pub name: Arc<str>,
    /// Of the `regex` crate.
    pub pattern: String,
}

/// Finds secrets.
#[derive(Clone, Debug)]
pub struct Scanner {
    set: RegexSet,
    /// By the patterns' indices.
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    name: Arc<str>,
    /// What must hold of a match beside the pattern; None: the pattern says it all.
    doubt: Option<(Regex, Check)>,
}

impl Scanner {
    /// The known formats and the operator's own; the error names what is wrong with one of those.
    pub fn new(own: &[SecretRule]) -> Result<Self, (usize, String)> {
        for (index, rule) in own.iter().enumerate() {
            compile(&rule.pattern).map_err(|error| (index, error))?;
        }
        let known = FORMATS.iter().map(|format| format.pattern);
        let patterns = known.chain(own.iter().map(|rule| rule.pattern.as_str()));
        let set = RegexSetBuilder::new(patterns)
            .unicode(false)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| (own.len().saturating_sub(1), error.to_string()))?;
        let known = FORMATS.iter().map(|format| Rule {
            name: format.name.into(),
            doubt: (format.check != Check::None).then(|| {
                (compile(format.pattern).expect("the table's patterns compile"), format.check)
            }),
        });
        let own = own.iter().map(|rule| Rule { name: rule.name.clone(), doubt: None });
        Ok(Self { set, rules: known.chain(own).collect() })
    }

    /// The first rule that finds something in a request: in each of its texts, and in all of them
    /// one after another, since a cursor may stand in the middle of a key.
    pub fn scan(&self, request: &CompletionRequest) -> Option<&Arc<str>> {
        let parts = parts(&request.input);
        let whole = parts.concat();
        let found = || parts.iter().filter(|_| parts.len() > 1).find_map(|part| self.find(part));
        self.find(&whole).or_else(found)
    }

    /// The first rule that finds something in a text.
    pub fn find(&self, text: &str) -> Option<&Arc<str>> {
        let matched = self.set.matches(text.as_bytes());
        let mut rules = matched.into_iter().map(|index| &self.rules[index]);
        rules.find(|rule| rule.is_sure(text)).map(|rule| &rule.name)
    }
}

impl Rule {
    fn is_sure(&self, text: &str) -> bool {
        let Some((pattern, check)) = &self.doubt else { return true };
        pattern.captures_iter(text.as_bytes()).any(|captures| {
            let value = captures.name("value").map_or(&b""[..], |value| value.as_bytes());
            match check {
                Check::None => true,
                Check::Random => is_random(value),
                Check::NotAPlaceholder => !is_reference(value) && !is_stand_in(value),
            }
        })
    }
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).unicode(false).size_limit(COMPILED_BYTES_MAX).build();
    built.map_err(|error| error.to_string())
}

/// Every text of a request that would leave, in the order in which a model reads them.
fn parts(input: &Input) -> Vec<Cow<'_, str>> {
    match input {
        Input::Text(text) => vec![text.into()],
        // Ids never leave.
        Input::Tokens(_) => Vec::new(),
        Input::Chat(messages) => {
            messages.iter().map(|message| (&*message.content).into()).collect()
        }
        Input::Fim(fim) => {
            // Names as they would be sent: what is cut from them stays anyway.
            let UpstreamNames { path, repository, extras } = UpstreamNames::of(fim);
            let texts = fim.extra.iter().map(|file| Cow::from(&*file.text));
            let extras = extras.into_iter().map(Cow::from).zip(texts).flat_map(<[_; 2]>::from);
            let names = repository.into_iter().chain(path).map(Cow::from);
            extras.chain(names).chain([(&*fim.prefix).into(), (&*fim.suffix).into()]).collect()
        }
    }
}

/// Whether a text looks drawn, and not written: letters and digits mixed, and no repetition.
fn is_random(value: &[u8]) -> bool {
    let has = |of: fn(&u8) -> bool| value.iter().any(of);
    let mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
    mixed && !is_placeholder(value) && entropy(value) >= RANDOM_BITS
}

/// Shannon's entropy of the text's own bytes, in bits per byte.
fn entropy(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    value.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let len = value.len() as f64;
    let share = |count: &u32| f64::from(*count) / len;
    -counts.iter().filter(|count| **count > 0).map(share).map(|p| p * p.log2()).sum::<f64>()
}

/// Words that stand for a secret in an example.
const STAND_INS: [&str; 14] = [
    "example",
    "placeholder",
    "your",
    "xxxx",
    "changeme",
    "dummy",
    "sample",
    "redacted",
    "****",
    "test",
    "secret",
    "password",
    "passwd",
    "localhost",
];

/// Whether a text is taken from elsewhere when it runs.
fn is_reference(value: &[u8]) -> bool {
    ["${", "<", "%(", "$(", "{"].iter().any(|mark| value.starts_with(mark.as_bytes()))
}

/// Whether a text is such a word, or several, and digits: a password that merely holds one is a
/// password.
fn is_stand_in(value: &[u8]) -> bool {
    let mut rest = String::from_utf8_lossy(value).to_ascii_lowercase();
    for word in STAND_INS {
        rest = rest.replace(word, "");
    }
    rest.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_punctuation())
}

/// Whether a value that looks drawn stands for a secret all the same.
fn is_placeholder(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    is_reference(value) || STAND_INS.iter().any(|word| text.contains(word))
}
