//! The engine: one OS thread that owns the device.
