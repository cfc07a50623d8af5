//! `weir cloud test`

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::time::sleep;

use super::super::ledger::table;
use super::super::{Failure, block_on, chain, complain, say};
use crate::app::StartError;
use crate::cloud::{self, Provider};
use crate::completion::{
    Backend, CompletionRequest, Event, Fault, FimInput, Input, Reason, Refusal, Usage,
};
use crate::config::{CloudConfig, CloudFim};

/// What is asked: the smallest cursor there is, of nobody's text.
const PREFIX: &str = "def add(a, b):\n    return ";
const SUFFIX: &str = "\n";

/// How long credentials may take to be fetched, or another weir to say what it holds to,
const READY_MAX: Duration = Duration::from_secs(20);
/// and how often they are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a cloud gave.
struct Answered {
    /// From asking to the first event with something in it.
    ttft: Duration,
    usage: Usage,
}

pub(super) fn run(rows: &[CloudConfig]) -> Result<(), Failure> {
    block_on(test(rows))?
}

async fn test(rows: &[CloudConfig]) -> Result<(), Failure> {
    let providers = cloud::providers(rows).map_err(StartError::from)?;
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    let mut failed = 0;
    for provider in &providers {
        let asked = ask(provider).await;
        if let Err(refusal) = &asked {
            failed += 1;
            complain(&format!("{}: {}", provider.row().name, chain(refusal)));
        }
        lines.push(shown(provider, &asked));
    }
    say(&table(&lines, LEFT))?;
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Other(format!("{failed} of {} clouds failed", providers.len()))),
    }
}

/// One token of one cursor. Nothing is retried: what it says first is what is to be known.
async fn ask(provider: &Provider) -> Result<Answered, Refusal> {
    let fim = FimInput { prefix: PREFIX.into(), suffix: SUFFIX.into(), ..FimInput::default() };
    let request = CompletionRequest::greedy("cloud-test", Input::Fim(fim), 1);
    ready(provider).await?;
    let began = Instant::now();
    let mut stream = provider.complete(Arc::new(request)).await?;
    let mut ttft = None;
    while let Some(event) = stream.events.next().await {
        match event {
            Event::Failed(refusal) => return Err(refusal),
            Event::Usage(usage) => {
                let ttft = ttft.unwrap_or_else(|| began.elapsed());
                return Ok(Answered { ttft, usage });
            }
            _ => ttft = ttft.or_else(|| Some(began.elapsed())),
        }
    }
    Err(Refusal::new(Reason::CloudGarbage, "the answer ended without an end"))
}

/// Waits until it could be asked; else why it cannot.
async fn ready(provider: &Provider) -> Result<(), Refusal> {
    let began = Instant::now();
    loop {
        match provider.is_ready() {
            Err(_) if began.elapsed() < READY_MAX => sleep(LOOK_EVERY).await,
            ready => return ready,
        }
    }
}

const HEAD: [&str; 9] =
    ["cloud", "verdict", "auth", "model", "fim", "region", "ttft ms", "tokens in, out", "usd"];
/// Columns of names.
const LEFT: usize = 6;

fn shown(provider: &Provider, asked: &Result<Answered, Refusal>) -> Vec<String> {
    let row = provider.row();
    let dash = || "-".to_owned();
    let verdict = asked.as_ref().err().map_or_else(|| "ok".into(), |no| no.reason.code());
    let answered = asked.as_ref().ok();
    let tokens = |usage: &Usage| format!("{}, {}", usage.prompt_tokens, usage.completion_tokens);
    let cost = |usage: &Usage| Some(row.price.as_ref()?.actual(usage).to_string());
    vec![
        row.name.to_string(),
        verdict,
        auth(asked).into(),
        row.model.to_string(),
        fim(&row.fim),
        provider.region().map_or_else(dash, |region| region.replace(' ', "-")),
        answered.map_or_else(dash, |got| format!("{:.0}", got.ttft.as_secs_f64() * 1e3)),
        answered.map_or_else(dash, |got| tokens(&got.usage)),
        answered.and_then(|got| cost(&got.usage)).unwrap_or_else(dash),
    ]
}

/// Whether the key was taken, as far as the cloud has said.
fn auth(asked: &Result<Answered, Refusal>) -> &'static str {
    match asked {
        Ok(_) => "ok",
        Err(refusal) if refusal.reason == Reason::Cloud(Fault::Credentials) => "refused",
        Err(_) => "-",
    }
}

fn fim(fim: &CloudFim) -> String {
    match fim {
        CloudFim::Suffix => "suffix".into(),
        CloudFim::Peer => "weir".into(),
        CloudFim::Template(family) => format!("template {}", family.name),
        CloudFim::Chat => "chat".into(),
    }
}
