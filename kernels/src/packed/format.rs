//! The formats of packed weights.

use std::fmt;

use super::{GROUP, SCALES_BYTES, UNIT_BYTES};

/// How weights are stored, and what they are multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Times f32.
    F32,
    /// Times f32.
    Bf16,
    /// bf16 times bf16, summed in f32, on machines that have an instruction for it; as
    /// [`Packing::Bf16`] elsewhere.
    Bf16Rounded,
    /// Whole numbers from -127 to 127 and a scale for each group of columns, times whole numbers
    /// of the same range and a scale: a group's sum is exact.
    Q8,
    /// Whole numbers from -8 to 7, else as [`Packing::Q8`].
    Q4,
}

impl Packing {
    /// Columns in a unit.
    pub(crate) fn unit_cols(self) -> usize {
        match self {
            Packing::F32 => 1,
            Packing::Bf16 | Packing::Bf16Rounded => 2,
            Packing::Q8 => 4,
            Packing::Q4 => 8,
        }
    }

    /// Columns of a group, or of a unit where there are no groups.
    fn block_cols(self) -> usize {
        match self {
            Packing::F32 | Packing::Bf16 | Packing::Bf16Rounded => self.unit_cols(),
            Packing::Q8 | Packing::Q4 => GROUP,
        }
    }

    /// A group of columns with its scales, or a unit where there are no groups.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Packing::F32 | Packing::Bf16 | Packing::Bf16Rounded => UNIT_BYTES,
            Packing::Q8 | Packing::Q4 => SCALES_BYTES + GROUP / self.unit_cols() * UNIT_BYTES,
        }
    }

    /// Columns with those that fill up the last unit or group.
    pub(crate) fn padded_cols(self, cols: usize) -> usize {
        cols.next_multiple_of(self.block_cols())
    }

    pub(crate) fn strip_bytes(self, cols: usize) -> usize {
        cols.div_ceil(self.block_cols()) * self.block_bytes()
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Packing::F32 => "f32",
            Packing::Bf16 | Packing::Bf16Rounded => "bf16",
            Packing::Q8 => "q8",
            Packing::Q4 => "q4",
        })
    }
}
