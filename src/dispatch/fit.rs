//! A cloud's answer, ended where the code around the cursor ends it: a cloud knows nothing of that.
//!
//! When the last choice has ended so, the cloud is let go. What it would have asked for it does not
//! say then: the tokens that came are counted, and the ledger books the worst case, as of any
//! answer that a client leaves.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use models::fit::{Cursor, FitText};
use models::text::Progress;

use crate::completion::{
    Chunk, CompletionRequest, CompletionStream, Event, FinishReason, Reported, Usage,
};

pub(super) fn answer(answer: CompletionStream, request: &CompletionRequest) -> CompletionStream {
    let Some(cursor) = request.cursor(false) else { return answer };
    let cursor = Arc::new(cursor);
    let fitting = Fitting {
        events: Some(answer.events),
        choices: (0..request.n).map(|_| Choice::new(&cursor)).collect(),
        tokens: 0,
        ready: VecDeque::new(),
    };
    let events = stream::unfold(fitting, |mut fitting| async move {
        let event = fitting.next().await?;
        Some((event, fitting))
    });
    CompletionStream { events: Box::pin(events), ..answer }
}

struct Fitting {
    /// None: the cloud was let go.
    events: Option<Pin<Box<dyn Stream<Item = Event> + Send>>>,
    choices: Vec<Choice>,
    /// Texts that came, each at least a token.
    tokens: u64,
    /// What came of the cloud's last event; three at most, and the usage.
    ready: VecDeque<Event>,
}

struct Choice {
    text: FitText,
    reported: Reported,
    ended: bool,
}

impl Fitting {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            match self.events.as_mut()?.next().await? {
                Event::Chunk(chunk) => self.chunk(chunk),
                Event::Finished { choice, reason } => self.finished(choice, reason),
                // What a broken answer held back is left to whoever goes on with it.
                other => self.ready.push_back(other),
            }
        }
    }

    fn chunk(&mut self, chunk: Chunk) {
        self.tokens += 1;
        let Some(choice) = self.choices.get_mut(chunk.choice as usize) else { return };
        if choice.ended {
            return;
        }
        let number = chunk.choice;
        let (chunk, progress) = choice.push(chunk);
        self.ready.extend(chunk.map(Event::Chunk));
        if progress == Progress::Stopped {
            choice.ended = true;
            self.ready.push_back(Event::Finished { choice: number, reason: FinishReason::Stop });
            self.let_go();
        }
    }

    fn finished(&mut self, number: u32, reason: FinishReason) {
        let Some(choice) = self.choices.get_mut(number as usize) else { return };
        if std::mem::replace(&mut choice.ended, true) {
            return;
        }
        self.ready.extend(choice.finish(number).map(Event::Chunk));
        self.ready.push_back(Event::Finished { choice: number, reason });
    }

    /// Ends the cloud's work if nothing of it is wanted any more.
    fn let_go(&mut self) {
        if self.choices.iter().all(|choice| choice.ended) {
            self.events = None;
            let usage = Usage { completion_tokens: self.tokens, ..Usage::default() };
            self.ready.push_back(Event::Usage(usage));
        }
    }
}

impl Choice {
    fn new(cursor: &Arc<Cursor>) -> Self {
        Self { text: FitText::new(Arc::clone(cursor)), reported: Reported::default(), ended: false }
    }

    fn push(&mut self, chunk: Chunk) -> (Option<Chunk>, Progress) {
        let mut out = Chunk { choice: chunk.choice, ..Chunk::default() };
        let progress = self.text.push(&chunk.text, &mut out.text);
        chunk.tokens.into_iter().for_each(|token| self.reported.push(token));
        self.reported.took(chunk.text.len(), out.text.len());
        if progress == Progress::Stopped {
            self.reported.forget_held();
        }
        if out.text.is_empty() {
            return (None, progress);
        }
        out.tokens = self.reported.take();
        (Some(out), progress)
    }

