//! The kernels through their door: against the oracle, and against themselves in other company.

mod against_naive;
mod products;
mod row_bits;
mod support;
