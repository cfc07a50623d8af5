//! The command: flags to a config, a config to a command's run, its result to an exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    weir::cli::run(weir::cli::Args::parse())
}
