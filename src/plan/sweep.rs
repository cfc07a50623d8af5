//! A trace replayed over thresholds, and over growth: what an operator wants to choose by.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::outcome::{CloudOutcome, Outcome};
use super::replay::{Policy, World, replay};
use super::trace::{REQUESTS_MAX, Trace};
use crate::ledger::audit::dollars;
use crate::money::{Money, Price};

/// Saturations beside the configured one at which overflow might begin.
const ENTERS: [f64; 8] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0];
/// Traffic in parts of the trace's own.
const GROWTHS: [f64; 12] = [1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0];
/// A source has run out when it cannot take such a part of what it is asked for.
const RUN_OUT: f64 = 0.01;
/// Reasons for which a cloud is not asked that say that it has no more to give.
const STOPS: [&str; 3] = ["cloud_limit", "cloud_rate", "cloud_paused"];
/// A person who is a copy of another one does the same up to so much later.
const LATER_MAX_NS: u64 = 300_000_000_000;
const HOUR_S: f64 = 3600.0;

/// What `weir plan` tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub requests: u64,
    pub hours: f64,
    pub ttft_objective_ms: f64,
    /// By threshold, ascending; the last one is that nothing leaves.
    pub thresholds: Vec<Swept>,
    /// None: no cloud is paid by the token.
    pub break_even: Option<BreakEven>,
    /// By growth, ascending; empty: nobody asked.
    pub growth: Vec<Grown>,
}

/// What one setting comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Swept {
    /// None: nothing leaves.
    pub enter: Option<f64>,
    pub configured: bool,
    /// Share of all requests whose first token came within the objective.
    pub attainment: f64,
    pub ttft_p50_ms: f64,
    pub ttft_p99_ms: f64,
    /// Share of all requests that a cloud answered, and that nobody did.
    pub overflow: f64,
    pub shed: f64,
    /// By the token.
    #[serde(serialize_with = "dollars")]
    pub spent_usd: Money,
    /// By the hour.
    #[serde(serialize_with = "dollars")]
    pub rent_usd: Money,
    pub changes: u64,
    pub clouds: Vec<CloudLine>,
}

/// What a cloud had of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CloudLine {
    pub cloud: String,
    pub answered: u64,
    /// It answered 429, and not within its timeout.
    pub limited: u64,
    pub late: u64,
    /// Requests that should have left and that it was not asked for, by reason.
    pub kept: BTreeMap<String, u64>,
    #[serde(serialize_with = "dollars")]
    pub spent_usd: Money,
}

/// When renting is cheaper than paying by the token, for what leaves at the configured threshold
/// if only clouds that are paid by the token have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BreakEven {
    /// What the overflow costs by the token in an hour of the trace, on average and at most. A
    /// rent below the mean pays all the time; one above the most never does.
    #[serde(serialize_with = "dollars")]
    pub mean_usd_per_hour: Money,
    #[serde(serialize_with = "dollars")]
    pub most_usd_per_hour: Money,
    /// What one request that leaves costs, on average.
    #[serde(serialize_with = "dollars")]
    pub usd_per_request: Money,
    pub rents: Vec<Rent>,
}

/// One rent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rent {
    pub name: String,
    #[serde(serialize_with = "dollars")]
    pub usd_per_hour: Money,
    /// So many requests in an hour cost as much by the token; None: they cost nothing.
    pub requests_per_hour: Option<f64>,
    /// Hours of the trace in which the rent would have been cheaper.
    pub hours_that_pay: u64,
}

/// So many times the traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grown {
    pub factor: f64,
    #[serde(flatten)]
    pub swept: Swept,
    /// Sources that cannot take a hundredth of what they are asked for: `local`, and clouds with
    /// what stops them.
    pub run_out: Vec<String>,
}

/// What is asked of [`plan`].
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Most growth; None: growth is not asked for.
    pub growth: Option<f64>,
    /// Rents to hold against prices by the token, beside those of the rows.
    pub rents: Vec<Money>,
}

