//! Each provider's wire, through real sockets: what it documents of its bytes, in both directions.

#[cfg(feature = "azure")]
mod azure;
#[cfg(any(feature = "azure", feature = "google"))]
mod door;
#[cfg(feature = "google")]
mod google;
#[cfg(feature = "oci")]
mod oci;
mod recording;
mod shaped;
