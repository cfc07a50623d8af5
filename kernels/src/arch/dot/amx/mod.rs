//! AMX: tiles for products, beside AVX-512 with VNNI for all else.

#[cfg(target_arch = "x86_64")]
mod detect;
mod model;
#[cfg(target_arch = "x86_64")]
mod registers;

#[cfg(target_arch = "x86_64")]
pub(crate) use detect::has_tiles;

#[cfg(target_arch = "x86_64")]
use super::avx512::{self, Vnni};
use super::{ProductFn, Products};
#[cfg(target_arch = "x86_64")]
use crate::arch::avx512::F32x16;

/// Compiles the products by one kind of tiles beside one way to multiply in registers, under its
/// target features. `$registers` is the table of that way: what tiles do not multiply is made as
/// there, and so are a few last rows where activations are of the same form.
macro_rules! tiled_products {
    ($registers:expr, $(#[$features:meta])* $tiles:ty, $dot:ty) => {{
        const REGISTERS: Products = $registers;
        Products {
            q8: tiled_products!(@fn [$(#[$features])*] $tiles, Q8<$dot>,
                if REGISTERS.biased { Some(REGISTERS.q8) } else { None }),
            q4: tiled_products!(@fn [$(#[$features])*] $tiles, Q4<$dot>, Some(REGISTERS.q4)),
            biased: true,
            ..REGISTERS
        }
    }};
    (@fn [$($features:tt)*] $tiles:ty, $weights:ident<$dot:ty>, $rest:expr) => {{
        $($features)*
        unsafe fn kernel(product: &$crate::ops::Product<'_>, strips: std::ops::Range<usize>) {
            const REST: Option<ProductFn> = $rest;
            // SAFETY: whoever calls through the table vouches for both: this machine has the
            // instruction set, and the shapes were checked.
            unsafe {
                $crate::ops::tiled::<$tiles, $crate::ops::$weights<$dot>>(
                    product, strips, REST,
                )
            }
        }
        kernel
    }};
}

/// Compiles the product of bf16 by bf16 by one kind of tiles, finished in registers.
macro_rules! tiled_bf16 {
    ($(#[$features:meta])* $tiles:ty, $vector:ty) => {{
        $(#[$features])*
        unsafe fn kernel(product: &$crate::ops::Product<'_>, strips: std::ops::Range<usize>) {
            // SAFETY: as for the other products.
            unsafe { $crate::ops::tiled_bf16::<$tiles, $vector>(product, strips) }
        }
        kernel
    }};
}

#[cfg(target_arch = "x86_64")]
pub(crate) const PRODUCTS: Products = tiled_products!(
    avx512::PRODUCTS,
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
    registers::Registers,
    Vnni
);

/// bf16 times bf16.
#[cfg(target_arch = "x86_64")]
pub(crate) const BF16_ROUNDED: ProductFn = tiled_bf16!(
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
    registers::Registers,
    F32x16
);

#[cfg(test)]
mod tests;
