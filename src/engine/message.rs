//! What crosses between a handle and the engine's thread: plain data, cancel included.
//!
//! In one process the sender of the answers and the place in the queue travel beside a
//! [`SequenceSpec`]; to another process they would stay here, under the sequence's id.

use std::sync::Arc;
use std::time::{Duration, Instant};

use models::fit::Cursor;
use models::sampler::SamplingParams;
use models::text::StopStrings;
use tokio::sync::mpsc;

use super::heal::Taken;
use super::place::Place;
use crate::completion::{Chunk, FinishReason, Priority, Reason, TimeLimits, TokenLogprob};

/// Names a sequence from its submission on. Ids ascend in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SequenceId(pub(crate) u64);

/// One choice of a request, ready to run.
#[derive(Clone, Debug)]
pub(super) struct SequenceSpec {
    pub(super) id: SequenceId,
    pub(super) choice: u32,
    /// At least one id, all inside the vocabulary.
    pub(super) prompt: Arc<[u32]>,
    /// Where in the prompt the text ends that the answer goes on from; what follows it there
    /// stands after the answer in the document.
    pub(super) cursor: usize,
    /// 0: the prompt is only read.
    pub(super) max_tokens: usize,
    /// Shared by the choices of a request.
    pub(super) rules: Arc<SequenceRules>,
    pub(super) seed: u64,
    pub(super) priority: Priority,
    pub(super) tenant: u32,
    /// How long the client goes on waiting, counted from submission.
    pub(super) time_left: Option<Duration>,
    /// How long parts of the work may take.
    pub(super) time: TimeLimits,
}

/// How a request's tokens are chosen, reported and ended.
#[derive(Debug)]
pub(super) struct SequenceRules {
    pub(super) sampling: SamplingParams,
    pub(super) stop_strings: Arc<StopStrings>,
    /// What lies around the cursor, where the answer also ends for the code's sake.
    pub(super) fit: Option<Arc<Cursor>>,
    /// The word that the prompt ended in, which the sequence says again before its answer.
    pub(super) healing: Option<Taken>,
    /// All ids that end the sequence: the model's, the format's and the request's.
    pub(super) stop_ids: Vec<u32>,
    /// No stop id is chosen before so many tokens.
    pub(super) min_tokens: usize,
    /// Number of alternatives reported with each token; None reports nothing.
    pub(super) logprobs: Option<usize>,
    /// Whether [`SequenceEvent::PromptRead`] is wanted.
    pub(super) echo: bool,
}

impl SequenceRules {
    /// Whether the prompt's own log-probabilities are wanted: then all of it runs, cached or not.
    pub(super) fn scores_prompt(&self) -> bool {
        self.echo && self.logprobs.is_some()
    }
}

/// A sequence on its way in.
pub(super) struct Submission {
    pub(super) spec: SequenceSpec,
    /// Has room for every event of the sequence, see [`events_max`].
    pub(super) reply: mpsc::Sender<SequenceEvent>,
    pub(super) place: Place,
    pub(super) submitted: Instant,
}

pub(super) enum Command {
    Submit(Box<Submission>),
    /// The client left. Ids that ended meanwhile are ignored.
    Cancel(SequenceId),
    /// End now; what still runs fails.
    Stop,
}

/// The most events one sequence sends: its prompt, a chunk for each token and for the text that
/// was held back, and its end.
pub(super) fn events_max(max_tokens: usize) -> usize {
    max_tokens + 3
}

/// What comes back of a sequence, in order. Its last event is `Finished` or `Failed`.
#[derive(Debug)]
pub(super) enum SequenceEvent {
    /// The prompt is in the KV cache; with log-probabilities when they were asked for.
    PromptRead {
        choice: u32,
        tokens: Vec<TokenLogprob>,
    },
    Chunk(Chunk),
    Finished {
        choice: u32,
        reason: FinishReason,
        /// Of the prompt's tokens, how many came from the prefix cache.
        cached: usize,
        /// Tokens generated, the one that ended the sequence included.
        generated: usize,
    },
    Failed {
        reason: Reason,
        message: &'static str,
    },
}
