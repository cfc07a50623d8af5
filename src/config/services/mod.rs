//! What each provider's rows have beside the keys that all rows have.

pub mod aws;
mod dialect;
mod oci;

pub use dialect::{Dialect, FimRoute, Routing};
pub use oci::{KeyError, OciChat, OciFormat, OciKey, OciServing};
