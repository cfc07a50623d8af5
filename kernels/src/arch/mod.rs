//! The registers of each instruction set, and its kernels as tables of functions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod dot;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod table;

pub(crate) use table::{AttentionFn, Table};

use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
pub(crate) use dot::amx::has_tiles;
pub(crate) use dot::{ProductFn, Products};

/// The kernels of an instruction set; `None` when this machine lacks it.
pub(crate) fn table(isa: Isa) -> Option<&'static Table> {
    if !isa.is_available() {
        return None;
    }
    match isa {
        Isa::Scalar => Some(&scalar::TABLE),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some(&avx2::TABLE),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => Some(&avx512::TABLE),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some(&neon::TABLE),
        _ => None,
    }
}

/// Attention over bf16 that multiplies bf16 by bf16, where this machine does.
pub(crate) fn attention_rounded(isa: Isa) -> Option<AttentionFn<half::bf16>> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx if dot::avx512::rounds() => Some(dot::avx512::ATTENTION_ROUNDED),
        _ => None,
    }
}

/// The products of an instruction set that this machine has, and the one of bf16 times bf16
/// where it has that.
pub(crate) fn products(isa: Isa) -> (&'static Products, Option<ProductFn>) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => (&dot::amx::PRODUCTS, Some(dot::amx::BF16_ROUNDED)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => {
            let rounded = dot::avx512::rounds().then_some(dot::avx512::BF16_ROUNDED);
            (&dot::avx512::PRODUCTS, rounded)
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 if is_x86_feature_detected!("avxvnni") => {
            (&dot::avx2::PRODUCTS_VNNI, None)
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 => (&dot::avx2::PRODUCTS, None),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => (dot::neon::best(), None),
        _ => (&dot::scalar::PRODUCTS, None),
    }
}
