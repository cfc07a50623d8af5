//! One thread's share of a phase: a range of parts that it takes from the front of, and others
//! from the back once they have none.

use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// What a phase does, given the number of a part: a closure on the stack of the thread inside
/// `run`, its type and lifetime forgotten.
#[derive(Clone, Copy)]
pub(super) struct Job {
    closure: *mut (),
    call: unsafe fn(*mut (), usize),
}

/// Most parts of a phase; what fits into a [`Range`].
pub(crate) const PARTS_MAX: usize = (1 << PART_BITS) - 1;
const PART_BITS: u32 = 12;

/// Alone on its cache lines: whoever waits for a share must not slow the owner of another. Two
/// lines, because processors fetch them in pairs.
#[repr(align(128))]
pub(super) struct Share {
    /// A [`Range`]; claiming a part is exchanging it for a shorter one.
    range: AtomicU64,
    /// The two halves of a [`Job`].
    closure: AtomicPtr<()>,
    call: AtomicPtr<()>,
}

/// A phase's number and the parts that nobody has claimed, in one word.
#[derive(Clone, Copy)]
struct Range(u64);

impl Job {
    pub(super) fn new<F: Fn(usize) + Sync>(closure: &F) -> Job {
        /// # Safety
        /// The pointer is to a living `F`.
        unsafe fn call<F: Fn(usize)>(closure: *mut (), part: usize) {
            // SAFETY: the caller vouches for it.
            unsafe { (*closure.cast::<F>().cast_const())(part) }
        }
        Job { closure: ptr::from_ref(closure).cast_mut().cast(), call: call::<F> }
    }

    /// # Safety
    /// The closure that the job was made of lives.
    pub(super) unsafe fn run(self, part: usize) {
        // SAFETY: the closure lives, and `call` was made for its type.
        unsafe { (self.call)(self.closure, part) }
    }
}

impl Range {
    fn new(phase: u64, first: usize, end: usize) -> Range {
        Range(phase << (2 * PART_BITS) | (end as u64) << PART_BITS | first as u64)
    }

    fn phase(self) -> u64 {
        self.0 >> (2 * PART_BITS)
    }

    fn end(self) -> usize {
        (self.0 >> PART_BITS) as usize & PARTS_MAX
    }

    fn first(self) -> usize {
        self.0 as usize & PARTS_MAX
    }

    fn is_empty(self) -> bool {
        self.first() >= self.end()
    }

    fn without_first(self) -> Range {
        Range(self.0 + 1)
    }

    fn without_last(self) -> Range {
        Range(self.0 - (1 << PART_BITS))
    }
}

impl Share {
    /// Of no phase.
    pub(super) fn none() -> Share {
        Share {
            range: AtomicU64::new(0),
            closure: AtomicPtr::new(ptr::null_mut()),
            call: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Offers the parts `first..end`.
    ///
    /// # Safety
    /// No part of the phase before is unfinished, the job's closure lives until all parts of
    /// this one are finished, and the phase's number has not been used before.
    pub(super) unsafe fn publish(&self, phase: u64, first: usize, end: usize, job: Job) {
        debug_assert!(first <= end && end <= PARTS_MAX);
        self.closure.store(job.closure, Ordering::Relaxed);
        self.call.store(job.call as *mut (), Ordering::Relaxed);
        self.range.store(Range::new(phase, first, end).0, Ordering::Release);
    }

    /// The number of the phase whose parts were offered last, as far as a range can hold it.
    /// For the owner, whose next step is to claim one: so the line is asked for as one to write,
    /// which saves it a second way through the machine, and costs nothing while nobody writes.
    #[inline]
    pub(super) fn phase(&self) -> u64 {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: a prefetch has no effect on anything but caches.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(ptr::from_ref(self).cast()) };
        }
        Range(self.range.load(Ordering::Relaxed)).phase()
    }

    /// Claims and runs one part after the other, and returns how many.
    pub(super) fn work_off(&self, order: Order, run: impl Fn(Job, usize)) -> usize {
        let mut count = 0;
        while let Some(part) = self.claim(order) {
            run(self.job(), part);
            count += 1;
        }
        count
    }

    /// The job of a part that was claimed. Until that part is finished, which only the claimer
    /// can say, its closure lives: `publish` put it there before the range (acquired by the
    /// claim), and a claim is of the current phase or fails, since the word holds the phase's
    /// number, which comes back only after 2^40 phases.
    fn job(&self) -> Job {
        let call = self.call.load(Ordering::Relaxed);
        // SAFETY: `publish` made it of such a function.
        let call = unsafe { mem::transmute::<*mut (), unsafe fn(*mut (), usize)>(call) };
        Job { closure: self.closure.load(Ordering::Relaxed), call }
    }

    fn claim(&self, order: Order) -> Option<usize> {
        let mut range = Range(self.range.load(Ordering::Relaxed));
        while !range.is_empty() {
            let (part, rest) = match order {
                Order::Own => (range.first(), range.without_first()),
                Order::Others => (range.end() - 1, range.without_last()),
            };
            let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
            match self.range.compare_exchange_weak(range.0, rest.0, acquire, relaxed) {
                Ok(_) => return Some(part),
                Err(now) => range = Range(now),
            }
        }
        None
    }
}

/// From which end parts are claimed: the owner reads forward, and meets a thief late.
#[derive(Clone, Copy)]
pub(super) enum Order {
    Own,
    Others,
}
