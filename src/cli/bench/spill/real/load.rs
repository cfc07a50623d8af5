//! Requests at their times, whether or not those before them have been answered.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::ways::{Asking, Place};
use crate::completion::{Backend, CompletionRequest, Event, Input, Usage};
use crate::engine::EngineHandle;
use crate::plan::Trace;
use crate::plan::generate::{Recipe, Shape, Sizes, generate};

/// A line of code.
pub(super) const MAX_TOKENS: u32 = 16;
/// Requests that are nearly alike, nothing of which is cached for another.
pub(super) const SIZES: Sizes = Sizes {
    prompt: (240.0, 0.2),
    cached: 0.0,
    output: (16.0, 0.0),
    max_tokens: MAX_TOKENS,
    prompt_max: 480,
};
/// Of the words below, with the embedded model's tokenizer, about.
const TOKENS_PER_WORD: u32 = 2;
/// How long an answer may take before it counts as none.
const ANSWER_MAX: Duration = Duration::from_secs(30);

const VOCABULARY: [&str; 16] = [
    "fn", "let", "return", "match", "count", "index", "value", "buffer", "state", "=1;", "{", "}",
    "->", "if", "else", "for",
];

/// One request.
pub(super) struct Asked {
    /// After the beginning.
    pub(super) at: Duration,
    pub(super) text: String,
    /// Whose text it goes on with.
    pub(super) session: Option<u32>,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) place: Place,
    /// None: it was shed, or broke.
    pub(super) ttft: Option<Duration>,
    pub(super) usage: Option<Usage>,
    /// What the time to first token was thought to be.
    pub(super) predicted: Option<Duration>,
}

impl Answered {
    /// Nobody has, yet.
    pub(super) const fn nothing(place: Place) -> Self {
        Self { place, ttft: None, usage: None, predicted: None }
    }
}

pub(super) struct Load {
    pub(super) asked: Vec<Asked>,
    pub(super) ends: Duration,
}

impl Load {
    pub(super) fn steady(rate: f64, seconds: f64, seed: u64) -> Self {
        Self::peak(rate, 1.0, seconds, seed)
    }

    /// Arrivals at `rate` a second, `factor` times that in the middle third.
    pub(super) fn peak(rate: f64, factor: f64, seconds: f64, seed: u64) -> Self {
        let shape = Shape::Burst { factor };
        Self::of(&Recipe { shape, seconds, rate, sizes: SIZES, seed })
    }

    pub(super) fn of(recipe: &Recipe) -> Self {
        let trace = generate(recipe).expect("a sound recipe");
        let asked = texts(&trace, recipe.seed);
        Self { asked, ends: Duration::from_secs_f64(recipe.seconds) }
    }
}

/// Gives each arrival a text of its size, which begins as its session's last one did as far as
/// the trace says that it does.
fn texts(trace: &Trace, seed: u64) -> Vec<Asked> {
    let mut luck = fastrand::Rng::with_seed(seed);
    let mut last: Vec<Vec<String>> = vec![Vec::new(); trace.sessions as usize];
    let arrivals = trace.arrivals.iter().map(|arrival| {
        let words = (arrival.prompt_tokens / TOKENS_PER_WORD).max(1) as usize;
        let shared = (arrival.cached_tokens / TOKENS_PER_WORD) as usize;
        let before = arrival.session.map(|session| &last[session as usize][..]);
        let before = before.unwrap_or_default();
        let mut text: Vec<String> = before[..shared.min(before.len())].to_vec();
        while text.len() < words {
            // A text begins with a number of its own, so that nothing else is shared.
            text.push(match text.len() {
                0 => format!("{:016x}", luck.u64(..)),
                _ => VOCABULARY[luck.usize(..VOCABULARY.len())].to_owned(),
            });
        }
        let asked = Asked {
            at: Duration::from_nanos(arrival.at_ns),
            text: text.join(" "),
            session: arrival.session,
        };
        if let Some(session) = arrival.session {
            last[session as usize] = text;
        }
        asked
    });
    arrivals.collect()
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
            (index, answered.unwrap_or(Answered::nothing(Place::Shed)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_s_texts_go_on_and_others_share_nothing() {
        let sizes = Sizes { prompt: (300.0, 0.2), cached: 0.8, ..SIZES };
        let shape = Shape::Team { people: 3 };
        let load = Load::of(&Recipe { shape, seconds: 120.0, rate: 1.0, sizes, seed: 5 });
        assert!(load.asked.len() > 20 && load.asked.is_sorted_by_key(|asked| asked.at));
        let of = |session| load.asked.iter().filter(move |asked| asked.session == Some(session));
        let texts: Vec<&str> = of(0).map(|asked| &*asked.text).collect();
        let words = |text: &str| text.split(' ').count();
        for pair in texts.windows(2) {
            let (before, after) = (pair[0].split(' '), pair[1].split(' '));
            let shared = before.zip(after).take_while(|(a, b)| a == b).count();
            assert!(shared == 0 || shared * 2 > words(pair[1]), "{shared} words of {}", pair[1]);
        }
        let first = |session| of(session).next().expect("everybody types").text.split(' ').next();
        assert_ne!(first(0), first(1));
        let peak = Load::peak(5.0, 3.0, 30.0, 1);
        assert!(peak.asked.iter().all(|asked| (50..=240).contains(&words(&asked.text))));
    }
}
