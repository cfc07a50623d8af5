//! The numeric kernels of weir, behind safe functions on slices: no model, no tensor type.
//!
//! Read in this order: [`shape`] holds the plain structs that name a kernel's operands, [`Cpu`]
//! is the door (it checks shapes, then splits the work over its threads), [`naive`] says what
//! each kernel computes in the fewest words and is the oracle of every test.
//!
//! One rule holds for every kernel: a row's result has the same bits whatever the number of
//! rows, its neighbours, the thread count and the layout of the KV blocks.

mod arch;
mod bandwidth;
mod cpu;
mod dot;
mod inputs;
mod isa;
mod kv;
mod memory;
pub mod naive;
mod ops;
mod out;
mod packed;
mod pool;
mod prefetch;
mod products;
pub mod shape;
mod threads;
#[cfg(any(target_arch = "x86_64", test))]
mod tiles;
mod vector;

pub use bandwidth::{Bandwidth, BandwidthProbe, ReadLoop, Rounds};
pub use cpu::Cpu;
pub use inputs::{Inputs, Norm};
pub use isa::{Isa, UnknownIsa};
pub use kv::{HEAD_DIM_MAX, KvCache, KvFormat, KvShape};
pub use memory::{Arena, Pages, Plain};
pub use packed::{GateUp, Packed, Packing, STRIP, Strips};
pub use shape::{AttendRow, Query, RopeTables, Write};
pub use threads::default_threads;
