//! An answer that broke after its client had seen some of it, gone on with elsewhere.
//!
//! What was given out becomes part of the prompt, so that nothing is said twice and nothing is
//! lost. That is exact where a prompt is a text that is continued: for raw prompts and cursors, not
//! for conversations. The rest is a request like any other: policy, secrets, budgets and tries are
//! looked at again.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::ask::Tries;
use super::{Costs, Dispatched, Dispatcher, Local, Quote};
use crate::completion::{
    Backend, CompletionRequest, CompletionStream, Event, Fault, Input, Reason, Refusal, Usage,
};

/// Longest text that is remembered; what is longer ends where it breaks.
const SAID_BYTES_MAX: usize = 256 * 1024;

/// An answer, and what it takes to go on with it.
struct Resuming<L, C> {
    dispatcher: Arc<Dispatcher<L, C>>,
    request: Arc<CompletionRequest>,
    tries: Tries,
    stream: CompletionStream,
    /// The text of the only choice so far.
    said: String,
    /// Of the streams that broke: texts given out, each at least a token.
    tokens_before: u64,
    tokens: u64,
    finished: bool,
    over: bool,
    /// What the whole answer costs.
    costs: Costs,
}

impl<L: Local, C: Backend + Quote> Dispatcher<L, C> {
    /// The answer, so that it is gone on with when it breaks, where it can be.
    pub(super) fn resumable(
        self: &Arc<Self>,
        request: Arc<CompletionRequest>,
        placed: Dispatched,
        tries: Tries,
    ) -> Dispatched {
        if !can_be_continued(&request) {
            return placed;
        }
        let Dispatched { stream, .. } = placed;
        let (model, truncated) = (stream.model.clone(), stream.truncated);
        let resuming = Resuming {
            dispatcher: self.clone(),
            request,
            tries,
            stream,
            said: String::new(),
            tokens_before: 0,
            tokens: 0,
            finished: false,
            over: false,
            costs: placed.costs.clone(),
        };
        let events = stream::unfold(resuming, |mut resuming| async move {
            let event = resuming.next().await?;
            Some((event, resuming))
        });
        Dispatched {
            stream: CompletionStream { model, truncated, events: Box::pin(events) },
            ..placed
        }
    }
}

impl<L: Local, C: Backend + Quote> Resuming<L, C> {
    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        loop {
            match self.stream.events.next().await? {
                Event::Failed(refusal) if self.is_worth_it(&refusal) => {
                    if let Err(refusal) = self.go_on(refusal).await {
                        self.over = true;
                        return Some(Event::Failed(refusal));
                    }
                }
                Event::Chunk(chunk) => {
                    if self.said.len() <= SAID_BYTES_MAX {
                        self.said.push_str(chunk.as_str());
                    }
                    self.tokens += 1;
                    return Some(Event::Chunk(chunk));
                }
                Event::Finished { choice, reason } => {
                    self.finished = true;
                    return Some(Event::Finished { choice, reason });
                }
                Event::Usage(usage) => {
                    self.over = true;
                    let completion_tokens =
                        usage.completion_tokens.saturating_add(self.tokens_before);
                    return Some(Event::Usage(Usage { completion_tokens, ..usage }));
                }
                other => return Some(other),
            }
        }
    }

    fn is_worth_it(&self, refusal: &Refusal) -> bool {
        let broke = match &refusal.reason {
            Reason::CloudUnreachable
            | Reason::CloudTimeout
            | Reason::CloudGarbage
            | Reason::EngineFailed => true,
            Reason::Cloud(fault) => matches!(fault, Fault::Failed | Fault::Throttled),
            _ => false,
        };
        broke && !self.finished && !self.said.is_empty() && self.said.len() <= SAID_BYTES_MAX
    }

    /// Places what is left; the error is why the answer ends here.
    async fn go_on(&mut self, broke: Refusal) -> Result<(), Refusal> {
        if self.tries.are_over() {
            return Err(broke);
        }
        self.dispatcher.tried(&mut self.tries);
        let said = self.tokens_before + self.tokens;
        let Some(rest) = continued(&self.request, &self.said, said) else { return Err(broke) };
        // What broke gives its place back, which may be the one that is needed.
        self.stream.events = Box::pin(stream::empty());
        let placed = self.dispatcher.dispatch_once(&Arc::new(rest), &mut self.tries).await;
        let placed = placed.map_err(|_| broke)?;
        self.dispatcher.telemetry.resumed(&placed.route);
        self.costs.add(&placed.costs);
        self.stream = placed.stream;
        self.tokens_before = said;
        self.tokens = 0;
        Ok(())
    }
}

/// Whether the text of an answer can be made part of its prompt, exactly.
fn can_be_continued(request: &CompletionRequest) -> bool {
    let text = matches!(request.input, Input::Text(_) | Input::Fim(_));
    text && request.n == 1 && request.logprobs.is_none() && !request.echo
}

/// What is left of a request after `said`, some `tokens` tokens.
fn continued(request: &CompletionRequest, said: &str, tokens: u64) -> Option<CompletionRequest> {
    let mut rest = request.clone();
    match &mut rest.input {
        Input::Text(prompt) => prompt.push_str(said),
        Input::Fim(fim) => fim.prefix.push_str(said),
        Input::Tokens(_) | Input::Chat(_) => return None,
    }
    let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
    if let Some(max) = &mut rest.max_tokens {
        *max = max.checked_sub(tokens).filter(|left| *left > 0)?;
    }
    // the line that was begun is the only one
    if rest.fit.is_some_and(|fit| fit.single_line) && !said.trim().is_empty() {
        rest.stop.strings.push("\n".into());
    }
    rest.stop.min_tokens = rest.stop.min_tokens.saturating_sub(tokens);
    Some(rest)
}
