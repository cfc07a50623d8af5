//! How each instruction set multiplies packed weights, and its products as tables of functions.

#[cfg(any(target_arch = "x86_64", test))]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;

use std::ops::Range;

use crate::ops::Product;
use crate::packed::Packing;

pub(crate) type ProductFn = unsafe fn(&Product<'_>, Range<usize>);

/// The products of one instruction set.
///
/// # Safety
/// Each function needs that instruction set, and operands whose shapes the door has checked.
pub(crate) struct Products {
    pub(crate) f32: ProductFn,
    pub(crate) bf16: ProductFn,
    pub(crate) q8: ProductFn,
    pub(crate) q4: ProductFn,
    /// Whether q8's sums begin at what the stored weights are too much.
    pub(crate) biased: bool,
}

impl Products {
    /// The product for a packing, activations being f32 where they are not quantised.
    pub(crate) fn get(&self, packing: Packing) -> ProductFn {
        match packing {
            Packing::F32 => self.f32,
            Packing::Bf16 | Packing::Bf16Rounded => self.bf16,
            Packing::Q8 => self.q8,
            Packing::Q4 => self.q4,
        }
    }
}

/// Compiles the products for one way to multiply under its target features, and names the table.
/// The number is how many rows of x a tile holds at once: as many as leave its accumulators, four
/// to a row where weights are quantised, in registers.
macro_rules! products {
    ($name:ident, $(#[$features:meta])* $dot:ty, $tile:literal) => {
        pub(crate) const $name: $crate::arch::dot::Products = $crate::arch::dot::Products {
            f32: $crate::arch::dot::products!(@fn [$(#[$features])*] F32<$dot>, $tile),
            bf16: $crate::arch::dot::products!(@fn [$(#[$features])*] Bf16<$dot>, $tile),
            q8: $crate::arch::dot::products!(@fn [$(#[$features])*] Q8<$dot>, $tile),
            q4: $crate::arch::dot::products!(@fn [$(#[$features])*] Q4<$dot>, $tile),
            biased: <$dot as $crate::dot::Dot>::BIASED,
        };
    };
    (@fn [$($features:tt)*] $multiply:ident<$dot:ty>, $tile:literal) => {{
        $($features)*
        unsafe fn kernel(product: &$crate::ops::Product<'_>, strips: std::ops::Range<usize>) {
            // SAFETY: whoever calls through the table vouches for both: this machine has the
            // instruction set, and the shapes were checked.
            unsafe { $crate::ops::product::<$crate::ops::$multiply<$dot>, $tile>(product, strips) }
        }
        kernel
    }};
}
pub(crate) use products;
