//! The chain of hashes: each row's covers the row and the hash before it.
//!
//! SHA-256 over the hash before, the row's number, and each column in order: a byte that tells
//! its kind, then 8 bytes of an integer (little endian), or 4 of a text's length and the text.

use aws_lc_rs::digest::{Context, SHA256};

use super::entry::Field;

pub(super) const HASH_BYTES: usize = 32;
pub(super) type Hash = [u8; HASH_BYTES];

/// The hash before the first row.
pub(super) const GENESIS: Hash = [0; HASH_BYTES];

/// The hash of row `seq`, whose columns are `fields`.
pub(super) fn next<'a>(
    before: &Hash,
    seq: i64,
    fields: impl IntoIterator<Item = Field<'a>>,
) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(before);
    context.update(&seq.to_le_bytes());
    for field in fields {
        match field {
            Field::Null => context.update(b"n"),
            Field::Int(value) => {
                context.update(b"i");
                context.update(&value.to_le_bytes());
            }
            Field::Text(value) => {
                context.update(b"t");
                // Texts are cut far below this when they are stored; one that was put there by
                // other hands may have any length, and its bytes are hashed all the same.
                context.update(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
                context.update(value.as_bytes());
            }
        }
    }
    let mut hash = GENESIS;
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// As people compare them.
pub(super) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected value is Python's hashlib over the bytes that are described above..
    #[test]
    fn a_hash_is_that_of_the_documented_bytes() {
        let fields = [Field::Int(5), Field::Null, Field::Text("ab")];
        let hash = next(&GENESIS, 1, fields);
        assert_eq!(hex(&hash), "fae7ae581d190974b77afdc991c6c7669225ca9764e390df7d9bc9ca59d9d22d");
    }

    #[test]
    fn what_is_moved_between_columns_is_another_row() {
        let of = |fields: &[Field<'static>]| next(&GENESIS, 1, fields.iter().copied());
        let hashes = [
            of(&[Field::Text("ab"), Field::Text("c")]),
            of(&[Field::Text("a"), Field::Text("bc")]),
            of(&[Field::Text("abc"), Field::Null]),
            of(&[Field::Null, Field::Text("abc")]),
            of(&[Field::Int(0), Field::Null]),
            of(&[Field::Null, Field::Int(0)]),
            next(&GENESIS, 2, [Field::Null, Field::Int(0)]),
            next(&[1; HASH_BYTES], 1, [Field::Null, Field::Int(0)]),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "{index}");
        }
    }
}
