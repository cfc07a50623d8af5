//! Each provider's wire, through real sockets: what it documents of its bytes, in both directions.

#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "google")]
mod google;
#[cfg(any(feature = "azure", feature = "google"))]
mod leaving;
#[cfg(feature = "oci")]
mod oci;
mod recording;
mod shaped;
