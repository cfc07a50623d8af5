//! The registers of each instruction set, and its kernels as a table of functions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod table;

pub(crate) use table::Table;

use crate::isa::Isa;

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
        Isa::Avx512 => Some(&avx512::TABLE),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some(&neon::TABLE),
        _ => None,
    }
}
