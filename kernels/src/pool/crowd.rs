//! Whether others want the cores that the pool runs on.
//!
//! A thread that is taken off its core in the middle of a part keeps the caller waiting for as
//! long as the others' time slices last, which is as long as a hundred phases. So while the
//! machine is crowded the caller works alone: it is then never waited for, and leaves the other
//! cores to those who want them.

use std::mem;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Phases between two looks at the clock.
const PHASES_PER_LOOK: u32 = 64;

/// Time between two looks at how often a thread lost its core.
const WINDOW: Duration = Duration::from_millis(20);

/// Threads that on average lose their core more often are in a crowd: on a quiet machine it
/// happens a few times a second, and beside another process after each time slice of 3 or 4 ms.
const LOST_EVERY: Duration = Duration::from_millis(20);

/// How long the caller works alone before it tries again: twice as long after each try that
/// failed.
const ALONE_MIN: Duration = WINDOW;
const ALONE_MAX: Duration = Duration::from_millis(640);

/// How often one thread lost its core, looked at rarely.
pub(super) struct Losses {
    phases: u32,
    thread: ThreadId,
    since: Instant,
    switches: u64,
}

impl Losses {
    /// Of the calling thread.
    pub(super) fn new() -> Losses {
        Losses {
            phases: 0,
            thread: thread::current().id(),
            since: Instant::now(),
            switches: involuntary_switches(),
        }
    }

    /// Counts a phase; now and then, the time since the last answer and how often the thread
    /// lost its core in it.
    #[inline]
    pub(super) fn after_phase(&mut self) -> Option<(Duration, u64)> {
        self.phases += 1;
        if self.phases < PHASES_PER_LOOK { None } else { self.look() }
    }

    #[cold]
    fn look(&mut self) -> Option<(Duration, u64)> {
        self.phases = 0;
        let elapsed = self.since.elapsed();
        if elapsed < WINDOW {
            return None;
        }
        let before = mem::replace(self, Losses::new());
        // A pool may be handed to another thread, whose count is another one.
        let same = before.thread == self.thread;
        same.then(|| (elapsed, self.switches.saturating_sub(before.switches)))
    }
}

/// When the caller works alone.
pub(super) struct Crowd {
    threads: u32,
    /// What is left of the time alone.
    alone: Duration,
    /// How long the next time alone is.
    next: Duration,
}

impl Crowd {
    pub(super) fn new(threads: usize) -> Crowd {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        Crowd { threads, alone: Duration::ZERO, next: ALONE_MIN }
    }

    pub(super) fn alone(&self) -> bool {
        !self.alone.is_zero()
    }

    /// In the time `elapsed` the pool's threads lost their cores so often, together.
    pub(super) fn lost(&mut self, elapsed: Duration, times: u64) {
        if self.alone() {
            self.alone = self.alone.saturating_sub(elapsed);
        } else if elapsed.saturating_mul(self.threads)
            < LOST_EVERY.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))
        {
            self.alone = self.next;
            self.next = (self.next * 2).min(ALONE_MAX);
        } else {
            self.next = ALONE_MIN;
        }
    }
}

/// How often the system has taken the calling thread off its core for another one.
fn involuntary_switches() -> u64 {
    #[cfg(target_os = "linux")]
    {
        let mut usage = mem::MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: the pointer is to room for what the call writes.
        let failed = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) } != 0;
        if failed {
            return 0;
        }
        // SAFETY: the call succeeded, so it wrote all of it.
        let usage = unsafe { usage.assume_init() };
        u64::try_from(usage.ru_nivcsw).unwrap_or(0)
    }
    #[cfg(not(target_os = "linux"))]
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_lost_now_and_then_is_no_crowd() {
        let mut crowd = Crowd::new(4);
        crowd.lost(WINDOW, 0);
        crowd.lost(WINDOW, 4);
        crowd.lost(Duration::from_secs(1), 200);
        crowd.lost(Duration::MAX, u64::MAX);
        assert!(!crowd.alone());
    }

    #[test]
    fn each_try_that_fails_doubles_the_time_alone_up_to_a_bound() {
        let mut crowd = Crowd::new(2);
        let mut expected = ALONE_MIN;
        for _ in 0..10 {
            crowd.lost(WINDOW, 3);
            let mut alone = Duration::ZERO;
            while crowd.alone() {
                // Its own losses do not lengthen the time alone.
                crowd.lost(WINDOW, 3);
                alone += WINDOW;
            }
            assert_eq!(alone, expected);
            expected = (expected * 2).min(ALONE_MAX);
        }
        assert_eq!(expected, ALONE_MAX);
        crowd.lost(WINDOW, 0);
        crowd.lost(WINDOW, 3);
        crowd.lost(ALONE_MIN, 0);
        assert!(!crowd.alone(), "one calm window is a fresh start");
    }

    #[test]
    fn losses_are_looked_at_after_some_phases_and_some_time() {
        let mut losses = Losses::new();
        assert!((1..PHASES_PER_LOOK).all(|_| losses.after_phase().is_none()));
        thread::sleep(WINDOW);
        assert!(losses.after_phase().is_some_and(|(elapsed, _)| elapsed >= WINDOW));
        assert!((1..PHASES_PER_LOOK).all(|_| losses.after_phase().is_none()));
    }

    #[test]
    fn a_count_of_another_thread_is_not_compared() {
        let mut losses = Losses::new();
        thread::sleep(WINDOW);
        let answers = thread::scope(|scope| {
            let other =
                scope.spawn(|| (0..PHASES_PER_LOOK).filter_map(|_| losses.after_phase()).count());
            other.join().expect("it counts")
        });
        assert_eq!(answers, 0);
    }
}
