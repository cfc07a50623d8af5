//! A completion client as its [`Policy`] says: when it asks, what it gives up, what it shows.

use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use super::counts::Counts;
use super::desk::{Change, Desk};
use super::dialect::Ask;
use super::flight::{Flight, News, Role, What};
use super::policies::{InFlight, Policy};
use super::server::Server;

/// Lines of a piece of a place visited before.
const CHUNK_LINES: usize = 64;

pub(super) struct Client<'a> {
    policy: &'static Policy,
    server: &'a Server,
    news: Sender<News>,
    /// Which edit session this is, for a server that tells them apart.
    session: String,
    flights: Vec<Flight>,
    next_flight: u64,
    /// Ghost text: what of a suggestion is not typed yet.
    shown: Option<String>,
    /// What would follow what is shown, where that is known already.
    ahead: Option<String>,
    asking: Asking,
    asked_at: Option<Instant>,
    last_key: Instant,
    warmed_at: Instant,
    /// Whether there are pieces that were not read ahead.
    cold: bool,
    chunks: Vec<(String, String)>,
    pub(super) counts: Counts,
}

/// What was taken of a suggestion.
pub(super) struct Taken {
    pub(super) text: String,
    /// Whether nothing of it was left.
    whole: bool,
}

/// Whether a request is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    Nothing,
    /// At this time, unless a key comes before.
    At(Instant),
    /// Since then, as soon as nothing is under way.
    Waiting(Instant),
}