/// Replays a trace over thresholds, and more if that was asked for.
pub fn plan(trace: &Trace, world: &World, wish: &Wish) -> Report {
    let configured = world.overflow.enter;
    let mut enters: Vec<f64> = ENTERS.into();
    if !enters.contains(&configured) {
        enters.push(configured);
        enters.sort_by(f64::total_cmp);
    }
    let settings: Vec<Option<f64>> = enters.into_iter().map(Some).chain([None]).collect();
    let thresholds = side_by_side(&settings, |&enter| {
        let outcome = match enter {
            None => replay(trace, world, Policy::Local),
            Some(enter) => replay(trace, &at(world, enter), Policy::Weir),
        };
        Swept { configured: enter == Some(configured), ..swept(enter, &outcome, world, trace) }
    });
    Report {
        requests: trace.arrivals.len() as u64,
        hours: hours(trace),
        ttft_objective_ms: world.overflow.ttft_objective.as_secs_f64() * 1e3,
        thresholds,
        break_even: break_even(trace, world, &wish.rents),
        growth: wish.growth.map(|most| growth(trace, world, most)).unwrap_or_default(),
    }
}

/// The same hysteresis around another threshold.
fn at(world: &World, enter: f64) -> World {
    let mut world = world.clone();
    world.overflow.leave *= enter / world.overflow.enter;
    world.overflow.enter = enter;
    world
}

/// At least the trace's last, begun hour is an hour: rent is paid for it.
fn hours(trace: &Trace) -> f64 {
    trace.span_ns() as f64 / 1e9 / HOUR_S
}

fn swept(enter: Option<f64>, outcome: &Outcome, world: &World, trace: &Trace) -> Swept {
    let ms = |part| outcome.ttft(part).as_secs_f64() * 1e3;
    let rents = world.clouds.iter().filter_map(|row| rent(row.price.as_ref()));
    let rent = match enter {
        Some(_) => rents.fold(Money::ZERO, Money::saturating_add),
        None => Money::ZERO,
    };
    let begun_hours = hours(trace).floor() as u64 + 1;
    Swept {
        enter,
        configured: false,
        attainment: outcome.attainment(),
        ttft_p50_ms: ms(0.5),
        ttft_p99_ms: ms(0.99),
        overflow: outcome.overflow(),
        shed: outcome.shed as f64 / outcome.requests() as f64,
        spent_usd: outcome.spent,
        rent_usd: Money::from_nano(rent.nano().saturating_mul(begun_hours)),
        changes: outcome.changes_ns.len() as u64,
        clouds: cloud_lines(outcome),
    }
}

fn cloud_lines(outcome: &Outcome) -> Vec<CloudLine> {
    let line = |cloud: &CloudOutcome| CloudLine {
        cloud: cloud.name.to_string(),
        answered: cloud.tally.answered,
        limited: cloud.tally.limited,
        late: cloud.tally.late,
        kept: cloud.kept.clone(),
        spent_usd: cloud.tally.spent,
    };
    outcome.clouds.iter().map(line).collect()
}

fn rent(price: Option<&Price>) -> Option<Money> {
    match price {
        Some(Price::Hourly(rent)) => Some(*rent),
        _ => None,
    }
}

