//! The formats of packed weights.

use std::fmt;

use super::{SCALES_BYTES, UNIT_BYTES};

/// Columns of a row that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    G32,
    G64,
    G128,
}

impl Group {
    pub const ALL: [Group; 3] = [Group::G32, Group::G64, Group::G128];

    pub fn cols(self) -> usize {
        match self {
            Group::G32 => 32,
            Group::G64 => 64,
            Group::G128 => 128,
        }
    }
}

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
    /// Whole numbers from -127 to 127 and a scale, times whole numbers of the same range and a
    /// scale: a group's sum is exact.
    Q8(Group),
    /// Whole numbers from -8 to 7, else as [`Packing::Q8`].
    Q4(Group),
}

impl Packing {
    /// Columns in a unit.
    pub(crate) fn unit_cols(self) -> usize {
        match self {
            Packing::F32 => 1,
            Packing::Bf16 | Packing::Bf16Rounded => 2,
            Packing::Q8(_) => 4,
            Packing::Q4(_) => 8,
        }
    }

    /// The groups of quantised weights.
    pub fn group(self) -> Option<Group> {
        match self {
            Packing::Q8(group) | Packing::Q4(group) => Some(group),
            Packing::F32 | Packing::Bf16 | Packing::Bf16Rounded => None,
        }
    }

    /// Columns with those that fill up the last unit or group.
    pub(crate) fn padded_cols(self, cols: usize) -> usize {
        cols.next_multiple_of(self.group().map_or(self.unit_cols(), Group::cols))
    }

    /// A group of columns with its scales, or a unit where there are no groups.
    pub(crate) fn block_bytes(self) -> usize {
        match self.group() {
            Some(group) => SCALES_BYTES + group.cols() / self.unit_cols() * UNIT_BYTES,
            None => UNIT_BYTES,
        }
    }

    pub(crate) fn strip_bytes(self, cols: usize) -> usize {
        let block_cols = self.group().map_or(self.unit_cols(), Group::cols);
        cols.div_ceil(block_cols) * self.block_bytes()
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Packing::F32 => "f32",
            Packing::Bf16 | Packing::Bf16Rounded => "bf16",
            Packing::Q8(_) => "q8",
            Packing::Q4(_) => "q4",
        })
    }
}
