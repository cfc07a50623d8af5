//! The threads that kernels run on: one phase is one [`Pool::run`], which ends at a barrier.
//!
//! Each thread has a share of the phase's parts, contiguous as the memory that it reads, and
//! takes from the others' when its own is done. So nobody waits for a thread that has not come:
//! on a machine that others use too, a worker may be off its core for milliseconds, and until
//! it is back the caller does its parts as well. (With one fixed part for each thread, decoding
//! on 2 contended cores was five times slower than on one.)
//!
//! Decoding runs hundreds of phases per token, microseconds apart. So a thread that waits,
//! for work or for the others, first spins for about as long as such a gap and then sleeps:
//! an idle engine costs nothing, and neither do more threads than cores. While others keep
//! taking the cores away, the caller works alone ([`crowd`]).

mod crowd;
mod share;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::threads::processors;
use crowd::{Crowd, Losses};
use share::{Job, Order, Share};

pub(crate) use share::PARTS_MAX;

/// How long a thread spins before it sleeps: longer than the gaps between phases of a step,
/// and about what waking a thread costs.
const SPIN_MAX: Duration = Duration::from_micros(20);

/// Turns of the spin between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;

type Panic = Box<dyn Any + Send>;

/// Not `Sync`: phases start one at a time, from the thread that holds the pool.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Number of the current phase.
    phase: Cell<u64>,
    /// What [`Shared::finished`] counts up to in this phase.
    finished: Cell<usize>,
    /// Whether to work alone, and what the caller's thread knows of it.
    crowd: RefCell<(Crowd, Losses)>,
}

struct Shared {
    /// One for each thread; the first is the caller's.
    shares: Vec<Share>,
    done: Done,
    sleepers: Sleepers,
    spin: Duration,
}

/// What workers write at the end of their part of a phase. On lines of its own, as are the
/// shares.
#[repr(align(128))]
#[derive(Default)]
struct Done {
    /// Parts that workers finished, ever.
    parts: AtomicUsize,
    /// The caller sleeps until the parts are as many as it waits for.
    caller_sleeps: AtomicBool,
    /// A part of this phase panicked; its payload is in [`Sleep`].
    panicked: AtomicBool,
}

#[repr(align(128))]
#[derive(Default)]
struct Sleepers {
    /// A worker waits on `started`, and nobody has woken it. Written under the lock.
    some: AtomicBool,
    lock: Mutex<Sleep>,
    started: Condvar,
    finished: Condvar,
    /// Nanoseconds for which workers waited for cores since the caller looked.
    waited: AtomicU64,
}

#[derive(Default)]
struct Sleep {
    /// The workers are to end.
    stop: bool,
    /// The first panic in this phase.
    panic: Option<Panic>,
}

