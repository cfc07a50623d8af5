//! The commands. Each returns what to tell the user; only `main` ends the process.

mod bench;
mod cache;
mod cloud;
mod complete;
mod cursor;
mod ledger;
#[cfg(feature = "lsp")]
mod lsp;
mod plan;
mod remote;
mod route;
mod serve;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::app::Loaded;
use crate::config::{self, Config, Overrides};

/// A gateway for code completion with its own inference engine.
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load the model and serve completions over HTTP
    Serve(serve::ServeArgs),
    /// Print the completion at a cursor of a file
    Complete(complete::CompleteArgs),
    /// Suggest what comes next in an editor, which starts this as a language server
    #[cfg(feature = "lsp")]
    Lsp(lsp::LspArgs),
    /// Say everything that is wrong with the configuration
    Check,
    /// Measure
    #[command(subcommand)]
    Bench(bench::Bench),
    /// The packed weights on disk
    #[command(subcommand)]
    Cache(cache::Command),
    /// What was sent to clouds and what it cost: a summary, all of it, or whether it is untouched
    Ledger(ledger::LedgerArgs),
    /// Where a weir that runs would place a completion, and why; nothing is sent
    Route(route::RouteArgs),
    /// The clouds: what they are, whether they answer, leave one alone
    #[command(subcommand)]
    Cloud(cloud::Command),
    /// What thresholds, clouds and growth would come to, by a trace of requests
    Plan(plan::PlanArgs),
}

/// Flags of every command; they win over the file.
#[derive(Debug, clap::Args)]
struct Options {
    /// The configuration file (docs/configuration.md)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// `builtin`, or a folder with config.json, safetensors and tokenizer.json
    #[arg(long, global = true, value_name = "DIR")]
    model: Option<String>,
    /// Weight format: auto, f32, bf16, q8, q4
    #[arg(long, global = true, value_name = "FORMAT")]
    quant: Option<String>,
    /// KV cache format: auto, f32, bf16, q8
    #[arg(long, global = true, value_name = "FORMAT")]
    kv: Option<String>,
    /// Instruction set: auto, amx, avx512, avx2, neon, scalar
    #[arg(long, global = true, value_name = "ISA")]
    isa: Option<String>,
    #[arg(long, global = true, value_name = "N")]
    threads: Option<i64>,
    /// Longest sequence, in tokens; for `bench`: tokens before what is measured, 512 unless given
    #[arg(long, global = true, value_name = "TOKENS")]
    context: Option<i64>,
    /// Sequences that run at once
    #[arg(long, global = true, value_name = "N")]
    slots: Option<i64>,
    /// Draft and verify several tokens in a step where that pays: auto, off, always
    #[arg(long, global = true, value_name = "WHEN")]
    speculate: Option<String>,
    /// Address to listen on, as in 127.0.0.1:8012; may be repeated
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<Vec<String>>,
}

/// Where a configuration comes from.
#[derive(Clone, Debug)]
struct Source {
    file: Option<PathBuf>,
    flags: Overrides,
}

impl Source {
    fn load(&self) -> Loaded {
        Config::load(self.file.as_deref(), self.flags.clone())
    }

    /// The configuration, its warnings printed; None: the complaints were.
    fn load_aloud(&self) -> Option<Config> {
        match self.load() {
            Ok((config, warnings)) => {
                for warning in warnings {
                    complain(&format!("warning: {warning}"));
                }
                Some(config)
            }
            Err(complaints) => {
                for complaint in &complaints {
                    complain(&complaint.to_string());
                }
                None
            }
        }
    }
}

impl Options {
    fn source(self, offline: bool) -> Source {
        let flags = Overrides {
            listen: self.listen,
            model: self.model,
            quant: self.quant,
            kv: self.kv,
            isa: self.isa,
            threads: self.threads,
            context: self.context,
            slots: self.slots,
            speculate: self.speculate,
            offline,
        };
        Source { file: self.config, flags }
    }
}

/// Runs the command that was asked for.
pub fn run(args: Args) -> ExitCode {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .parse_lossy(config::log_filter().unwrap_or_default());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let offline = matches!(&args.command, Command::Serve(serve) if serve.offline);
    let source = args.options.source(offline);
    let Some(config) = source.load_aloud() else { return ExitCode::from(2) };
    let done = match args.command {
        Command::Serve(serve) => serve::run(config, source, &serve),
        Command::Complete(complete) => complete::run(complete, &config),
        #[cfg(feature = "lsp")]
        Command::Lsp(lsp) => lsp::run(lsp, &source),
        Command::Check => say("the configuration is valid\n").map_err(Into::into),
        Command::Bench(bench) => bench::run(&bench, &config),
        Command::Cache(cache) => cache::run(cache, config.model.cache.as_ref()),
        Command::Ledger(ledger) => ledger::run(ledger, config.ledger.as_ref()),
        Command::Route(route) => route::run(&route, &config),
        Command::Cloud(cloud) => cloud::run(&cloud, &config),
        Command::Plan(plan) => plan::run(plan, &config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            complain(&chain(&failure));
            ExitCode::FAILURE
        }
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error("cannot start the async runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Start(#[from] crate::app::StartError),
    #[error(transparent)]
    Local(#[from] crate::app::LocalError),
    #[error(transparent)]
    Remote(#[from] crate::cloud::RemoteError),
    #[error(transparent)]
    Share(#[from] crate::share::ShareError),
    #[cfg(feature = "lsp")]
    #[error(transparent)]
    Lsp(#[from] crate::lsp::LspError),
    #[error("{0}")]
    Refused(#[from] crate::completion::Refusal),
    #[error("{0}")]
    Other(String),
}

/// An error and what it came from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        source = error.source();
    }
    line
}

/// Writes to standard output at once, so that a stream is seen as it comes.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line to standard error; there is nobody to tell when that fails.
fn complain(line: &str) {
    let _written = writeln!(io::stderr().lock(), "weir: {line}");
}

/// The async half of a command.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The engine has its own threads; what is left is parsing and copying.
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let done = runtime.block_on(future);
    // Dropping the runtime would wait for its blocking tasks, a model that is read or an engine
    // that ends among them, and so hold up whoever asked for the end. The process takes them.
    runtime.shutdown_background();
    Ok(done)
}
