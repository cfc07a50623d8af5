//! The kernels of one instruction set as plain functions, chosen once when a `Cpu` is made.

use std::ops::Range;

use half::bf16;

use crate::ops::{Attention, Heads, Prepare, RowMajor};
use crate::shape::RopeTables;

/// # Safety
/// Each function needs the instruction set that its table belongs to, and operands whose
/// shapes the door has checked.
pub(crate) struct Table {
    pub(crate) matmul_f32: unsafe fn(&RowMajor<'_, f32>, Range<usize>),
    pub(crate) matmul_bf16: unsafe fn(&RowMajor<'_, bf16>, Range<usize>),
    pub(crate) attention_f32: unsafe fn(&Attention<'_, f32>, usize),
    pub(crate) attention_bf16: unsafe fn(&Attention<'_, bf16>, usize),
    pub(crate) prepare: unsafe fn(&Prepare<'_>, Range<usize>),
    pub(crate) rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    pub(crate) rope: unsafe fn(&mut [f32], Heads, RopeTables<'_>, &[u32]),
    pub(crate) swiglu: unsafe fn(&[f32], &mut [f32], usize),
    pub(crate) argmax: unsafe fn(&[f32]) -> usize,
    pub(crate) log_sum_exp: unsafe fn(&[f32]) -> f32,
    /// One for each of [`crate::bandwidth::READ_LOOPS`].
    pub(crate) reads: [unsafe fn(&[f32]) -> f32; 7],
}

/// Compiles every algorithm for one register type under its target features, and names the
/// results `TABLE`. The number is how many rows of x a tile of the product holds at once: as
/// many as leave its accumulators, four to a row, in registers.
macro_rules! kernels {
    ($(#[$features:meta])* $vector:ty, $tile:literal) => {
        pub(crate) const TABLE: $crate::arch::Table = $crate::arch::Table {
            matmul_f32: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (product: &$crate::ops::RowMajor<'_, f32>, rows: std::ops::Range<usize>)
                { $crate::ops::matmul::<$vector, f32, $tile>(product, rows) }),
            matmul_bf16: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (product: &$crate::ops::RowMajor<'_, half::bf16>, rows: std::ops::Range<usize>)
                { $crate::ops::matmul::<$vector, half::bf16, $tile>(product, rows) }),
            attention_f32: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (attention: &$crate::ops::Attention<'_, f32>, part: usize)
                { $crate::ops::attention::<$vector, f32, $tile>(attention, part) }),
            attention_bf16: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (attention: &$crate::ops::Attention<'_, half::bf16>, part: usize)
                { $crate::ops::attention::<$vector, half::bf16, $tile>(attention, part) }),
            prepare: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (prepare: &$crate::ops::Prepare<'_>, rows: std::ops::Range<usize>)
                { $crate::ops::prepare::<$vector>(prepare, rows) }),
            rms_norm: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (x: &[f32], weight: &[f32], eps: f32, y: &mut [f32])
                { $crate::ops::rms_norm::<$vector>(x, weight, eps, y) }),
            rope: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (x: &mut [f32], heads: $crate::ops::Heads,
                 tables: $crate::shape::RopeTables<'_>, positions: &[u32])
                { $crate::ops::rope::<$vector>(x, heads, tables, positions) }),
            swiglu: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (gate_up: &[f32], y: &mut [f32], width: usize)
                { $crate::ops::swiglu::<$vector>(gate_up, y, width) }),
            argmax: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (x: &[f32]) -> usize
                { $crate::ops::argmax::<$vector>(x) }),
            log_sum_exp: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (x: &[f32]) -> f32
                { $crate::ops::log_sum_exp::<$vector>(x) }),
            reads: $crate::arch::table::kernels!(@reads [$(#[$features])*] $vector,
                0, 1, 2, 3, 4, 5, 6),
        };
    };
    (@reads $features:tt $vector:ty, $($number:literal),*) => {
        [$($crate::arch::table::kernels!(@fn $features
            (x: &[f32]) -> f32
            { $crate::bandwidth::read::<$vector, $number>(x) })),*]
    };
    (@fn [$($features:tt)*] ($($arg:ident: $kind:ty),*) $(-> $out:ty)? { $body:expr }) => {{
        $($features)*
        unsafe fn kernel($($arg: $kind),*) $(-> $out)? {
            // SAFETY: whoever calls through the table vouches for both: this machine has the
            // instruction set, and the shapes were checked.
            unsafe { $body }
        }
        kernel
    }};
}
pub(crate) use kernels;
