//! Parts that several tests stand on.

pub(crate) mod cloud;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod scale;
pub(crate) mod server;
pub(crate) mod weir;
