//! What came of an exchange, held against the table.

use std::time::Duration;

use weir::completion::Refusal;

use super::table::{Ask, Outcome, Text};
use super::{PROMPT_TOKENS, Scene, TEXTS};

/// How long errors are read, and the rest of an answer behind its end.
const MORE: Duration = Duration::from_millis(500);

/// What came of one exchange.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) texts: Vec<String>,
    /// Choices that ended, and whether a filter ended them.
    pub(crate) finished: Vec<(u32, bool)>,
    pub(crate) usage: Option<(u64, u64)>,
    /// Of every refusal and failure.
    pub(crate) codes: Vec<String>,
    pub(crate) retry_after: Option<Duration>,
    /// Of the stream; 0: refused before there was one.
    pub(crate) events: usize,
    /// Something followed the last event.
    pub(crate) goes_on: bool,
    pub(crate) took: Duration,
}

impl Said {
    fn is_over(&self) -> bool {
        self.usage.is_some() || !self.codes.is_empty()
    }

    /// Nothing yet, of so many choices.
    pub(crate) fn of(n: u32) -> Self {
        Self { texts: vec![String::new(); n as usize], ..Self::default() }
    }

    /// No stream at all.
    pub(crate) fn refused(n: u32, refusal: &Refusal) -> Self {
        let codes = vec![refusal.reason.code()];
        Self { codes, retry_after: refusal.retry_after, ..Self::of(n) }
    }

    pub(crate) fn text(&mut self, choice: u32, text: &str) {
        self.goes_on |= self.is_over() || self.finished.iter().any(|(ended, _)| *ended == choice);
        self.texts[choice as usize] += text;
    }

    pub(crate) fn finished(&mut self, choice: u32, filtered: bool) {
        self.goes_on |= self.is_over();
        self.finished.push((choice, filtered));
    }

    pub(crate) fn used(&mut self, prompt: u64, completion: u64) {
        self.goes_on |= self.is_over();
        self.usage = Some((prompt, completion));
    }

    pub(crate) fn failed(&mut self, code: String) {
        self.goes_on |= self.is_over();
        self.codes.push(code);
    }

    fn text_of_all(&self) -> String {
        self.texts.concat()
    }
}

/// The longest that the cell may take.
pub(crate) fn limit(scene: &Scene<'_>) -> Duration {
    let pace = scene.pace;
    match scene.outcome() {
        _ if scene.row.ask == Ask::Deadline => pace.first / 2,
        Outcome::Refused(_) | Outcome::Paused(..) => pace.first + MORE,
        Outcome::Broken(_) => pace.first + pace.idle,
        Outcome::Finished | Outcome::Filtered => pace.first + pace.idle + MORE,
    }
}

/// What is wrong with it.
pub(crate) fn check(scene: &Scene<'_>, said: &Said) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {said:?}"));
    if said.goes_on || said.codes.len() > 1 || said.codes.is_empty() == said.usage.is_none() {
        return wrong("not one end");
    }
    let code = said.codes.first().map(String::as_str);
    let is_good = match scene.outcome() {
        Outcome::Refused(reason) => code == Some(reason) && said.events <= 1,
        Outcome::Paused(reason, after) => code == Some(reason) && is_pause(said, after),
        Outcome::Broken(reason) => code == Some(reason) && said.events > 1,
        Outcome::Finished => ended(said, false),
        Outcome::Filtered => ended(said, true),
    };
    if !is_good {
        return wrong("another outcome");
    }
    if !is_text(scene, said) {
        return wrong("another text");
    }
    match said.usage {
        Some((prompt, completion)) if prompt > PROMPT_TOKENS || completion > 8 => {
            wrong("a count that nobody can believe")
        }
        _ => Ok(()),
    }
}

/// Seconds of a date begin anywhere within one.
fn is_pause(said: &Said, after: Option<u64>) -> bool {
    let told = said.retry_after.map(|after| after.as_millis());
    match (told, after.map(u128::from)) {
        (Some(told), Some(after)) => told <= after && after - told <= 1500.min(after / 2),
        (told, after) => told == after,
    }
}

/// Every choice ended, once.
fn ended(said: &Said, filtered: bool) -> bool {
    let mut ended = said.finished.clone();
    ended.sort_unstable();
    let all = (0..said.texts.len()).map(|choice| (choice as u32, filtered));
    said.codes.is_empty() && ended == all.collect::<Vec<_>>()
}

/// What was given out is all that came before the fault, and nothing else.
fn is_text(scene: &Scene<'_>, said: &Said) -> bool {
    let is_over = said.codes.is_empty();
    match scene.row.text {
        Text::Again(text) => said.text_of_all().replace(text, "").is_empty(),
        Text::This(text) => said.texts[0] == text,
        Text::Honest if is_over => said.texts.iter().all(|text| *text == TEXTS.concat()),
        Text::Honest if matches!(scene.outcome(), Outcome::Broken(_)) => {
            said.texts.iter().all(|text| *text == scene.said_before())
        }
        Text::Honest => said.text_of_all().is_empty(),
    }
}
