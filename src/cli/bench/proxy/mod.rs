//! What weir adds to a stream that it proxies: the same requests straight to a cloud on loopback
//! and through a weir that asks for keys, applies rules, looks for secrets, holds budgets and keeps
//! the record; in turns (A B B A), each in processes of their own. A relay that only copies bytes is
//! measured beside them: what is added by being in between at all.

mod answer;
mod children;
mod load;
mod relay;
mod upstream;

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

use self::children::Child;
use self::load::{Load, Run, Spread, Target};
pub(in crate::cli) use self::relay::RelayArgs;
use self::upstream::Pace;
pub(in crate::cli) use self::upstream::UpstreamArgs;
use super::figures::median;
use super::folder::Folder;
use super::json;
use crate::cli::{Failure, complain, say};

/// What weir may add.
const P50_MAX_MS: f64 = 0.3;
const P99_MAX_MS: f64 = 1.0;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ProxyArgs {
    /// Requests that arrive in a second
    #[arg(long, value_name = "N", default_value_t = 200.0)]
    rate: f64,
    /// Seconds of each run
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// Runs of each way; what is reported are medians
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// A gateway that runs already and is measured in turns with the others, as in
    /// litellm=127.0.0.1:4000; may be repeated
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = beside)]
    beside: Vec<(String, SocketAddr)>,
    /// Where the upstream listens, for such a gateway to find it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    upstream: SocketAddr,
    /// The key that requests carry, at least 24 characters; one is drawn
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    pace: Pace,
    /// One line of JSON for each run and each way
    #[arg(long)]
    json: bool,
}

fn beside(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("must be NAME=ADDRESS")?;
    Ok((name.to_owned(), address.parse().map_err(|_| "its address must be IP:PORT")?))
}

/// The upstream alone, until the process ends.
pub(super) fn upstream(args: &UpstreamArgs) -> Result<(), Failure> {
    upstream::run(args)
}

/// The relay alone, until the process ends.
pub(super) fn relay(args: &RelayArgs) -> Result<(), Failure> {
    relay::run(args)
}

/// Fails where a bar was missed.
pub(super) fn proxy(args: &ProxyArgs) -> Result<(), Failure> {
    if args.runs == 0 || args.rate <= 0.0 || args.seconds <= 0.0 || args.pace.deltas == 0 {
        return Err(Failure::Other("runs, rate, seconds and deltas must be above 0".into()));
    }
    let folder = Folder::new()?;
    let key = args.key.clone().unwrap_or_else(|| format!("sk-{:032x}", fastrand::u128(..)));
    let upstream = Child::upstream(args.upstream, &args.pace)?;
    let gateway = Child::weir(upstream.address, &key, &folder)?;
    let relayed = Child::relay(upstream.address)?;
    let (direct, weir, relay) = (upstream.address, gateway.address, relayed.address);
    let mut ways: Vec<Way> = [("direct", direct), ("weir", weir), ("relay", relay)]
        .map(|(name, address)| Way::new(name.to_owned(), address))
        .into();
    ways.extend(args.beside.iter().map(|(name, at)| Way::new(name.clone(), *at)));
    let load = Load { rate: args.rate, seconds: args.seconds, expected: args.pace.text(), key };
    for round in 0..args.runs {
        let mut order: Vec<usize> = (0..ways.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for way in order {
            let run = ways[way].measure(&load)?;
            if args.json {
                say(&json(&run)?)?;
            }
        }
    }
    let direct = ways[0].runs.clone();
    let reports: Vec<Report> = ways.iter().map(|way| way.report(&direct, args.rate)).collect();
    for report in &reports {
        say(&if args.json { json(report)? } else { report.to_string() })?;
    }
    judge(&reports)
}

fn judge(reports: &[Report]) -> Result<(), Failure> {
    let (direct, weir) = (&reports[0], &reports[1]);
    if direct.failed + weir.failed > 0 {
        return Err(Failure::Other("not every request was answered in full".into()));
    }
    let added = [&weir.added_ttft_ms, &weir.added_total_ms];
    match added.iter().all(|added| added.p50 <= P50_MAX_MS && added.p99 <= P99_MAX_MS) {
        true => Ok(()),
        false => Err(Failure::Other(format!(
            "weir added more than {P50_MAX_MS} ms at the median or {P99_MAX_MS} ms at the 99th percentile"
        ))),
    }
}

/// A way to the upstream, and what was measured on it.
struct Way {
    target: Target,
    runs: Vec<Run>,
}

/// One run, as JSON.
#[derive(Serialize)]
struct Told<'a> {
    way: &'a str,
    #[serde(flatten)]
    run: &'a Run,
}

