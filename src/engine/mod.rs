//! The engine: one OS thread that owns the device.
mod blocks;
mod message;
mod place;
mod prefix;
mod rates;
mod saturation;
mod scheduler;
mod sequence;

#[cfg(test)]
mod tests;
