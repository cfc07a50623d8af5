//! A request under way: a task that reads, and what the client knows of it.

use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::desk::Change;
use super::dialect::{Reply, Told};
use super::http::Wrong;
use super::server::Request;

/// Silence for so long is no answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A suggestion.
    Ask,
    /// Another one for the same cursor.
    Copy,
    /// What would follow the one that is shown.
    FollowUp,
    WarmUp,
}

/// What came of a request, and when.
pub(super) struct News {
    pub(super) flight: u64,
    pub(super) at: Instant,
    pub(super) what: What,
}

pub(super) enum What {
    /// More text; `has_line`: with it there is a whole line.
    Text {
        text: String,
        has_line: bool,
    },
    Ended(Told),
    Failed(Wrong),
}

/// Dropped, its connection is closed.
pub(super) struct Flight {
    pub(super) number: u64,
    pub(super) role: Role,
    /// When it should have been sent: what it takes counts from here.
    due: Instant,
    /// What was typed since; None: something else happened to the text.
    typed: Option<String>,
    text: String,
    pieces: u64,
    first_text: Option<Duration>,
    first_line: Option<Duration>,
    told: Option<Told>,
    failed: Option<Wrong>,
    was_shown: bool,
    task: AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Flight {
    /// `patience`: the client shows after so long what it has.
    pub(super) fn start(
        number: u64,
        purpose: (Role, Instant),
        request: Request,
        patience: Option<Duration>,
        news: Sender<News>,
    ) -> Self {
        let (role, due) = purpose;
        let task = tokio::spawn(async move {
            let tell = |what| {
                let news = &news;
                // Nobody hears it where the day is over.
                async move {
                    let at = Instant::now();
                    let _heard = news.send(News { flight: number, at, what }).await;
                }
            };
            let mut told = Told::default();
            let reading = read(request, &mut told, &tell);
            let outcome = match timeout(patience.unwrap_or(ANSWER_MAX), reading).await {
                Ok(Err(wrong)) => What::Failed(wrong),
                Err(_) if patience.is_none() => What::Failed(Wrong::Ended),
                // Who runs out of patience shows what there is.
                Ok(Ok(())) | Err(_) => What::Ended(told),
            };
            tell(outcome).await;
        });
        Self {
            number,
            role,
            due,
            typed: Some(String::new()),
            text: String::new(),
            pieces: 0,
            first_text: None,
            first_line: None,
            told: None,
            failed: None,
            was_shown: false,
            task: task.abort_handle(),
        }
    }

    /// A key was typed while it was under way.
    pub(super) fn typed_on(&mut self, change: &Change) {
        match (change, &mut self.typed) {
            (Change::Nothing, _) => {}
            (Change::Inserted(text), Some(typed)) => typed.push_str(text),
            _ => self.typed = None,
        }
    }

    /// What was asked ahead is wanted from now on.
    pub(super) fn become_ask(&mut self, now: Instant) {
        (self.role, self.due) = (Role::Ask, now);
        for came in [&mut self.first_text, &mut self.first_line] {
            *came = came.map(|_| Duration::ZERO);
        }
    }

    pub(super) fn is_stale(&self) -> bool {
        self.typed.is_none()
    }

    /// Whether it may still be what is typed.
    pub(super) fn still_right(&self) -> bool {
        self.typed
            .as_ref()
            .is_some_and(|typed| self.text.starts_with(&**typed) || typed.starts_with(&*self.text))
    }

    /// Whether what it says is what is typed.
    pub(super) fn comes_true(&self) -> bool {
        !self.text.is_empty() && self.still_right()
    }

    /// What of its text is not typed yet; None: it says something else.
    pub(super) fn rest(&self) -> Option<&str> {
        self.text.strip_prefix(self.typed.as_deref()?)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn has_line(&self) -> bool {
        self.first_line.is_some()
    }

    pub(super) fn read(&mut self, text: &str, has_line: bool, at: Instant) {
        self.text.push_str(text);
        self.pieces += 1;
        self.first_text.get_or_insert(at - self.due);
        if has_line {
            self.first_line.get_or_insert(at - self.due);
        }
    }

    pub(super) fn end(&mut self, told: Told, at: Instant) {
        self.told = Some(told);
        // All of it is a line, where it is anything.
        if !self.text.trim().is_empty() {
            self.first_line.get_or_insert(at - self.due);
        }
    }

    pub(super) fn fail(&mut self, why: Wrong) {
        self.failed = Some(why);
    }

    /// Whether it had not been shown.
    pub(super) fn show(&mut self) -> bool {
        !std::mem::replace(&mut self.was_shown, true)
    }

    pub(super) fn was_shown(&self) -> bool {
        self.was_shown
    }

    /// Whether no key was typed since it was due.
    pub(super) fn before_next_key(&self) -> bool {
        self.typed.as_ref().is_some_and(String::is_empty)
    }

    pub(super) fn first_text(&self) -> Option<Duration> {
        self.first_text
    }

    pub(super) fn first_line(&self) -> Option<Duration> {
        self.first_line
    }

    /// What the server said at its end.
    pub(super) fn told(&self) -> Option<&Told> {
        self.told.as_ref()
    }

    pub(super) fn failed(&self) -> Option<&Wrong> {
        self.failed.as_ref()
    }

    /// Tokens that came, as the server counts or as the pieces say.
    pub(super) fn tokens(&self) -> u64 {
        self.told.and_then(|told| told.generated).unwrap_or(self.pieces)
    }
}

/// Reads to the end and tells of every text.
async fn read<F: Future<Output = ()>>(
    request: Request,
    told: &mut Told,
    tell: &impl Fn(What) -> F,
) -> Result<(), Wrong> {
    let mut answer = request.send().await?;
    let mut reply = Reply::new(request.dialect);
    let mut before = 0;
    loop {
        let part = answer.next().await?;
        match &part {
            Some(part) => reply.push(part)?,
            None => reply.end()?,
        }
        *told = reply.told;
        if reply.text.len() > before {
            let text = reply.text[before..].to_owned();
            before = reply.text.len();
            tell(What::Text { text, has_line: reply.has_line() }).await;
        }
        if part.is_none() {
            return Ok(());
        }
    }
}
