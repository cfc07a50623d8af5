//! `weir bench typing`: people who type, each with a completion client beside the text, against any
//! server that speaks one of three dialects.
//!
//! [`edits`] makes sessions from [`sources`] by a seed, a [`developer`] types them at a [`desk`],
//! and a [`client`] behaves as its row of [`policies`] says: a [`flight`] is a request of it under
//! way, over [`http`] in a [`dialect`]. [`counts`] is what becomes of it all, [`report`] says it.
//! [`keystroke`] is the second benchmark here: single keys, in turns with another server.

mod client;
mod counts;
mod desk;
mod developer;
mod dialect;
mod edits;
mod flight;
mod http;
mod keystroke;
mod policies;
mod report;
mod server;
mod sources;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;

use self::developer::Developer;
use self::dialect::Dialect;
use self::http::Endpoint;
pub(in crate::cli) use self::keystroke::KeystrokeArgs;
pub(super) use self::keystroke::keystroke;
use self::policies::{POLICIES, Policy};
use self::report::{Report, Scene};
use self::server::{Own, Server};
use self::sources::Source;
use super::json;
use crate::cli::{Failure, block_on, say};
use crate::config::Config;

/// Developers of one run: each has some connections open.
const DEVELOPERS_MAX: usize = 256;
/// Longest run, in seconds.
const SECONDS_MAX: f64 = 3600.0;
/// What `--policy` says when developers have different clients, in turn.
const MIXED: &str = "mixed";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TypingArgs {
    /// A server that runs, as in http://127.0.0.1:8012; without it a weir is started in this
    /// process, with the model of --model
    #[arg(long)]
    url: Option<String>,
    #[arg(long, value_enum, default_value_t = Dialect::Openai)]
    dialect: Dialect,
    /// How the server calls its model; only Ollama asks
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// Numbers of developers, a run for each
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 4, 16])]
    developers: Vec<usize>,
    /// Seconds of each run
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    seconds: f64,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Whose client: llama.vim, continue, copilot, tabby, zed, minuet, or mixed: in turn
    #[arg(long, value_name = "NAME", default_value = MIXED)]
    policy: String,
    /// Source files to edit; this repository's unless given
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// One line of JSON for each run
    #[arg(long)]
    json: bool,
}

pub(super) fn typing(args: &TypingArgs, config: &Config) -> Result<(), Failure> {
    let sound = 0.0 < args.seconds && args.seconds <= SECONDS_MAX;
    let crowd = 1..=DEVELOPERS_MAX;
    if !sound || !args.developers.iter().all(|developers| crowd.contains(developers)) {
        let most = format!("at most {DEVELOPERS_MAX} developers and {SECONDS_MAX} seconds");
        return Err(Failure::Other(format!("{most}, and more than none")));
    }
    let policies = policies(&args.policy)?;
    let files = files(args.files.as_ref())?;
    block_on(run(args, &policies, &files, config))?
}

fn policies(name: &str) -> Result<Vec<&'static Policy>, Failure> {
    if name == MIXED {
        return Ok(POLICIES.iter().collect());
    }
    let names: Vec<&str> = POLICIES.iter().map(|policy| policy.name).collect();
    let wrong = || Failure::Other(format!("--policy must be {MIXED} or one of {names:?}"));
    Policy::by_name(name).map(|policy| vec![policy]).ok_or_else(wrong)
}

fn files(folder: Option<&PathBuf>) -> Result<Vec<Source>, Failure> {
    folder.map_or_else(|| Ok(sources::own()), |folder| sources::of_folder(folder))
}

async fn run(
    args: &TypingArgs,
    policies: &[&'static Policy],
    files: &[Source],
    config: &Config,
) -> Result<(), Failure> {
    let own = match args.url {
        Some(_) => None,
        None => Some(Own::start(config).await?),
    };
    let endpoint = match (&args.url, &own) {
        (Some(url), _) => Endpoint::parse(url)?,
        (None, Some(own)) => own.endpoint(),
        (None, None) => unreachable!("without a url a weir was started"),
    };
    let server = Server { endpoint, dialect: args.dialect, model: args.name.clone() };
    for &developers in &args.developers {
        let report = crowd(args, policies, files, &server, developers).await;
        say(&if args.json { json(&report)? } else { report.to_string() })?;
    }
    if let Some(own) = own {
        own.stop().await;
    }
    Ok(())
}

/// So many developers for a while.
async fn crowd(
    args: &TypingArgs,
    policies: &[&'static Policy],
    files: &[Source],
    server: &Server,
    developers: usize,
) -> Report {
    let before = server.generated().await;
    let work = (0..developers).map(|number| {
        let policy = policies[number % policies.len()];
        Developer { number: number as u64, seed: args.seed, policy, files, server }
            .work(Duration::from_secs_f64(args.seconds))
    });
    let each = join_all(work).await;
    let after = server.generated().await;
    let generated = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    let scene = Scene {
        server: args.url.clone().unwrap_or_else(|| "weir in this process".into()),
        dialect: format!("{:?}", args.dialect).to_lowercase(),
        policy: args.policy.clone(),
        seconds: args.seconds,
        seed: args.seed,
        generated,
    };
    Report::of(scene, &each)
}
