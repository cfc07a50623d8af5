//! The processes between which requests travel: the upstream, and a weir in front of it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{self, ChildStdout, Command, Stdio};

use aws_lc_rs::digest::{SHA256, digest};

use super::super::folder::Folder;
use super::upstream::Pace;
use crate::cli::Failure;

/// A process of ours that listens, killed when dropped.
pub(super) struct Child {
    process: process::Child,
    /// Kept, so that it may go on writing.
    _output: BufReader<ChildStdout>,
    pub(super) address: SocketAddr,
}

impl Child {
    /// A cloud in a process of its own.
    pub(super) fn upstream(at: SocketAddr, pace: &Pace) -> Result<Self, Failure> {
        let mut command = weir()?;
        command.args(["bench", "upstream", "--at", &at.to_string()]);
        command.args(["--ttft-ms", &pace.ttft_ms.to_string()]);
        command.args(["--gap-ms", &pace.gap_ms.to_string()]);
        command.args(["--deltas", &pace.deltas.to_string()]);
        Self::start(command, |line| line.trim().parse().ok())
    }

    /// What only copies bytes to `cloud` and back.
    pub(super) fn relay(cloud: SocketAddr) -> Result<Self, Failure> {
        let mut command = weir()?;
        command.args(["bench", "relay", "--to", &cloud.to_string()]);
        Self::start(command, |line| line.trim().parse().ok())
    }

    /// A weir that sends everything to `cloud`: keys, rules, prices, budgets and the record are
    /// on, as in service.
    pub(super) fn weir(cloud: SocketAddr, key: &str, folder: &Folder) -> Result<Self, Failure> {
        let sha256 = digest(&SHA256, key.as_bytes());
        let mut hex = String::new();
        for byte in sha256.as_ref() {
            let _infallible = write!(hex, "{byte:02x}");
        }
        let config = folder.0.join("weir.toml");
        let ledger = folder.0.join("ledger.db");
        std::fs::write(
            &config,
            format!(
                "[serve]\nlisten = [\"127.0.0.1:0\"]\n[ledger]\npath = {ledger:?}\n\
                 [[path]]\npattern = \"**\"\npolicy = \"cloud-only\"\n\
                 [[tenant]]\nname = \"bench\"\nkey_sha256 = \"{hex}\"\nbudget_usd_day = 100000\n\
                 require = {{ regions = [\"here\"], retention_days = 30 }}\n\
                 [[cloud]]\nname = \"upstream\"\nbase_url = \"http://{cloud}/v1\"\n\
                 model = \"upstream\"\nfim = \"suffix\"\nmax_in_flight = 1024\n\
                 regions = [\"here\"]\nretention_days = 0\nbudget_usd_day = 100000\n\
                 price = {{ input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.6 }}\n"
            ),
        )?;
        let mut command = weir()?;
        command.arg("serve").arg("--config").arg(config);
        Self::start(command, |line| line.strip_prefix("listens  http://")?.trim().parse().ok())
    }

    /// `address`: finds it in a line of the output.
    fn start(
        mut command: Command,
        address: impl Fn(&str) -> Option<SocketAddr>,
    ) -> Result<Self, Failure> {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().expect("piped");
        let mut output = BufReader::new(output);
        let found = output.by_ref().lines().map_while(Result::ok).find_map(|line| address(&line));
        // Killed by the drop, if it says nothing of where it listens.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let child = Self { process, _output: output, address: found.unwrap_or(nowhere) };
        match found {
            Some(_) => Ok(child),
            None => Err(Failure::Other("a process of the benchmark did not start".into())),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may be gone already, which is all that is wanted.
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// This program once more.
fn weir() -> Result<Command, Failure> {
    Ok(Command::new(std::env::current_exe()?))
}
