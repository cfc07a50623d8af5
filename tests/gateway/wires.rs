//! Each provider's wire, through real sockets: what it documents of its bytes, in both directions.

#[cfg(feature = "aws")]
mod aws;
mod frames;
#[cfg(feature = "oci")]
mod oci;
mod recording;
mod shaped;
#[cfg(feature = "aws")]
mod sigv4;
