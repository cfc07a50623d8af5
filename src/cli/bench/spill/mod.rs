//! `weir bench spill`: a peak of three times what the box can do, and what becomes of it.
//!
//! C is measured first: the highest rate at which the box alone keeps 99 of 100 first tokens
//! within the objective. Then arrivals come at C / 2, 3 C and C / 2; each counts, and one that is
//! shed has missed. [`judge`] holds the outcome against bars, against the [`least`] that anybody
//! could have spent, and against two other routers over their settings.

mod judge;
mod least;
mod scene;
mod simulated;

use super::{Failure, json, say};

/// Long enough for thousands of requests in each seed.
const SECONDS: f64 = 90.0;
/// Shorter ones have too few requests for a share of 99 in 100, longer ones say no more.
const SECONDS_RANGE: std::ops::RangeInclusive<f64> = 10.0..=3600.0;
const SEEDS_MAX: u64 = 10_000;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SpillArgs {
    /// Runs in virtual time, each with arrivals and cloud latencies of its own
    #[arg(long, value_name = "N", default_value_t = 20)]
    seeds: u64,
    /// Seconds of arrivals, a third of them at the peak
    #[arg(long, value_name = "SECONDS", default_value_t = SECONDS)]
    seconds: f64,
    /// One line of JSON for each run
    #[arg(long)]
    json: bool,
}

/// Fails where a bar was missed.
pub(super) fn spill(args: &SpillArgs) -> Result<(), Failure> {
    if !(1..=SEEDS_MAX).contains(&args.seeds) || !SECONDS_RANGE.contains(&args.seconds) {
        return Err(Failure::Other(format!(
            "--seeds must be 1 to {SEEDS_MAX}, --seconds within {SECONDS_RANGE:?}"
        )));
    }
    let mut missed = 0;
    for seed in 1..=args.seeds {
        let judged = simulated::run(seed, args.seconds);
        missed += u64::from(!judged.missed.is_empty());
        say(&if args.json { json(&judged)? } else { judged.to_string() })?;
    }
    match missed {
        0 => Ok(()),
        _ => Err(Failure::Other(format!("{missed} of {} runs missed a bar", args.seeds))),
    }
}
