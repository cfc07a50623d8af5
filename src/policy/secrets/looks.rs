//! Whether a value looks like a secret, where its pattern alone does not tell.

use std::ops::RangeInclusive;

/// Bits of each character from which a text is too random to be a word or a name.
const RANDOM_BITS: f64 = 3.0;

/// How long the number of a Discord user is.
const ID_BYTES: RangeInclusive<usize> = 24..=26;

/// Whether a text looks drawn, and not written: letters and digits mixed, and no repetition.
pub(super) fn is_random(value: &[u8]) -> bool {
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
pub(super) fn is_reference(value: &[u8]) -> bool {
    ["${", "<", "%(", "$(", "{"].iter().any(|mark| value.starts_with(mark.as_bytes()))
}

/// Whether a text is such a word, or several, and digits: a password that merely holds one is a
/// password.
pub(super) fn is_stand_in(value: &[u8]) -> bool {
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

/// Bytes of the last word of a text, where it may be the number of a Discord user in base64.
pub(super) fn id_before(text: &[u8]) -> Option<usize> {
    let is_of_word = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    let len = text.iter().rev().take(ID_BYTES.end() + 1).take_while(is_of_word).count();
    let begins_like_one = || b"MNO".contains(&text[text.len() - len]);
    (ID_BYTES.contains(&len) && begins_like_one()).then_some(len)
}
