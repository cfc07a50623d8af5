//! Reading a cloud's answer against the clock: the body, its limits, and its one honest end.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use super::fault::{Kind, garbage};
use super::frames::{Frames, Message};
use super::reply::{Progress, Reply};
use crate::completion::{Event, Reason, Refusal};
use crate::config::CloudConfig;

/// Bytes of one token on the wire: some 300 usually, 1.5 KiB with five alternatives each.
const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Keep-alives, usage and extras of a whole answer.
const EXTRA_BYTES_MAX: usize = 1024 * 1024;
/// After the last choice ended: how long usage, and then the end of the body, is waited for.
const TAIL_WAIT: Duration = Duration::from_millis(500);
/// Behind an answer that is over: a mark of the end, and a trailer or two.
const DRAINED_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a whole answer.
pub(super) fn bytes_max(max_tokens: u32, n: u32) -> usize {
    (max_tokens as usize)
        .saturating_mul(n as usize)
        .saturating_mul(TOKEN_BYTES_MAX)
        .saturating_add(EXTRA_BYTES_MAX)
}

/// When what has to have come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// The first event we can give out.
    first: Instant,
    idle: Duration,
    deadline: Option<Instant>,
}

impl Timing {
    pub(super) fn new(row: &CloudConfig, deadline: Option<Instant>, started: Instant) -> Self {
        Self { first: started + row.first_token_timeout, idle: row.idle_timeout, deadline }
    }

    pub(super) fn first_due(&self) -> Instant {
        self.capped(self.first)
    }

    fn capped(&self, due: Instant) -> Instant {
        self.deadline.map_or(due, |deadline| deadline.min(due))
    }

    /// Why waiting ended at `now`.
    pub(super) fn late(&self, now: Instant) -> Refusal {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            Refusal::new(Reason::Deadline, "the deadline passed before the answer was complete")
        } else {
            Refusal::new(Reason::CloudTimeout, "the cloud did not answer in time")
        }
    }
}

/// How the body is read.
enum Form {
    /// Message by message, as they come.
    Stream(Box<dyn Frames>),
    /// When all of it is here.
    Whole(Vec<u8>),
}

impl Form {
    fn of(kind: Kind, frames: Box<dyn Frames>) -> Self {
        match kind {
            Kind::Stream => Self::Stream(frames),
            Kind::Whole => Self::Whole(Vec::new()),
        }
    }
}

/// What an exchange is read with.
pub(super) struct Start {
    pub(super) body: Incoming,
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) kind: Kind,
    pub(super) frames: Box<dyn Frames>,
    pub(super) reply: Reply,
    pub(super) timing: Timing,
    pub(super) bytes_max: usize,
}

/// An answer being read. Once it ended, body and permit are gone and nothing follows.
pub(super) struct Reading {
    /// The exchange; dropping it aborts it upstream.
    open: Option<(Incoming, OwnedSemaphorePermit)>,
    body: Form,
    messages: VecDeque<Message>,
    reply: Reply,
    ready: VecDeque<Event>,
    timing: Timing,
    /// When the next content, or the tail, has to have come.
    due: Instant,
    /// Something was given out: a failure is now the client's to know.
    begun: bool,
    /// Every choice ended; only usage is missing.
    tail: bool,
    bytes_left: usize,
}

impl Reading {
    pub(super) fn new(start: Start) -> Self {
        Self {
            open: Some((start.body, start.permit)),
            body: Form::of(start.kind, start.frames),
            messages: VecDeque::new(),
            reply: start.reply,
            ready: VecDeque::new(),
            timing: start.timing,
            due: start.timing.first_due(),
            begun: false,
            tail: false,
            bytes_left: start.bytes_max,
        }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Event> + Send {
        stream::unfold(self, |mut reading| async move {
            let event = reading.next().await?;
            Some((event, reading))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.begun = true;
                return Some(event);
            }
            let (body, _) = self.open.as_mut()?;
            match timeout_at(self.due, body.frame()).await {
                Err(_) => self.broken(self.timing.late(Instant::now())),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.data(&data);
                    }
                }
                Ok(Some(Err(error))) => self.broken(cut().with_source(error)),
                Ok(None) => self.end(),
            }
        }
    }

    fn data(&mut self, data: &Bytes) {
        let Some(left) = self.bytes_left.checked_sub(data.len()) else {
            return self.broken(garbage("an answer beyond all bounds"));
        };
        self.bytes_left = left;
        let parsed = match &mut self.body {
            Form::Stream(frames) => frames.push(data, &mut self.messages),
            Form::Whole(all) => {
                all.extend_from_slice(data);
                return;
            }
        };
        // What was whole before the malformed part still counts.
        while let Some(message) = self.messages.pop_front() {
            let progress = self.reply.message(&message, &mut self.ready);
            if self.progressed(progress) {
                return;
            }
        }
        if let Err(malformed) = parsed {
            self.broken(garbage("a malformed stream").with_source(malformed));
        }
    }

    /// The body ended.
    fn end(&mut self) {
        let Form::Whole(all) = &mut self.body else { return self.broken(cut()) };
        let all = std::mem::take(all);
        let progress = self.reply.whole(&all, &mut self.ready);
        if !self.progressed(progress) {
            self.broken(garbage("no reason to finish"));
        }
    }

    /// Whether that was the end.
    fn progressed(&mut self, progress: Result<Progress, Refusal>) -> bool {
        match progress {
            Ok(Progress::Nothing) => {}
            Ok(Progress::Content) => self.content(),
            Ok(Progress::Done) if self.reply.is_finished() => {
                self.over();
                return true;
            }
            Ok(Progress::Done) => {
                self.broken(garbage("no reason to finish"));
                return true;
            }
            Err(refusal) => {
                self.broken(refusal);
                return true;
            }
        }
        if self.reply.is_finished() && self.reply.has_usage() {
            self.over();
            return true;
        }
        false
    }

    /// Content came: the clock starts again. Until something can be given out, the first
    /// timeout stands, since the client has seen nothing; after the end of all choices the tail
    /// is waited for once, however much a cloud goes on to say.
    fn content(&mut self) {
        let now = Instant::now();
        if self.reply.is_finished() {
            if !self.tail {
                self.tail = true;
                self.due = self.timing.capped(now + TAIL_WAIT);
            }
        } else if self.begun || !self.ready.is_empty() {
            self.due = self.timing.capped(now + self.timing.idle);
        }
    }

    /// No more will come. With every choice finished that is an end like any other.
    fn broken(&mut self, refusal: Refusal) {
        if self.reply.is_finished() {
            return self.complete();
        }
        self.open = None;
        // What was held back, since it may be the beginning of a stop string or an echo, is not
        // given out: whoever goes on with the answer makes it anew.
        self.ready.push_back(Event::Failed(refusal));
    }

    /// The cloud has said all: reads the rest of the body beside the client's end, so that the
    /// connection can serve again.
    fn over(&mut self) {
        if let Some((mut body, permit)) = self.open.take() {
            tokio::spawn(timeout(TAIL_WAIT, async move {
                let _permit = permit;
                let mut left = DRAINED_BYTES_MAX;
                while let Some(Ok(frame)) = body.frame().await {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    let Some(fewer) = left.checked_sub(bytes) else { return };
                    left = fewer;
                }
            }));
        }
        self.complete();
    }

    fn complete(&mut self) {
        self.open = None;
        self.ready.push_back(Event::Usage(self.reply.usage()));
    }
}

fn cut() -> Refusal {
    Refusal::new(Reason::CloudUnreachable, "the connection to the cloud broke")
}