impl<'a> Client<'a> {
    pub(super) fn new(
        policy: &'static Policy,
        server: &'a Server,
        session: String,
        news: Sender<News>,
    ) -> Self {
        let now = Instant::now();
        Self {
            policy,
            server,
            news,
            session,
            flights: Vec::new(),
            next_flight: 0,
            shown: None,
            ahead: None,
            asking: Asking::Nothing,
            asked_at: None,
            last_key: now,
            warmed_at: now,
            cold: false,
            chunks: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// When it wants to do something, if nothing happens before.
    pub(super) fn wakes(&self) -> Option<Instant> {
        let ask = match self.asking {
            Asking::At(at) => Some(at),
            Asking::Nothing | Asking::Waiting(_) => None,
        };
        let warm_up = self.warm_up_at();
        ask.into_iter().chain(warm_up).min()
    }

    fn warm_up_at(&self) -> Option<Instant> {
        let warm_up = self.policy.warm_up.filter(|_| self.cold && self.server.warms_up())?;
        Some((self.last_key + warm_up.idle).max(self.warmed_at + warm_up.every))
    }

    pub(super) fn wake(&mut self, desk: &Desk<'_>) {
        let now = Instant::now();
        if matches!(self.asking, Asking::At(at) if at <= now) {
            self.counts.asked += 1;
            self.asking = Asking::Waiting(now);
            self.ask(desk);
        }
        if self.warm_up_at().is_some_and(|at| at <= now) {
            self.cold = false;
            self.warmed_at = now;
            let ask = Ask { chunks: self.chunks.clone(), ..Ask::default() };
            self.send(Role::WarmUp, &ask, now);
        }
    }

    /// The text before the cursor has changed.
    pub(super) fn changed(&mut self, change: &Change, now: Instant) {
        self.last_key = now;
        for flight in self.flights.iter_mut().filter(|flight| flight.role != Role::FollowUp) {
            flight.typed_on(change);
        }
        if self.typed_through(change) {
            self.counts.typed_through += 1;
            return;
        }
        self.hide();
        self.give_up();
        // What is being typed may be what a request already says; it will be shown if so.
        let promising = |flight: &Flight| flight.role == Role::Ask && flight.comes_true();
        if self.flights.iter().any(promising) {
            self.asking = Asking::Nothing;
            return;
        }
        let after = now + self.policy.debounce;
        let spaced = self.asked_at.map_or(after, |at| after.max(at + self.policy.throttle));
        self.asking = Asking::At(spaced);
    }

    /// Whether the suggestion has this next; it moves on then.
    fn typed_through(&mut self, change: &Change) -> bool {
        let (Some(shown), Change::Inserted(text)) = (&mut self.shown, change) else { return false };
        match shown.strip_prefix(&**text) {
            Some(rest) if !rest.is_empty() => {
                *shown = rest.to_owned();
                true
            }
            _ => false,
        }
    }

    /// Nothing is shown any more, and what would follow it is of no use.
    fn hide(&mut self) {
        (self.shown, self.ahead) = (None, None);
        for flight in self.flights.iter_mut().filter(|flight| flight.role == Role::FollowUp) {
            flight.typed_on(&Change::Removed);
        }
    }

    /// Ends what the policy has no use for any more.
    fn give_up(&mut self) {
        let most = match self.policy.in_flight {
            InFlight::Wait => return,
            InFlight::Abort => 0,
            InFlight::Parallel(most) => most,
        };
        let mut unsaid = 0;
        // The newest are the likeliest.
        for at in (0..self.flights.len()).rev() {
            let flight = &self.flights[at];
            let keep = match flight.role {
                Role::WarmUp => true,
                Role::FollowUp => false,
                Role::Ask | Role::Copy if !flight.still_right() => false,
                Role::Ask | Role::Copy if flight.comes_true() => true,
                Role::Ask | Role::Copy => {
                    unsaid += 1;
                    unsaid < most
                }
            };
            if !keep {
                let flight = self.flights.swap_remove(at);
                self.counts.cancelled(&flight);
            }
        }
    }

    fn ask(&mut self, desk: &Desk<'_>) {
        let Asking::Waiting(since) = self.asking else { return };
        let busy = self.flights.iter().any(|flight| flight.role != Role::WarmUp);
        if self.policy.in_flight == InFlight::Wait && busy {
            return;
        }
        self.asking = Asking::Nothing;
        self.asked_at = Some(since);
        let predict_ms = self.policy.predict_ms.map(|(shown, _)| shown);
        let ask = self.cursor(desk, "", predict_ms);
        self.send(Role::Ask, &ask, since);
        for _ in 1..self.policy.copies {
            self.send(Role::Copy, &ask, since);
        }
    }

    /// `taken`: a suggestion that is taken for typed.
    fn cursor(&self, desk: &Desk<'_>, taken: &str, predict_ms: Option<u32>) -> Ask {
        let prefix = desk.prefix() + taken;
        Ask {
            prefix: self.policy.prefix.before(&prefix).to_owned(),
            suffix: self.policy.suffix.behind(desk.suffix()).to_owned(),
            path: desk.path().to_owned(),
            chunks: self.chunks.clone(),
            max_tokens: self.policy.max_tokens,
            predict_ms,
            single_line: self.policy.single_line,
            stream: self.policy.stream,
            exact: false,
        }
    }

    fn send(&mut self, role: Role, ask: &Ask, due: Instant) {
        let number = self.next_flight;
        self.next_flight += 1;
        self.counts.sent(role);
        let request = self.server.request(ask, &self.session);
        let patience = self.policy.patience;
        self.flights.push(Flight::start(number, (role, due), request, patience, self.news.clone()));
    }

    /// Something came of a request.
    pub(super) fn hear(&mut self, news: News, desk: &Desk<'_>) {
        let found = self.flights.iter().position(|flight| flight.number == news.flight);
        // It may have been given up while this was on its way.
        let Some(at) = found else { return };
        let over = match news.what {
            What::Text { text, has_line } => {
                self.flights[at].read(&text, has_line, news.at);
                let lines = has_line && self.policy.closes_after_line;
                lines && self.flights[at].role != Role::FollowUp
            }
            What::Ended(told) => {
                self.flights[at].end(told, news.at);
                true
            }
            What::Failed(why) => {
                self.flights[at].fail(why);
                true
            }
        };
        if self.policy.stream || over {
            self.show(at);
        }
        if !over {
            return;
        }
        let flight = self.flights.swap_remove(at);
        self.counts.ended(&flight);
        match flight.role {
            Role::FollowUp if !flight.is_stale() => self.ahead = Some(flight.text().to_owned()),
            Role::Ask if flight.was_shown() && self.policy.follows_up => self.follow_up(desk),
            _ => {}
        }
        self.ask(desk);
    }

    /// Shows what a request says, if it has a line and still goes with what is typed.
    fn show(&mut self, at: usize) {
        let flight = &mut self.flights[at];
        if flight.role != Role::Ask || !flight.has_line() {
            return;
        }
        let Some(rest) = flight.rest().filter(|rest| !rest.is_empty()) else { return };
        self.shown = Some(rest.to_owned());
        if flight.show() {
            self.counts.shown(flight);
        }
    }

    fn follow_up(&mut self, desk: &Desk<'_>) {
        let Some(shown) = &self.shown else { return };
        let predict_ms = self.policy.predict_ms.map(|(_, ahead)| ahead);
        let ask = self.cursor(desk, shown, predict_ms);
        self.send(Role::FollowUp, &ask, Instant::now());
    }

    /// What is taken of the suggestion by somebody who wants to write `rest`: all of it where that
    /// is right, its first line where only that is; `any`: it is taken as it is.
    pub(super) fn take(&mut self, rest: &str, any: bool) -> Option<Taken> {
        let shown = self.shown.as_deref()?;
        let line = shown.find('\n').filter(|&end| end > 0).map(|end| &shown[..end]);
        let right = |text: &&str| rest.starts_with(*text);
        let whole = Some(shown).filter(right);
        let text = whole.or(line.filter(right)).or(any.then_some(shown))?;
        let taken = Taken { text: text.to_owned(), whole: text.len() == shown.len() };
        self.counts.taken += 1;
        Some(taken)
    }

    /// A suggestion was taken and stands there: what follows may be known already.
    pub(super) fn took(&mut self, taken: &Taken, now: Instant) {
        self.last_key = now;
        let ahead = self.ahead.take().filter(|ahead| taken.whole && !ahead.trim().is_empty());
        let inserted = Change::Inserted(taken.text.clone());
        for flight in &mut self.flights {
            match flight.role {
                Role::FollowUp if taken.whole && !flight.is_stale() => flight.become_ask(now),
                Role::FollowUp => flight.typed_on(&Change::Removed),
                _ => flight.typed_on(&inserted),
            }
        }
        self.shown = ahead;
        let under_way =
            self.flights.iter().any(|flight| flight.role == Role::Ask && flight.before_next_key());
        if self.shown.is_some() {
            self.counts.known();
        } else if under_way {
            self.counts.asked += 1;
        } else {
            self.give_up();
            self.asking = Asking::At(now + self.policy.debounce);
        }
    }

    /// The cursor goes elsewhere.
    pub(super) fn leave(&mut self, desk: &Desk<'_>) {
        self.asking = Asking::Nothing;
        self.hide();
        for flight in &mut self.flights {
            flight.typed_on(&Change::Removed);
        }
        self.give_up();
        if self.policy.chunks == 0 {
            return;
        }
        let around = desk.prefix();
        let from = around.rmatch_indices('\n').nth(CHUNK_LINES).map_or(0, |(at, _)| at + 1);
        self.chunks.push((desk.path().to_owned(), around[from..].to_owned()));
        if self.chunks.len() > self.policy.chunks {
            self.chunks.remove(0);
        }
        self.cold = true;
    }
}
