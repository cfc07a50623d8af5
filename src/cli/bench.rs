//! `weir bench decode`: the hot path, measured from outside the engine.

use std::io;

use super::Failure;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct DecodeArgs {}

pub(super) fn run(_args: &DecodeArgs, _config: &Config) -> Result<(), Failure> {
    Err(io::Error::other("in progress").into())
}
