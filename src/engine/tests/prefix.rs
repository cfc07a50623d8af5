//! The tree by itself.

use crate::engine::prefix::PrefixCache;

/// Runs one sequence of these tokens through the cache; returns how many it found.
fn run(cache: &mut PrefixCache, tokens: &[u32]) -> usize {
    let lease = cache.lease(0, tokens, tokens.len()).expect("there is room");
    let found = lease.shared.len() * 4 + lease.copy.map_or(0, |(_, tokens)| tokens);
    if let Some((source, _)) = lease.copy {
        cache.release_source(source);
    }
    let mut blocks = lease.shared;
    let published = blocks.len();
    blocks.extend((0..lease.promised).map(|_| cache.draw()));
    cache.publish(0, tokens, &mut blocks, published);
    cache.release(&blocks, 0);
    cache.assert_sound();
    found
}

#[test]
fn the_longest_prefix_is_found_among_many_siblings() {
    let mut cache = PrefixCache::new(64, 4);
    for last in 0..20 {
        run(&mut cache, &[1, 2, 3, 4, 5, last / 5, last]);
    }
    assert_eq!(run(&mut cache, &[1, 2, 3, 4, 5, 2, 99]), 6);
    assert_eq!(run(&mut cache, &[1, 2, 3, 4, 5, 3, 17, 8]), 7);
    assert_eq!(run(&mut cache, &[1, 2, 3, 9]), 3);
    assert_eq!(run(&mut cache, &[2, 2]), 0);
}

#[test]
fn the_least_recently_used_leaf_goes_first() {
    let mut cache = PrefixCache::new(4, 4);
    run(&mut cache, &[1, 1, 1, 1, 2, 2, 2, 2]);
    run(&mut cache, &[3, 3, 3, 3]);
    run(&mut cache, &[1, 1, 1, 1]);
    assert_eq!(cache.counts().free, 1);
    run(&mut cache, &[4, 4, 4, 4, 5]);
    assert_eq!(cache.peek(0, &[1, 1, 1, 1, 2, 2, 2, 2]), 4, "the leaf went, its parent stayed");
    assert_eq!(cache.peek(0, &[3, 3, 3, 3]), 4);
}

#[test]
fn a_longer_end_takes_the_place_of_a_shorter_one() {
    let mut cache = PrefixCache::new(8, 4);
    run(&mut cache, &[1]);
    run(&mut cache, &[1, 2]);
    run(&mut cache, &[1, 2, 3]);
    assert_eq!(cache.counts().cached, 1);
}
