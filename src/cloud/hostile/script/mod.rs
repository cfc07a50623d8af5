//! What a hostile upstream does, and what has to come of it. Nothing here knows what bytes travel
//! on: the cells run over pipes in virtual time, and in the tests of the gateway over loopback.
//!
//! [`table`] is the one list of faults; [`wires`] says honestly, in each API's words, what
//! [`faults`] spoil; [`upstream`] plays it to a connection.

pub(crate) mod client;
pub(crate) mod errors;
pub(crate) mod faults;
pub(crate) mod frames;
pub(crate) mod list;
pub(crate) mod outcome;
pub(crate) mod table;
pub(crate) mod upstream;
pub(crate) mod wires;

use std::time::Duration;

use self::table::{Ask, Outcome, Phase, Row};
use self::upstream::{Act, Conduct, Reading};
use self::wires::Wire;

/// What an honest answer says, in the parts it comes in.
pub(crate) const TEXTS: [&str; 4] = ["let ", "x = ", "41 + ", "1;"];
/// What honest answers report of themselves.
pub(crate) const PROMPT_TOKENS: u64 = 9;
pub(crate) const COMPLETION_TOKENS: u64 = 4;

/// The timeouts of a row, which the pace of slow upstreams follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) connect: Duration,
    pub(crate) first: Duration,
    pub(crate) idle: Duration,
}

impl Pace {
    /// Slow, and too late for nothing.
    pub(crate) fn slow(&self) -> Duration {
        self.first.min(self.idle) / 4
    }

    /// Between two of what comes bit by bit.
    pub(crate) fn drip(&self) -> Duration {
        self.first.min(self.idle) / 8
    }
}

/// One cell of the table, as a fault sees it.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) row: &'static Row,
    pub(crate) phase: Phase,
    pub(crate) wire: &'a Wire,
    pub(crate) pace: Pace,
}

impl Scene<'_> {
    /// What the table says of the cell.
    pub(crate) fn outcome(&self) -> Outcome {
        let cells = self.row.when.cells().into_iter();
        let mut here = cells.filter(|(phase, _)| *phase == self.phase);
        here.next().expect("a cell of the table").1
    }

    /// The fault itself.
    pub(crate) fn acts(&self) -> Vec<Act> {
        (self.row.acts)(self)
    }

    pub(crate) fn conduct(&self) -> Conduct {
        let reading = match self.phase {
            Phase::Tls => Reading::Anything,
            Phase::Sending if self.row.ask == Ask::Slowly => Reading::Slowly(self.pace.drip()),
            Phase::Sending => Reading::Head,
            _ => Reading::Whole,
        };
        let (acts, honest, times) = (self.acts(), self.honest(), self.row.times);
        Conduct { reading, times, acts, honest, status: wires::status() }
    }

    /// The honest answer until the fault strikes.
    pub(crate) fn before(&self) -> Vec<Act> {
        self.parts(|from| from <= self.phase)
    }

    /// What an honest upstream would say from then on.
    pub(crate) fn after(&self) -> Vec<Act> {
        self.parts(|from| from > self.phase)
    }

    /// Everything, honestly.
    pub(crate) fn honest(&self) -> Vec<Act> {
        self.parts(|_| true)
    }

    fn parts(&self, wanted: impl Fn(Phase) -> bool) -> Vec<Act> {
        let parts = self.wire.answer(&TEXTS).into_iter();
        parts.filter(|(from, _)| wanted(*from)).map(|(_, bytes)| Act::Send(bytes)).collect()
    }

    /// What is said of choice 0 before a fault of this phase.
    pub(crate) fn said_before(&self) -> String {
        match self.phase {
            Phase::MidContent => TEXTS[..2].concat(),
            Phase::BeforeFinish | Phase::Tail | Phase::AfterEnd => TEXTS.concat(),
            _ => String::new(),
        }
    }

    /// Where the row of the cell leads.
    pub(crate) fn url(&self, authority: &str) -> String {
        let scheme = if self.phase == Phase::Tls { "https" } else { "http" };
        format!("{scheme}://{authority}{}", self.wire.base_path)
    }
}
