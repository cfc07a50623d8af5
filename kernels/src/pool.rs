//! The threads that kernels run on: one phase is one [`Pool::run`], which ends at a barrier.
//!
//! Decoding runs hundreds of phases per token, microseconds apart. So a thread that waits,
//! for work or for the others, first spins for about as long as such a gap and then sleeps:
//! an idle engine costs nothing, and neither do more threads than cores.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a thread spins before it sleeps: longer than the gaps between phases of a step,
/// and about what waking a thread costs.
const SPIN_MAX: Duration = Duration::from_micros(20);

/// Turns of the spin between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;

/// What a phase does on each thread, given the thread's number.
type Job<'a> = &'a (dyn Fn(usize) + Sync + 'a);

type Panic = Box<dyn Any + Send>;

/// Not `Sync`: phases start one at a time, from the thread that holds the pool.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Number of the current phase, as in [`Shared::phase`].
    phase: Cell<usize>,
}

struct Shared {
    /// Counts phases; a worker that sees a new number runs the job.
    phase: AtomicUsize,
    /// A [`Job`] on the stack of the thread inside `run`; null tells the workers to end.
    job: AtomicPtr<c_void>,
    /// Workers that have not finished the phase.
    unfinished: AtomicUsize,
    sleep: Mutex<Sleep>,
    started: Condvar,
    finished: Condvar,
    spin: Duration,
}

#[derive(Default)]
struct Sleep {
    /// Workers that wait on `started`.
    workers: usize,
    /// The thread inside `run` waits on `finished`.
    caller: bool,
    /// The first panic of a worker in this phase.
    panic: Option<Panic>,
}

impl Pool {
    /// A pool of `threads`, the caller of [`Pool::run`] included.
    pub(crate) fn new(threads: usize) -> Pool {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            phase: AtomicUsize::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            unfinished: AtomicUsize::new(0),
            sleep: Mutex::default(),
            started: Condvar::new(),
            finished: Condvar::new(),
            // With fewer cores than threads a spinning thread is in the way of a working one.
            spin: if threads <= cores { SPIN_MAX } else { Duration::ZERO },
        });
        let workers = (1..threads)
            .map(|number| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("kernel-{number}"))
                    .spawn(move || shared.work(number))
                    .expect("a thread of the kernels' pool starts")
            })
            .collect();
        Pool { shared, workers, phase: Cell::new(0) }
    }

    /// The caller's thread included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(0)` here and `job(1..threads)` on the workers, and returns when all are done.
    /// A panic in any of them is passed on then.
    pub(crate) fn run(&self, job: Job<'_>) {
        if self.workers.is_empty() {
            return job(0);
        }
        self.shared.unfinished.store(self.workers.len(), Ordering::Relaxed);
        self.start(ptr::from_ref(&job).cast_mut().cast());
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        // From here on no worker touches `job`, so a panic may leave this frame.
        let others = self.shared.wait_finished();
        if let Some(panic) = own.err().or(others) {
            resume_unwind(panic);
        }
    }

    fn start(&self, job: *mut c_void) {
        let phase = self.phase.get().wrapping_add(1);
        self.phase.set(phase);
        self.shared.job.store(job, Ordering::Relaxed);
        let sleep = self.shared.lock();
        // Under the lock, so that no worker falls asleep between its last look and this.
        self.shared.phase.store(phase, Ordering::Release);
        let sleepers = sleep.workers;
        drop(sleep);
        if sleepers > 0 {
            self.shared.started.notify_all();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.start(ptr::null_mut());
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs, so it has none of its own to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn work(&self, number: usize) {
        let mut phase = 0;
        loop {
            phase = self.wait_started(phase);
            let job = self.job.load(Ordering::Relaxed).cast_const().cast::<Job<'_>>();
            if job.is_null() {
                return;
            }
            // SAFETY: `run` put the pointer there before it announced this phase and keeps the
            // job alive until `finish` below; the acquiring load of the phase orders the two.
            let job = unsafe { *job };
            let result = catch_unwind(AssertUnwindSafe(|| job(number)));
            self.finish(result.err());
        }
    }

    /// Returns the number of the next phase after `seen`.
    fn wait_started(&self, seen: usize) -> usize {
        let next = || {
            let phase = self.phase.load(Ordering::Acquire);
            (phase != seen).then_some(phase)
        };
        if let Some(phase) = self.spin_until(next) {
            return phase;
        }
        let mut sleep = self.lock();
        sleep.workers += 1;
        loop {
            if let Some(phase) = next() {
                sleep.workers -= 1;
                return phase;
            }
            sleep = self.started.wait(sleep).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts this worker out of the phase.
    fn finish(&self, panic: Option<Panic>) {
        if let Some(panic) = panic {
            self.lock().panic.get_or_insert(panic);
        }
        if self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 && self.lock().caller {
            self.finished.notify_one();
        }
    }

    /// Waits until all workers have finished, and takes the panic if one had any.
    fn wait_finished(&self) -> Option<Panic> {
        let done = || (self.unfinished.load(Ordering::Acquire) == 0).then_some(());
        let spun = self.spin_until(done);
        let mut sleep = self.lock();
        if spun.is_none() {
            sleep.caller = true;
            while done().is_none() {
                sleep = self.finished.wait(sleep).unwrap_or_else(PoisonError::into_inner);
            }
            sleep.caller = false;
        }
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
    fn every_thread_runs_every_phase_once() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            let counts: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for phase in 1..=500 {
                pool.run(&|thread| {
                    counts[thread].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == phase));
            }
        }
    }

    #[test]
    fn threads_that_fell_asleep_wake() {
        let pool = Pool::new(4);
        let count = AtomicUsize::new(0);
        for phase in 1..=5 {
            thread::sleep(SPIN_MAX * 50);
            pool.run(&|thread| {
                // The caller has long fallen asleep when the last worker finishes.
                thread::sleep(SPIN_MAX * 10 * thread as u32);
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 4 * phase);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_whole() {
        let pool = Pool::new(3);
        for culprit in 0..3 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|thread| assert_ne!(thread, culprit, "on purpose"));
            }));
            assert!(outcome.is_err());
            let count = AtomicUsize::new(0);
            pool.run(&|_| {
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
