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

/// Whether counts are those of a release: `WEIR_TEST_FULL=1`.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
fn full() -> bool {
    std::env::var("WEIR_TEST_FULL").is_ok_and(|value| value == "1")
}

/// Each part adds to a sum that the phase before it left, so a part which runs late, twice or
/// with the job of another phase shows.
#[test]
fn phases_of_all_sizes_follow_each_other() {
    let rounds = if full() { 20_000 } else { 1_000 };
    for threads in [2, 3, 5] {
        let pool = Pool::new(threads);
        let mut sum = AtomicUsize::new(0);
        for round in 0..rounds {
            let parts = [1, 2, threads, 3 * threads + 1, 100][round % 5];
            let before = *sum.get_mut();
            let late = round % 97;
            pool.run(parts, round % 3 != 0, &|part| {
                if part == late {
                    thread::yield_now();
                }
                sum.fetch_add(round + part, Ordering::Relaxed);
            });
            assert_eq!(*sum.get_mut() - before, parts * round + parts * (parts - 1) / 2);
        }
    }
}

#[test]
fn the_most_parts_run_once() {
    let pool = Pool::new(2);
    let counts: Vec<AtomicUsize> = (0..PARTS_MAX).map(|_| AtomicUsize::new(0)).collect();
    pool.run(PARTS_MAX, true, &|part| {
        counts[part].fetch_add(1, Ordering::Relaxed);
    });
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
}

/// Whoever takes the first part is held up until all the others are done, by whoever is left.
#[test]
fn nobody_waits_for_the_share_of_a_thread_that_is_held_up() {
    for threads in [2, 3] {
        let pool = Pool::new(threads);
        for held in [0, 11] {
            let done = AtomicUsize::new(0);
            pool.run(12, true, &|part| {
                while part == held && done.load(Ordering::Relaxed) < 11 {
                    thread::yield_now();
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 12);
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
