//! A weir on a free port, and a client that sees the bytes.

pub(crate) mod http;
pub(crate) mod server;
