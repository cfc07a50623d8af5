//! Whether others want the cores that the pool runs on.
//!
//! A thread that is taken off its core in the middle of a part keeps the caller waiting for as
//! long as the others' time slices last, which is as long as a hundred phases. So while the
//! machine is crowded the caller works alone: it is then never waited for, and leaves the other
//! cores to those who want them.

use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Phases between two looks at the clock.
const PHASES_PER_LOOK: u32 = 64;

/// Time between two looks at how long a thread waited for a core.
const WINDOW: Duration = Duration::from_millis(20);

/// Threads that on average wait for a core for more than this part of the time are in a crowd.
/// Beside another process that computes it is half of the time or more. The threads that serve
/// requests take cores hundreds of times a second, each time for microseconds: a few hundredths.
const CROWD_PART: u32 = 8;

/// How long the caller works alone before it tries again: twice as long after each try that
/// failed.
const ALONE_MIN: Duration = WINDOW;
const ALONE_MAX: Duration = Duration::from_millis(640);

/// How long one thread waited for a core, looked at rarely.
pub(super) struct Losses {
    phases: u32,
    thread: ThreadId,
    since: Instant,
    waits: Waits,
    waited: Duration,
}

impl Losses {
    /// Of the calling thread.
    pub(super) fn new() -> Losses {
        let waits = Waits::of_this_thread();
        Losses {
            phases: 0,
            thread: thread::current().id(),
            since: Instant::now(),
            waited: waits.so_far(),
            waits,
        }
    }

    /// Counts a phase; now and then, the time since the last answer and for how much of it the
    /// thread waited for a core.
    #[inline]
    pub(super) fn after_phase(&mut self) -> Option<(Duration, Duration)> {
        self.phases += 1;
        if self.phases < PHASES_PER_LOOK { None } else { self.look() }
    }

    #[cold]
    fn look(&mut self) -> Option<(Duration, Duration)> {
        self.phases = 0;
        let elapsed = self.since.elapsed();
        if elapsed < WINDOW {
            return None;
        }
        // A pool may be handed to another thread, which has waited for another time.
        if self.thread != thread::current().id() {
            *self = Losses::new();
            return None;
        }
        let before = std::mem::replace(&mut self.waited, self.waits.so_far());
        self.since = Instant::now();
        Some((elapsed, self.waited.saturating_sub(before)))
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

    /// In the time `elapsed` the pool's threads waited for cores for so long, together.
    pub(super) fn lost(&mut self, elapsed: Duration, waited: Duration) {
        if self.alone() {
            self.alone = self.alone.saturating_sub(elapsed);
        } else if elapsed.saturating_mul(self.threads) < waited.saturating_mul(CROWD_PART) {
            self.alone = self.next;
            self.next = (self.next * 2).min(ALONE_MAX);
        } else {
            self.next = ALONE_MIN;
        }
    }
}

/// What the system says of how long a thread was ready to run and had no core.
struct Waits {
    /// Nanoseconds on a core, nanoseconds of waiting for one, and slices (the kernel's
    /// Documentation/scheduler/sched-stats.rst).
    #[cfg(target_os = "linux")]
    file: Option<std::fs::File>,
}

impl Waits {
    #[cfg(target_os = "linux")]
    fn of_this_thread() -> Waits {
        Waits { file: std::fs::File::open("/proc/thread-self/schedstat").ok() }
    }

    /// None at all where the system does not say: then the pool's threads always work together.
    #[cfg(target_os = "linux")]
    fn so_far(&self) -> Duration {
        use std::os::unix::fs::FileExt;
        let mut text = [0; 80];
        let Some(Ok(length)) = self.file.as_ref().map(|file| file.read_at(&mut text, 0)) else {
            return Duration::ZERO;
        };
        let text = str::from_utf8(&text[..length]).unwrap_or_default();
        let waited = text.split_ascii_whitespace().nth(1).and_then(|number| number.parse().ok());
        Duration::from_nanos(waited.unwrap_or(0))
    }

    #[cfg(not(target_os = "linux"))]
    fn of_this_thread() -> Waits {
        Waits {}
    }

    #[cfg(not(target_os = "linux"))]
    fn so_far(&self) -> Duration {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_lost_for_a_moment_is_no_crowd() {
        let mut crowd = Crowd::new(4);
        crowd.lost(WINDOW, Duration::ZERO);
        crowd.lost(WINDOW, WINDOW / 2);
        crowd.lost(Duration::from_secs(1), Duration::from_millis(500));
        crowd.lost(Duration::MAX, Duration::MAX);
        assert!(!crowd.alone());
        crowd.lost(Duration::from_secs(1), Duration::from_millis(501));
        assert!(crowd.alone());
    }

    /// More threads than cores, all of them busy: each waits for half of the time or more.
    #[cfg(target_os = "linux")]
    #[test]
    fn who_shares_a_core_is_seen_to_wait() {
        if Waits::of_this_thread().file.is_none() {
            return eprintln!("SKIPPED: this system does not say how long a thread waited");
        }
        let until = Instant::now() + Duration::from_millis(300);
        let threads = 2 * thread::available_parallelism().map_or(1, usize::from) + 1;
        let busy = || {
            let waits = Waits::of_this_thread();
            let before = waits.so_far();
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            waits.so_far() - before
        };
        let waited: Duration = thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(busy)).collect();
            all.into_iter().map(|one| one.join().expect("it ends")).sum()
        });
        assert!(waited > Duration::from_millis(300), "{threads} threads waited for {waited:?}");
    }

    #[test]
    fn each_try_that_fails_doubles_the_time_alone_up_to_a_bound() {
        let mut crowd = Crowd::new(2);
        let mut expected = ALONE_MIN;
        for _ in 0..10 {
            crowd.lost(WINDOW, WINDOW);
            let mut alone = Duration::ZERO;
            while crowd.alone() {
                // Its own losses do not lengthen the time alone.
                crowd.lost(WINDOW, WINDOW);
                alone += WINDOW;
            }
            assert_eq!(alone, expected);
            expected = (expected * 2).min(ALONE_MAX);
        }
        assert_eq!(expected, ALONE_MAX);
        crowd.lost(WINDOW, Duration::ZERO);
        crowd.lost(WINDOW, WINDOW);
        crowd.lost(ALONE_MIN, Duration::ZERO);
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
    fn what_another_thread_waited_is_not_compared() {
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
