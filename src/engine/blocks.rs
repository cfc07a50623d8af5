//! Which KV blocks are free, held by sequences, or kept only for the prefix in them.
//!
//! Plain host numbers: the device knows block ids and nothing else. Every operation is O(1),
//! and so is the check that no block was lost, which runs after every step in release builds.

/// How many blocks are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    pub free: usize,
    /// Held by at least one sequence.
    pub referenced: usize,
    /// Held by nobody, but their content is in the prefix cache.
    pub cached: usize,
    pub total: usize,
}

/// Reference counts of all blocks of a device.
pub(super) struct BlockPool {
    /// Sequences (and pending copies) that hold each block: `[total]`.
    references: Vec<u32>,
    /// Whether the prefix cache knows each block's content: `[total]`.
    known: Vec<bool>,
    free: Vec<u32>,
    referenced: usize,
    cached: usize,
}

impl BlockPool {
    pub(super) fn new(total: usize) -> Self {
        let last = u32::try_from(total).expect("a device numbers its blocks in 32 bits");
        Self {
            references: vec![0; total],
            known: vec![false; total],
            // Popped from the back, so low ids go first: a small load stays in little memory.
            free: (0..last).rev().collect(),
            referenced: 0,
            cached: 0,
        }
    }

    pub(super) fn counts(&self) -> BlockCounts {
        BlockCounts {
            free: self.free.len(),
            referenced: self.referenced,
            cached: self.cached,
            total: self.references.len(),
        }
    }

    /// A free block, now held once.
    pub(super) fn take(&mut self) -> Option<u32> {
        let block = self.free.pop()?;
        self.references[block as usize] = 1;
        self.referenced += 1;
        Some(block)
    }

    /// Holds a block once more. Returns whether nobody held it before.
    pub(super) fn retain(&mut self, block: u32) -> bool {
        let references = &mut self.references[block as usize];
        let idle = *references == 0;
        if idle {
            assert!(self.known[block as usize], "a free block has no content to hold");
            self.cached -= 1;
            self.referenced += 1;
        }
        *references += 1;
        idle
    }

    /// Holds a block once less. Returns whether it is now kept for its content only.
    pub(super) fn release(&mut self, block: u32) -> bool {
        let references = &mut self.references[block as usize];
        assert!(*references > 0, "a block is released by who holds it");
        *references -= 1;
        if *references > 0 {
            return false;
        }
        self.referenced -= 1;
        let known = self.known[block as usize];
        if known {
            self.cached += 1;
        } else {
            self.free.push(block);
        }
        known
    }

    pub(super) fn is_idle(&self, block: u32) -> bool {
        self.references[block as usize] == 0
    }

    /// The prefix cache now knows this block, which its writer still holds.
    pub(super) fn remember(&mut self, block: u32) {
        assert!(!self.is_idle(block), "a block enters the cache by the hand of its writer");
        let known = &mut self.known[block as usize];
        assert!(!*known, "a block holds one content");
        *known = true;
    }

    /// The prefix cache gives this block up; unless somebody holds it, it is free.
    pub(super) fn forget(&mut self, block: u32) {
        let known = &mut self.known[block as usize];
        assert!(*known, "only a known block is forgotten");
        *known = false;
        if self.references[block as usize] == 0 {
            self.cached -= 1;
            self.free.push(block);
        }
    }
}

impl BlockCounts {
    /// Panics when a block was lost or counted twice.
    pub(super) fn assert_balanced(self) {
        assert_eq!(
            self.free + self.referenced + self.cached,
            self.total,
            "every block is free, referenced or cached"
        );
    }
}
