//! Owned f32 or bf16 numbers: KV caches.

use std::ops::Range;

use half::bf16;
use kernels::Elems;

/// How numbers are stored. Arithmetic is always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    F32,
    Bf16,
}

impl Format {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::Bf16 => 2,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Format::F32 => "f32",
            Format::Bf16 => "bf16",
        })
    }
}

/// A buffer in one format.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Numbers {
    pub fn zeros(format: Format, len: usize) -> Self {
        match format {
            Format::F32 => Numbers::F32(vec![0.0; len]),
            Format::Bf16 => Numbers::Bf16(vec![bf16::ZERO; len]),
        }
    }

    pub fn len(&self) -> usize {
        self.elems().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn format(&self) -> Format {
        match self {
            Numbers::F32(_) => Format::F32,
            Numbers::Bf16(_) => Format::Bf16,
        }
    }

    /// Size in memory.
    pub fn bytes(&self) -> usize {
        self.len() * self.format().bytes()
    }

    pub fn elems(&self) -> Elems<'_> {
        match self {
            Numbers::F32(numbers) => Elems::F32(numbers),
            Numbers::Bf16(numbers) => Elems::Bf16(numbers),
        }
    }

    /// Overwrites `src.len()` numbers from `at` on, rounding to the format.
    pub fn write(&mut self, at: usize, src: &[f32]) {
        match self {
            Numbers::F32(numbers) => numbers[at..at + src.len()].copy_from_slice(src),
            Numbers::Bf16(numbers) => kernels::to_bf16(src, &mut numbers[at..at + src.len()]),
        }
    }

    /// Copies a range inside the buffer to `to`.
    pub fn copy_within(&mut self, range: Range<usize>, to: usize) {
        match self {
            Numbers::F32(numbers) => numbers.copy_within(range, to),
            Numbers::Bf16(numbers) => numbers.copy_within(range, to),
        }
    }
}
