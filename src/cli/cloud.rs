//! `weir cloud`

mod list;
mod test;

use hyper::Method;

use super::remote::{Where, ask, read};
use super::{Failure, block_on, say};
use crate::cloud::Question;
use crate::config::{CloudConfig, Config};
use crate::dispatch::Standing;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The rows of the configuration, and how they are where a weir runs
    List(#[command(flatten)] Where),
    /// Ask each for one token, without a server: who is let in, how fast, for how much
    Test {
        /// Only this one
        name: Option<String>,
    },
    /// Tell a weir that runs to leave a cloud alone
    Pause(Named),
    /// Tell a weir that runs to use it again
    Resume(Named),
}

#[derive(Debug, clap::Args)]
pub(super) struct Named {
    name: String,
    #[command(flatten)]
    place: Where,
}

pub(super) fn run(command: &Command, config: &Config) -> Result<(), Failure> {
    match command {
        Command::List(place) => list::run(place, config),
        Command::Test { name } => test::run(&wanted(config, name.as_deref())?),
        Command::Pause(named) => hold(named, "pause", config),
        Command::Resume(named) => hold(named, "resume", config),
    }
}

/// The row of that name, or all.
fn wanted(config: &Config, name: Option<&str>) -> Result<Vec<CloudConfig>, Failure> {
    let is_wanted = |row: &&CloudConfig| name.is_none_or(|name| *row.name == *name);
    let rows: Vec<_> = config.clouds.iter().filter(is_wanted).cloned().collect();
    match (name, rows.is_empty()) {
        (Some(name), true) => Err(Failure::Other(format!("there is no [[cloud]] {name}"))),
        _ => Ok(rows),
    }
}

fn hold(named: &Named, word: &str, config: &Config) -> Result<(), Failure> {
    let name = &named.name;
    // What no row may be named has no place in a path either.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(Failure::Other(format!("there is no [[cloud]] {name}")));
    }
    let remote = named.place.remote(&config.serve)?;
    let path = format!("/clouds/{name}/{word}");
    let question =
        Question { method: Method::POST, path: &path, headers: Vec::new(), body: Vec::new() };
    let said = block_on(ask(&remote, question))??;
    let standing: Standing = read(&said)?;
    say(&format!("{} {}\n", standing.cloud, standing.state)).map_err(Into::into)
}
