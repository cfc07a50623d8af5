//! Tenants by their keys. Only digests are held, and a look-up takes the same time whatever it
//! is asked: neither a hit nor where it lies shows in how long the answer takes.

use aws_lc_rs::digest::{SHA256, digest};
use subtle::{ConditionallySelectable, ConstantTimeEq};

/// Keys of all tenants together. A look-up visits every one, some microseconds at this bound.
pub const KEYS_MAX: usize = 4096;

/// SHA-256 of a key. Plain, without salt: keys are random and long, unlike passwords.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u64; 4]);

impl KeyDigest {
    pub fn of(key: &str) -> Self {
        let bytes = digest(&SHA256, key.as_bytes());
        Self::from_bytes(bytes.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(nibble(pair[0])? * 16 + nibble(pair[1])?).ok()?;
        }
        Some(Self::from_bytes(bytes))
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, eight) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(eight.try_into().expect("chunks of 8"));
        }
        Self(words)
    }
}

impl std::fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyDigest(..)")
    }
}

/// Every key there is, each with its tenant's index.
#[derive(Clone, Debug, Default)]
pub struct Keyring(Vec<(KeyDigest, u32)>);

impl Keyring {
    /// At most [`KEYS_MAX`] keys, no two alike; the configuration has checked both.
    pub fn new(keys: Vec<(KeyDigest, u32)>) -> Self {
        assert!(keys.len() <= KEYS_MAX, "the configuration bounds keys");
        Self(keys)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose key this is.
    pub fn find(&self, key: &str) -> Option<u32> {
        let KeyDigest(asked) = KeyDigest::of(key);
        // Tenants are counted from 1 here, so that 0 is nobody.
        let mut found = 0;
        for (KeyDigest(known), tenant) in &self.0 {
            let same = asked[..].ct_eq(&known[..]);
            found.conditional_assign(&(tenant + 1), same);
        }
        u32::checked_sub(found, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_what_sha256sum_says() {
        let hex = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        assert_eq!(KeyDigest::of("foo"), KeyDigest::from_hex(hex).unwrap());
        assert_eq!(KeyDigest::of("foo"), KeyDigest::from_hex(&hex.to_uppercase()).unwrap());
        for wrong in ["", &hex[1..], &hex.replace('2', "g"), &format!("{hex}0"), &"é".repeat(32)] {
            assert!(KeyDigest::from_hex(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn each_key_finds_its_tenant_and_no_other_key_finds_any() {
        assert_eq!(Keyring::default().find("k0"), None);
        let ring = Keyring::new((0..9).map(|i| (KeyDigest::of(&format!("k{i}")), i / 3)).collect());
        for i in 0..9 {
            assert_eq!(ring.find(&format!("k{i}")), Some(i / 3));
        }
        for wrong in ["", "k", "k9", "k00", "K0", " k0"] {
            assert_eq!(ring.find(wrong), None, "{wrong:?}");
        }
    }
}
