//! The prefix cache: what is in the KV blocks, so that nothing is computed twice.
//!
//! A radix tree over token ids, one tree per namespace (tenant), whose edges are blocks: a node
//! is a block and the tokens in it, full blocks have children, the partly filled block at the
//! end of a sequence is a leaf. Siblings are ordered by their tokens, so the one that shares
//! most with a prompt is a neighbour of the place where the prompt would stand: a lookup costs
//! one search per block, whatever the size of the tree.
//!
//! Two rules keep it exact and give every idle block up in time:
//! - no node's tokens are a prefix of a sibling's;
//! - who holds a node's block holds the blocks of all its ancestors. A sequence that computed a
//!   block which the tree already has therefore changes to the tree's (a row's bits depend on
//!   nothing but its tokens and positions, so the two are the same).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::blocks::{BlockCounts, BlockPool};
use super::digest::{self, Digest};

type Siblings = BTreeMap<Arc<[u32]>, u32>;

struct Node {
    /// The block before this one; None for a sequence's first.
    parent: Option<u32>,
    tenant: u32,
    /// What is in the block: 1 to `block_tokens` ids.
    tokens: Arc<[u32]>,
    children: Siblings,
    /// Of a full block: its hash in the [`Digest`].
    chain: Option<u64>,
    /// Tick of the cache's clock at which a sequence last let go of the block.
    last_used: u64,
}

/// All KV blocks, and the tree of what is in them.
pub(super) struct PrefixCache {
    pool: BlockPool,
    block_tokens: usize,
    /// A node is known by its block: `[blocks]`.
    nodes: Vec<Option<Node>>,
    roots: HashMap<u32, Siblings>,
    /// Leaves nobody holds, least recently used first: what may be given up next.
    idle_leaves: BTreeSet<(u64, u32)>,
    clock: u64,
    /// Blocks that admitted sequences may still draw; always at most free + cached.
    promised: usize,
    /// Reused for the path of a lookup.
    path: Vec<u32>,
    /// What others may know of the tree.
    digest: Arc<Digest>,
}

/// What a prompt has in common with the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// Tokens in the full blocks on the path.
    tokens: usize,
    /// A block whose first so many tokens come next.
    partial: Option<(u32, usize)>,
}

/// Blocks given to a sequence at admission.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lease {
    /// Full blocks shared with the tree, in order.
    pub(super) shared: Vec<u32>,
    /// Block to copy the next so many tokens from. Held until [`PrefixCache::release_source`].
    pub(super) copy: Option<(u32, usize)>,
    /// Blocks the sequence may still [`PrefixCache::draw`].
    pub(super) promised: usize,
}

impl PrefixCache {
    pub(super) fn new(blocks: usize, block_tokens: usize) -> Self {
        assert!(block_tokens > 0, "a block holds tokens");
        Self {
            pool: BlockPool::new(blocks),
            block_tokens,
            nodes: (0..blocks).map(|_| None).collect(),
            roots: HashMap::new(),
            idle_leaves: BTreeSet::new(),
            clock: 0,
            promised: 0,
            path: Vec::new(),
            digest: Arc::new(Digest::new(blocks, block_tokens)),
        }
    }

    /// What is in the tree, for other threads.
    pub(super) fn digest(&self) -> &Arc<Digest> {
        &self.digest
    }

    pub(super) fn counts(&self) -> BlockCounts {
        self.pool.counts()
    }

    /// Blocks that hold `tokens` tokens.
    pub(super) fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// How many of these tokens are in the cache.
    pub(super) fn peek(&mut self, tenant: u32, tokens: &[u32]) -> usize {
        let found = self.find(tenant, tokens);
        found.tokens + found.partial.map_or(0, |(_, tokens)| tokens)
    }

    /// Gives a sequence that will hold at most `room` tokens its blocks: the longest cached
    /// prefix of `tokens`, and the promise of the rest. None: they are not there now.
    pub(super) fn lease(&mut self, tenant: u32, tokens: &[u32], room: usize) -> Option<Lease> {
        let found = self.find(tenant, tokens);
        let promised = self.blocks_for(room) - self.path.len();
        // A shared block that nobody held stops being one that could be given up.
        let woken = self.path.iter().filter(|&&block| self.pool.is_idle(block)).count();
        let counts = self.counts();
        let spare = counts.free + counts.cached - self.promised;
        if promised + woken > spare {
            return None;
        }
        // A copy's source has to stay until it is copied. Where there is no room for it beside
        // the sequence itself, its tokens are computed again.
        let copy = found.partial.filter(|&(source, _)| {
            let woken = woken + usize::from(self.pool.is_idle(source));
            promised + woken <= spare
        });
        let shared = self.path.clone();
        for &block in shared.iter().chain(copy.iter().map(|(source, _)| source)) {
            self.retain(block);
        }
        self.promised += promised;
        Some(Lease { shared, copy, promised })
    }

