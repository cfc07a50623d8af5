//! `weir cache`

use std::io;

use super::{Failure, say};
use crate::config::Cache;

#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say where it is and what it holds
    Show,
    /// Delete what it holds
    Clear,
}

pub(super) fn run(command: Command, cache: Option<&Cache>) -> Result<(), Failure> {
    let Some(cache) = cache else {
        say("no cache: cache_max_mb is 0, or there is neither a cache_dir nor a home\n")?;
        return Ok(());
    };
    let folder = cache.folder.display();
    let failed = |error: io::Error| Failure::Other(format!("{folder}: {error}"));
    let (verb, contents) = match command {
        Command::Show => ("holds", cache.contents().map_err(failed)?),
        Command::Clear => ("held", cache.clear().map_err(failed)?),
    };
    let (files, max) = (contents.files, cache.bytes_max >> 20);
    let mib = contents.bytes as f64 / f64::from(1 << 20);
    say(&format!("{folder} {verb} {files} files, {mib:.1} MiB of at most {max}\n"))?;
    Ok(())
}
