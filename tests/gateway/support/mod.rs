//! Parts that several tests stand on.

pub(crate) mod cloud;
pub(crate) mod http;
pub(crate) mod server;
