//! A cloud's answer to a request with placeholders, with the secrets back in their places.
//!
//! Stop strings are matched once more on what the client gets: one may lie in a secret, of which
//! the cloud saw nothing.

use futures_util::{StreamExt, stream};
use metrics::Counter;
use models::text::{Progress, TextAssembler};
use smallvec::SmallVec;

use crate::completion::{Chunk, CompletionStream, Event, FinishReason};
use crate::policy::redact::{Redaction, Restoring};

/// The answer of `n` choices to what `redaction` made; a choice in which a placeholder came back
/// damaged ends there, as content that was withheld, and counts as `damaged`.
pub(super) fn answer(
    answer: CompletionStream,
    redaction: &Redaction,
    n: u32,
    damaged: Counter,
) -> CompletionStream {
    let mut choices = Choices { all: (0..n).map(|_| Choice::new(redaction)).collect(), damaged };
    let events = answer.events.flat_map(move |event| stream::iter(choices.event(event)));
    CompletionStream { events: Box::pin(events), ..answer }
}

struct Choices {
    all: Vec<Choice>,
    damaged: Counter,
}

struct Choice {
    restoring: Restoring,
    stops: TextAssembler,
    ended: bool,
}

/// What a part of an answer did to a choice.
enum Then {
    GoesOn,
    Stopped,
    Damaged,
}

impl Choices {
    /// One event of the cloud's, as the client gets it.
    fn event(&mut self, event: Event) -> Vec<Event> {
        let mut out = Vec::new();
        match event {
            Event::Chunk(chunk) => self.text(&chunk, &mut out),
            Event::Finished { choice, reason } => self.finished(choice, reason, &mut out),
            // What a broken answer held back is left to whoever goes on with it.
            Event::Prompt { .. } | Event::Usage(_) | Event::Failed(_) => out.push(event),
        }
        out
    }

    fn text(&mut self, chunk: &Chunk, out: &mut Vec<Event>) {
        let Some(choice) = self.open(chunk.choice) else { return };
        let reason = match choice.push(chunk, out) {
            Then::GoesOn => return,
            Then::Stopped => FinishReason::Stop,
            Then::Damaged => self.withheld(),
        };
        self.end(chunk.choice, reason, out);
    }

    fn finished(&mut self, choice: u32, reason: FinishReason, out: &mut Vec<Event>) {
        let Some(open) = self.open(choice) else { return };
        let reason = match open.finish(reason != FinishReason::Stop, choice, out) {
            Then::GoesOn => reason,
            Then::Stopped => FinishReason::Stop,
            Then::Damaged => self.withheld(),
        };
        self.end(choice, reason, out);
    }

    fn open(&mut self, choice: u32) -> Option<&mut Choice> {
        self.all.get_mut(choice as usize).filter(|choice| !choice.ended)
    }

    fn withheld(&self) -> FinishReason {
        self.damaged.increment(1);
        FinishReason::ContentFilter
    }

    fn end(&mut self, choice: u32, reason: FinishReason, out: &mut Vec<Event>) {
        self.all[choice as usize].ended = true;
        out.push(Event::Finished { choice, reason });
    }
}

impl Choice {
    fn new(redaction: &Redaction) -> Self {
        Self {
            restoring: Restoring::new(redaction.restorer.clone()),
            stops: TextAssembler::new(redaction.stops.clone()),
            ended: false,
        }
    }

    fn push(&mut self, chunk: &Chunk, out: &mut Vec<Event>) -> Then {
        let mut restored = String::new();
        let whole = self.restoring.push(chunk.as_str(), &mut restored).is_ok();
        self.give(&restored, chunk.choice, whole, !whole, out)
    }

    /// No more text comes; `cut`: the answer did not end by itself.
    fn finish(&mut self, cut: bool, choice: u32, out: &mut Vec<Event>) -> Then {
        let mut restored = String::new();
        let whole = self.restoring.finish(cut, &mut restored).is_ok();
        self.give(&restored, choice, whole, true, out)
    }

    /// Gives out what is before a stop string; `last`: nothing follows that could make one.
    fn give(
        &mut self,
        text: &str,
        choice: u32,
        whole: bool,
        last: bool,
        out: &mut Vec<Event>,
    ) -> Then {
        let mut free = SmallVec::new();
        let stopped = self.stops.push(text.as_bytes(), &mut free) == Progress::Stopped;
        if last && !stopped {
            self.stops.finish(&mut free);
        }
        if !free.is_empty() {
            out.push(Event::Chunk(Chunk { choice, text: free, tokens: Vec::new() }));
        }
        match (stopped, whole) {
            (true, _) => Then::Stopped,
            (false, true) => Then::GoesOn,
            (false, false) => Then::Damaged,
        }
    }
}
