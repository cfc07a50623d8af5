//! A reply in parts, as its dialect writes them: what is ready is written into one buffer and leaves
//! as one frame.
//!
//! Dropping the body drops the completion, which cancels its work: hyper drops it when the client
//! leaves, `serve` when the client stops reading.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures_util::Stream as _;
use http_body::{Body, Frame};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::accounting::Account;
use super::answer::going_down;
use super::error::ApiError;
use super::merged::Merged;
use super::reply::{Letter, Summary};
use crate::completion::{Event, Refusal};
use crate::dispatch::Costs;

/// A frame ends when it has grown past this; some fifty chunks.
const FRAME_BYTES: usize = 8 << 10;

pub(super) struct EventStream {
    letter: Box<dyn Letter>,
    /// None once the last event was written.
    events: Option<Merged>,
    costs: Vec<Costs>,
    account: Account,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Written and not yet handed over.
    buffer: BytesMut,
}

impl EventStream {
    /// The letter was opened.
    pub(super) fn new(
        letter: Box<dyn Letter>,
        events: Merged,
        costs: Vec<Costs>,
        account: Account,
        ended: CancellationToken,
    ) -> Self {
        Self {
            letter,
            events: Some(events),
            costs,
            account,
            ended: Box::pin(ended.cancelled_owned()),
            buffer: BytesMut::new(),
        }
    }

    fn write(&mut self, event: Event) {
        let (letter, out) = (&mut self.letter, &mut self.buffer);
        match event {
            Event::Prompt { choice, text, tokens } => letter.text(out, choice, &text, &tokens),
            Event::Chunk(chunk) => {
                letter.begin(out, chunk.choice);
                self.account.text(chunk.choice);
                letter.text(out, chunk.choice, chunk.as_str(), &chunk.tokens);
            }
            Event::Finished { choice, reason } => {
                letter.begin(out, choice);
                letter.finish(out, choice, reason);
            }
            Event::Usage(usage) => {
                let summary = Summary::new(usage, &self.costs, &self.account);
                letter.done(out, &summary);
                self.end();
            }
            Event::Failed(refusal) => self.fail(&refusal),
        }
    }

    fn fail(&mut self, refusal: &Refusal) {
        tracing::debug!(reason = %refusal.reason.code(), source = ?refusal.source, "broke");
        self.letter.failed(&mut self.buffer, &ApiError::from(refusal));
        self.account.broke(&refusal.reason);
        self.end();
    }

    fn end(&mut self) {
        self.events = None;
        self.account.settle(StatusCode::OK);
    }

    fn fill(&mut self, cx: &mut Context<'_>) {
        if self.events.is_some() && self.ended.as_mut().poll(cx).is_ready() {
            self.fail(&going_down());
        }
        while self.buffer.len() < FRAME_BYTES {
            let Some(events) = &mut self.events else { return };
            match Pin::new(events).poll_next(cx) {
                Poll::Ready(event) => self.write(event.expect("ends with usage or failure")),
                Poll::Pending => return,
            }
        }
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.buffer.capacity() == 0 {
            // Once a frame was written out, its memory comes back to the buffer.
            this.buffer.reserve(FRAME_BYTES);
        }
        this.fill(cx);
        match (this.buffer.is_empty(), &this.events) {
            (false, _) => Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze())))),
            (true, Some(_)) => Poll::Pending,
            (true, None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_none() && self.buffer.is_empty()
    }
}
