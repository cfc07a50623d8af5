//! The threads that kernels run on: one phase is one [`Pool::run`], which ends at a barrier.
//!
//! A phase is dealt in parts that threads claim, the caller among them, so nobody waits for a
//! thread that has not come: on a machine that others use too, a worker may be off its core for
//! milliseconds, and until it is back the caller does its parts as well. (With one fixed part
//! for each thread, decoding on 2 contended cores was five times slower than on one.)
//!
//! Decoding runs hundreds of phases per token, microseconds apart. So a thread that waits,
//! for work or for the others, first spins for about as long as such a gap and then sleeps:
//! an idle engine costs nothing, and neither do more threads than cores.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a thread spins before it sleeps: longer than the gaps between phases of a step,
/// and about what waking a thread costs.
const SPIN_MAX: Duration = Duration::from_micros(20);

/// Turns of the spin between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;

/// Most parts of a phase; what fits into a [`Claim`].
pub(crate) const PARTS_MAX: usize = (1 << PART_BITS) - 1;
const PART_BITS: u32 = 12;

/// What a phase does, given the number of a part.
type Job<'a> = &'a (dyn Fn(usize) + Sync + 'a);

type Panic = Box<dyn Any + Send>;

/// Not `Sync`: phases start one at a time, from the thread that holds the pool.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Number of the current phase.
    phase: Cell<u64>,
}

/// A phase's number, its number of parts and the next part nobody has claimed, in one word.
#[derive(Clone, Copy)]
struct Claim(u64);

struct Shared {
    /// A [`Claim`]; claiming a part is adding 1.
    claim: AtomicU64,
    /// A [`Job`] on the stack of the thread inside `run`.
    job: AtomicPtr<c_void>,
    /// Parts that nobody has finished.
    unfinished: AtomicUsize,
    /// A part of this phase panicked; its payload is under the lock.
    panicked: AtomicBool,
    /// The workers are to end.
    stop: AtomicBool,
    /// Workers that wait on `started`, or are about to.
    sleepers: AtomicUsize,
    sleep: Mutex<Sleep>,
    started: Condvar,
    finished: Condvar,
    spin: Duration,
}

#[derive(Default)]
struct Sleep {
    /// The thread inside `run` waits on `finished`.
    caller: bool,
    /// The first panic of a worker in this phase.
    panic: Option<Panic>,
}

impl Claim {
    fn new(phase: u64, parts: usize) -> Self {
        assert!(parts <= PARTS_MAX, "too many parts");
        Self(phase << (2 * PART_BITS) | (parts as u64) << PART_BITS)
    }

    /// The part to claim, if one is left.
    fn next(self) -> Option<usize> {
        let parts = (self.0 >> PART_BITS) as usize & PARTS_MAX;
        let next = self.0 as usize & PARTS_MAX;
        (next < parts).then_some(next)
    }
}

