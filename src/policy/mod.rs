//! Who may send what where: pure functions from what was declared and required to yes or no.
//!
//! [`Rules::settle`] turns a request's tenant, headers and source paths into its
//! [`RequestPolicy`](crate::completion::compliance::RequestPolicy), once, when it arrives;
//! [`permits`] holds that against what a cloud row declares. [`site`] reads what a row's address
//! tells of where it processes and [`claims`] refuses a declaration that contradicts it or that
//! goes beyond what [`levels`] allows; [`upstream`] cuts what paths tell about a machine;
//! [`keys`] finds a tenant by its key and a [`Roster`] keeps its number; [`peer`] what two weirs
//! say to each other; [`secrets`] what must not leave whatever policy says, and [`redact`] what may
//! leave in its place.
//!
//! Everything fails closed: what was not declared is not there, and what is unknown does not leave.

pub mod asked;
pub mod claims;
pub mod keys;
pub mod levels;
pub mod paths;
pub mod peer;
mod qualify;
pub mod redact;
mod roster;
mod rules;
pub mod secrets;
pub mod site;
pub mod upstream;

pub use self::qualify::{Refused, permits, qualifies};
pub use self::roster::{NAMES_MAX, Roster, RosterFull};
pub use self::rules::{Asks, Rules, TenantRules};
