//! weir through the doors its users use.

mod aborts;
mod api;
mod bad_input;
mod burst;
mod clients;
mod cloud;
mod independence;
mod offline;
mod shutdown;
mod support;
