//! How much work is ahead of a new request, as atomics anybody may read at any time.
//!
//! ```text
//! work_ahead_ms = prompt tokens still to be prefilled (running, waiting, arriving)
//!                   x milliseconds per prefilled token
//!               + sequences that must end before there is a slot (and blocks) for one more
//!                   x mean tokens of a sequence x milliseconds per generated token
//! ```
//!
//! Milliseconds per generated token count the tokens of all running sequences together, so
//! that "mean tokens x milliseconds per token" is the time between two ends; a token that came
//! out of a draft is a token. A request's own
//! prefill is not part of it: an idle box is exactly 0, however slow it is. What has been let in
//! but has not reached the engine's thread yet counts too, so a burst is seen while it arrives.
//! Warm-ups count nowhere: they are given up for whoever comes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::blocks::BlockCounts;

/// The published state of the engine. Written by its thread after every step and by each
/// arrival; the numbers are read one by one, so two of them may be a step apart.
#[derive(Debug, Default)]
pub struct Saturation {
    slots: AtomicUsize,
    /// Sequences that may run at once now: the slots, or what runs when the blocks are used up.
    seats: AtomicUsize,
    running: AtomicUsize,
    waiting: AtomicUsize,
    /// Prompt tokens of running and waiting sequences that no step has computed yet.
    prefill_tokens: AtomicUsize,
    /// Sequences let in that the engine's thread has not seen yet, and their prompt tokens.
    arriving: AtomicUsize,
    arriving_tokens: AtomicUsize,
    prefill_wait_ms: AtomicF64,
    decode_token_ms: AtomicF64,
    sequence_tokens: AtomicF64,
    blocks_referenced: AtomicUsize,
    blocks_cached: AtomicUsize,
    blocks_total: AtomicUsize,
}

/// What the engine's thread publishes after a step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Sequences that may run at once: the slots, or fewer when there are no blocks for more.
    pub(crate) seats: usize,
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) prefill_tokens: usize,
    pub(crate) blocks: BlockCounts,
}

impl Saturation {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots: AtomicUsize::new(slots), seats: AtomicUsize::new(slots), ..Self::default() }
    }

    /// Milliseconds of work ahead of a new request.
    pub fn work_ahead_ms(&self) -> f64 {
        self.work_before_ms(0, 0)
    }

    /// Milliseconds of work ahead of one that is counted already, with so many sequences and
    /// prompt tokens.
    pub(super) fn work_before_ms(&self, sequences: usize, tokens: usize) -> f64 {
        let prefill_tokens = get(&self.prefill_tokens) + get(&self.arriving_tokens);
        let prefill_tokens = prefill_tokens.saturating_sub(tokens);
        let sequences = (self.running() + self.waiting()).saturating_sub(sequences);
        let ends_first = (sequences + 1).saturating_sub(get(&self.seats));
        let prefill_ms = prefill_tokens as f64 * self.prefill_wait_ms.get();
        let ends_ms = ends_first as f64 * self.sequence_tokens.get() * self.decode_token_ms.get();
        prefill_ms + ends_ms
    }

    /// Milliseconds that so many prompt tokens and the step of a first token take beside what runs.
    pub(crate) fn own_work_ms(&self, tokens: usize) -> f64 {
        let step_rows = (self.running() + 1).min(get(&self.slots));
        tokens as f64 * self.prefill_wait_ms.get() + step_rows as f64 * self.decode_token_ms.get()
    }

    /// Sequences in the batch.
    pub fn running(&self) -> usize {
        get(&self.running)
    }

    /// Sequences in the queue, those on their way to it included.
    pub fn waiting(&self) -> usize {
        get(&self.waiting) + get(&self.arriving)
    }

    /// Slots: room for one running sequence each.
    pub fn slots_total(&self) -> usize {
        get(&self.slots)
    }

    pub fn slots_free(&self) -> usize {
        self.slots_total().saturating_sub(self.running())
    }

    /// Prompt tokens that are still to be computed.
    pub fn waiting_prefill_tokens(&self) -> usize {
        get(&self.prefill_tokens) + get(&self.arriving_tokens)
    }

    /// Prompt tokens a second, as measured; 0 before the first measurement.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prefill_wait_ms.get())
    }

    /// Generated tokens a second of all sequences together, as measured.
    pub fn decode_rate(&self) -> f64 {
        rate(self.decode_token_ms.get())
    }

    /// KV blocks that sequences hold, that are kept for their prefix, and that exist.
    pub fn blocks(&self) -> BlockCounts {
        let (referenced, cached) = (get(&self.blocks_referenced), get(&self.blocks_cached));
        let total = get(&self.blocks_total);
        BlockCounts { free: total.saturating_sub(referenced + cached), referenced, cached, total }
    }

    pub(crate) fn publish_load(&self, load: Load) {
        set(&self.seats, load.seats);
        set(&self.running, load.running);
        set(&self.waiting, load.waiting);
        set(&self.prefill_tokens, load.prefill_tokens);
        set(&self.blocks_referenced, load.blocks.referenced);
        set(&self.blocks_cached, load.blocks.cached);
        set(&self.blocks_total, load.blocks.total);
    }

    /// The engine is gone, and all its work with it.
    pub(super) fn publish_nothing_runs(&self) {
        let blocks = BlockCounts { total: get(&self.blocks_total), ..BlockCounts::default() };
        self.publish_load(Load { seats: self.slots_total(), blocks, ..Load::default() });
    }

    pub(crate) fn publish_rates(&self, rates: &super::rates::Rates) {
        self.prefill_wait_ms.set(rates.prefill_wait_ms(self.running()));
        self.decode_token_ms.set(rates.decode_token_ms());
        self.sequence_tokens.set(rates.sequence_tokens());
    }

    pub(crate) fn arriving(&self, sequences: usize, tokens: usize) {
        self.arriving.fetch_add(sequences, Ordering::Relaxed);
        self.arriving_tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    /// Whether somebody is on his way.
    pub(super) fn arriving_now(&self) -> bool {
        get(&self.arriving) > 0
    }

    /// The engine's thread has seen them, or they will not come.
    pub(crate) fn arrived(&self, sequences: usize, tokens: usize) {
        self.arriving.fetch_sub(sequences, Ordering::Relaxed);
        self.arriving_tokens.fetch_sub(tokens, Ordering::Relaxed);
    }
}

