//! `weir serve`

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, Source, block_on, say};
use crate::app::{self, App, Facts, ReloadError};
use crate::config::{CloudConfig, Complaint, Config};
use crate::share::{Claim, Folder, Unused};

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Use no cloud, whatever the file says: weir opens no socket but the listener
    #[arg(long)]
    pub(super) offline: bool,
    /// Be the engine of this user's editors: `weir lsp` finds it, and starts no other
    #[arg(long)]
    share: bool,
    /// Like --share, and end when no editor has been there for so long
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    while_used: Option<u64>,
}

impl ServeArgs {
    /// Before a model is read: there is one such engine at most.
    async fn claim(&self) -> Result<Option<Claim>, Failure> {
        if !self.share && self.while_used.is_none() {
            return Ok(None);
        }
        Ok(Some(Claim::take(Folder::of_user()?).await?))
    }
}

/// `source`: where `config` came from, and its successors will.
pub(super) fn run(config: Config, source: Source, args: &ServeArgs) -> Result<(), Failure> {
    block_on(serve(config, source, args))?
}

async fn serve(config: Config, source: Source, args: &ServeArgs) -> Result<(), Failure> {
    let claim = args.claim().await?;
    let mut signals = Signals::new().map_err(Failure::Signals)?;
    let clouds = config.clouds_in_use().to_vec();
    let mut app = tokio::select! {
        started = start(config) => started?,
        // Nobody was served yet, so there is nothing to wait for.
        () = signals.end() => return Ok(()),
    };
    if let Err(error) = say(&banner(app.facts(), app.addresses(), &clouds)) {
        // Whoever started it may have closed its output; the server is there for others.
        tracing::warn!(%error, "the banner cannot be written");
    }
    if let (Some(claim), Some(address)) = (&claim, app.addresses().first()) {
        claim.announce(reachable(address))?;
    }
    let left = tokio::select! {
        left = unused(claim.as_ref(), args.while_used) => Some(left),
        () = asked_to_end(&mut signals, &mut app, &source) => None,
    };
    if let Some(claim) = claim {
        claim.withdraw()?;
    }
    // Whoever waited to look for an engine finds none, and starts one.
    drop(left);
    tracing::info!("going down; a second signal ends it at once");
    tokio::select! {
        () = app.shutdown() => Ok(()),
        () = signals.end() => {
            Err(Failure::Other("ended by a second signal; running streams were cut".into()))
        }
    }
}

/// Reads the configuration again as often as it is asked to.
async fn asked_to_end(signals: &mut Signals, app: &mut App, source: &Source) {
    while signals.next().await == Asked::Reload {
        tokio::select! {
            biased;
            () = signals.end() => return,
            () = reload(app, source) => {}
        }
    }
}

/// Returns when nobody needs this weir any more; without a limit, never.
async fn unused(claim: Option<&Claim>, limit: Option<u64>) -> Unused {
    let (Some(claim), Some(seconds)) = (claim, limit) else { return std::future::pending().await };
    match claim.unused(Duration::from_secs(seconds)).await {
        Ok(unused) => {
            tracing::info!("no editor is left");
            unused
        }
        Err(error) => {
            tracing::warn!(%error, "it cannot be seen whether an editor is left; weir stays");
            std::future::pending().await
        }
    }
}

/// Returns once the first token was generated.
async fn start(config: Config) -> Result<App, Failure> {
    let app = app::start(config).await?;
    app.engine().started().await?;
    Ok(app)
}

/// Reads the configuration again; the log says what came of it.
async fn reload(app: &mut App, source: &Source) {
    let source = source.clone();
    match app.reload(move || source.load()).await {
        Ok(reloaded) => {
            for warning in reloaded.warnings {
                tracing::warn!("{warning}");
            }
            for key in reloaded.kept {
                tracing::warn!("{key}: has changed and stays until weir is started anew");
            }
            tracing::info!("the configuration was read again and holds");
        }
        Err(ReloadError::Invalid(complaints)) => refused(&complaints),
        Err(ReloadError::Unusable(error)) => {
            tracing::error!("the configuration cannot be used, and nothing changed: {error}");
        }
    }
}

