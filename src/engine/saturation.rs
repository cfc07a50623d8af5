//! How much work is ahead of a new request, as atomics anybody may read at any time.
//!
//! ```text
//! work_ahead_ms = prompt tokens still to be prefilled (running, waiting, arriving)
//!                   x milliseconds per prefilled token
//!               + sequences that must end before there is a slot (and blocks) for one more
//!                   x mean tokens of a sequence x milliseconds per generated token
//! ```
//!
//! A prediction for one request ([`Saturation::wait_ms`]) knows more of the second part: how many
//! tokens each running sequence still has to go, from what it has generated, the most that it may
//! and the mean of those before it.
//!
//! Milliseconds per generated token count the tokens of all running sequences together; a token
//! that came out of a draft is a token. A request's own
//! prefill is not part of it: an idle box is exactly 0, however slow it is. What has been let in
//! but has not reached the engine's thread yet counts too, so a burst is seen while it arrives.

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
    /// Tokens that each of them still has to go, the fewest first.
    tokens_left: Box<[AtomicUsize]>,
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
        Self {
            slots: AtomicUsize::new(slots),
            seats: AtomicUsize::new(slots),
            tokens_left: (0..slots).map(|_| AtomicUsize::new(0)).collect(),
            ..Self::default()
        }
    }

    /// Milliseconds of work ahead of a new request. Whoever must end first is taken to be a mean
    /// sequence: a state that many decisions share should not jump with each end.
    pub fn work_ahead_ms(&self) -> f64 {
        let (prefill_ms, ends) = self.before(0, 0);
        let each_ms = self.sequence_tokens.get() * self.decode_token_ms.get();
        prefill_ms + ends as f64 * each_ms
    }

    /// Milliseconds that one will wait which comes now or, with so many sequences and prompt tokens,
    /// is counted already: by what each running sequence still has to go.
    pub(crate) fn wait_ms(&self, sequences: usize, tokens: usize) -> f64 {
        let (prefill_ms, ends) = self.before(sequences, tokens);
        prefill_ms + self.ends_ms(ends)
    }

    /// Milliseconds of prefill, and sequences that must end, before one with so many sequences and
    /// prompt tokens that are counted already.
    fn before(&self, sequences: usize, tokens: usize) -> (f64, usize) {
        let prefill_tokens = get(&self.prefill_tokens) + get(&self.arriving_tokens);
        let prefill_tokens = prefill_tokens.saturating_sub(tokens);
        let sequences = (self.running() + self.waiting()).saturating_sub(sequences);
        let ends_first = (sequences + 1).saturating_sub(get(&self.seats));
        (prefill_tokens as f64 * self.prefill_wait_ms.get(), ends_first)
    }

    /// Milliseconds until so many sequences have ended. Whoever waits takes the place of the first
    /// that ends, and holds it for as long as sequences do on average.
    fn ends_ms(&self, ends: usize) -> f64 {
        let running = self.running().min(self.tokens_left.len());
        let (Some(before), true) = (ends.checked_sub(1), running > 0) else { return 0.0 };
        let first = get(&self.tokens_left[before % running]) as f64;
        let rounds = (before / running) as f64;
        let tokens = first + rounds * self.sequence_tokens.get();
        tokens * running as f64 * self.decode_token_ms.get()
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

    /// `tokens_left`: of each running sequence, in any order, which is changed.
    pub(crate) fn publish_load(&self, load: Load, tokens_left: &mut [usize]) {
        tokens_left.sort_unstable();
        for (published, left) in self.tokens_left.iter().zip(tokens_left) {
            set(published, *left);
        }
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
        self.publish_load(Load { seats: self.slots_total(), blocks, ..Load::default() }, &mut []);
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

    /// The engine's thread has seen them, or they will not come.
    pub(crate) fn arrived(&self, sequences: usize, tokens: usize) {
        self.arriving.fetch_sub(sequences, Ordering::Relaxed);
        self.arriving_tokens.fetch_sub(tokens, Ordering::Relaxed);
    }
}

/// Tokens that a sequence still has to go, which has generated so many and may `most`, where such
/// sequences generate `mean`. One that has outlived the mean is taken to go on for a part of it.
pub(crate) fn tokens_left(generated: usize, most: usize, mean: f64) -> usize {
    const OUTLIVED: f64 = 0.25;
    let expected = (mean - generated as f64).max(mean * OUTLIVED).ceil();
    (expected as usize).min(most.saturating_sub(generated))
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
        let mut left = [20, 30, 10];
        saturation.publish_load(load, &mut left);
        assert_eq!(saturation.work_ahead_ms(), 0.0, "there is a slot");
        saturation.publish_load(Load { prefill_tokens: 100, ..load }, &mut left);
        assert_eq!(saturation.work_ahead_ms(), 200.0);
        saturation.arriving(2, 50);
        // 150 tokens to prefill, and two of the five must end, 32 tokens each, 3 ms a token
        assert_eq!(saturation.work_ahead_ms(), 300.0 + 2.0 * 32.0 * 3.0);
        // the second end is 20 tokens away, and each of the three takes 3 ms for one
        assert_eq!(saturation.wait_ms(0, 0), 300.0 + 20.0 * 3.0 * 3.0);
        saturation.arriving(3, 0);
        // the fifth end is that of whoever took the second's place
        assert_eq!(saturation.wait_ms(0, 0), 300.0 + (20.0 + 32.0) * 3.0 * 3.0);
        assert_eq!(
            saturation.wait_ms(4, 150),
            10.0 * 3.0 * 3.0,
            "without those of the own request"
        );
        saturation.arrived(5, 50);
        saturation.publish_load(Load { seats: 3, ..load }, &mut left);
        assert_eq!(saturation.work_ahead_ms(), 32.0 * 3.0, "a slot without blocks is none");
    }

    #[test]
    fn what_is_left_is_the_mean_s_rest_and_no_more_than_there_may_be() {
        assert_eq!(tokens_left(0, 64, 32.0), 32);
        assert_eq!(tokens_left(20, 64, 32.0), 12);
        assert_eq!(tokens_left(60, 64, 32.0), 4);
        assert_eq!(tokens_left(40, 640, 32.0), 8, "a quarter of the mean");
        assert_eq!(tokens_left(10, 16, 32.0), 6);
    }
}