    /// One promised block: a free one, or the least recently used cached one.
    pub(super) fn draw(&mut self) -> u32 {
        assert!(self.promised > 0, "a block is promised before it is drawn");
        self.promised -= 1;
        if let Some(block) = self.pool.take() {
            return block;
        }
        self.give_up_one();
        self.pool.take().expect("promised blocks are free or cached")
    }

    /// Takes in what a sequence computed: `tokens` are in `blocks`, the first `published` of
    /// which are in the tree already. Returns how many full ones are now. A block that the tree
    /// has from another sequence is exchanged for the tree's.
    pub(super) fn publish(
        &mut self,
        tenant: u32,
        tokens: &[u32],
        blocks: &mut [u32],
        published: usize,
    ) -> usize {
        let full = tokens.len() / self.block_tokens;
        for index in published..full {
            let parent = index.checked_sub(1).map(|before| blocks[before]);
            let at = index * self.block_tokens;
            self.publish_full(
                tenant,
                parent,
                &tokens[at..at + self.block_tokens],
                &mut blocks[index],
            );
        }
        let rest = &tokens[full * self.block_tokens..];
        if !rest.is_empty() {
            let parent = full.checked_sub(1).map(|before| blocks[before]);
            self.publish_partial(tenant, parent, rest, blocks[full]);
        }
        full
    }

    /// A sequence ended: its blocks stay while the tree knows them and nobody needs the room.
    pub(super) fn release(&mut self, blocks: &[u32], promised: usize) {
        self.promised -= promised;
        self.clock += 1;
        for &block in blocks {
            self.release_block(block);
        }
    }

    /// A copy has been submitted; its source may go.
    pub(super) fn release_source(&mut self, block: u32) {
        self.release_block(block);
    }

    /// Walks the tree along `tokens`; the full blocks end up in `self.path`.
    fn find(&mut self, tenant: u32, tokens: &[u32]) -> Found {
        self.path.clear();
        let mut rest = tokens;
        let mut siblings = self.roots.get(&tenant);
        while let Some(here) = siblings {
            let Some(block) = rest.get(..self.block_tokens).and_then(|full| here.get(full)) else {
                break;
            };
            self.path.push(*block);
            rest = &rest[self.block_tokens..];
            siblings = self.nodes[*block as usize].as_ref().map(|node| &node.children);
        }
        let partial = siblings.and_then(|here| closest(here, rest));
        Found { tokens: tokens.len() - rest.len(), partial }
    }

    fn publish_full(&mut self, tenant: u32, parent: Option<u32>, tokens: &[u32], block: &mut u32) {
        let there = self.siblings(tenant, parent).get(tokens).copied();
        match there {
            Some(theirs) if theirs == *block => {}
            Some(theirs) => {
                self.retain(theirs);
                self.detach_if_known(*block);
                self.release_block(*block);
                *block = theirs;
            }
            None => self.attach(tenant, parent, tokens, *block),
        }
    }

    /// The last block of a sequence that will go on writing to it: never exchanged.
    fn publish_partial(&mut self, tenant: u32, parent: Option<u32>, tokens: &[u32], block: u32) {
        let next = self
            .siblings(tenant, parent)
            .range::<[u32], _>((Included(tokens), Unbounded))
            .next()
            .filter(|(theirs, _)| theirs.starts_with(tokens));
        if next.is_none() {
            self.attach(tenant, parent, tokens, block);
        }
    }

    /// Puts a block into the tree, in place of the node it had and of one that held less.
    fn attach(&mut self, tenant: u32, parent: Option<u32>, tokens: &[u32], block: u32) {
        self.detach_if_known(block);
        let less = self
            .siblings(tenant, parent)
            .range::<[u32], _>((Unbounded, Excluded(tokens)))
            .next_back()
            .filter(|(theirs, _)| tokens.starts_with(theirs))
            .map(|(_, &theirs)| theirs);
        if let Some(less) = less {
            self.detach(less);
        }
        let chain = self.chain(tenant, parent, tokens);
        if let Some(hash) = chain {
            self.digest.insert(hash);
        }
        let tokens: Arc<[u32]> = tokens.into();
        self.siblings(tenant, parent).insert(Arc::clone(&tokens), block);
        self.pool.remember(block);
        let last_used = self.clock;
        self.nodes[block as usize] =
            Some(Node { parent, tenant, tokens, children: Siblings::new(), chain, last_used });
    }

    /// The hash of a full block over all before it; None for a partly filled one.
    fn chain(&self, tenant: u32, parent: Option<u32>, tokens: &[u32]) -> Option<u64> {
        let before = match parent {
            None => digest::root(tenant),
            Some(parent) => self.nodes[parent as usize].as_ref()?.chain?,
        };
        (tokens.len() == self.block_tokens).then(|| digest::chain(before, tokens))
    }

