//! Memory for what is read once per token: weights, caches, the buffer of the bandwidth probe.
//!
//! Half a gigabyte in pages of 4 KiB is more translations than any TLB holds, and every token
//! walks through all of them. In pages of 2 MiB they are a few hundred.

use std::alloc::{self, Layout};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use half::bf16;

/// Size of a huge page on x86-64, and on AArch64 with base pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// From here on a buffer is given huge pages: half of one may be waste.
const HUGE_MIN: usize = HUGE_PAGE / 2;

/// Alignment of small buffers: a cache line, and the widest register.
const ALIGN_MIN: usize = 64;

/// An owned buffer of bytes, zero at first. Its start is aligned to a huge page from 1 MiB on,
/// and to 64 bytes below.
///
/// A large buffer has no memory until it is written: a page then comes from the NUMA node of
/// the thread that writes it first, so whoever fills one in parallel also places it.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    len: usize,
    origin: Origin,
}

/// Where a buffer came from, and so where it returns to.
#[derive(Debug)]
enum Origin {
    Allocator(Layout),
    /// A part of a buffer that others share, each its own part.
    Arena(#[expect(dead_code, reason = "it is held, so that the memory stays")] Arc<Pages>),
    /// The mapping that the buffer lies in.
    #[cfg(unix)]
    Map {
        start: NonNull<libc::c_void>,
        len: usize,
    },
}

// SAFETY: a buffer is bytes that it owns alone.
unsafe impl Send for Pages {}
// SAFETY: a shared buffer can only be read.
unsafe impl Sync for Pages {}

impl Pages {
    /// Ends the process when there is no memory, as every allocation does.
    pub fn zeroed(len: usize) -> Pages {
        #[cfg(unix)]
        if len >= HUGE_MIN
            && let Some(pages) = Pages::mapped(len)
        {
            return pages;
        }
        Pages::allocated(len)
    }

    fn allocated(len: usize) -> Pages {
        let align = if len < HUGE_MIN { ALIGN_MIN } else { HUGE_PAGE };
        // The allocator must not be asked for nothing.
        let layout = Layout::from_size_align(len.max(1), align).expect("a size within memory");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| alloc::handle_alloc_error(layout));
        Pages { start, len, origin: Origin::Allocator(layout) }
    }

    /// `None` when the system refuses, or its limits do.
    #[cfg(unix)]
    fn mapped(len: usize) -> Option<Pages> {
        // Whole huge pages, and room to move the start to the border of one. What lies outside
        // of the buffer is never touched and costs only addresses.
        let whole = len.checked_next_multiple_of(HUGE_PAGE)?;
        let mapped = whole.checked_add(HUGE_PAGE)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping without an address touches nothing that exists.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return None;
        }
        let map = NonNull::new(map)?;
        let skip = map.cast::<u8>().align_offset(HUGE_PAGE);
        // SAFETY: `skip` is less than a huge page, which the mapping is longer by.
        let start = unsafe { map.cast::<u8>().add(skip) };
        // A wish: a kernel built without huge pages refuses it, and small ones serve as well.
        #[cfg(target_os = "linux")]
        // SAFETY: the range lies within the new mapping.
        let _ = unsafe { libc::madvise(start.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
        Some(Pages { start, len, origin: Origin::Map { start: map, len: mapped } })
    }

    /// The bytes as numbers. Panics when they are no whole count of them.
    pub fn typed<T: Plain>(&self) -> &[T] {
        // SAFETY: the buffer is aligned for every plain number, holds as many as `count` says,
        // and any bytes are a number.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), self.count::<T>()) }
    }

    /// The bytes as numbers. Panics when they are no whole count of them.
    pub fn typed_mut<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: as in `typed`; the borrow is exclusive, and any number is bytes.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.count::<T>()) }
    }

    fn count<T: Plain>(&self) -> usize {
        const { assert!(align_of::<T>() <= ALIGN_MIN) };
        assert!(self.len.is_multiple_of(size_of::<T>()), "a buffer of broken numbers");
        self.len / size_of::<T>()
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.typed()
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.typed_mut()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        match &self.origin {
            // SAFETY: the layout is the one that the buffer was allocated with.
            Origin::Allocator(layout) => unsafe { alloc::dealloc(self.start.as_ptr(), *layout) },
            Origin::Arena(_) => {}
            #[cfg(unix)]
            &Origin::Map { start, len } => {
                // SAFETY: the mapping is ours, and nobody borrows from it any more.
                let unmapped = unsafe { libc::munmap(start.as_ptr(), len) };
                debug_assert_eq!(unmapped, 0, "a mapping is as it was made");
            }
        }
    }
}

/// Where buffers lie one after another, so that small ones share huge pages too.
#[derive(Debug, Default)]
pub struct Arena {
    /// The memory that is being given out, and how much of it has been.
    current: Mutex<Option<(Arc<Pages>, usize)>>,
}

