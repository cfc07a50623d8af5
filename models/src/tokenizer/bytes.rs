//! The bytes of every token, laid out once at load.

use std::collections::HashMap;

/// How a vocabulary spells bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// GPT-2's alphabet: one printable character for each byte.
    ByteLevel,
    /// SentencePiece: `▁` for a space (and other replacements), `<0x0A>` for a lone byte.
    Pieces { replacements: Vec<(String, String)>, byte_fallback: bool },
}

/// Bytes by id and ids by spelling.
#[derive(Debug, Default)]
pub(super) struct ByteTable {
    /// All tokens' bytes, one after the other.
    text: Vec<u8>,
    /// Where each id's bytes end in `text`.
    ends: Vec<u32>,
    special: Vec<bool>,
    ids: HashMap<String, u32>,
    /// Bytes of the longest token; None where one unknown token stands for any number of bytes.
    longest: Option<usize>,
}

/// One entry of a vocabulary.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) token: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Spelled as the vocabulary spells.
    Vocabulary,
    /// Added to the vocabulary: spelled as it reads.
    Text,
    /// Steers the model.
    Special,
}

impl ByteTable {
    /// `entries[id]`; ids that a vocabulary leaves out are None.
    pub(super) fn new(entries: Vec<Option<Entry>>, spelling: &Spelling) -> Self {
        let mut table = Self::default();
        let alphabet = alphabet();
        for (id, entry) in (0u32..).zip(entries) {
            let special = entry.as_ref().is_some_and(|entry| entry.kind == Kind::Special);
            if let Some(entry) = entry {
                match entry.kind {
                    Kind::Special => {}
                    Kind::Text => table.text.extend_from_slice(entry.token.as_bytes()),
                    Kind::Vocabulary => spell(&entry.token, spelling, &alphabet, &mut table.text),
                }
                table.ids.insert(entry.token, id);
            }
            table.special.push(special);
            table.ends.push(table.text.len() as u32);
        }
        if !matches!(spelling, Spelling::Pieces { byte_fallback: false, .. }) {
            table.longest = (0..table.ends.len() as u32).map(|id| table.get(id).len()).max();
        }
        table
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    pub(super) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.text[start as usize..end as usize]
    }

    pub(super) fn longest(&self) -> Option<usize> {
        self.longest
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}

fn spell(token: &str, spelling: &Spelling, alphabet: &HashMap<char, u8>, out: &mut Vec<u8>) {
    match spelling {
        Spelling::ByteLevel => {
            let start = out.len();
            for letter in token.chars() {
                let Some(&byte) = alphabet.get(&letter) else {
                    // a token outside the alphabet is taken as it reads
                    out.truncate(start);
                    out.extend_from_slice(token.as_bytes());
                    return;
                };
                out.push(byte);
            }
        }
        Spelling::Pieces { replacements, byte_fallback } => {
            if *byte_fallback && let Some(byte) = lone_byte(token) {
                out.push(byte);
                return;
            }
            let mut text = token.to_owned();
            for (from, to) in replacements {
                text = text.replace(from, to);
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// `<0x0A>` is the byte 10.
fn lone_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// GPT-2's alphabet: printable bytes stand for themselves, the others follow from U+0100 on in
/// their order.
fn alphabet() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=u8::MAX).filter(|byte| !printable(*byte));
    let shifted = ('\u{100}'..).zip(others);
    (0..=u8::MAX)
        .filter(|byte| printable(*byte))
        .map(|byte| (char::from(byte), byte))
        .chain(shifted)
        .collect()
}
