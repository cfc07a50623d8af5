//! Which prompts the prefix cache knows, for threads that do not own it.
//!
//! A full block is known by a hash over itself and all blocks before it. The hashes stand in a
//! table of fixed size that the engine's thread writes and anybody reads, without a lock. It is
//! for predictions: an entry may be a step old, and one that found no room in its set is missing.

use std::sync::atomic::{AtomicU64, Ordering};

/// Entries of a set; with as many sets as there are blocks a full one is rare.
const WAYS: usize = 4;

/// The hashes of all full blocks in the tree.
#[derive(Debug)]
pub(super) struct Digest {
    /// `[sets * WAYS]`; 0 is no entry. The number of sets is a power of two.
    entries: Box<[AtomicU64]>,
    block_tokens: usize,
}

impl Digest {
    pub(super) fn new(blocks: usize, block_tokens: usize) -> Self {
        let sets = blocks.max(1).next_power_of_two();
        let entries = (0..sets * WAYS).map(|_| AtomicU64::new(0)).collect();
        Self { entries, block_tokens }
    }

    /// How many of these tokens are in full blocks of the cache.
    pub(super) fn known(&self, tenant: u32, tokens: &[u32]) -> usize {
        let mut hash = root(tenant);
        let mut blocks = 0;
        for block in tokens.chunks_exact(self.block_tokens) {
            hash = chain(hash, block);
            if !self.set(hash).iter().any(|entry| entry.load(Ordering::Relaxed) == hash) {
                break;
            }
            blocks += 1;
        }
        blocks * self.block_tokens
    }

    /// For the engine's thread alone.
    pub(super) fn insert(&self, hash: u64) {
        let free = self.set(hash).iter().find(|entry| entry.load(Ordering::Relaxed) == 0);
        if let Some(free) = free {
            free.store(hash, Ordering::Relaxed);
        }
    }

    /// For the engine's thread alone.
    pub(super) fn remove(&self, hash: u64) {
        let there = self.set(hash).iter().find(|entry| entry.load(Ordering::Relaxed) == hash);
        if let Some(there) = there {
            there.store(0, Ordering::Relaxed);
        }
    }

    fn set(&self, hash: u64) -> &[AtomicU64] {
        let sets = self.entries.len() / WAYS;
        // The product's high bits are its best.
        let set = (hash >> 32) as usize & (sets - 1);
        &self.entries[set * WAYS..][..WAYS]
    }
}

/// What a tenant's first block is chained to.
pub(super) fn root(tenant: u32) -> u64 {
    mix(0x9E37_79B9_7F4A_7C15, u64::from(tenant) + 1)
}

/// The hash of a block after others; never 0.
pub(super) fn chain(before: u64, tokens: &[u32]) -> u64 {
    tokens.iter().fold(before, |hash, &token| mix(hash, u64::from(token))).max(1)
}

fn mix(hash: u64, value: u64) -> u64 {
    let product = u128::from(hash ^ value) * 0xA076_1D64_78BD_642F;
    // The sum keeps a hash of 0 from staying 0.
    ((product >> 64) as u64 ^ product as u64).wrapping_add(0xE703_7ED1_A0B4_28DB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_known_from_its_beginning_on() {
        let digest = Digest::new(64, 4);
        let tokens: Vec<u32> = (0..21).collect();
        let mut hash = root(1);
        let hashes: Vec<u64> = tokens
            .chunks_exact(4)
            .map(|block| {
                hash = chain(hash, block);
                hash
            })
            .collect();
        hashes.iter().for_each(|&hash| digest.insert(hash));
        assert_eq!(digest.known(1, &tokens), 20);
        assert_eq!(digest.known(1, &tokens[..7]), 4);
        assert_eq!(digest.known(1, &tokens[1..]), 0, "another beginning");
        assert_eq!(digest.known(2, &tokens), 0, "another tenant");
        digest.remove(hashes[2]);
        assert_eq!(digest.known(1, &tokens), 8, "up to the gap");
    }
}
