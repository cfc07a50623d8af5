//! Each provider's wire, through real sockets: what it documents of its bytes, in both directions.

mod door;
#[cfg(feature = "oci")]
mod oci;
mod peer;
mod recording;
mod shaped;