fn break_even(trace: &Trace, world: &World, rents: &[Money]) -> Option<BreakEven> {
    let mut metered = world.clone();
    metered.clouds.retain(|row| row.price.as_ref().is_some_and(Price::is_metered));
    if metered.clouds.is_empty() {
        return None;
    }
    let outcome = replay(trace, &metered, Policy::Weir);
    let hourly = &outcome.spent_hourly;
    let of_rows = world
        .clouds
        .iter()
        .filter_map(|row| rent(row.price.as_ref()).map(|rent| (row.name.to_string(), rent)));
    let asked = rents.iter().map(|&rent| (format!("{rent} an hour"), rent));
    let request = outcome.spent.nano().checked_div(outcome.left()).unwrap_or(0);
    let line = |(name, usd_per_hour): (String, Money)| Rent {
        name,
        usd_per_hour,
        requests_per_hour: (request > 0).then(|| usd_per_hour.nano() as f64 / request as f64),
        hours_that_pay: hourly.iter().filter(|&&spent| spent > usd_per_hour).count() as u64,
    };
    let spent = outcome.spent.nano() as f64 / hours(trace).max(HOUR_S.recip());
    Some(BreakEven {
        mean_usd_per_hour: Money::from_nano(spent as u64),
        most_usd_per_hour: hourly.iter().copied().max().unwrap_or_default(),
        usd_per_request: Money::from_nano(request),
        rents: of_rows.chain(asked).map(line).collect(),
    })
}

fn growth(trace: &Trace, world: &World, most: f64) -> Vec<Grown> {
    let possible = REQUESTS_MAX as f64 / trace.arrivals.len() as f64;
    let factors: Vec<f64> =
        GROWTHS.into_iter().filter(|&factor| factor <= most && factor <= possible).collect();
    side_by_side(&factors, |&factor| {
        let trace = grown(trace, factor, world.seed);
        let outcome = replay(&trace, world, Policy::Weir);
        let swept = swept(Some(world.overflow.enter), &outcome, world, &trace);
        Grown { factor, run_out: run_out(&swept), swept }
    })
}

/// More people who do the same things, each a little later than whom they are a copy of.
pub(super) fn grown(trace: &Trace, factor: f64, seed: u64) -> Trace {
    let copies = factor.ceil() as u32;
    let last_part = factor - f64::from(copies - 1);
    let mut arrivals = Vec::with_capacity((trace.arrivals.len() as f64 * factor) as usize);
    for copy in 0..copies {
        for (index, arrival) in trace.arrivals.iter().enumerate() {
            let person = arrival.session.map_or(index as u64, u64::from);
            let of_copy = seed.wrapping_add(u64::from(copy) << 32).wrapping_add(person);
            let mut luck = fastrand::Rng::with_seed(of_copy.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (later, exists) = (luck.u64(..LATER_MAX_NS), luck.f64() < last_part);
            if copy > 0 && copy == copies - 1 && !exists {
                continue;
            }
            let mut arrival = *arrival;
            arrival.at_ns += if copy == 0 { 0 } else { later };
            arrival.session = arrival.session.map(|session| session + copy * trace.sessions);
            arrivals.push(arrival);
        }
    }
    arrivals.sort_by_key(|arrival| arrival.at_ns);
    Trace { arrivals, sessions: trace.sessions * copies }
}

/// The box has run out when requests leave, or are shed; a cloud by what stops it.
fn run_out(swept: &Swept) -> Vec<String> {
    let mut sources = Vec::new();
    if swept.overflow + swept.shed > RUN_OUT {
        sources.push("local".to_owned());
    }
    for line in &swept.clouds {
        let stopped = |code: &str| STOPS.contains(&code) || code.starts_with("budget");
        let stops = line.kept.iter().filter(|(code, _)| stopped(code));
        let all: u64 = stops.clone().map(|(_, count)| count).sum();
        let asked = (line.answered + line.limited + line.late + all) as f64;
        let most = stops.max_by_key(|&(_, count)| count);
        if let Some((why, _)) = most.filter(|_| all as f64 > asked * RUN_OUT) {
            sources.push(format!("{} ({why})", line.cloud));
        }
    }
    sources
}

/// `work` on each item, as many at a time as there are cores.
fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..cores.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(place) else { break };
                    let result = work(item);
                    *done[place].lock().expect("nobody panics with it") = Some(result);
                }
            });
        }
    });
    let result = |slot: Mutex<Option<R>>| {
        slot.into_inner().expect("nobody panicked").expect("each item had its turn")
    };
    done.into_iter().map(result).collect()
}
