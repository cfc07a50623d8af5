//! `weir plan`

mod generate;
mod tables;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::bench::box_speed;
use super::{Failure, complain, say};
use crate::app::{STEP_ROWS_MAX, bounds};
use crate::config::{CloudConfig, Config, ModelConfig};
use crate::ledger::audit::{self, Filter, Traffic};
use crate::money::Money;
use crate::plan::trace::REQUESTS_MAX;
use crate::plan::{
    BoxRoom, BoxSpeed, CloudRow, CloudSpeed, Report, Speeds, Trace, Wish, World, plan, speeds_of,
    svg, trace_of,
};

/// Longest sequence of a box whose context is not configured, as `weir serve` has it.
const CONTEXT_DEFAULT: u64 = 8192;
const NANO_PER_MICRO: u64 = 1_000;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct PlanArgs {
    #[command(subcommand)]
    command: Option<Command>,
    /// Requests, one line of JSON each (docs/plan.md)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Requests of a ledger: those that left or wanted to
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    ledger: Option<PathBuf>,
    /// How fast box and clouds are, in TOML; what it does not say of the box is measured here
    #[arg(long, value_name = "FILE")]
    speeds: Option<PathBuf>,
    /// Write what was measured and assumed, in the form that --speeds reads
    #[arg(long, value_name = "FILE")]
    save_speeds: Option<PathBuf>,
    /// Also with more traffic, up to so many times as much
    #[arg(long, value_name = "TIMES", num_args = 0..=1, default_missing_value = "16")]
    growth: Option<f64>,
    /// Dollars an hour to hold against prices by the token; may be repeated
    #[arg(long, value_name = "USD", value_parser = usd)]
    rent: Vec<Money>,
    /// Draws the clouds' latencies
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// One line of JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Also draw it
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a trace: requests of a day, of a burst, or of a team at its keys
    Generate(generate::GenerateArgs),
}

fn usd(text: &str) -> Result<Money, &'static str> {
    Money::parse(text).ok_or("must be dollars as in 4 or 0.75")
}

pub(super) fn run(args: PlanArgs, config: &Config) -> Result<(), Failure> {
    if let Some(Command::Generate(generate)) = &args.command {
        return generate::run(generate);
    }
    if args.growth.is_some_and(|most| !(1.0..=1000.0).contains(&most)) {
        return Err(Failure::Other("--growth must be from 1 to 1000".into()));
    }
    let (trace, past) = requests(&args)?;
    let speeds = speeds(&args, config, (&trace, &past))?;
    let world = world(config, speeds, args.seed);
    let wish = Wish { growth: args.growth, rents: args.rent.clone() };
    let report = plan(&trace, &world, &wish);
    if let Some(path) = &args.svg {
        fs::write(path, svg(&report)).map_err(|error| named(path, &error))?;
    }
    say(&if args.json { json(&report)? } else { tables::tables(&report) }).map_err(Into::into)
}

/// The trace, and what a ledger tells beside it.
fn requests(args: &PlanArgs) -> Result<(Trace, Vec<Traffic>), Failure> {
    if let Some(path) = &args.trace {
        let file = File::open(path).map_err(|error| named(path, &error))?;
        let trace = Trace::read(BufReader::new(file)).map_err(|error| named(path, &error))?;
        return Ok((trace, Vec::new()));
    }
    let Some(path) = &args.ledger else {
        return Err(Failure::Other("--trace FILE or --ledger FILE says what to replay".into()));
    };
    let past = audit::traffic(path, Filter::default(), REQUESTS_MAX);
    let past = past.map_err(|error| named(path, &error))?;
    complain("a ledger has only what left or wanted to: the box is busier than this plan thinks");
    Ok((trace_of(&past).map_err(|error| named(path, &error))?, past))
}

/// What was said, then what the ledger shows, then what can be measured, then a guess that is
/// told.
fn speeds(
    args: &PlanArgs,
    config: &Config,
    (trace, past): (&Trace, &[Traffic]),
) -> Result<Known, Failure> {
    let said = match &args.speeds {
        None => Speeds::default(),
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| named(path, &error))?;
            Speeds::parse(&text).map_err(|error| named(path, &error))?
        }
    };
    let rows = config.clouds_in_use();
    if let Some(name) = said.cloud.keys().find(|name| rows.iter().all(|row| *row.name != ***name)) {
        return Err(Failure::Other(format!("--speeds: there is no [[cloud]] {name} in use")));
    }
    let seen = speeds_of(past);
    let mut known = Speeds { local: said.local, cloud: said.cloud };
    for row in rows {
        let name = row.name.to_string();
        known.cloud.entry(name).or_insert_with_key(|name| {
            seen.get(name).copied().unwrap_or_else(|| {
                let CloudSpeed { ttft_ms, .. } = CloudSpeed::UNKNOWN;
                complain(&format!("nobody said how fast {name} is: assuming {ttft_ms} ms"));
                CloudSpeed::UNKNOWN
            })
        });
    }
    let local = match known.local.take() {
        Some(local) => local,
        None => box_speed(&config.model, trace.typical())?,
    };
    if let Some(path) = &args.save_speeds {
        let all = Speeds { local: Some(local.clone()), cloud: known.cloud.clone() };
        let text = toml::to_string(&all).map_err(|error| named(path, &error))?;
        fs::write(path, text).map_err(|error| named(path, &error))?;
    }
    Ok(Known { local, clouds: known })
}

/// How fast everything is.
struct Known {
    local: BoxSpeed,
    /// By name, every row that is in use.
    clouds: Speeds,
}

fn world(config: &Config, known: Known, seed: u64) -> World {
    let row = |row: &CloudConfig| cloud_row(row, known.clouds.cloud[&*row.name]);
    World {
        speed: known.local,
        room: room(&config.model),
        clouds: config.clouds_in_use().iter().map(row).collect(),
        overflow: config.overflow.clone(),
        seed,
    }
}

fn room(config: &ModelConfig) -> BoxRoom {
    let context = config.context.map_or(CONTEXT_DEFAULT, |context| context as u64);
    BoxRoom {
        slots: config.slots,
        queue_max: config.queue_max,
        step_ms_max: config.step_ms_max,
        step_rows_max: STEP_ROWS_MAX.max(config.slots + 1),
        kv_tokens: context * config.slots as u64,
    }
}

fn cloud_row(row: &CloudConfig, speed: CloudSpeed) -> CloudRow {
    let cap = row.budget.per_day.map(|cap| cap.0.saturating_mul(NANO_PER_MICRO));
    CloudRow {
        name: row.name.clone(),
        price: row.price.clone(),
        speed,
        max_tokens: row.max_tokens,
        bounds: bounds(row),
        first_token_timeout: row.first_token_timeout,
        budget_day: cap.map(Money::from_nano),
    }
}

fn json(report: &Report) -> Result<String, Failure> {
    let line = serde_json::to_string(report);
    line.map(|line| line + "\n").map_err(|error| Failure::Other(error.to_string()))
}

fn named(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Other(format!("{}: {error}", path.display()))
}
