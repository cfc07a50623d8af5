//! How much KV memory to take.

use std::fs;
use std::path::Path;

/// Of the memory that is available, KV takes at most one of so many parts by itself: weights,
/// page cache and other programs need the rest.
const PARTS: u64 = 4;
/// A context shorter than this is no use for completion; less memory than that is an error.
const CONTEXT_MIN: usize = 256;
/// Contexts for each slot beside the one that it runs in: what was typed in other files, and by
/// others, is found again when they come back to it.
const CACHED_PER_SLOT: usize = 3;
/// Bytes of them; a large model's slots leave plenty unused as it is.
const CACHED_BYTES_MAX: u64 = 256 << 20;

/// What was asked for, and what a token costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryWish {
    pub slots: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Bytes of keys and values of one token in all layers.
    pub token_bytes: usize,
    pub block_tokens: usize,
    /// `kv_memory_mb`, in MiB. Someone who sets it gets it.
    pub memory_mb: Option<usize>,
}

/// What there will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    pub blocks: usize,
    pub slots: usize,
    pub context: usize,
    /// What is less than was asked for, as sentences for the operator.
    pub notes: Vec<String>,
}

/// Sizes the KV memory: slots x context, and room for prefixes that stay cached; or what `memory_mb`
/// holds. Unless that is set, at most
/// a quarter of `available` bytes are used (None: not known, no bound), with fewer slots and
/// then a shorter context. With it the slots stay, because sequences rarely use all of their
/// context and one that does waits for room. None: not even one short sequence fits.
pub fn plan_memory(wish: &MemoryWish, available: Option<u64>) -> Option<MemoryPlan> {
    let block_bytes = (wish.token_bytes * wish.block_tokens).max(1) as u64;
    let per_slot = wish.context.div_ceil(wish.block_tokens);
    let limit = match wish.memory_mb {
        Some(mb) => (mb as u64) << 20,
        None => available.map_or(u64::MAX, |bytes| bytes / PARTS),
    };
    // Block ids are 32 bits wide.
    let blocks_max = usize::try_from(limit / block_bytes).unwrap_or(usize::MAX);
    let blocks_max = blocks_max.min(u32::MAX as usize);
    let mut plan = MemoryPlan {
        blocks: wish.slots.saturating_mul(per_slot),
        slots: wish.slots,
        context: wish.context,
        notes: Vec::new(),
    };
    if wish.memory_mb.is_some() {
        plan.blocks = blocks_max;
    } else if plan.blocks > blocks_max {
        plan.slots = (blocks_max / per_slot).max(1);
        plan.blocks = (plan.slots * per_slot).min(blocks_max);
    } else {
        let cached = usize::try_from(CACHED_BYTES_MAX / block_bytes).unwrap_or(usize::MAX);
        let cached = plan.blocks.saturating_mul(CACHED_PER_SLOT).min(cached);
        plan.blocks = plan.blocks.saturating_add(cached).min(blocks_max);
    }
    if plan.blocks < per_slot {
        plan.context = plan.blocks * wish.block_tokens;
    }
    if plan.context < CONTEXT_MIN.min(wish.context) {
        return None;
    }
    plan.note(wish, limit);
    Some(plan)
}

impl MemoryPlan {
    fn note(&mut self, wish: &MemoryWish, limit: u64) {
        let mib = limit >> 20;
        if self.slots < wish.slots {
            self.notes.push(format!(
                "slots lowered from {} to {}: KV memory may take {mib} MiB (kv_memory_mb sets it)",
                wish.slots, self.slots
            ));
        }
        if self.context < wish.context {
            self.notes.push(format!(
                "context lowered from {} to {}: KV memory may take {mib} MiB (kv_memory_mb sets it)",
                wish.context, self.context
            ));
        }
    }
}

