use std::time::Duration;

use super::generate::{Recipe, Shape, Sizes, generate};
use super::*;
use crate::config::OverflowConfig;
use crate::dispatch::{Bounds, Rates};
use crate::money::{Money, Price, Rate, TokenPrice};

/// 1 ms for each prompt row, 4 ms for a pass that decodes and 1 ms for each sequence in it.
pub(super) fn speed() -> BoxSpeed {
    BoxSpeed {
        decode_ms: vec![(1, 5.0), (8, 12.0)],
        prefill_ms: vec![(1, 1.0), (512, 512.0)],
        draft_gain: 1.0,
        overhead_ms: 0.0,
    }
}

pub(super) fn room(slots: usize) -> BoxRoom {
    BoxRoom { slots, queue_max: 256, step_ms_max: 50, step_rows_max: 512, kv_tokens: 32_768 }
}

pub(super) fn overflow() -> OverflowConfig {
    OverflowConfig {
        ttft_objective: Duration::from_millis(300),
        enter: 1.0,
        leave: 0.6,
        dwell: Duration::from_secs(2),
        ..OverflowConfig::default()
    }
}

pub(super) fn cloud(name: &str, ttft_ms: f64, usd_per_mtok: &str) -> CloudRow {
    let rate = Rate::parse(usd_per_mtok).unwrap();
    CloudRow {
        name: name.into(),
        price: Some(Price::PerToken(TokenPrice {
            input: rate,
            output: rate,
            cached: rate,
            tier: None,
        })),
        speed: CloudSpeed { ttft_ms, ttft_p90_ms: Some(ttft_ms * 1.1), ..CloudSpeed::UNKNOWN },
        max_tokens: 256,
        bounds: Bounds { max_in_flight: 64, rates: Rates::default(), prefer: 0 },
        first_token_timeout: Duration::from_secs(10),
        budget_day: None,
    }
}

fn world(slots: usize, clouds: Vec<CloudRow>) -> World {
    World { speed: speed(), room: room(slots), clouds, overflow: overflow(), seed: 1 }
}

fn burst(seed: u64, rate: f64, sizes: Sizes) -> Trace {
    let shape = Shape::Burst { factor: 3.0 };
    generate(&Recipe { shape, seconds: 60.0, rate, sizes, seed }).unwrap()
}

const SMALL: Sizes = Sizes {
    prompt: (200.0, 0.5),
    cached: 0.8,
    output: (6.0, 0.8),
    max_tokens: 32,
    prompt_max: 2048,
};

/// Independent arrivals, one at a time, always as long: the queue of which Pollaczek and
/// Khinchine knew the mean wait, part / (2 (1 - part)) of a service.
#[test]
fn one_slot_and_equal_work_wait_as_long_as_theory_says() {
    const SERVICE_MS: f64 = 100.0;
    let sizes = Sizes {
        prompt: (100.0, 0.0),
        cached: 0.0,
        output: (1.0, 0.0),
        max_tokens: 1,
        prompt_max: 100,
    };
    for part in [0.3, 0.6, 0.8] {
        let rate = part / (SERVICE_MS / 1e3);
        let shape = Shape::Burst { factor: 1.0 };
        let recipe = Recipe { shape, seconds: 40_000.0, rate, sizes, seed: 7 };
        let room = BoxRoom { queue_max: 10_000, ..room(1) };
        let world = World { room, ..world(1, Vec::new()) };
        let outcome = replay(&generate(&recipe).unwrap(), &world, Policy::Weir);
        let sum: f64 = outcome.fates.iter().map(|fate| f64::from(fate.ttft_us) / 1e3).sum();
        let waited = sum / outcome.requests() as f64 - SERVICE_MS;
        let theory = SERVICE_MS * part / (2.0 * (1.0 - part));
        assert!(
            (waited / theory - 1.0).abs() < 0.05,
            "{part}: {waited:.1} instead of {theory:.1} ms"
        );
        assert_eq!((outcome.left(), outcome.shed), (0, 0));
    }
}

/// `replay` itself asserts that each request has one fate and one end.
#[test]
fn nothing_is_lost_whoever_decides() {
    let mut clouds = vec![cloud("slow", 900.0, "0.1"), cloud("fast", 100.0, "0.5")];
    clouds[0].speed.requests_per_minute = Some(30);
    clouds[1].bounds.max_in_flight = 3;
    clouds[1].budget_day = Some(Money::from_micro(100_000));
    clouds[0].first_token_timeout = Duration::from_millis(950);
    let policies = [
        Policy::Weir,
        Policy::Local,
        Policy::QueueDepth { most: 4, cloud: 1, seen_every: Duration::ZERO },
        Policy::Cooldown { pause: Duration::from_secs(1), cloud: 0 },
    ];
    for seed in 0..4 {
        let trace = burst(seed, 20.0, SMALL);
        for policy in policies {
            let room = BoxRoom { queue_max: 12, ..room(4) };
            let world = World { room, seed, ..world(4, clouds.clone()) };
            let outcome = replay(&trace, &world, policy);
            let all = outcome.local + outcome.left() + outcome.shed;
            assert_eq!(all, outcome.requests(), "{policy:?}");
            assert_eq!(outcome, replay(&trace, &world, policy), "the same again");
            let hourly = outcome.spent_hourly.iter().fold(Money::ZERO, |a, b| a.saturating_add(*b));
            assert_eq!(hourly, outcome.spent);
            let tallies = outcome.clouds.iter().map(|cloud| cloud.tally.spent);
            assert_eq!(tallies.fold(Money::ZERO, Money::saturating_add), outcome.spent);
            if policy == Policy::Weir {
                let [slow, fast] = &outcome.clouds[..] else { panic!("two clouds") };
                assert!(fast.tally.spent <= Money::from_micro(100_000), "{fast:?}");
                assert!(
                    slow.tally.answered > 0 && fast.kept["cloud_limit"] > 0,
                    "{slow:?} {fast:?}"
                );
            }
        }
    }
}