impl Way {
    fn new(name: String, address: SocketAddr) -> Self {
        Self { target: Target { name, address }, runs: Vec::new() }
    }

    fn measure(&mut self, load: &Load) -> Result<Told<'_>, Failure> {
        let run = load.run(&self.target)?;
        if let Some(complaint) = &run.complaint {
            complain(&format!("{}: {} failed: {complaint}", self.target.name, run.failed));
        }
        self.runs.push(run);
        Ok(Told { way: &self.target.name, run: &self.runs[self.runs.len() - 1] })
    }

    /// `direct`: the runs without a gateway, each a neighbour of one of these.
    fn report(&self, direct: &[Run], rate: f64) -> Report {
        let medians = |of: fn(&Run) -> Spread| medians(self.runs.iter().map(of));
        let added = |of: fn(&Run) -> Spread| {
            medians_of_pairs(self.runs.iter().map(of), direct.iter().map(of))
        };
        Report {
            way: self.target.name.clone(),
            rate,
            runs: self.runs.len(),
            requests: self.runs.iter().map(|run| run.requests).sum(),
            failed: self.runs.iter().map(|run| run.failed).sum(),
            ttft_ms: medians(|run| run.ttft_ms),
            total_ms: medians(|run| run.total_ms),
            added_ttft_ms: added(|run| run.ttft_ms),
            added_total_ms: added(|run| run.total_ms),
        }
    }
}

fn medians(spreads: impl Iterator<Item = Spread> + Clone) -> Spread {
    let of = |pick: fn(Spread) -> f64| median(spreads.clone().map(pick));
    Spread { p50: of(|s| s.p50), p99: of(|s| s.p99), p999: of(|s| s.p999) }
}

fn medians_of_pairs(
    ours: impl Iterator<Item = Spread> + Clone,
    theirs: impl Iterator<Item = Spread> + Clone,
) -> Spread {
    let minus = |(a, b): (Spread, Spread)| Spread {
        p50: a.p50 - b.p50,
        p99: a.p99 - b.p99,
        p999: a.p999 - b.p999,
    };
    medians(ours.zip(theirs).map(minus))
}

/// Medians over the runs of a way; what was added, over pairs of runs.
#[derive(Debug, Serialize)]
struct Report {
    way: String,
    rate: f64,
    runs: usize,
    requests: usize,
    failed: usize,
    ttft_ms: Spread,
    total_ms: Spread,
    added_ttft_ms: Spread,
    added_total_ms: Spread,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { way, rate, runs, requests, failed, .. } = self;
        write!(f, "{way:8} {rate}/s, {runs} runs, {requests} requests, {failed} failed;")?;
        let spread = |s: &Spread| format!("{:.2} {:.2} {:.2}", s.p50, s.p99, s.p999);
        write!(
            f,
            " ms at p50 p99 p99.9: TTFT {}, total {}",
            spread(&self.ttft_ms),
            spread(&self.total_ms)
        )?;
        writeln!(
            f,
            "; added to TTFT {}, to the total {}",
            spread(&self.added_ttft_ms),
            spread(&self.added_total_ms)
        )
    }
}
