//! Edit sessions: which running completion a newer one replaces, and which request an earlier
//! suggestion answers already.
//!
//! An editor asks again with every key. A request that goes on or steps back on the cursor's line
//! makes the one before it worthless: that one ends with what it has. And where the user types what
//! was suggested, the rest of the suggestion is the answer, at no cost at all. Both need to know
//! whose requests belong together ([`SessionKey`]) and where in a text a request stands
//! ([`Cursor`]); neither a connection nor a `user` field says that.

mod cursor;
mod run;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use self::cursor::{Cursor, Move};
pub use self::run::Ticket;
use self::run::{Phase, State};
use crate::completion::{CompletionRequest, FinishReason, Input, Priority, Usage};

/// Sessions that are remembered; the one that was longest silent goes first.
const SESSIONS_MAX: usize = 512;
/// Completions of a session that are remembered: an address may stand for an office.
const RUNS_MAX: usize = 16;

/// Whose requests belong together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    pub tenant: u32,
    pub who: Who,
}

/// What tells sessions of a tenant apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A header says so.
    Named(Arc<str>),
    /// Where it comes from; files are told apart by their text.
    Address(IpAddr),
}

/// What a new request finds.
pub enum Entry {
    /// It has no part in a session.
    Alone,
    /// The user has typed along a suggestion: this is the rest of it.
    Known(Known),
    /// It runs, unless a newer one says otherwise.
    Runs(Ticket),
}

/// The rest of a suggestion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub text: String,
    pub finish: FinishReason,
    /// Of the completion it was part of; nothing was computed for this one.
    pub usage: Usage,
}

impl Known {
    /// What somebody gets who was superseded before there was any text.
    pub fn nothing() -> Self {
        Self { text: String::new(), finish: FinishReason::Stop, usage: Usage::default() }
    }
}

/// All sessions of a process.
#[derive(Default)]
pub struct Sessions {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<SessionKey, Session>,
    /// Counts requests; a session's `last` is when it was heard of.
    now: u64,
}

#[derive(Default)]
struct Session {
    last: u64,
    /// The newest last.
    runs: VecDeque<Run>,
}

/// A completion that runs, or has run.
struct Run {
    cursor: Cursor,
    /// Asked for what may come after a suggestion, before anybody has taken it.
    ahead: bool,
    state: Arc<State>,
}

impl Sessions {
    /// A request has come. Where it makes a running one worthless, that one is told.
    ///
    /// `speculative`: its client says that nobody waits for it.
    pub fn enter(&self, key: SessionKey, request: &CompletionRequest, speculative: bool) -> Entry {
        let Some(cursor) = takes_part(&key, request) else { return Entry::Alone };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let session = table.session(key);
        session.forget_gone();
        if let Some(known) = session.known(&cursor) {
            return Entry::Known(known);
        }
        let ahead = speculative || session.goes_ahead(&cursor);
        if !ahead {
            session.supersede(&cursor);
        }
        let state = Arc::new(State::default());
        if session.runs.len() == RUNS_MAX {
            session.runs.pop_front();
        }
        session.runs.push_back(Run { cursor, ahead, state: state.clone() });
        Entry::Runs(Ticket::new(state, ahead))
    }
}

/// Where a request stands; None: superseding it, or answering it from memory, could take from
/// somebody what they asked for. A text without a suffix may be anybody's, a batch's too, unless
/// it says whose session it is.
fn takes_part(key: &SessionKey, request: &CompletionRequest) -> Option<Cursor> {
    let plain = request.n == 1
        && request.logprobs.is_none()
        && !request.echo
        && request.max_tokens != Some(0)
        && request.priority == Priority::Completion;
    let is_editors = match request.input {
        Input::Fim(_) => true,
        Input::Text(_) => matches!(key.who, Who::Named(_)),
        Input::Tokens(_) | Input::Chat(_) => false,
    };
    (plain && is_editors).then(|| Cursor::of(request)).flatten()
}

impl Table {
    fn session(&mut self, key: SessionKey) -> &mut Session {
        self.now += 1;
        if self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(&key) {
            let silent = self.sessions.iter().min_by_key(|(_, session)| session.last);
            if let Some(silent) = silent.map(|(key, _)| key.clone()) {
                self.sessions.remove(&silent);
            }
        }
        let session = self.sessions.entry(key).or_default();
        session.last = self.now;
        session
    }
}

impl Session {
    /// Whoever left, or broke off, has suggested nothing.
    fn forget_gone(&mut self) {
        self.runs.retain(|run| !run.state.is_gone());
    }

    /// The rest of the newest suggestion that was typed along to here.
    fn known(&self, cursor: &Cursor) -> Option<Known> {
        self.runs.iter().rev().filter(|run| run.cursor.asks_like(cursor)).find_map(|run| {
            run.state.finished(|text, finish, usage| {
                let typed = run.cursor.typed_along(text, cursor)?;
                let rest = &text[typed..];
                (typed > 0 && !rest.is_empty()).then(|| Known {
                    text: rest.to_owned(),
                    finish,
                    usage: Usage {
                        cached_tokens: usage.prompt_tokens,
                        completion_tokens: 0,
                        ..usage
                    },
                })
            })
        })
    }

    /// Whether this is where the cursor will be if a suggestion is taken whole.
    fn goes_ahead(&self, cursor: &Cursor) -> bool {
        self.runs.iter().any(|run| {
            run.state.so_far(|text| {
                !text.is_empty() && run.cursor.typed_along(text, cursor) == Some(text.len())
            })
        })
    }

    /// Tells those that run for this line, as it was before, that nobody waits for them any more.
    fn supersede(&self, cursor: &Cursor) {
        let running = self.runs.iter().filter(|run| !run.ahead && run.state.phase() == Phase::Runs);
        for run in running {
            if matches!(run.cursor.to(cursor), Some(Move::Typed | Move::Erased)) {
                run.state.superseded.cancel();
            }
        }
    }
}
