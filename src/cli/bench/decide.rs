//! What a decision costs: everything between a request that was read and the first row that is
//! asked, but for the look for secrets, which `cargo bench --bench policy` measures.
//!
//! The dispatcher, the rows and the ledger are those of a server. Every row meets what is required,
//! has a budget with room, and a full window of times to first token, so that no filter ends
//! early; between two decisions the row that was chosen answers, as it does in service.

use std::fmt;
use std::time::{Duration, Instant as Clock};

use serde::Serialize;
use tokio::time::Instant;

use super::folder::Folder;
use super::json;
use crate::app::{StartError, safeguards, target};
use crate::cli::{Failure, block_on, say};
use crate::cloud;
use crate::completion::compliance::RequestPolicy;
use crate::completion::{CompletionRequest, ExtraFile, FimInput, Input};
use crate::config::{Config, Overrides};
use crate::dispatch::{Load, Placed, Simulated};
use crate::telemetry::Telemetry;

/// The last is as many as may be configured.
const ROWS: [usize; 3] = [1, 8, 64];
/// Of the 99th percentile.
const P99_MAX_US: f64 = 20.0;
const DECISIONS_MIN: usize = 1000;
/// Answers that fill each row's window and end its ramp.
const ANSWERS: usize = 64;
/// Decisions between two rounds of answers by every row, so that no window grows old.
const ROUND: usize = 4096;
/// Not measured: they fill the caches.
const WARM_UP: usize = 2048;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DecideArgs {
    /// Decisions for each number of rows
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    decisions: usize,
    /// One line of JSON for each number of rows
    #[arg(long)]
    json: bool,
}

/// Fails where the bar was missed.
pub(super) fn decide(args: &DecideArgs) -> Result<(), Failure> {
    if args.decisions < DECISIONS_MIN {
        return Err(Failure::Other(format!("--decisions must be at least {DECISIONS_MIN}")));
    }
    let mut slow = 0;
    for rows in ROWS {
        let report = block_on(measure(rows, args.decisions))??;
        slow += usize::from(report.p99_us >= P99_MAX_US);
        say(&if args.json { json(&report)? } else { report.to_string() })?;
    }
    match slow {
        0 => Ok(()),
        _ => Err(Failure::Other(format!("not within {P99_MAX_US} us at the 99th percentile"))),
    }
}

#[derive(Debug, Serialize)]
struct Report {
    rows: usize,
    decisions: usize,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, decisions, p50_us, p99_us, p999_us } = self;
        writeln!(
            f,
            "{rows:2} rows: p50 {p50_us:.2} us, p99 {p99_us:.2} us, p99.9 {p999_us:.2} us of \
             {decisions} decisions"
        )
    }
}

/// A box that is full, so that every request is to leave.
struct Full;

impl Load for Full {
    fn work_ahead_ms(&self) -> f64 {
        1e4
    }
}

async fn measure(rows: usize, decisions: usize) -> Result<Report, Failure> {
    let folder = Folder::new()?;
    let config = config(rows, &folder)?;
    let rules = config.policy.rules();
    let safeguards = safeguards(&config, &rules, Telemetry::new()).await?;
    let ledger = safeguards.ledger.clone();
    let providers = cloud::providers(&config.clouds).map_err(StartError::from)?;
    let clouds = providers.into_iter().map(target).collect();
    let simulated = Simulated::guarded(Full, clouds, &config.overflow, safeguards);
    let number = rules.tenants.iter().position(Option::is_some).unwrap_or_default();
    let first = rules.tenant(number as u32);
    let policy = RequestPolicy {
        require: first.require.clone(),
        rule: first.rule.clone(),
        ..RequestPolicy::open()
    };
    let request = CompletionRequest { policy, tenant: number as u32, ..request() };
    let times = times(&simulated, &request, rows, decisions);
    if let Some(ledger) = ledger {
        ledger.close();
    }
    let mut times = times?;
    times.sort_unstable();
    let us = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let (p50_us, p99_us, p999_us) = (us(0.5), us(0.99), us(0.999));
    Ok(Report { rows, decisions, p50_us, p99_us, p999_us })
}

fn times<C: crate::dispatch::Quote>(
    simulated: &Simulated<Full, C>,
    request: &CompletionRequest,
    rows: usize,
    decisions: usize,
) -> Result<Vec<Duration>, Failure> {
    let mut luck = fastrand::Rng::with_seed(1);
    let mut ttft = move || Duration::from_micros(luck.u64(50_000..250_000));
    let mut times = Vec::with_capacity(decisions);
    for turn in 0..WARM_UP + decisions {
        if turn % ROUND == 0 {
            for row in (0..rows).flat_map(|row| std::iter::repeat_n(row, ANSWERS)) {
                simulated.answered(row, ttft(), Instant::now());
            }
        }
        let began = Clock::now();
        let placed = simulated.place_unscanned(request, Instant::now());
        let took = began.elapsed();
        match placed {
            Placed::Clouds(order) if order.len() == rows => {
                simulated.answered(order[0], ttft(), Instant::now());
            }
            other => return Err(Failure::Other(format!("not every row may be asked: {other:?}"))),
        }
        if turn >= WARM_UP {
            times.push(took);
        }
    }
    Ok(times)
}

/// A cursor in a file of some KiB, with a few others beside it.
fn request() -> CompletionRequest {
    let text = include_str!("decide.rs");
    let file = |name: &str| ExtraFile { path: format!("src/{name}.rs"), text: text.to_owned() };
    let fim = FimInput {
        prefix: text.to_owned(),
        suffix: text.to_owned(),
        path: Some("src/own.rs".into()),
        extra: ["a", "b", "c", "d"].map(file).into(),
        repository: None,
    };
    CompletionRequest::greedy("bench", Input::Fim(fim), 64)
}

/// So many rows of every price, for a tenant with budgets and requirements.
fn config(rows: usize, folder: &Folder) -> Result<Config, Failure> {
    // The digest of a key that nobody has: nobody asks here.
    let mut text = format!(
        "[ledger]\npath = {:?}\n\
         [[tenant]]\nname = \"bench\"\nkey_sha256 = \"{:064x}\"\n\
         budget_usd_day = 100000\nbudget_usd_month = 1000000\n\
         require = {{ fedramp = \"moderate\", regions = [\"us-east-1\", \"us-west-2\"], \
         certifications = [\"iso27001\", \"hipaa\"], retention_days = 30 }}\n",
        folder.0.join("ledger.db"),
        1
    );
    for row in 0..rows {
        text += &format!(
            "[[cloud]]\nname = \"row-{row}\"\nbase_url = \"https://cloud-{row}.example/v1\"\n\
             model = \"qwen2.5-coder\"\nfim = \"template\"\nregions = [\"us-east-1\"]\n\
             fedramp = \"high\"\nattested_by = \"the benchmark\"\nretention_days = 0\n\
             certifications = [\"hipaa\", \"iso27001\", \"soc2\"]\n\
             requests_per_min = 1000000\ntokens_per_min = 1000000000\nbudget_usd_day = 50000\n\
             price = {{ input_usd_per_mtok = 0.{:02}, output_usd_per_mtok = 1.5 }}\n",
            (row * 37) % 97 + 1
        );
    }
    let nothing = |_: &str| Err(std::env::VarError::NotPresent);
    let config = Config::from_text(&text, Overrides::default(), &nothing);
    config.map(|(config, _)| config).map_err(|wrong| Failure::Other(format!("{wrong:?}")))
}