impl Pool {
    /// A pool of `threads`, the caller of [`Pool::run`] included.
    pub(crate) fn new(threads: usize) -> Pool {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            claim: AtomicU64::new(Claim::new(0, 0).0),
            job: AtomicPtr::new(ptr::null_mut()),
            unfinished: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::default(),
            started: Condvar::new(),
            finished: Condvar::new(),
            // With fewer cores than threads a spinning thread is in the way of a working one.
            spin: if threads <= cores { SPIN_MAX } else { Duration::ZERO },
        });
        // Whole before the first thread starts: if one does not, the drop ends the others.
        let mut pool = Pool { shared, workers: Vec::new(), phase: Cell::new(0) };
        for number in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new()
                .name(format!("kernel-{number}"))
                .spawn(move || shared.work());
            pool.workers.push(worker.expect("a thread of the kernels' pool starts"));
        }
        pool
    }

    /// The caller's thread included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job` once for each of `0..parts`, here and on the workers that are awake, and
    /// returns when all are done. `wake`: the parts are worth waking the others for. A panic in
    /// any part is passed on then.
    pub(crate) fn run(&self, parts: usize, wake: bool, job: Job<'_>) {
        if self.workers.is_empty() {
            return (0..parts).for_each(job);
        }
        let shared = &*self.shared;
        let phase = self.phase.get() + 1;
        self.phase.set(phase);
        shared.job.store(ptr::from_ref(&job).cast_mut().cast(), Ordering::Relaxed);
        shared.unfinished.store(parts, Ordering::Relaxed);
        // Sequentially consistent, as is the count of sleepers: either we see the one that is
        // about to sleep, or it sees the parts.
        shared.claim.store(Claim::new(phase, parts).0, Ordering::SeqCst);
        if wake && shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(shared.lock());
            shared.started.notify_all();
        }
        shared.work_off();
        // From here on no worker touches `job`, so a panic may leave this frame.
        if let Some(panic) = shared.wait_finished() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.shared.lock());
        self.shared.started.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs, so it has none of its own to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn work(&self) {
        while self.wait_started() {
            self.work_off();
        }
    }

    /// Claims and runs parts until none is left.
    fn work_off(&self) {
        while let Some(part) = self.claim() {
            let job = self.job.load(Ordering::Relaxed).cast_const().cast::<Job<'_>>();
            // SAFETY: `run` put the pointer there before it published the claim that we took a
            // part of (acquiring), and keeps the job alive until that part is finished below. A
            // claim is of the current phase or fails: its word holds the phase's number, which
            // comes back only after 2^40 phases.
            let job = unsafe { *job };
            let result = catch_unwind(AssertUnwindSafe(|| job(part)));
            self.finish(result.err());
        }
    }

    fn claim(&self) -> Option<usize> {
        let mut claim = Claim(self.claim.load(Ordering::Acquire));
        loop {
            let part = claim.next()?;
            let (acquire, relaxed) = (Ordering::AcqRel, Ordering::Acquire);
            match self.claim.compare_exchange_weak(claim.0, claim.0 + 1, acquire, relaxed) {
                Ok(_) => return Some(part),
                Err(now) => claim = Claim(now),
            }
        }
    }

    /// Waits for parts to claim. False: there will be none.
    fn wait_started(&self) -> bool {
        let next = || {
            if self.stop.load(Ordering::SeqCst) {
                return Some(false);
            }
            Claim(self.claim.load(Ordering::SeqCst)).next().map(|_| true)
        };
        if let Some(started) = self.spin_until(next) {
            return started;
        }
        let mut sleep = self.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let started = loop {
            if let Some(started) = next() {
                break started;
            }
            sleep = self.started.wait(sleep).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        started
    }

    /// Counts a part as finished.
    fn finish(&self, panic: Option<Panic>) {
        if let Some(panic) = panic {
            let mut sleep = self.lock();
            if sleep.panic.is_none() {
                sleep.panic = Some(panic);
            } else {
                // Dropping a payload may panic too, and this part must be counted.
                std::mem::forget(panic);
            }
            // Published by the count below.
            self.panicked.store(true, Ordering::Relaxed);
        }
        if self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 && self.lock().caller {
            self.finished.notify_one();
        }
    }

    /// Waits until all parts are finished, and takes the panic if one had any.
    fn wait_finished(&self) -> Option<Panic> {
        let done = || (self.unfinished.load(Ordering::Acquire) == 0).then_some(());
        let spun = self.spin_until(done);
        // A sleeper on its way in or out may hold the lock, so it is left alone where it can be.
        if spun.is_some() && !self.panicked.load(Ordering::Relaxed) {
            return None;
        }
        let mut sleep = self.lock();
        if spun.is_none() {
            sleep.caller = true;
            while done().is_none() {
                sleep = self.finished.wait(sleep).unwrap_or_else(PoisonError::into_inner);
            }
            sleep.caller = false;
        }
        self.panicked.store(false, Ordering::Relaxed);
        sleep.panic.take()
    }

    fn spin_until<T>(&self, ready: impl Fn() -> Option<T>) -> Option<T> {
        let start = Instant::now();
        loop {
            for _ in 0..SPINS_PER_LOOK {
                if let Some(value) = ready() {
                    return Some(value);
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= self.spin {
                return None;
            }
        }
    }

    /// No code panics while it holds the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, Sleep> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_every_phase_runs_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for parts in [1, 2, 7, 64] {
                let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                for phase in 1..=200 {
                    pool.run(parts, phase % 2 == 0, &|part| {
                        counts[part].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == phase));
                }
            }
        }
    }

    #[test]
    fn threads_that_fell_asleep_wake_when_it_is_worth_it() {
        let pool = Pool::new(4);
        for _ in 0..5 {
            thread::sleep(SPIN_MAX * 50);
            // Each part waits until all four run, which takes four threads.
            let here = AtomicUsize::new(0);
            pool.run(4, true, &|_| {
                here.fetch_add(1, Ordering::Relaxed);
                while here.load(Ordering::Relaxed) < 4 {
                    thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_caller_that_fell_asleep_wakes() {
        let pool = Pool::new(2);
        for _ in 0..5 {
            let caller = thread::current().id();
            pool.run(2, true, &|_| {
                if thread::current().id() != caller {
                    thread::sleep(SPIN_MAX * 50);
                }
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_whole() {
        let pool = Pool::new(3);
        for culprit in 0..3 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(3, true, &|part| assert_ne!(part, culprit, "on purpose"));
            }));
            assert!(outcome.is_err());
            let count = AtomicUsize::new(0);
            pool.run(3, true, &|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 3);
        }
    }

    #[test]
    fn dropping_the_pool_ends_its_threads() {
        let pool = Pool::new(4);
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        assert!(shared.upgrade().is_none());
    }
}
