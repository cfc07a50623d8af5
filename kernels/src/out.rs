//! The destination of a kernel, shared by the threads that each fill a part of it.

use std::marker::PhantomData;
use std::ops::Range;

/// A borrowed `&mut [f32]` that several threads hold.
pub(crate) struct Out<'a> {
    start: *mut f32,
    len: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the numbers are reached only through `slice`, whose callers keep to disjoint parts.
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    pub(crate) fn new(out: &'a mut [f32]) -> Out<'a> {
        Out { start: out.as_mut_ptr(), len: out.len(), borrow: PhantomData }
    }

    /// The destination from `start` on, or nothing where it ends before.
    #[cfg(any(target_arch = "x86_64", test))]
    pub(crate) fn from(&self, start: usize) -> Out<'_> {
        let start = start.min(self.len);
        Out { start: self.start.wrapping_add(start), len: self.len - start, borrow: PhantomData }
    }

    /// A part of the destination.
    ///
    /// # Safety
    /// While the slice lives, no other slice reaches into its range.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "callers keep to disjoint parts")]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "part beyond the destination");
        // SAFETY: the range lies within the borrowed slice, and the caller keeps it unshared.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
