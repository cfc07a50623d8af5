//! weir through the doors its users use.

mod api;
mod bad_input;
mod cloud;
mod support;