impl Arena {
    /// Of memory that is taken at one time. What is left of it in the end is never touched.
    const CHUNK: usize = 64 << 20;

    /// A buffer of zeros, aligned to a cache line. A large one has memory of its own.
    pub fn zeroed(&self, len: usize) -> Pages {
        if len > Self::CHUNK / 4 {
            return Pages::zeroed(len);
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let room = |(pages, used): &(Arc<Pages>, usize)| pages.len() - used >= len;
        let (pages, used) = match current.take().filter(room) {
            Some(current) => current,
            None => (Arc::new(Pages::zeroed(Self::CHUNK)), 0),
        };
        // SAFETY: the part ends within the pages; no other part begins before its end, and the
        // pages themselves are never read or written.
        let start = unsafe { pages.start.add(used) };
        let end = (used + len).next_multiple_of(ALIGN_MIN).min(pages.len());
        *current = Some((Arc::clone(&pages), end));
        Pages { start, len, origin: Origin::Arena(pages) }
    }
}

/// Numbers without padding for which any bits are valid.
pub trait Plain: Copy + sealed::Plain {}

mod sealed {
    /// # Safety
    /// The type has no padding, and any bits are a value of it.
    pub unsafe trait Plain {}
}

macro_rules! plain {
    ($($number:ty),*) => {$(
        // SAFETY: a number without padding or invalid bits.
        unsafe impl sealed::Plain for $number {}
        impl Plain for $number {}
    )*};
}
plain!(f32, bf16, half::f16, u8, i8, u16, u32, i32);

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 9] =
        [0, 1, 63, 4096, HUGE_MIN - 1, HUGE_MIN, HUGE_PAGE, HUGE_PAGE + 1, 3 * HUGE_PAGE - 4];

    fn check(pages: &mut Pages, len: usize) {
        assert_eq!(pages.len(), len);
        let align = if len < HUGE_MIN { ALIGN_MIN } else { HUGE_PAGE };
        assert_eq!(pages.as_ptr().addr() % align, 0);
        assert!(pages.iter().all(|&byte| byte == 0));
        pages.fill(0xa5);
        assert!(pages.iter().all(|&byte| byte == 0xa5));
    }

    #[test]
    fn a_buffer_is_zero_aligned_and_ours() {
        for len in SIZES {
            // Two at once, so that one that reached into the other would show.
            let (mut one, mut other) = (Pages::zeroed(len), Pages::zeroed(len));
            check(&mut one, len);
            check(&mut other, len);
        }
    }

    #[test]
    fn the_allocator_serves_where_no_mapping_does() {
        for len in SIZES {
            check(&mut Pages::allocated(len), len);
        }
    }

    #[cfg(unix)]
    #[test]
    fn more_than_there_are_addresses_is_no_mapping() {
        assert!(Pages::mapped(usize::MAX).is_none());
        assert!(Pages::mapped(usize::MAX / 2).is_none());
    }

    #[test]
    fn numbers_and_bytes_are_the_same_memory() {
        let mut pages = Pages::zeroed(8);
        pages.typed_mut::<f32>().copy_from_slice(&[1.0, -2.0]);
        assert_eq!(pages.typed::<u32>(), [1.0f32.to_bits(), (-2.0f32).to_bits()]);
        assert_eq!(pages.typed::<bf16>().len(), 4);
        assert_eq!(pages[..4], 1.0f32.to_ne_bytes());
        assert!(Pages::zeroed(0).typed::<f32>().is_empty());
    }

    #[test]
    fn an_arena_s_buffers_are_disjoint_and_outlive_it() {
        let arena = Arena::default();
        let most = Arena::CHUNK / 4;
        let lens = [1, 100, 64, 0, most, most - 7, most, most, 4096, most + 1, 7];
        let mut all = lens.map(|len| arena.zeroed(len));
        drop(arena);
        for (number, (pages, len)) in all.iter_mut().zip(lens).enumerate() {
            assert_eq!((pages.len(), pages.as_ptr().addr() % ALIGN_MIN), (len, 0));
            pages.fill(number as u8 + 1);
        }
        for (number, pages) in all.iter().enumerate() {
            assert!(pages.iter().all(|&byte| byte == number as u8 + 1), "{number}");
        }
    }

    #[test]
    #[should_panic(expected = "broken numbers")]
    fn a_broken_number_is_refused() {
        Pages::zeroed(6).typed::<f32>();
    }

    #[test]
    fn threads_fill_disjoint_parts() {
        let mut pages = Pages::zeroed(2 * HUGE_PAGE);
        std::thread::scope(|scope| {
            for (number, part) in pages.chunks_mut(HUGE_PAGE / 2).enumerate() {
                scope.spawn(move || part.fill(number as u8 + 1));
            }
        });
        assert_eq!((pages[0], pages[2 * HUGE_PAGE - 1]), (1, 4));
    }
}
