//! The device seam: what an engine asks of a device in one forward pass, as plain data.
//!
//! The engine fills a [`Step`], hands it to [`Device::submit`] and reads [`Rows`] back with
//! [`Device::collect`]. Nothing in a step borrows or points anywhere, so the same bytes can
//! cross to a CUDA stream or to another process. Several tickets may be in flight.

use std::ops::Range;

use crate::sampler::Plan;

/// One forward pass over a batch of sequences at different positions: decodes (one row each,
/// or a few when drafts are verified) and prefill chunks, in any mix.
///
/// Buffers are flat so that one `Step` is reused for every pass without allocating.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Blocks to copy before anything else runs: the partly filled block at the end of a
    /// shared prefix, which its new owner will append to.
    pub copies: Vec<BlockCopy>,
    /// Token id of each row: `[rows]`.
    pub tokens: Vec<u32>,
    /// Absolute position of each row in its sequence: `[rows]`, ascending inside a segment.
    pub positions: Vec<u32>,
    /// One entry per sequence in the pass; its rows are contiguous.
    pub segments: Vec<Segment>,
    /// The block tables of all segments, one after the other.
    pub blocks: Vec<u32>,
    /// The rows whose logits are wanted, in the order in which [`Rows`] answers.
    pub samples: Vec<Sample>,
    /// The stop ids of all samples, one list after the other; shared lists may overlap.
    pub stop_ids: Vec<u32>,
}

/// Copies the first `tokens` entries of one block to another, in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    pub from: u32,
    pub to: u32,
    pub tokens: u32,
}

/// The rows of one sequence in a [`Step`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Rows of `Step::tokens` and `Step::positions`.
    pub rows: Range<u32>,
    /// This sequence's block table inside `Step::blocks`; it covers every position up to the
    /// last row's.
    pub blocks: Range<u32>,
}

/// A row whose logits are wanted, and what to make of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Index into `Step::tokens`.
    pub row: u32,
    pub plan: Plan,
    /// Whether the chosen token's log-probability is wanted (it costs a pass over the row).
    pub logprob: bool,
    /// Ids that end the sequence, inside `Step::stop_ids`.
    pub stop_ids: Range<u32>,
}

impl Step {
    /// Empties every list and keeps the memory.
    pub fn clear(&mut self) {
        self.copies.clear();
        self.tokens.clear();
        self.positions.clear();
        self.segments.clear();
        self.blocks.clear();
        self.samples.clear();
        self.stop_ids.clear();
    }

    /// Number of rows in the pass.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Asserts everything that a device relies on: a step that breaks it is a bug of whoever
    /// filled it, and running it would write over another sequence's KV.
    pub fn assert_valid(&self, limits: &DeviceLimits) {
        let rows = self.rows();
        assert!(rows <= limits.rows_max, "{rows} rows are more than {}", limits.rows_max);
        assert_eq!(self.positions.len(), rows, "a position for each row");
        assert!(self.tokens.iter().all(|&id| (id as usize) < limits.vocab), "a token id outside");
        let mut covered = 0;
        for segment in &self.segments {
            assert_eq!(segment.rows.start, covered, "segments follow one another");
            covered = segment.rows.end;
            self.assert_segment(segment, limits);
        }
        assert_eq!(covered as usize, rows, "every row belongs to a segment");
        assert!(self.samples.len() <= limits.samples_max, "more samples than the limit");
        for sample in &self.samples {
            assert!((sample.row as usize) < rows, "a sample of no row");
            assert!(sample.stop_ids.start <= sample.stop_ids.end, "stop ids backwards");
            assert!(sample.stop_ids.end as usize <= self.stop_ids.len(), "stop ids outside");
        }
        for copy in &self.copies {
            let ids = [copy.from, copy.to];
            assert!(ids.iter().all(|&id| (id as usize) < limits.blocks), "a copied block outside");
            assert!(copy.from != copy.to, "a block copied over itself");
            assert!(copy.tokens as usize <= limits.block_tokens, "a copy beyond its block");
        }
    }

    fn assert_segment(&self, segment: &Segment, limits: &DeviceLimits) {
        let positions = &self.positions[segment.rows.start as usize..segment.rows.end as usize];
        let blocks = &self.blocks[segment.blocks.start as usize..segment.blocks.end as usize];
        assert!(positions.is_sorted_by(|a, b| a < b), "positions ascend inside a segment");
        assert!(blocks.iter().all(|&id| (id as usize) < limits.blocks), "a block id outside");
        let last = *positions.last().expect("a segment has rows") as usize;
        assert!(last < limits.context, "position {last} is beyond {}", limits.context);
        assert!(last < blocks.len() * limits.block_tokens, "a block table too short");
    }
}

/// What one [`Sample`] came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// The device chose. `logprob` is the natural logarithm of the token's probability under
    /// the untempered softmax, NaN unless asked for; `stop` says that the id is a stop id.
    Token { id: u32, logprob: f32, stop: bool },
    /// No logit is a number: the weights are broken.
    NotANumber,
    /// The host chooses ([`Plan::Logits`]): a range of [`Rows::logits`], vocabulary long.
    Logits(Range<usize>),
}

/// The answers to a step's samples, in their order. Reused from step to step.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub rows: Vec<Row>,
    pub logits: Vec<f32>,
}

impl Rows {
    /// Empties both lists and keeps the memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.logits.clear();
    }
}

/// Names a submitted step until it is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A device that failed and will not answer for its memory any more.
#[derive(Debug, thiserror::Error)]
#[error("device failed: {0}")]
pub struct DeviceError(pub String);

/// What the engine knows of a device before the first step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Number of ids that a row's logits range over.
    pub vocab: usize,
    /// KV blocks that exist; ids are `0..blocks`.
    pub blocks: usize,
    /// Tokens in a block.
    pub block_tokens: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Most rows that one step may hold.
    pub rows_max: usize,
    /// Most rows of one step whose logits may be asked for.
    pub samples_max: usize,
}

/// Where the forward pass runs. Implemented by the CPU device and, in tests, by a mock.
pub trait Device: Send {
    fn limits(&self) -> DeviceLimits;

    /// Starts a step. The step is read before this returns, so the caller may reuse it at once.
    ///
    /// `go_on` is asked again and again while the layers run, at least once in each. Once it says
    /// no the step is given up, and None comes back. The step's copies were made then, and nothing
    /// else of it counts: what it wrote at the positions of its rows is not what belongs there, so
    /// whoever wants those rows runs them again.
    fn submit(
        &mut self,
        step: &Step,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Ticket>, DeviceError>;

    /// Waits for a ticket and writes its answers over `rows`. Tickets are collected in the
    /// order in which they were submitted.
    fn collect(&mut self, ticket: Ticket, rows: &mut Rows) -> Result<(), DeviceError>;

    /// Runs a step to its end and writes its answers over `rows`.
    fn run(&mut self, step: &Step, rows: &mut Rows) -> Result<(), DeviceError> {
        let ticket = self.submit(step, &mut || true)?;
        self.collect(ticket.expect("nobody gave the step up"), rows)
    }
}