    fn finish(&mut self, choice: u32) -> Option<Chunk> {
        let mut out = Chunk { choice, ..Chunk::default() };
        self.text.finish(&mut out.text);
        self.reported.took(0, out.text.len());
        self.reported.forget_held();
        out.tokens = self.reported.take_all();
        Some(out).filter(|out| !out.text.is_empty() || !out.tokens.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::{CodeStops, FimInput, Input, Reason, Refusal};

    fn request(n: u32) -> CompletionRequest {
        let fim = FimInput { prefix: "f(".into(), suffix: ");\n".into(), ..FimInput::default() };
        let mut request = CompletionRequest::greedy("test", Input::Fim(fim), 16);
        request.fit = Some(CodeStops { block: true, ..CodeStops::default() });
        request.n = n;
        request
    }

    fn chunk(choice: u32, text: &str) -> Event {
        Event::Chunk(Chunk { choice, text: text.as_bytes().into(), ..Chunk::default() })
    }

    const fn finished(choice: u32, reason: FinishReason) -> Event {
        Event::Finished { choice, reason }
    }

    /// What the client of these events sees, and whether the cloud was read to its end.
    async fn seen(n: u32, events: Vec<Event>) -> (Vec<String>, bool) {
        let whole = Arc::new(());
        let (held, end) = (whole.clone(), stream::pending());
        let events = stream::iter(events).chain(end).map(move |event| (event, &held).0);
        let events = Box::pin(events);
        let stream = CompletionStream { model: "m".into(), truncated: false, events };
        let mut answer = answer(stream, &request(n));
        let mut seen = Vec::new();
        loop {
            let over = Arc::strong_count(&whole) == 1;
            let Some(event) = answer.events.next().await else { return (seen, over) };
            seen.push(match event {
                Event::Chunk(chunk) => format!("{} {}", chunk.choice, chunk.as_str()),
                Event::Finished { choice, reason } => format!("{choice} {reason:?}"),
                Event::Usage(usage) => format!("{} tokens", usage.completion_tokens),
                Event::Prompt { .. } => unreachable!("no echo"),
                Event::Failed(_) => return (seen, over),
            });
            if seen.last().is_some_and(|event| event.ends_with("tokens")) {
                return (seen, Arc::strong_count(&whole) == 1);
            }
        }
    }

    #[tokio::test]
    async fn a_cloud_is_let_go_when_the_code_has_ended_every_choice() {
        let events = vec![chunk(0, "a, "), chunk(0, "b"), chunk(0, "); x"), chunk(0, "never")];
        let expected = ["0 a,", "0  b", "0 Stop", "3 tokens"].map(str::to_owned).to_vec();
        assert_eq!(seen(1, events).await, (expected, true));

        let events = vec![chunk(0, "a)"), chunk(1, "b"), chunk(0, "c"), chunk(1, ")")];
        let expected = ["0 a", "0 Stop", "1 b", "1 Stop", "4 tokens"].map(str::to_owned).to_vec();
        assert_eq!(seen(2, events).await, (expected, true));
    }

    #[tokio::test]
    async fn what_ends_by_itself_keeps_its_end_and_its_usage() {
        let usage = Event::Usage(Usage { completion_tokens: 9, ..Usage::default() });
        let events = vec![chunk(0, "a \n"), finished(0, FinishReason::Length), usage];
        // the rest of the cursor's line may stand after a line's end
        let expected = ["0 a", "0  \n", "0 Length", "9 tokens"].map(str::to_owned).to_vec();
        assert_eq!(seen(1, events).await, (expected, false));
    }

    #[tokio::test]
    async fn what_was_held_back_is_not_given_out_by_a_stream_that_breaks() {
        let broken = Refusal::new(Reason::CloudUnreachable, "gone");
        let events = vec![chunk(0, "a "), Event::Failed(broken)];
        assert_eq!(seen(1, events).await.0, ["0 a"]);
    }
}
