//! What the benchmark in virtual time plays: a box, three clouds, and what editors ask.

use std::time::Duration;

use crate::config::OverflowConfig;
use crate::dispatch::{Bounds, Rates};
use crate::money::{Price, Rate, TokenPrice};
use crate::plan::generate::{Recipe, Shape, Sizes, generate};
use crate::plan::{BoxRoom, BoxSpeed, CloudRow, CloudSpeed, Policy, Trace, World, replay};

/// Every arrival should have its first token within this.
pub(super) const OBJECTIVE: Duration = Duration::from_millis(300);
/// Arrivals in parts of C before and after the peak, and how many times that the peak is.
pub(super) const QUIET: f64 = 0.5;
pub(super) const PEAK_FACTOR: f64 = 6.0;
/// Of all requests that a box serves alone at C, this part meets the objective.
pub(super) const CAPACITY_PART: f64 = 0.99;
/// Seconds of arrivals from which C is measured, and steps of the bisection: to 1 in 250.
const CAPACITY_SECONDS: f64 = 300.0;
const BISECTIONS: u32 = 8;

/// The index of the cheapest cloud that is fast enough.
pub(super) const QUALIFIES: usize = 1;

/// A model of a billion parameters or so on a small accelerator: 8,000 prompt tokens a second, 250
/// generated tokens for one sequence and 1,300 for eight.
fn speed() -> BoxSpeed {
    BoxSpeed {
        decode_ms: vec![(1, 4.0), (8, 6.0)],
        prefill_ms: vec![(1, 4.0), (16, 5.0), (64, 10.0), (512, 64.0)],
        draft_gain: 1.0,
        overhead_ms: 0.0,
    }
}

fn cloud(name: &str, ttft_ms: [f64; 2], usd_per_mtok: [&str; 2]) -> CloudRow {
    let [input, output] = usd_per_mtok.map(|text| Rate::parse(text).expect("a price"));
    let [ttft_ms, p90] = ttft_ms;
    CloudRow {
        name: name.into(),
        price: Some(Price::PerToken(TokenPrice { input, output, cached: input, tier: None })),
        speed: CloudSpeed { ttft_ms, ttft_p90_ms: Some(p90), ..CloudSpeed::UNKNOWN },
        max_tokens: 256,
        bounds: Bounds { max_in_flight: 64, rates: Rates::default(), prefer: 0 },
        first_token_timeout: Duration::from_secs(10),
        budget_day: None,
    }
}

/// The cheapest is too slow, the fastest is dear; one is right.
pub(super) fn world(seed: u64) -> World {
    World {
        speed: speed(),
        room: BoxRoom {
            slots: 8,
            queue_max: 256,
            step_ms_max: 50,
            step_rows_max: 512,
            kv_tokens: 65_536,
        },
        clouds: vec![
            cloud("cheap", [600.0, 700.0], ["0.15", "0.6"]),
            cloud("near", [120.0, 150.0], ["0.5", "1.5"]),
            cloud("dear", [80.0, 100.0], ["3", "15"]),
        ],
        overflow: OverflowConfig {
            ttft_objective: OBJECTIVE,
            enter: 1.0,
            leave: 0.6,
            dwell: Duration::from_secs(2),
            ..OverflowConfig::default()
        },
        seed,
    }
}

/// What editors ask, in sizes that differ as files and answers do: arrivals at `rate` a second,
/// `factor` times that in the middle third.
pub(super) fn trace(rate: f64, factor: f64, seconds: f64, seed: u64) -> Trace {
    let shape = Shape::Burst { factor };
    let recipe = Recipe { shape, seconds, rate, sizes: Sizes::default(), seed };
    generate(&recipe).expect("a sound recipe")
}

/// C: the highest rate at which the box alone gives 99 of 100 first tokens within the objective.
pub(super) fn capacity(world: &World, seed: u64) -> f64 {
    let holds = |rate: f64| {
        let trace = trace(rate, 1.0, CAPACITY_SECONDS, seed);
        replay(&trace, world, Policy::Local).attainment() >= CAPACITY_PART
    };
    let (mut low, mut high) = (0.0, 1.0);
    while holds(high) {
        (low, high) = (high, high * 2.0);
    }
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}
