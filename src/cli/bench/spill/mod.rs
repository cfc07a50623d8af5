//! `weir bench spill`: a peak of three times what the box can do, and what becomes of it.
//!
//! C is measured first: the highest rate at which the box alone keeps 99 of 100 first tokens
//! within the objective. Then arrivals come at C / 2, 3 C and C / 2; each counts, and one that is
//! shed has missed. [`judge`] holds the outcome against bars, against the [`least`] that anybody
//! could have spent, and against two other routers over their settings. [`simulated`] does so in
//! virtual time; [`real`] with an engine, [`clouds`] on loopback and the time of the wall.

mod clouds;
mod judge;
mod least;
mod real;
mod scene;
mod simulated;

use super::{Failure, json, say};
use crate::config::ModelConfig;

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
    /// One run by the clock on the wall: the configured model, clouds on loopback
    #[arg(long, conflicts_with = "seeds")]
    real: bool,
    /// One line of JSON for each run
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PlanArgs {
    /// Seconds of arrivals of each traffic
    #[arg(long, value_name = "SECONDS", default_value_t = 45.0)]
    seconds: f64,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// One line of JSON for each traffic
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PredictArgs {
    /// Seconds of arrivals of each kind of prompt at each load
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    seconds: f64,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// One line of JSON for each
    #[arg(long)]
    json: bool,
}

/// Fails where too many first tokens were foretold badly.
pub(super) fn predict(args: &PredictArgs, config: &ModelConfig) -> Result<(), Failure> {
    if !SECONDS_RANGE.contains(&args.seconds) {
        return Err(Failure::Other(format!("--seconds must be within {SECONDS_RANGE:?}")));
    }
    let all = real::foretold(args.seed, args.seconds, config)?;
    for foretold in &all {
        say(&if args.json { json(foretold)? } else { foretold.to_string() })?;
    }
    match all.iter().filter(|foretold| !foretold.holds()).count() {
        0 => Ok(()),
        off => Err(Failure::Other(format!("{off} of {} were foretold badly", all.len()))),
    }
}

/// Fails where the simulation was too far from what happened.
pub(super) fn plan(args: &PlanArgs, config: &ModelConfig) -> Result<(), Failure> {
    if !SECONDS_RANGE.contains(&args.seconds) {
        return Err(Failure::Other(format!("--seconds must be within {SECONDS_RANGE:?}")));
    }
    let trials = real::trials(args.seed, args.seconds, config)?;
    for trial in &trials {
        say(&if args.json { json(trial)? } else { trial.to_string() })?;
    }
    match trials.iter().filter(|trial| !trial.holds()).count() {
        0 => Ok(()),
        off => {
            Err(Failure::Other(format!("{off} of {} traffics were foretold badly", trials.len())))
        }
    }
}

/// Fails where a bar was missed.
pub(super) fn spill(args: &SpillArgs, config: &ModelConfig) -> Result<(), Failure> {
    if !(1..=SEEDS_MAX).contains(&args.seeds) || !SECONDS_RANGE.contains(&args.seconds) {
        return Err(Failure::Other(format!(
            "--seeds must be 1 to {SEEDS_MAX}, --seconds within {SECONDS_RANGE:?}"
        )));
    }
    let mut missed = 0;
    let seeds = if args.real { 1 } else { args.seeds };
    for seed in 1..=seeds {
        let judged = match args.real {
            true => real::run(seed, args.seconds, config)?,
            false => simulated::run(seed, args.seconds),
        };
        missed += u64::from(!judged.missed.is_empty());
        say(&if args.json { json(&judged)? } else { judged.to_string() })?;
    }
    match missed {
        0 => Ok(()),
        _ => Err(Failure::Other(format!("{missed} of {seeds} runs missed a bar"))),
    }
}