/// Bytes of memory this process may still take: what the system has, or what is left under the
/// limit of a control group above it. None where neither can be read.
pub fn available_memory() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let system = read(Path::new("/proc/meminfo")).and_then(|text| parse_meminfo(&text));
    let group = read(Path::new("/proc/self/cgroup")).and_then(|text| parse_cgroup(&text));
    let root = Path::new("/sys/fs/cgroup");
    let group = root.join(group.as_deref().unwrap_or_default().trim_start_matches('/'));
    let groups = group.ancestors().take_while(|path| path.starts_with(root)).filter_map(|path| {
        let usage = read(&path.join("memory.current"))?;
        left_in_group(&read(&path.join("memory.max"))?, &usage, &read(&path.join("memory.stat"))?)
    });
    let memory = root.join("memory");
    let first_version = read(&memory.join("memory.limit_in_bytes"))
        .zip(read(&memory.join("memory.usage_in_bytes")))
        .zip(read(&memory.join("memory.stat")))
        .and_then(|((limit, usage), stat)| left_in_group(&limit, &usage, &stat));
    system.into_iter().chain(groups).chain(first_version).min()
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The path in the unified hierarchy, of `/proc/self/cgroup`.
fn parse_cgroup(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// What is left in a control group; None where it has no limit. File pages count as left: the
/// kernel gives them up, and the weights have just been read through them.
fn left_in_group(limit: &str, usage: &str, stat: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    let usage: u64 = usage.trim().parse().ok()?;
    let pages = |key: &str| -> Option<u64> {
        stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    };
    // The first version's own keys are without its children; the totals are what is charged.
    let files = |key: &str| pages(&format!("total_{key} ")).or_else(|| pages(&format!("{key} ")));
    let cache = files("inactive_file").unwrap_or(0) + files("active_file").unwrap_or(0);
    Some(limit.saturating_sub(usage.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: MemoryWish = MemoryWish {
        slots: 8,
        context: 1024,
        token_bytes: 1024,
        block_tokens: 16,
        memory_mb: None,
    };

    fn plan(wish: MemoryWish, available_mib: u64) -> Option<(usize, usize, usize, usize)> {
        let plan = plan_memory(&wish, Some(available_mib << 20))?;
        Some((plan.blocks, plan.slots, plan.context, plan.notes.len()))
    }

    #[test]
    fn slots_go_first_and_then_context() {
        assert_eq!(plan(WISH, 1000), Some((4 * 512, 8, 1024, 0)));
        assert_eq!(
            plan(WISH, 64),
            Some((2 * 512, 8, 1024, 0)),
            "what is free goes to what is cached"
        );
        assert_eq!(plan(WISH, 32), Some((512, 8, 1024, 0)));
        assert_eq!(plan(WISH, 31), Some((448, 7, 1024, 1)));
        assert_eq!(plan(WISH, 4), Some((64, 1, 1024, 1)));
        assert_eq!(plan(WISH, 2), Some((32, 1, 512, 2)));
        assert_eq!(plan(WISH, 0), None);
        assert_eq!(plan_memory(&WISH, None).map(|plan| plan.blocks), Some(4 * 512));
        let large = MemoryWish { token_bytes: 1 << 20, ..WISH };
        assert_eq!(plan(large, 1 << 20), Some((512 + 16, 8, 1024, 0)), "256 MiB and no more");
    }

    #[test]
    fn memory_that_was_asked_for_is_taken() {
        let wish = MemoryWish { memory_mb: Some(2), ..WISH };
        assert_eq!(plan(wish, 1), Some((128, 8, 1024, 0)));
        let wish = MemoryWish { memory_mb: Some(64), ..WISH };
        assert_eq!(plan(wish, 1), Some((4096, 8, 1024, 0)));
        let wish = MemoryWish { memory_mb: Some(0), ..WISH };
        assert_eq!(plan(wish, 1), None);
    }

    #[test]
    fn the_kernel_s_files_are_understood() {
        let meminfo = "MemTotal:       16000 kB\nMemAvailable:    8000 kB\n";
        assert_eq!(parse_meminfo(meminfo), Some(8000 << 10));
        assert_eq!(parse_meminfo("MemTotal: 1 kB"), None);
        assert_eq!(parse_cgroup("1:cpu:/x\n0::/user.slice/a\n").as_deref(), Some("/user.slice/a"));
        assert_eq!(left_in_group("max\n", "5\n", ""), None);
        assert_eq!(left_in_group("1000\n", "400\n", ""), Some(600));
        assert_eq!(left_in_group("1000\n", "4000\n", ""), Some(0));
        let second = "anon 100\ninactive_file 200\nactive_file 50\n";
        assert_eq!(left_in_group("1000\n", "400\n", second), Some(850));
        let first =
            "inactive_file 1\nactive_file 1\ntotal_inactive_file 200\ntotal_active_file 50\n";
        assert_eq!(left_in_group("1000\n", "400\n", first), Some(850));
    }
}
