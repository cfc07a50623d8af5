//! Each provider's wire, through real sockets: what it documents of its bytes, in both directions.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod door;
mod every;
mod frames;
#[cfg(feature = "google")]
mod google;
#[cfg(any(feature = "azure", feature = "google"))]
mod leaving;
#[cfg(feature = "oci")]
mod oci;
mod peer;
pub(crate) mod recording;
mod shaped;
#[cfg(feature = "aws")]
mod sigv4;
