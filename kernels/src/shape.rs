//! The operands of kernels as plain structs: borrowed numbers and their shapes.

/// What happens to a product's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// `y = x·wᵀ + bias`
    Replace,
    /// `y += x·wᵀ + bias`: the residual.
    Add,
}

/// Rotary embedding: cosines and sines, each `[context, head_dim / 2]`.
#[derive(Clone, Copy, Debug)]
pub struct RopeTables<'a> {
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

/// The queries of a batch: row `m` is `q[m * stride..][..heads * head_dim]`.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub q: &'a [f32],
    /// Distance between rows in `q`.
    pub stride: usize,
    /// Query heads in a row, a multiple of the KV heads.
    pub heads: usize,
    /// Multiplies every score, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// One query row of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttendRow {
    /// Where its sequence's block table begins in the flat list of tables.
    pub blocks_start: u32,
    /// How many positions it sees, its own included: at least 1.
    pub len: u32,
}
