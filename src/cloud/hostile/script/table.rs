//! The table: every fault, where it can exist, on which wires, and what has to come of it.
//! `docs/hostile.md` is made of it.

use super::Scene;
use super::errors::{self, Kind};
use super::upstream::Act;
use super::wires::{Envelope, Shape, Wire};

/// When a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Connect,
    Tls,
    /// The request is on its way.
    Sending,
    /// In the place of the answer's head.
    Head,
    BeforeContent,
    MidContent,
    /// All text is there, and not why it ended.
    BeforeFinish,
    /// Why it ended is there, and not what was used.
    Tail,
    /// Only the end of the body is missing.
    AfterEnd,
    /// The connection serves again.
    Over,
}

pub(crate) const PHASES: [(Phase, &str); 9] = [
    (Phase::Connect, "connect"),
    (Phase::Tls, "tls"),
    (Phase::Sending, "sending"),
    (Phase::Head, "head"),
    (Phase::BeforeContent, "before content"),
    (Phase::MidContent, "mid content"),
    (Phase::BeforeFinish, "before finish"),
    (Phase::Tail, "tail"),
    (Phase::AfterEnd, "after end"),
];

/// What has to come of it. Every refusal may be retried elsewhere, and is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was given out; the reason's code.
    Refused(&'static str),
    /// The same, and the cloud is left alone for so many milliseconds; None: it did not say.
    Paused(&'static str, Option<u64>),
    /// What was said before the fault was given out, and then the break.
    Broken(&'static str),
    /// The whole answer, with its good end.
    Finished,
    /// All text, ended by the provider's filter.
    Filtered,
}

/// The cells of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// In the body: refused before content, broken after it, harmless after the finish.
    Body(&'static str),
    /// The same, and in the place of the head.
    Answer(&'static str),
    /// The same, and while the request is sent.
    Exchange(&'static str),
    Only(&'static [(Phase, Outcome)]),
}

impl When {
    pub(crate) fn cells(self) -> Vec<(Phase, Outcome)> {
        let body = |reason| {
            [
                (Phase::BeforeContent, Outcome::Refused(reason)),
                (Phase::MidContent, Outcome::Broken(reason)),
                (Phase::BeforeFinish, Outcome::Broken(reason)),
                (Phase::Tail, Outcome::Finished),
                (Phase::AfterEnd, Outcome::Finished),
            ]
        };
        let before = |phases: &[Phase], reason| {
            let refused = phases.iter().map(|phase| (*phase, Outcome::Refused(reason)));
            refused.chain(body(reason)).collect()
        };
        match self {
            When::Body(reason) => before(&[], reason),
            When::Answer(reason) => before(&[Phase::Head], reason),
            When::Exchange(reason) => before(&[Phase::Sending, Phase::Head], reason),
            When::Only(cells) => cells.to_vec(),
        }
    }
}

/// The wires that a fault can exist on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wires {
    All,
    /// Streams of text lines.
    Text,
    /// Those whose events end with a blank line.
    Events,
    /// AWS's binary frames.
    Frames,
    /// Converse alone.
    Converse,
    /// Their streams say that they are over.
    Done,
    /// What was used is an event of its own.
    Counting,
    /// Texts carry the number of their choice.
    Indexed,
    /// Several choices may be asked for.
    Choices,
    /// Some words for an end mean that the model gave up.
    GivingUp,
    /// Some words for an end mean that a filter cut the text.
    Filtering,
    /// The answer holds an error where a text would be.
    Erring,
    /// A whole answer may come in the place of a stream.
    Whole,
    /// The provider has an error of that kind.
    Telling(Kind),
}

impl Wires {
    pub(crate) fn hold(self, wire: &Wire) -> bool {
        use Shape::{Chat, Completion, Converse, Generate, Generic, Llama, Mistral, Tgi};
        match self {
            Wires::All => true,
            Wires::Text => wire.is_text(),
            Wires::Events => wire.envelope == Envelope::Events,
            Wires::Frames => !wire.is_text(),
            Wires::Converse => wire.shape == Converse,
            Wires::Done => wire.says_done(),
            Wires::Counting => !wire.counts_at_finish,
            Wires::Indexed => matches!(wire.shape, Completion | Chat | Generate | Generic),
            Wires::Choices => wire.choices,
            Wires::GivingUp => !matches!(wire.shape, Llama | Mistral | Tgi),
            Wires::Filtering => wire.shape != Tgi,
            Wires::Erring => wire.shape != Converse,
            Wires::Whole => matches!(wire.shape, Completion | Chat),
            Wires::Telling(kind) => errors::told(wire.family, kind).is_some(),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Plain,
    /// With more before the cursor than a connection holds.
    Much,
    /// The same, and it is read slowly.
    Slowly,
    /// Two choices.
    Two,
    /// To the stop string `STOP`.
    Stop,
    /// Soon.
    Deadline,
}

/// What the text is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// The honest one.
    Honest,
    /// This.
    This(&'static str),
    /// This, as often as it was said.
    Again(&'static str),
}

/// A fault.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) wires: Wires,
    pub(crate) when: When,
    pub(crate) acts: fn(&Scene<'_>) -> Vec<Act>,
    pub(crate) ask: Ask,
    pub(crate) text: Text,
    /// Requests that it strikes; others are answered honestly.
    pub(crate) times: usize,
}

impl Row {
    /// Whether a wire has this phase of this fault at all.
    pub(crate) fn exists(&self, phase: Phase, wire: &Wire) -> bool {
        let missing = match phase {
            // A peer has proven itself before, over TLS as well.
            Phase::Tls => wire.is_peer(),
            Phase::Tail => wire.counts_at_finish,
            _ => false,
        };
        self.wires.hold(wire) && !missing
    }
}
