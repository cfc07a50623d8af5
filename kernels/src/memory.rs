//! Memory for weights.

use std::ops::{Deref, DerefMut};

/// Bytes that begin at the start of a cache line.
pub(crate) struct Pages {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Pages {
    /// Zeros.
    pub(crate) fn zeroed(len: usize) -> Pages {
        Pages { lines: vec![Line([0; 64]); len.div_ceil(64)], len }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the lines are initialised bytes one after another, and at least `len`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
