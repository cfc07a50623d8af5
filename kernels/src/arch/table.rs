//! The kernels of one instruction set as plain functions, chosen once when a `Cpu` is made.

use std::ops::Range;

use half::bf16;

use crate::kv::Planes;
use crate::ops::{Attention, Heads, Partials, Prepare};
use crate::shape::RopeTables;

/// Part of an attention over K and V of one format.
///
/// # Safety
/// As for those of a [`Table`].
pub(crate) type AttentionFn<E> = unsafe fn(&Attention<'_>, &Planes<E>, usize);

/// # Safety
/// Each function needs the instruction set that its table belongs to, and operands whose
/// shapes the door has checked.
pub(crate) struct Table {
    pub(crate) attention_f32: AttentionFn<f32>,
    pub(crate) attention_bf16: AttentionFn<bf16>,
    pub(crate) attention_q8: AttentionFn<i8>,
    pub(crate) join_spans: unsafe fn(&Attention<'_>, &Partials<'_>, Range<usize>),
    pub(crate) prepare: unsafe fn(&Prepare<'_>, Range<usize>),
    pub(crate) rope: unsafe fn(&mut [f32], Heads, RopeTables<'_>, &[u32]),
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
            attention_f32: $crate::arch::table::kernels!(
                @attention [$(#[$features])*] $crate::ops::Plain<$vector, f32>),
            attention_bf16: $crate::arch::table::kernels!(
                @attention [$(#[$features])*] $crate::ops::Halves<$vector>),
            attention_q8: $crate::arch::table::kernels!(
                @attention [$(#[$features])*] $crate::ops::Plain<$vector, i8>),
            join_spans: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (attention: &$crate::ops::Attention<'_>,
                 partials: &$crate::ops::Partials<'_>, pairs: std::ops::Range<usize>)
                { $crate::ops::join_spans::<$vector>(attention, partials, pairs) }),
            prepare: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (prepare: &$crate::ops::Prepare<'_>, rows: std::ops::Range<usize>)
                { $crate::ops::prepare::<$vector>(prepare, rows) }),
            rope: $crate::arch::table::kernels!(@fn [$(#[$features])*]
                (x: &mut [f32], heads: $crate::ops::Heads,
                 tables: $crate::shape::RopeTables<'_>, positions: &[u32])
                { $crate::ops::rope::<$vector>(x, heads, tables, positions) }),
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
    (@attention [$($features:tt)*] $scheme:ty) => {
        $crate::arch::table::kernels!(@fn [$($features)*]
            (attention: &$crate::ops::Attention<'_>,
             planes: &$crate::kv::Planes<<$scheme as $crate::ops::Scheme>::E>, part: usize)
            { $crate::ops::attention::<$scheme>(attention, planes, &[
                $crate::arch::table::kernels!(@tile [$($features)*] $scheme, 1),
                $crate::arch::table::kernels!(@tile [$($features)*] $scheme, 2),
                $crate::arch::table::kernels!(@tile [$($features)*] $scheme, 3),
                $crate::arch::table::kernels!(@tile [$($features)*] $scheme, 4),
                $crate::arch::table::kernels!(@tile [$($features)*] $scheme, 5),
                $crate::arch::table::kernels!(@tile [$($features)*] $scheme, 6),
                $crate::arch::table::kernels!(@tile [$($features)*] $scheme, 7),
                $crate::arch::table::kernels!(@tile [$($features)*] $scheme, 8),
                $crate::arch::table::kernels!(@tile [$($features)*] $scheme, 14),
            ], part) })
    };
    (@tile [$($features:tt)*] $scheme:ty, $size:literal) => {
        $crate::arch::table::kernels!(@fn [$($features)*]
            (work: &$crate::ops::Work<'_, <$scheme as $crate::ops::Scheme>::E>,
             states: &mut [$crate::ops::State])
            { $crate::ops::tile::<$scheme, $size>(work, states) })
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
