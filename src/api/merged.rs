//! The answers to all prompts of a request as one stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;

use crate::completion::{CompletionStream, Event, FinishReason, Reason, Refusal, Usage};

/// The events of all prompts as they come, choices numbered through: `prompt * n + choice`. Ends
/// with one [`Event::Usage`] for all, or with the first [`Event::Failed`].
pub(super) struct Merged {
    streams: Vec<Option<CompletionStream>>,
    n: u32,
    /// Choices that have text and no end yet, numbered through.
    open: Vec<bool>,
    /// What is still to be said of those that a deadline ended.
    late: VecDeque<Event>,
    /// Who is asked first next time, so that no prompt starves another.
    turn: usize,
    usage: Usage,
}

impl Merged {
    pub(super) fn new(streams: Vec<CompletionStream>, n: u32) -> Self {
        let open = vec![false; streams.len() * n as usize];
        let streams = streams.into_iter().map(Some).collect();
        Self { streams, n, open, late: VecDeque::new(), turn: 0, usage: Usage::default() }
    }

    fn number(&mut self, prompt: usize, mut event: Event) -> Event {
        let first = self.first(prompt);
        match &mut event {
            Event::Prompt { choice, .. } => *choice += first,
            Event::Finished { choice, .. } => {
                *choice += first;
                self.open[*choice as usize] = false;
            }
            Event::Chunk(chunk) => {
                chunk.choice += first;
                self.open[chunk.choice as usize] = true;
            }
            Event::Usage(_) | Event::Failed(_) => {}
        }
        event
    }

    /// The number of a prompt's first choice.
    fn first(&self, prompt: usize) -> u32 {
        u32::try_from(prompt).expect("prompts are few") * self.n
    }

    /// Ends a prompt's choices with the text they have, if that is all that a deadline leaves to do:
    /// a cloud's answer breaks there, and the client wants what there is.
    fn ends_late(&mut self, prompt: usize, refusal: &Refusal) -> bool {
        let first = self.first(prompt);
        let open = (first..first + self.n).filter(|choice| self.open[*choice as usize]);
        let ends = open.map(|choice| Event::Finished { choice, reason: FinishReason::Length });
        let ends: Vec<Event> = ends.collect();
        if refusal.reason != Reason::Deadline || ends.is_empty() {
            return false;
        }
        self.streams[prompt] = None;
        self.late.extend(ends);
        true
    }

    fn poll_prompt(&mut self, prompt: usize, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let Some(stream) = &mut self.streams[prompt] else { return Poll::Ready(None) };
        match stream.events.as_mut().poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Event::Usage(usage))) => {
                self.streams[prompt] = None;
                self.usage.prompt_tokens += usage.prompt_tokens;
                self.usage.cached_tokens += usage.cached_tokens;
                self.usage.completion_tokens += usage.completion_tokens;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Event::Failed(refusal))) if self.ends_late(prompt, &refusal) => {
                Poll::Ready(self.late.pop_front())
            }
            Poll::Ready(Some(event)) => Poll::Ready(Some(self.number(prompt, event))),
            Poll::Ready(None) => {
                let message = "the completion broke off";
                let refusal = Refusal::new(Reason::EngineFailed, message);
                Poll::Ready(Some(Event::Failed(refusal)))
            }
        }
    }
}

impl Stream for Merged {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        if let Some(event) = this.late.pop_front() {
            return Poll::Ready(Some(event));
        }
        let count = this.streams.len();
        let mut over = true;
        for step in 0..count {
            let prompt = (this.turn + step) % count;
            match this.poll_prompt(prompt, cx) {
                Poll::Ready(Some(event)) => {
                    this.turn = (prompt + 1) % count;
                    return Poll::Ready(Some(event));
                }
                Poll::Ready(None) => {}
                Poll::Pending => over = false,
            }
        }
        match over {
            true => Poll::Ready(Some(Event::Usage(this.usage))),
            false => Poll::Pending,
        }
    }
}