impl Pool {
    /// A pool of `threads`, the caller of [`Pool::run`] included.
    pub(crate) fn new(threads: usize) -> Pool {
        let cores = processors();
        let shared = Arc::new(Shared {
            shares: (0..threads).map(|_| Share::none()).collect(),
            done: Done::default(),
            sleepers: Sleepers::default(),
            // With fewer cores than threads a spinning thread is in the way of a working one.
            spin: if threads <= cores { SPIN_MAX } else { Duration::ZERO },
        });
        // Whole before the first thread starts: if one does not, the drop ends the others.
        let mut pool = Pool {
            shared,
            workers: Vec::new(),
            phase: Cell::new(0),
            finished: Cell::new(0),
            crowd: RefCell::new((Crowd::new(threads), Losses::new())),
        };
        for number in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new()
                .name(format!("kernel-{number}"))
                .spawn(move || shared.work(number));
            pool.workers.push(worker.expect("a thread of the kernels' pool starts"));
        }
        pool
    }

    /// The caller's thread included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job` once for each of `0..parts`, here and on the workers that are awake (in a crowd
    /// only here), and returns when all are done. `wake`: the parts are worth waking the others for. A panic in
    /// any part is passed on then.
    pub(crate) fn run<F: Fn(usize) + Sync>(&self, parts: usize, wake: bool, job: &F) {
        if self.workers.is_empty() {
            return (0..parts).for_each(job);
        }
        assert!(parts <= PARTS_MAX, "too many parts");
        let shared = &*self.shared;
        if self.alone() {
            return (0..parts).for_each(job);
        }
        self.publish(parts, Job::new(job));
        if wake {
            shared.wake_workers();
        }
        let mut own = shared.work_off(0, Order::Own);
        own += shared.work_off(0, Order::Others);
        let finished = self.finished.get().wrapping_add(parts - own);
        self.finished.set(finished);
        // From here on no worker touches `job`, so a panic may leave this frame.
        if let Some(panic) = shared.wait_finished(finished) {
            resume_unwind(panic);
        }
    }

    /// Whether the caller is better off alone; asked before each phase.
    fn alone(&self) -> bool {
        let (crowd, losses) = &mut *self.crowd.borrow_mut();
        if let Some((elapsed, waited)) = losses.after_phase() {
            let workers = self.shared.sleepers.waited.swap(0, Ordering::Relaxed);
            crowd.lost(elapsed, waited + Duration::from_nanos(workers));
        }
        crowd.alone()
    }

    /// Deals the parts of the next phase. A thread without a part is not disturbed.
    fn publish(&self, parts: usize, job: Job) {
        let phase = self.phase.get() + 1;
        self.phase.set(phase);
        let threads = self.threads();
        let edge = |thread: usize| (parts * thread).div_ceil(threads);
        // The workers' first: they have the longer way to their parts.
        for thread in (0..threads).rev() {
            let (first, end) = (edge(thread), edge(thread + 1));
            if first < end {
                // SAFETY: `run` returned from the phase before, and does from this one, when
                // all parts are finished. The numbers count up.
                unsafe { self.shared.shares[thread].publish(phase, first, end, job) };
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.sleepers.started.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs, so it has none of its own to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn work(&self, thread: usize) {
        let mut phase = 0;
        let mut losses = Losses::new();
        while let Some(started) = self.wait_started(thread, phase) {
            phase = started;
            // In two steps, so that the caller does not wait for the look at the others' shares.
            self.finish(self.work_off(thread, Order::Own));
            self.finish(self.work_off(thread, Order::Others));
            if let Some((_, waited)) = losses.after_phase() {
                let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
                self.sleepers.waited.fetch_add(nanos, Ordering::Relaxed);
            }
        }
    }

    /// Claims and runs parts until none is left, and returns how many.
    fn work_off(&self, thread: usize, order: Order) -> usize {
        let run = |job: Job, part: usize| {
            // SAFETY: we claimed the part, and the caller of `run` waits until it is finished.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| unsafe { job.run(part) })) {
                self.panicked(panic);
            }
        };
        let (before, from) = self.shares.split_at(thread);
        match order {
            Order::Own => from[0].work_off(order, run),
            Order::Others => {
                from[1..].iter().chain(before).map(|share| share.work_off(order, run)).sum()
            }
        }
    }

    /// Wakes the workers that sleep; once, however many phases go by until they are on a core.
    fn wake_workers(&self) {
        if self.sleepers.some.load(Ordering::Relaxed) {
            let sleep = self.lock();
            self.sleepers.some.store(false, Ordering::Relaxed);
            drop(sleep);
            self.sleepers.started.notify_all();
        }
    }

    /// Waits for a phase other than the last one with a share for this thread, and returns its
    /// number. None: there will be none.
    fn wait_started(&self, thread: usize, last: u64) -> Option<u64> {
        let next = || {
            let phase = self.shares[thread].phase();
            (phase != last).then_some(phase)
        };
        if let Some(phase) = self.spin_until(next) {
            return Some(phase);
        }
        let mut sleep = self.lock();
        loop {
            // The caller may look for sleepers before it sees this one, which then sleeps
            // through a phase that others work off; the next phase wakes it.
            self.sleepers.some.store(true, Ordering::Relaxed);
            if sleep.stop {
                return None;
            }
            if let Some(phase) = next() {
                return Some(phase);
            }
            sleep = self.sleepers.started.wait(sleep).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Keeps the first panic of a phase for its caller.
    fn panicked(&self, panic: Panic) {
        let mut sleep = self.lock();
        if sleep.panic.is_none() {
            sleep.panic = Some(panic);
        } else {
            // Dropping a payload may panic too, and this part must be counted.
            std::mem::forget(panic);
        }
        // Published by the count of finished parts.
        self.done.panicked.store(true, Ordering::Relaxed);
    }

    /// Counts the parts of a worker as finished.
    fn finish(&self, parts: usize) {
        if parts == 0 {
            return;
        }
        // Sequentially consistent, as is the caller's flag: either we see that it sleeps, or it
        // sees the count before it does.
        self.done.parts.fetch_add(parts, Ordering::SeqCst);
        if self.done.caller_sleeps.load(Ordering::SeqCst) {
            drop(self.lock());
            self.sleepers.finished.notify_one();
        }
    }

    /// Waits until the workers have finished so many parts, and takes the panic if one had any.
    fn wait_finished(&self, parts: usize) -> Option<Panic> {
        let done = || (self.done.parts.load(Ordering::SeqCst) == parts).then_some(());
        if self.spin_until(done).is_none() {
            let mut sleep = self.lock();
            // Exchanged where a store would do: an emulator of ARM on x86 lets a load overtake a
            // sequentially consistent store (QEMU 7.2, STLR before LDAR), and then nobody wakes
            // us. On x86 both are the same instruction.
            self.done.caller_sleeps.swap(true, Ordering::SeqCst);
            while done().is_none() {
                sleep = self.sleepers.finished.wait(sleep).unwrap_or_else(PoisonError::into_inner);
            }
            self.done.caller_sleeps.store(false, Ordering::SeqCst);
        }
        if !self.done.panicked.load(Ordering::Relaxed) {
            return None;
        }
        self.done.panicked.store(false, Ordering::Relaxed);
        self.lock().panic.take()
    }

    fn spin_until<T>(&self, ready: impl Fn() -> Option<T>) -> Option<T> {
        // A phase mostly starts or ends before the first look at the clock.
        let mut start = None;
        loop {
            for _ in 0..SPINS_PER_LOOK {
                if let Some(value) = ready() {
                    return Some(value);
                }
                std::hint::spin_loop();
            }
            if start.get_or_insert_with(Instant::now).elapsed() >= self.spin {
                return None;
            }
        }
    }

    /// No code panics while it holds the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, Sleep> {
        self.sleepers.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
