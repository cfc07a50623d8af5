//! What drafters do with whole texts.

use std::time::{Duration, Instant};

use super::*;

const NO_CONTROL: fn(u32) -> bool = |_| false;

/// Generates `output` after a prompt; returns the number of steps that took.
fn steps(drafter: &mut Drafter, output: &[u32], memory: &mut Memory, costs: &Costs) -> usize {
    let mut done = 0;
    let mut steps = 0;
    while done < output.len() {
        let rest = &output[done..];
        let draft = drafter.draft(rest.len() - 1, 0, memory, costs);
        let right = draft.iter().zip(rest).take_while(|(a, b)| a == b).count();
        for &token in &rest[..=right] {
            drafter.push(token, memory);
        }
        done += right + 1;
        steps += 1;
    }
    steps
}

#[test]
fn what_stands_after_the_cursor_is_drafted_before_it() {
    let function: Vec<u32> = (100..140).collect();
    // prefix, a control token, the suffix, another
    let mut prompt = vec![1, 2, 3, 100, 101];
    let cursor = prompt.len();
    prompt.push(9000);
    prompt.extend([7, 8]);
    prompt.extend(&function);
    prompt.push(9001);
    let mut drafter = Drafter::new(prompt.len() + 64);
    let mut memory = Memory::new();
    drafter.read(&prompt, cursor, &memory, |token| token >= 9000);
    let taken = steps(&mut drafter, &function[2..], &mut memory, &Costs::free());
    assert!(taken <= 8, "{taken} steps for 38 copied tokens");
    assert!(
        drafter.draft(8, 0, &memory, &Costs::free()).is_empty(),
        "nothing beyond a control token"
    );
}

#[test]
fn a_suggestion_that_is_asked_again_comes_from_memory() {
    let mut memory = Memory::new();
    let before: Vec<u32> = (0..30).collect();
    let output: Vec<u32> = (500..540).collect();
    let ask = |memory: &mut Memory, typed: usize| {
        let prompt: Vec<u32> = before.iter().chain(&output[..typed]).copied().collect();
        let mut drafter = Drafter::new(128);
        drafter.read(&prompt, prompt.len(), memory, NO_CONTROL);
        let steps = steps(&mut drafter, &output[typed..], memory, &Costs::free());
        memory.remember(&prompt, &output[typed..]);
        steps
    };
    assert_eq!(ask(&mut memory, 0), 40, "new to all");
    let second = ask(&mut memory, 2);
    assert!(second <= 8, "{second} steps for a known output");
    assert!(ask(&mut memory, 5) <= second);
}

#[test]
fn a_text_that_repeats_itself_is_drafted_past_its_end() {
    let mut drafter = Drafter::new(512);
    let mut memory = Memory::new();
    drafter.read(&[5, 6, 7, 5, 6, 7, 5, 6, 7], 9, &memory, NO_CONTROL);
    let wave: Vec<u32> = [5, 6, 7].into_iter().cycle().take(90).collect();
    assert!(steps(&mut drafter, &wave, &mut memory, &Costs::free()) <= 15);
    assert_eq!(drafter.draft(5, 0, &memory, &Costs::free()), [5, 6, 7, 5, 6]);
}

#[test]
fn what_never_repeats_is_not_drafted_for_long() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut noise = |count: usize| (0..count).map(|_| rng.u32(0..50)).collect::<Vec<u32>>();
    let mut drafter = Drafter::new(4096);
    let mut memory = Memory::new();
    let prompt = noise(1000);
    drafter.read(&prompt, prompt.len(), &memory, NO_CONTROL);
    let mut costs = Costs::default();
    (1..=ROWS_MAX).for_each(|rows| costs.record(rows, 10.0 + rows as f64));
    let mut rows_wasted = 0;
    for token in noise(2000) {
        rows_wasted += drafter.draft(DRAFT_MAX, 0, &memory, &costs).len();
        drafter.push(token, &mut memory);
    }
    assert!(rows_wasted < 100, "{rows_wasted} rows for nothing");
}

/// An optimised build takes 0.4 microseconds; the bound leaves room for one that is not, on a
/// machine that does other things, and none for work that grows with the text.
#[test]
fn a_token_costs_little() {
    const MOST: Duration = Duration::from_micros(200);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut text: Vec<u32> = Vec::new();
    while text.len() < 16_384 {
        match rng.usize(0..3) {
            0 if text.len() > 100 => {
                let at = rng.usize(0..text.len() - 60);
                text.extend_from_within(at..at + rng.usize(3..60));
            }
            _ => text.extend((0..rng.usize(1..30)).map(|_| rng.u32(0..4000).pow(2) / 4000)),
        }
    }
    let (mut read, mut told) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let mut memory = Memory::new();
        memory.remember(&text[..16], &text[4000..8000]);
        let started = Instant::now();
        let mut drafter = Drafter::new(text.len());
        drafter.read(&text[..8192], 8192, &memory, NO_CONTROL);
        read = read.min(started.elapsed());
        let started = Instant::now();
        for &token in &text[8192..16_384] {
            drafter.draft(DRAFT_MAX, 0, &memory, &Costs::free());
            drafter.push(token, &mut memory);
        }
        told = told.min(started.elapsed());
    }
    let each = (read / 8192, told / 8192);
    assert!(each.0 < MOST && each.1 < MOST, "{each:?} for a prompt token and a generated one");
}
