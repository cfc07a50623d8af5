//! weir through the doors its users use.

// Counts, seeds and the tools that must be there come from the environment; the rule that only
// `config` reads it is the program's.
#![allow(clippy::disallowed_methods)]

mod aborts;
mod api;
mod bad_input;
mod bench;
mod burst;
mod cache;
mod canaries;
mod clients;
mod cloud;
mod commands;
mod dialects;
mod hostile;
mod independence;
mod ledger;
#[cfg(feature = "lsp")]
mod lsp;
mod offline;
#[cfg(all(feature = "aws", feature = "azure", feature = "oci"))]
mod overflow;
mod plan;
mod policy;
mod redaction;
mod reload;
mod shutdown;
mod speculation;
mod stops;
mod support;
mod typing;
mod wires;
