//! Who refers to which block.

/// Counts references to blocks, as an engine would.
pub(crate) struct BlockPool {
    /// References of each block; 0 is free.
    references: Vec<u32>,
    /// Free blocks, the next one last.
    free: Vec<u32>,
}

impl BlockPool {
    pub(crate) fn new(blocks: usize) -> Self {
        let blocks = u32::try_from(blocks).expect("block ids are 32 bits wide");
        // Reversed, so that low ids go first.
        Self { references: vec![0; blocks as usize], free: (0..blocks).rev().collect() }
    }

    /// Takes a free block, with one reference. None: all are in use.
    pub(crate) fn alloc(&mut self) -> Option<u32> {
        let block = self.free.pop()?;
        let references = &mut self.references[block as usize];
        assert_eq!(*references, 0, "block {block} was free and referenced");
        *references = 1;
        Some(block)
    }

    /// Adds a reference to a block in use.
    pub(crate) fn retain(&mut self, block: u32) {
        let references = &mut self.references[block as usize];
        assert!(*references > 0, "block {block} is free and cannot be shared");
        *references = references.checked_add(1).expect("fewer references than 32 bits");
    }

    /// Takes a reference away; true when it was the last and the block is free now.
    pub(crate) fn release(&mut self, block: u32) -> bool {
        let references = &mut self.references[block as usize];
        assert!(*references > 0, "block {block} released twice");
        *references -= 1;
        let last = *references == 0;
        if last {
            self.free.push(block);
        }
        last
    }

    /// References of a block; 0 is free.
    pub(crate) fn references(&self, block: u32) -> u32 {
        self.references[block as usize]
    }

    /// Number of free blocks.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Number of blocks, free or not.
    pub(crate) fn total(&self) -> usize {
        self.references.len()
    }
}
