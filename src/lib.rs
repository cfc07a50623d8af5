//! weir: a gateway for code completion with its own inference engine.
//!
//! In reading order: [`completion`] holds the nouns all rooms share; [`config`] what the user
//! typed and what we run; [`api`] turns HTTP into a request; [`policy`] settles where it may run
//! and [`dispatch`] decides where it does; [`engine`] runs it here, [`cloud`] elsewhere;
//! [`ledger`] keeps what that costs within budgets and on record, in [`money`]; [`plan`] plays all
//! of it in simulated time; [`telemetry`] counts. `lsp` asks a weir on an editor's behalf, one that
//! all editors of a user [`share`]. Imports go down only; see ARCHITECTURE.md.

#![forbid(unsafe_code)]

// What the tests of the library and of the gateway share speaks of it by name.
#[cfg(test)]
extern crate self as weir;

pub mod api;
pub mod app;
pub mod cli;
#[cfg(feature = "cloud")]
pub mod cloud;
#[cfg(not(feature = "cloud"))]
#[path = "no_cloud.rs"]
pub mod cloud;
pub mod completion;
pub mod config;
pub mod dispatch;
pub mod engine;
pub mod ledger;
#[cfg(feature = "lsp")]
pub mod lsp;
pub mod money;
pub mod plan;
pub mod policy;
pub mod sessions;
pub mod share;
pub mod telemetry;