// Relaxed: nobody derives the content of other memory from these numbers.
fn get(number: &AtomicUsize) -> usize {
    number.load(Ordering::Relaxed)
}

fn set(number: &AtomicUsize, value: usize) {
    number.store(value, Ordering::Relaxed);
}

fn rate(ms: f64) -> f64 {
    if ms > 0.0 { 1e3 / ms } else { 0.0 }
}

/// An f64 kept as its bits.
#[derive(Debug, Default)]
struct AtomicF64(AtomicU64);

impl AtomicF64 {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::rates::Rates;
    use super::super::scheduler::StepRows;
    use super::*;

    #[test]
    fn work_ahead_is_prefill_and_ends_to_wait_for() {
        let saturation = Saturation::new(4);
        let mut rates = Rates::new(50);
        rates.record(StepRows { prefills: 32, ..StepRows::default() }, Duration::from_millis(64));
        rates.record(StepRows { decodes: 4, ..StepRows::default() }, Duration::from_millis(12));
        saturation.publish_rates(&rates);
        assert_eq!(saturation.work_ahead_ms(), 0.0, "a slow box is not a busy one");
        assert_eq!((saturation.prefill_rate(), saturation.decode_rate()), (500.0, 1e3 / 3.0));

        let load = Load { seats: 4, running: 3, waiting: 0, ..Load::default() };
        saturation.publish_load(load);
        assert_eq!(saturation.work_ahead_ms(), 0.0, "there is a slot");
        saturation.publish_load(Load { prefill_tokens: 100, ..load });
        assert_eq!(saturation.work_ahead_ms(), 200.0);
        saturation.arriving(2, 50);
        // 150 tokens to prefill, and two of the five must end, 32 tokens each, 3 ms a token
        assert_eq!(saturation.work_ahead_ms(), 300.0 + 2.0 * 32.0 * 3.0);
        saturation.arrived(2, 50);
        saturation.publish_load(Load { seats: 3, ..load });
        assert_eq!(saturation.work_ahead_ms(), 32.0 * 3.0, "a slot without blocks is none");
    }
}
