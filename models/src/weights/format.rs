//! In which packing the parts of a model are stored.

use std::fmt;

use candle_core::DType;
use kernels::Packing;

use crate::Quant;

/// Parameters from which a model is large: its weights are bound by memory, so that fewer bytes
/// are more tokens, and packing them takes long enough to keep the result.
pub(crate) const LARGE_PARAMETERS: u64 = 100_000_000;

/// Parameters from which `auto` takes 8 bits: a model of 8 million reads a prompt 1.8 times as fast
/// as in bf16, and what rounding costs is not seen in its answers (docs/experiments.md).
const QUANTISED_PARAMETERS: u64 = 1_000_000;

/// The packings of a model's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightFormat {
    /// Of the layers.
    pub body: Packing,
    /// Of the head and of the embedding, which are often one matrix.
    pub head: Packing,
}

impl WeightFormat {
    /// What a model of so many parameters gets; `stored`: the checkpoint's type.
    pub(crate) fn choose(quant: Quant, parameters: u64, stored: DType) -> Self {
        let large = parameters >= LARGE_PARAMETERS;
        // Activations beside a small model's weights are no smaller than those, so rounding them
        // would buy nothing.
        let bf16 = if large { Packing::Bf16Rounded } else { Packing::Bf16 };
        let (body, head) = match quant {
            Quant::F32 => (Packing::F32, Packing::F32),
            Quant::Bf16 => (bf16, bf16),
            Quant::Q8 => (Packing::Q8, Packing::Q8),
            // A head of 4 bits costs more quality than all layers together.
            Quant::Q4 => (Packing::Q4, Packing::Q8),
            Quant::Auto if parameters >= QUANTISED_PARAMETERS => (Packing::Q8, Packing::Q8),
            Quant::Auto if stored == DType::F32 => (Packing::F32, Packing::F32),
            Quant::Auto => (bf16, bf16),
        };
        Self { body, head }
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.body)?;
        if self.head != self.body {
            write!(f, ", head {}", self.head)?;
        }
        Ok(())
    }
}