    fn detach_if_known(&mut self, block: u32) {
        if self.nodes[block as usize].is_some() {
            self.detach(block);
        }
    }

    /// Takes a leaf out of the tree; its block is free unless somebody holds it.
    fn detach(&mut self, block: u32) {
        let node = self.nodes[block as usize].take().expect("a node in the tree");
        assert!(node.children.is_empty(), "only leaves leave the tree");
        self.idle_leaves.remove(&(node.last_used, block));
        if let Some(hash) = node.chain {
            self.digest.remove(hash);
        }
        self.siblings(node.tenant, node.parent).remove(&node.tokens);
        self.pool.forget(block);
        match node.parent {
            Some(parent) => self.note_idle_leaf(parent),
            None if self.roots[&node.tenant].is_empty() => {
                self.roots.remove(&node.tenant);
            }
            None => {}
        }
    }

    fn give_up_one(&mut self) {
        let &(_, block) =
            self.idle_leaves.first().expect("every idle block hangs over an idle leaf");
        self.detach(block);
    }

    fn siblings(&mut self, tenant: u32, parent: Option<u32>) -> &mut Siblings {
        match parent {
            None => self.roots.entry(tenant).or_default(),
            Some(parent) => {
                let node = self.nodes[parent as usize].as_mut();
                &mut node.expect("a parent is in the tree as long as its children").children
            }
        }
    }

    fn retain(&mut self, block: u32) {
        if self.pool.retain(block) {
            let last_used = self.nodes[block as usize].as_ref().map(|node| node.last_used);
            let last_used = last_used.expect("an idle block is in the tree");
            self.idle_leaves.remove(&(last_used, block));
        }
    }

    fn release_block(&mut self, block: u32) {
        if self.pool.release(block) {
            let node = self.nodes[block as usize].as_mut().expect("a known block has a node");
            node.last_used = self.clock;
            self.note_idle_leaf(block);
        }
    }

    /// Remembers that a block may be given up, if it may.
    fn note_idle_leaf(&mut self, block: u32) {
        let node = self.nodes[block as usize].as_ref().expect("a node in the tree");
        if node.children.is_empty() && self.pool.is_idle(block) {
            self.idle_leaves.insert((node.last_used, block));
        }
    }
}

#[cfg(test)]
impl PrefixCache {
    pub(super) fn promised(&self) -> usize {
        self.promised
    }

    /// Walks everything and compares it with what is kept up to date step by step.
    pub(super) fn assert_sound(&self) {
        let counts = self.counts();
        counts.assert_balanced();
        assert!(self.promised <= counts.free + counts.cached);
        let mut leaves = BTreeSet::new();
        let mut reachable = 0;
        for (block, node) in (0u32..).zip(&self.nodes) {
            let Some(node) = node else { continue };
            reachable += 1;
            let siblings = match node.parent {
                None => &self.roots[&node.tenant],
                Some(parent) => &self.nodes[parent as usize].as_ref().expect("a parent").children,
            };
            assert_eq!(siblings.get(&node.tokens), Some(&block));
            let next = siblings.range::<[u32], _>((Excluded(&*node.tokens), Unbounded)).next();
            assert!(next.is_none_or(|(theirs, _)| !theirs.starts_with(&node.tokens)));
            assert!(node.children.is_empty() || node.tokens.len() == self.block_tokens);
            let held_below = node.children.values().any(|&child| !self.pool.is_idle(child));
            assert!(
                !(self.pool.is_idle(block) && held_below),
                "who holds a child holds its parent"
            );
            if node.children.is_empty() && self.pool.is_idle(block) {
                leaves.insert((node.last_used, block));
            }
        }
        assert_eq!(leaves, self.idle_leaves);
        let children = |siblings: &Siblings| siblings.len();
        let below: usize = self.nodes.iter().flatten().map(|node| children(&node.children)).sum();
        assert_eq!(reachable, below + self.roots.values().map(children).sum::<usize>());
    }
}

/// The sibling that shares most with `tokens`, and how much, if anything: in the order of the
/// siblings it stands next to where `tokens` would.
fn closest(siblings: &Siblings, tokens: &[u32]) -> Option<(u32, usize)> {
    let before = siblings.range::<[u32], _>((Unbounded, Included(tokens))).next_back();
    let after = siblings.range::<[u32], _>((Excluded(tokens), Unbounded)).next();
    before
        .into_iter()
        .chain(after)
        .map(|(theirs, &block)| (block, common(theirs, tokens)))
        .max_by_key(|&(_, shared)| shared)
        .filter(|&(_, shared)| shared > 0)
}

/// Length of the longest common prefix.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
