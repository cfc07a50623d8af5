//! The engine over a device whose next token is a hash of what it finds in its memory.

mod draft;
mod handle;
mod mock;
mod model;
mod prefix;
mod scheduler;
mod sit_out;