/// A box that is never idle while somebody waits does all its work in the time that it takes.
#[test]
fn work_is_conserved() {
    let sizes = Sizes {
        prompt: (100.0, 0.0),
        cached: 0.5,
        output: (10.0, 0.0),
        max_tokens: 10,
        prompt_max: 100,
    };
    let shape = Shape::Burst { factor: 1.0 };
    let recipe = Recipe { shape, seconds: 1.0, rate: 100.0, sizes, seed: 3 };
    let mut trace = generate(&recipe).unwrap();
    trace.arrivals.truncate(64);
    assert_eq!(trace.arrivals.len(), 64);
    for arrival in &mut trace.arrivals {
        arrival.at_ns = 0;
    }
    let outcome = replay(&trace, &world(1, Vec::new()), Policy::Weir);
    // Alone, each takes 50 ms to read and nine passes of 5 ms; the last one's first token comes
    // after 63 others were done.
    let last = outcome.fates.iter().map(|fate| fate.ttft_us).max().unwrap();
    assert_eq!(last, 63 * 95_000 + 50_000);
}

#[test]
fn a_session_reads_what_is_new_and_what_was_answered_elsewhere() {
    let arrival = |at_ms: u64, prompt_tokens| Arrival {
        at_ns: at_ms * 1_000_000,
        prompt_tokens,
        cached_tokens: prompt_tokens - 1,
        session: Some(0),
        output_tokens: 1,
        max_tokens: 1,
        priority: crate::completion::Priority::Completion,
    };
    let arrivals = vec![arrival(0, 100), arrival(1000, 110), arrival(2000, 150)];
    let trace = Trace { arrivals, sessions: 1 };
    let outcome = replay(&trace, &world(1, Vec::new()), Policy::Weir);
    let times: Vec<_> = outcome.fates.iter().map(|fate| fate.ttft_us / 1000).collect();
    assert_eq!(times, [100, 10, 40]);
}

#[test]
fn only_the_excess_leaves_and_to_whom_it_should() {
    let clouds = vec![cloud("slow", 900.0, "0.1"), cloud("fast", 100.0, "0.5")];
    let trace = burst(5, 12.0, SMALL);
    let local = replay(&trace, &world(4, Vec::new()), Policy::Weir);
    let both = replay(&trace, &world(4, clouds), Policy::Weir);
    assert!(local.attainment() < 0.9, "{}", local.attainment());
    assert!(both.attainment() > local.attainment() + 0.1, "{}", both.attainment());
    assert!(both.overflow() > 0.05 && both.overflow() < 0.6, "{}", both.overflow());
    let [slow, fast] = &both.clouds[..] else { panic!("two clouds") };
    assert!(slow.tally.answered * 4 < fast.tally.answered, "{slow:?} {fast:?}");
    assert!(!both.changes_ns.is_empty());
}

#[test]
fn a_recipe_is_a_trace() {
    let sizes = Sizes::default();
    let shapes = [Shape::Diurnal, Shape::Burst { factor: 3.0 }, Shape::Team { people: 20 }];
    for shape in shapes {
        let recipe = Recipe { shape, seconds: 7200.0, rate: 1.0, sizes, seed: 9 };
        let trace = generate(&recipe).unwrap();
        assert_eq!(trace, generate(&recipe).unwrap());
        assert_ne!(trace, generate(&Recipe { seed: 10, ..recipe }).unwrap());
        assert!(trace.arrivals.len() > 100, "{shape:?}: {}", trace.arrivals.len());
        assert!(trace.arrivals.is_sorted_by_key(|arrival| arrival.at_ns));
        for arrival in &trace.arrivals {
            assert!(arrival.cached_tokens < arrival.prompt_tokens);
            assert!((1..=sizes.max_tokens).contains(&arrival.output_tokens));
            assert!(arrival.session.is_none_or(|session| session < trace.sessions));
        }
    }
    let wrong = Recipe { shape: Shape::Diurnal, seconds: 10.0, rate: 0.0, sizes, seed: 1 };
    assert!(generate(&wrong).is_err());
}

#[test]
fn a_shape_has_its_rates() {
    let sizes = Sizes::default();
    let count = |trace: &Trace, from: f64, to: f64| {
        let inside = |arrival: &&Arrival| (from..to).contains(&(arrival.at_ns as f64 / 1e9));
        trace.arrivals.iter().filter(inside).count() as f64 / (to - from)
    };
    let shape = Shape::Burst { factor: 4.0 };
    let trace = generate(&Recipe { shape, seconds: 3000.0, rate: 5.0, sizes, seed: 2 }).unwrap();
    let rates = [count(&trace, 0.0, 1000.0), count(&trace, 1000.0, 2000.0)];
    assert!((rates[0] - 5.0).abs() < 0.4 && (rates[1] - 20.0).abs() < 0.8, "{rates:?}");
    let day = Recipe { shape: Shape::Diurnal, seconds: 86_400.0, rate: 1.0, sizes, seed: 2 };
    let trace = generate(&day).unwrap();
    let [night, noon] = [0.0, 43_200.0].map(|from| count(&trace, from, from + 3600.0));
    assert!(night < 0.15 && noon > 1.7, "{night} {noon}");
    assert!((trace.arrivals.len() as f64 / 86_400.0 - 1.0).abs() < 0.05);
}
