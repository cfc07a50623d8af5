//! The algorithms, each written once for all instruction sets and number formats.
//!
//! Each keeps the rule of row bits by its shape: whatever is summed is summed in one chain, from
//! the first number to the last, or in registers of one width that one tree reduces. How rows
//! are tiled, blocked for the cache or split over threads then changes only the order in which
//! results are made, never a result.

mod attention;
#[cfg(target_arch = "aarch64")]
mod pairs;
mod prepare;
mod product;
mod reduce;
mod rows;
#[cfg(any(target_arch = "x86_64", test))]
mod tiled;

#[cfg(target_arch = "x86_64")]
pub(crate) use attention::Rounded;
pub(crate) use attention::{
    Attention, HEADS_PER_KV_MAX, Halves, PAIRS_MAX, Partials, Plain, SPAN, STATE_LEN, Scheme,
    State, Work, attention, join_spans, tile,
};
#[cfg(target_arch = "aarch64")]
pub(crate) use pairs::{Q4Pairs, Q8Pairs};
pub(crate) use prepare::{Prepare, prepare};
#[cfg(target_arch = "x86_64")]
pub(crate) use product::Bf16Rounded;
pub(crate) use product::{Bf16, Epilogue, F32, Product, Q4, Q8, product};
pub(crate) use reduce::{argmax, log_sum_exp};
pub(crate) use rows::{Heads, rope};
#[cfg(any(target_arch = "x86_64", test))]
pub(crate) use tiled::{tiled, tiled_bf16};

/// How many of `left` rows to take next, at most `max`, so that all tiles are of about one
/// height: 7 by 6 is 4 and 3, where 6 and 1 would have the last read everything for one row.
#[inline(always)]
fn even_tile(left: usize, max: usize) -> usize {
    left.div_ceil(left.div_ceil(max))
}
