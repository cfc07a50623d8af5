//! `weir bench`: the hot path, without a server around it.
//!
//! [`decode`] generates tokens for one sequence or for several together, [`prefill`] reads a
//! prompt, [`spec`] alternates generation with and without speculation. All drive the device by
//! hand ([`passes`]) on a [`subject`], a model or random weights of a shape, and repeat;
//! [`figures`] turns repeats into what is reported. [`quality`] measures no time: it compares
//! formats of weights; [`spill`] the decision where requests run, and [`decide`] what that costs;
//! [`proxy`] what a request pays on its way through; [`typing`] what people see who type.
//! docs/performance.md says what the numbers mean.

mod calibrate;
mod decide;
mod decode;
mod divergence;
mod figures;
mod folder;
mod passes;
mod prefill;
mod prompts;
mod proxy;
mod quality;
mod spec;
mod spill;
mod subject;
mod trace;
mod typing;

use std::fmt::Display;
use std::io::{self, Read};

use serde::Serialize;

pub(super) use self::calibrate::box_speed;
use super::{Failure, say};
use crate::config::Config;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Bench {
    /// Token generation of one sequence: the hot path
    Decode(decode::DecodeArgs),
    /// Reading a prompt, in one pass and in the steps an engine makes of it
    Prefill(prefill::PrefillArgs),
    /// Token generation of several sequences together
    Batch(decode::BatchArgs),
    /// Token generation with and without speculation
    Spec(spec::SpecArgs),
    /// How far quantised weights are from bf16 on real text
    Quality(quality::QualityArgs),
    /// A peak of three times what the box can do: who is late, and what it costs
    Spill(spill::SpillArgs),
    /// What it costs to decide where a request runs, beside 1, 8 and 64 clouds
    Decide(decide::DecideArgs),
    /// What weir adds to a stream that it proxies, beside the same stream without it
    Proxy(proxy::ProxyArgs),
    /// A relay that only copies bytes: what `proxy` measures beside weir
    Relay(proxy::RelayArgs),
    /// A cloud on loopback that keeps time: what `proxy` puts behind the gateways
    Upstream(proxy::UpstreamArgs),
    /// How far `weir plan` is from what happens: three traffics by the clock, and simulated
    Plan(spill::PlanArgs),
    /// How well the engine foretells its first tokens
    Predict(spill::PredictArgs),
    /// People who type, and what their editors show them in time
    Typing(typing::TypingArgs),
    /// From one key to the whole of a short answer, and what that has to cost
    Keystroke(typing::KeystrokeArgs),
}

/// Flags of every bench, beside the global ones. `--context` is global too: here it is the number
/// of tokens in the cache before what is measured, or of the prompt that is read.
#[derive(Debug, clap::Args)]
struct Common {
    /// Random weights of a well-known shape instead of a model, as in qwen2.5-coder-0.5b
    #[arg(long, value_name = "NAME")]
    shape: Option<String>,
    /// Runs after the first, which only warms up; what is reported are medians
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// One line of JSON for each result
    #[arg(long)]
    json: bool,
    /// Keep the model and make one run for each line on standard input, answered in JSON
    #[arg(long)]
    stdin: bool,
}

/// Tokens in the cache unless `--context` says otherwise.
const CONTEXT: usize = 512;

pub(super) fn run(bench: &Bench, config: &Config) -> Result<(), Failure> {
    match bench {
        Bench::Decode(args) => decode::decode(args, &config.model),
        Bench::Prefill(args) => prefill::prefill(args, &config.model),
        Bench::Batch(args) => decode::batch(args, &config.model),
        Bench::Spec(args) => spec::spec(args, &config.model),
        Bench::Quality(args) => quality::quality(args, &config.model),
        Bench::Decide(args) => decide::decide(args),
        Bench::Proxy(args) => proxy::proxy(args),
        Bench::Relay(args) => proxy::relay(args),
        Bench::Upstream(args) => proxy::upstream(args),
        Bench::Plan(args) => spill::plan(args, &config.model),
        Bench::Predict(args) => spill::predict(args, &config.model),
        Bench::Keystroke(args) => typing::keystroke(args, config),
        Bench::Typing(args) => typing::typing(args, config),
        Bench::Spill(args) => spill::spill(args, &config.model),
    }
}

/// What can be measured again and again.
trait Measured {
    type Run;
    type Report: Serialize + Display;

    fn run(&mut self) -> Self::Run;

    /// What at least one run came to.
    fn reports(&self, runs: &[Self::Run]) -> Vec<Self::Report>;
}

/// Measures as often, and says it in such a form, as was asked for.
fn measure<M: Measured>(mut measured: M, common: &Common) -> Result<(), Failure> {
    // The first run touches every page and every branch for the first time.
    measured.run();
    if common.stdin {
        return measure_on_demand(measured);
    }
    let runs: Vec<M::Run> = (0..common.runs).map(|_| measured.run()).collect();
    for report in measured.reports(&runs) {
        say(&if common.json { json(&report)? } else { report.to_string() })?;
    }
    Ok(())
}

/// One run for each line, so that somebody who alternates this process with another one does not
/// load the model each time. What the line says does not matter.
fn measure_on_demand<M: Measured>(mut measured: M) -> Result<(), Failure> {
    for byte in io::stdin().lock().bytes() {
        if byte.map_err(|error| Failure::Other(format!("standard input: {error}")))? != b'\n' {
            continue;
        }
        let run = measured.run();
        for report in measured.reports(&[run]) {
            say(&json(&report)?)?;
        }
    }
    Ok(())
}

fn json(report: &impl Serialize) -> Result<String, Failure> {
    let line = serde_json::to_string(report);
    line.map(|line| line + "\n").map_err(|error| Failure::Other(error.to_string()))
}
