//! What a box, clouds and thresholds would make of a traffic, in simulated time.
//!
//! A [`trace`] is replayed ([`replay`]) against a model of the box ([`local`]) and of the clouds
//! ([`cloud`]), as fast as [`speed`] says that they are. Who decides is [`crate::dispatch`]
//! itself, on the replay's clock ([`router`]); [`rivals`] are there to be compared with.
//! [`generate`] makes traces. Nothing here waits, and nothing is sent.

mod cloud;
pub mod generate;
mod local;
mod outcome;
mod replay;
mod rivals;
mod router;
mod sessions;
mod speed;
pub mod trace;

pub use self::cloud::{CloudRow, Tally};
pub use self::local::BoxRoom;
pub use self::outcome::{Fate, Outcome, Placement};
pub use self::replay::{Policy, World, replay};
pub use self::speed::{BoxSpeed, CloudSpeed, Speeds};
pub use self::trace::{Arrival, Trace};

#[cfg(test)]
mod tests;
