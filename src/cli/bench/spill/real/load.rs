//! Requests at their times, whether or not those before them have been answered.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::scene;
use super::ways::{Asking, Place};
use crate::completion::{Backend, CompletionRequest, Event, Input, Usage};
use crate::engine::EngineHandle;

/// A line of code.
pub(super) const MAX_TOKENS: u32 = 16;
/// Words of a prompt on average, two tokens each or so; nothing of one is cached for another.
const WORDS: f64 = 120.0;
/// How long an answer may take before it counts as none.
const ANSWER_MAX: Duration = Duration::from_secs(30);

const VOCABULARY: [&str; 16] = [
    "fn", "let", "return", "match", "count", "index", "value", "buffer", "state", "= 1;", "{", "}",
    "->", "if", "else", "for",
];

/// One request.
pub(super) struct Asked {
    /// After the beginning.
    pub(super) at: Duration,
    pub(super) text: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) place: Place,
    /// None: it was shed, or broke.
    pub(super) ttft: Option<Duration>,
    pub(super) usage: Option<Usage>,
}

pub(super) struct Load {
    pub(super) asked: Vec<Asked>,
    pub(super) ends: Duration,
}

impl Load {
    pub(super) fn steady(rate: f64, seconds: f64, seed: u64) -> Self {
        Self::peak(rate, 1.0, seconds, seed)
    }

    /// At the times of the benchmark in virtual time.
    pub(super) fn peak(rate: f64, factor: f64, seconds: f64, seed: u64) -> Self {
        let trace = scene::trace(rate, factor, seconds, seed);
        let mut luck = fastrand::Rng::with_seed(seed);
        let size = |prompt: u32| (f64::from(prompt) / scene::PROMPT_TOKENS * WORDS) as usize;
        let asked = trace.arrivals.iter().map(|arrival| Asked {
            at: Duration::from_nanos(arrival.at_ns),
            text: text(size(arrival.prompt_tokens).max(1), &mut luck),
        });
        Self { asked: asked.collect(), ends: Duration::from_secs_f64(seconds) }
    }
}

/// Begins with a number of its own, so that nothing is shared with another.
fn text(words: usize, luck: &mut fastrand::Rng) -> String {
    let mut text = format!("{:016x} ", luck.u64(..));
    for _ in 0..words {
        text += VOCABULARY[luck.usize(..VOCABULARY.len())];
        text.push(' ');
    }
    text
}

pub(super) fn request(text: &str) -> Arc<CompletionRequest> {
    let input = Input::Text(text.to_owned());
    Arc::new(CompletionRequest::greedy("bench", input, MAX_TOKENS))
}

/// Asks everything at its time; answers in the order of the load.
pub(super) async fn open(load: &Load, asking: Arc<Asking>) -> Vec<Answered> {
    let zero = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, asked) in load.asked.iter().enumerate() {
        let (due, request) = (zero + asked.at, request(&asked.text));
        sleep_until(due).await;
        let asking = asking.clone();
        tasks.spawn(async move {
            let answered = timeout(ANSWER_MAX, asking.ask(request, due)).await;
            (index, answered.unwrap_or(Answered { place: Place::Shed, ttft: None, usage: None }))
        });
    }
    let mut answers = tasks.join_all().await;
    answers.sort_unstable_by_key(|(index, _)| *index);
    asking.engine.drained().await;
    answers.into_iter().map(|(_, answered)| answered).collect()
}

/// Keeps so many requests in the engine for a time; what they used, and how long it took.
pub(super) async fn closed(
    engine: &EngineHandle,
    asked: &[Asked],
    at_once: usize,
    time: Duration,
) -> (Vec<Usage>, Duration) {
    let started = Instant::now();
    let mut answers = Vec::new();
    let mut next = asked.iter();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < at_once
            && started.elapsed() < time
            && let Some(asked) = next.next()
        {
            let (engine, request) = (engine.clone(), request(&asked.text));
            tasks.spawn(async move { usage(&engine, request).await });
        }
        match tasks.join_next().await {
            Some(done) => answers.extend(done.ok().flatten()),
            None => return (answers, started.elapsed()),
        }
    }
}

async fn usage(engine: &EngineHandle, request: Arc<CompletionRequest>) -> Option<Usage> {
    let mut events = engine.complete(request).await.ok()?.events;
    let mut usage = None;
    while let Some(event) = events.next().await {
        if let Event::Usage(said) = event {
            usage = Some(said);
        }
    }
    usage
}
