//! The product of prepared activations and packed weights by tiles of the machine's own.
//!
//! A unit of a strip is, half by half, a row of the tile that activations are multiplied by, so
//! weights are loaded as they lie. Whole numbers give the very bits of [`super::product`]: a
//! group's sum is exact either way, and is scaled and added up as there. bf16 has an order of
//! additions of its own, so where there are tiles every product of bf16 by bf16 is made by them.

mod bf16;
mod quantised;

pub(crate) use bf16::tiled_bf16;
pub(crate) use quantised::tiled;