fn refused(complaints: &[Complaint]) {
    for complaint in complaints {
        tracing::error!("{complaint}");
    }
    tracing::error!("the configuration is not valid, and nothing changed");
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    End,
    Reload,
}

/// SIGTERM and Ctrl-C, which ask for the same, and SIGHUP.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Several that ask for a reload before it begins are one.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// One that asks for the end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What was loaded, where it listens, where requests may go, and how to try it.
fn banner(facts: &Facts, addresses: &[SocketAddr], clouds: &[CloudConfig]) -> String {
    let mut text = format!("weir {}\n{facts}", env!("CARGO_PKG_VERSION"));
    for address in addresses {
        let _infallible = writeln!(text, "listens  http://{address}");
    }
    if clouds.is_empty() {
        text.push_str("cloud    none: weir opens no outgoing connection\n");
    }
    for cloud in clouds {
        let _infallible =
            writeln!(text, "cloud    {}: {} at {}", cloud.name, cloud.model, cloud.base_url);
    }
    let Some(address) = addresses.first().map(reachable) else { return text };
    let suffix = if facts.fim.is_some() { r#","suffix":"\n""# } else { "" };
    let _infallible = writeln!(
        text,
        "\ntry it:\n  curl -N http://{address}/v1/completions -H 'content-type: application/json' \
         -d '{{\"prompt\":\"def add(a, b):\\n    return \"{suffix},\"max_tokens\":32,\
         \"temperature\":0,\"stream\":true}}'"
    );
    text
}

/// An address that a client on this machine can use.
pub(super) fn reachable(address: &SocketAddr) -> SocketAddr {
    let mut address = *address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use kernels::Packing;
    use models::weights::WeightFormat;

    use super::*;
    use crate::config::{Config, Overrides};

    fn facts(fim: Option<&str>) -> Facts {
        Facts {
            model: "tiny".into(),
            parameters: 6_500_000,
            weight_format: WeightFormat { body: Packing::Q4, head: Packing::Q8 },
            weight_bytes: 13 << 20,
            kv_format: kernels::KvFormat::Bf16,
            isa: kernels::Isa::Scalar,
            threads: 2,
            context: 1024,
            slots: 8,
            kv_bytes: 24 << 20,
            fim: fim.map(str::to_owned),
            chat: false,
            vocabulary: 8192,
            notes: vec!["slots lowered from 9 to 8".into()],
        }
    }

    #[test]
    fn the_banner_says_what_runs_where() {
        let address: SocketAddr = "0.0.0.0:8012".parse().unwrap();
        let text = banner(&facts(Some("qwen SPM")), &[address], &[]);
        let expected = [
            "model    tiny, 6.5 million parameters, weights q4, head q8 (13 MiB)",
            "device   cpu scalar, 2 threads",
            "room     context 1024 tokens, 8 slots, KV bf16 (24 MiB)",
            "can      fill in the middle: qwen SPM; chat: no template",
            "note     slots lowered from 9 to 8",
            "listens  http://0.0.0.0:8012",
            "cloud    none: weir opens no outgoing connection",
        ];
        for line in expected {
            assert!(text.lines().any(|is| is == line), "{line:?} is not in\n{text}");
        }
        let curl = text.lines().last().unwrap();
        assert!(curl.contains("curl -N http://127.0.0.1:8012/v1/completions"), "{curl}");
        assert!(curl.contains(r#""suffix":"\n""#), "{curl}");
    }

    #[test]
    fn the_banner_names_clouds_and_offers_no_fim_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weir.toml");
        let row = "name = \"burst\"\nbase_url = \"http://127.0.0.1:9000/v1\"\nmodel = \"big\"";
        std::fs::write(&file, format!("[[cloud]]\n{row}\n")).unwrap();
        let (config, _) = Config::load(Some(&file), Overrides::default()).unwrap();
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let text = banner(&facts(None), &[address], &config.clouds);
        assert!(text.contains("cloud    burst: big at http://127.0.0.1:9000/v1"), "{text}");
        assert!(!text.contains("suffix"), "{text}");
    }
}
