//! What a box, clouds and thresholds would make of a traffic, in simulated time.
//!
//! A [`trace`] is replayed ([`replay`]) against a model of the box ([`local`]) and of the clouds
//! ([`cloud`]), as fast as [`speed`] says that they are, or as [`pace`] says that a real box was.
//! Who decides is [`crate::dispatch`] itself, on the replay's clock ([`router`]); [`rivals`] are
//! there to be compared with. [`sweep`] replays over thresholds and growth, [`svg`] draws what that
//! came to; [`generate`] makes traces, [`history`] takes them from a ledger. Nothing here waits, and
//! nothing is sent.

mod cloud;
pub mod generate;
mod history;
mod local;
mod outcome;
mod pace;
mod replay;
mod rivals;
mod router;
mod sessions;
mod speed;
mod svg;
mod sweep;
pub mod trace;

pub use self::cloud::{CloudRow, Tally};
pub use self::history::{speeds_of, trace_of};
pub use self::local::{BoxRoom, Service};
pub use self::outcome::{CloudOutcome, Fate, Outcome, Placement};
pub use self::pace::{Pace, PaceMeter};
pub use self::replay::{Policy, World, replay, replay_paced};
pub use self::speed::{BoxSpeed, CloudSpeed, Speeds};
pub use self::svg::svg;
pub use self::sweep::{BreakEven, CloudLine, Grown, Rent, Report, Swept, Wish, plan};
pub use self::trace::{Arrival, Trace};

#[cfg(test)]
mod tests;
