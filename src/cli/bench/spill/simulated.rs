//! The benchmark in virtual time: one seed is one day's work in a second.

use std::time::Duration;

use super::judge::{Judged, Point};
use super::least::{Known, fewest_beside};
use super::scene::{self, OBJECTIVE, PEAK_FACTOR, QUALIFIES, QUIET};
use crate::completion::Usage;
use crate::money::Money;
use crate::plan::{Arrival, Outcome, Policy, Trace, World, replay};

/// Settings of the other routers.
pub(super) const DEPTHS: [usize; 8] = [1, 2, 3, 4, 6, 8, 16, 32];
/// How often gateways that do so look at an engine's metrics: the fastest of them.
pub(super) const SEEN_EVERY: Duration = Duration::from_millis(200);
pub(super) const PAUSES_MS: [u64; 8] = [100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000];

/// One seed: measures C, replays the peak with each router, and judges.
pub(super) fn run(seed: u64, seconds: f64) -> Judged {
    let world = scene::world(seed);
    let capacity = scene::capacity(&world, seed);
    let trace = scene::trace(capacity * QUIET, PEAK_FACTOR, seconds, seed);
    let weir = replay(&trace, &world, Policy::Weir);
    let swept = |policies: Vec<(String, Policy)>| {
        let replayed = |(setting, policy)| point(setting, &replay(&trace, &world, policy));
        policies.into_iter().map(replayed).collect()
    };
    let depths = |seen_every| {
        let depth = |most| Policy::QueueDepth { most, cloud: QUALIFIES, seen_every };
        DEPTHS.map(|most| (format!("{most}"), depth(most))).to_vec()
    };
    let pauses = PAUSES_MS.map(|ms| {
        let pause = Duration::from_millis(ms);
        (format!("{ms} ms"), Policy::Cooldown { pause, cloud: QUALIFIES })
    });
    let least = least(&trace, &world);
    let cost = |&request: &usize| price(&world, &trace.arrivals[request]);
    Judged {
        seed,
        capacity,
        requests: weir.requests(),
        changes: weir.changes_ns.len(),
        local_again_s: local_again_s(&weir, &world, seconds * 2.0 / 3.0),
        weir: point("weir".into(), &weir),
        least_requests: least.len(),
        least_usd: usd(least.iter().map(cost).fold(Money::ZERO, Money::saturating_add)),
        queue_depth: swept(depths(SEEN_EVERY)),
        queue_depth_at_once: swept(depths(Duration::ZERO)),
        cooldown: swept(pauses.to_vec()),
        missed: Vec::new(),
    }
    .judge()
}

fn point(setting: String, outcome: &Outcome) -> Point {
    Point { setting, attainment: outcome.attainment(), spend_usd: usd(outcome.spent) }
}

pub(super) fn usd(money: Money) -> f64 {
    money.nano() as f64 / 1e9
}

/// From the peak's end to the end of overflow.
fn local_again_s(weir: &Outcome, world: &World, peak_ends_s: f64) -> f64 {
    let ends = weir.last_left_ns.map(|left| left as f64 / 1e9 + world.overflow.dwell.as_secs_f64());
    ends.map_or(0.0, |ends| (ends - peak_ends_s).max(0.0))
}

/// What must leave at least, by the times that the box takes for each request when it serves all
/// of them and is never short of work.
fn least(trace: &Trace, world: &World) -> Vec<usize> {
    let mut patient = world.clone();
    patient.room.queue_max = trace.arrivals.len();
    let recorded = replay(trace, &patient, Policy::Local);
    let known = trace.arrivals.iter().zip(&recorded.fates);
    let known: Vec<Known> = known
        .map(|(arrival, fate)| Known { at_ns: arrival.at_ns, service: fate.service })
        .collect();
    fewest_beside(&known, OBJECTIVE, world.room.slots)
}

/// At the cheapest cloud that is fast enough.
fn price(world: &World, arrival: &Arrival) -> Money {
    let usage = Usage {
        prompt_tokens: u64::from(arrival.prompt_tokens),
        cached_tokens: 0,
        completion_tokens: u64::from(arrival.output_tokens),
    };
    let price = world.clouds[QUALIFIES].price.as_ref().expect("it has a price");
    price.actual(&usage)
}
