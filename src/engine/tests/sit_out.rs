//! Batch jobs pause for completions where rows are dear, end all the same, and say what they would
//! have said alone.

use super::scheduler::{Bench, ids, spec};
use crate::completion::Priority;
use crate::engine::draft::Costs;
use crate::engine::message::SequenceSpec;

fn job(prompt: Vec<u32>, max_tokens: usize) -> SequenceSpec {
    SequenceSpec { priority: Priority::Batch, ..spec(prompt, max_tokens) }
}

/// On which each row costs as much as the first.
fn dear() -> Bench {
    let mut bench = Bench::new(64, 4, 4);
    bench.costs = Costs::default();
    for rows in 1..=4 {
        bench.costs.set(rows, rows as f64);
    }
    bench
}

#[test]
fn a_job_pauses_while_a_completion_runs() {
    let mut bench = dear();
    let decoding = bench.submit(job(ids(9, 1), 30));
    bench.step(16);
    assert_eq!(bench.step(16).decodes, 1);
    let reading = bench.submit(job(ids(40, 2), 4));
    let completion = bench.submit(spec(ids(9, 3), 6));
    assert_eq!(bench.step(16).prefills, 9, "the completion's prompt alone");
    for _ in 0..5 {
        let rows = bench.step(16);
        assert_eq!((rows.decodes, rows.prefills), (1, 0));
    }
    bench.check(completion);
    let rows = bench.step(16);
    assert_eq!((rows.decodes, rows.prefills), (1, 16), "both jobs go on");
    bench.run();
    bench.check(decoding);
    bench.check(reading);
}

#[test]
fn a_job_ends_although_completions_never_do() {
    let mut bench = dear();
    let job = bench.submit(job(ids(9, 1), 6));
    bench.step(16);
    let mut steps = 0;
    while !bench.clients[job].events.is_closed() {
        let completion = bench.submit(spec(ids(9, 2 + steps), 8));
        for _ in 0..8 {
            bench.step(16);
        }
        bench.check(completion);
        steps += 8;
        assert!(steps < 6 * 65, "a job gets one step in 65");
    }
    assert!(steps > 4 * 64, "and no more than that");
    bench.check(job);
}

#[test]
fn a_job_goes_along_where_rows_are_free() {
    let mut bench = Bench::new(64, 4, 4);
    let job = bench.submit(job(ids(9, 1), 30));
    bench.step(16);
    let completion = bench.submit(spec(ids(9, 3), 6));
    bench.step(16);
    assert_eq!(bench.step(16).decodes, 2);
    bench.run();
    bench.check(job);
    bench.check(completion);
}

#[test]
fn a_completion_does_not_wait_for_a_job_that_reads_the_same_prompt() {
    let mut bench = dear();
    let job = bench.submit(job(ids(40, 1), 2));
    bench.step(8);
    let completion = bench.submit(spec(ids(40, 1), 2));
    let other = bench.submit(spec(ids(9, 2), 12));
    for _ in 0..4 {
        bench.step(64);
    }
    assert_eq!(bench.check(completion).ids.len(), 2, "not held up by a job that sits out");
    bench.run();
    bench.check(other);
    bench.check(job);
}
