//! Parts that several tests stand on.

pub(crate) mod cloud;
