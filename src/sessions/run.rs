//! One completion of a session: what it has said, and whether anybody still waits for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::completion::{Event, FinishReason, Usage};

/// Bytes of a suggestion that are remembered; a longer one is nobody's ghost text.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// Where a completion is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Runs,
    /// It ended well, and its text is known.
    Finished,
    /// Its client left, it broke, it was superseded, or it said too much.
    Gone,
}

/// What the session and the stream share of a completion.
#[derive(Default)]
pub(super) struct State {
    pub(super) superseded: CancellationToken,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    phase: Phase,
    text: String,
    finish: Option<FinishReason>,
    usage: Usage,
}

impl State {
    pub(super) fn phase(&self) -> Phase {
        self.said(|said| said.phase)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.phase() == Phase::Gone
    }

    /// The whole text and how it ended, if it ended well.
    pub(super) fn finished<T>(
        &self,
        of: impl FnOnce(&str, FinishReason, Usage) -> Option<T>,
    ) -> Option<T> {
        self.said(|said| match (said.phase, said.finish) {
            (Phase::Finished, Some(finish)) => of(&said.text, finish, said.usage),
            _ => None,
        })
    }

    pub(super) fn so_far<T>(&self, of: impl FnOnce(&str) -> T) -> T {
        self.said(|said| of(&said.text))
    }

    fn said<T>(&self, of: impl FnOnce(&mut Said) -> T) -> T {
        of(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hear(&self, event: &Event) {
        self.said(|said| match event {
            Event::Chunk(chunk) => {
                said.text.push_str(chunk.as_str());
                if said.text.len() > TEXT_BYTES_MAX {
                    (said.phase, said.text) = (Phase::Gone, String::new());
                }
            }
            Event::Finished { reason, .. } => said.finish = Some(*reason),
            Event::Usage(usage) => {
                said.usage = *usage;
                if said.phase == Phase::Runs {
                    said.phase = Phase::Finished;
                }
            }
            Event::Prompt { .. } | Event::Failed(_) => {}
        });
    }
}

/// A completion's place in its session, for as long as it runs. Dropped before the end, it is as if
/// it had never been.
pub struct Ticket {
    state: Arc<State>,
    /// It asks for what may come after a suggestion: nobody waits for it yet.
    ahead: bool,
}

impl Ticket {
    pub(super) fn new(state: Arc<State>, ahead: bool) -> Self {
        Self { state, ahead }
    }

    /// Whether nobody waits for it, so that it should let others go first.
    pub fn is_ahead(&self) -> bool {
        self.ahead
    }

    /// Whether a newer request has made this one worthless.
    pub fn is_superseded(&self) -> bool {
        self.state.superseded.is_cancelled()
    }

    /// Returns when a newer request makes this one worthless.
    pub fn superseded(&self) -> WaitForCancellationFutureOwned {
        self.state.superseded.clone().cancelled_owned()
    }

    /// The events of the completion until it is superseded; then it ends with what it has, and
    /// `events` is dropped, which is its cancel.
    pub fn watch(
        self: Arc<Self>,
        events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    ) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        let superseded = Box::pin(self.superseded());
        Box::pin(Watched { ticket: self, superseded, ended: false, then: Then::Events(events) })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.state.said(|said| {
            if said.phase == Phase::Runs {
                (said.phase, said.text) = (Phase::Gone, String::new());
            }
        });
    }
}

struct Watched {
    ticket: Arc<Ticket>,
    superseded: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whether its end was said.
    ended: bool,
    then: Then,
}

/// What a stream says next.
enum Then {
    Events(Pin<Box<dyn Stream<Item = Event> + Send>>),
    /// It was superseded, and has said its end.
    Usage,
    Nothing,
}

impl Stream for Watched {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        match &mut this.then {
            Then::Events(events) => {
                if !this.ended && this.superseded.as_mut().poll(cx).is_ready() {
                    this.then = Then::Usage;
                    let end = Event::Finished { choice: 0, reason: FinishReason::Stop };
                    return Poll::Ready(Some(end));
                }
                let event = std::task::ready!(events.as_mut().poll_next(cx));
                if let Some(event) = &event {
                    this.ended |= matches!(event, Event::Finished { .. });
                    this.ticket.state.hear(event);
                }
                Poll::Ready(event)
            }
            Then::Usage => {
                this.then = Then::Nothing;
                Poll::Ready(Some(Event::Usage(Usage::default())))
            }
            Then::Nothing => Poll::Ready(None),
        }
    }
}
