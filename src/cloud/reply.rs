//! The answer of a cloud, from what its wire says to events of ours. No socket and no clock.

use std::collections::VecDeque;
use std::sync::Arc;

use models::text::StopStrings;

use super::choice::Choice;
use super::fault::{garbage, named};
use super::frames::Message;
use super::wires::{Reader, Said};
use crate::completion::{CompletionRequest, Event, FimInput, Refusal, Usage};

/// More than the largest context holds: no count, and nothing to settle a bill by.
const TOKENS_MAX: u64 = 16 * 1024 * 1024;

/// What one part of an answer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing a client waits for: a role, an empty delta.
    Nothing,
    /// Text or the end of a choice.
    Content,
    /// The stream said that it is over.
    Done,
}

/// Reads one answer.
pub(super) struct Reply {
    reader: Box<dyn Reader>,
    choices: Vec<Choice>,
    usage: Option<Usage>,
    /// Deltas with text: the count of tokens when the cloud reports none.
    deltas: u64,
}

impl Reply {
    pub(super) fn new(
        request: &CompletionRequest,
        reader: Box<dyn Reader>,
        stops: &Arc<StopStrings>,
        emulated: Option<&FimInput>,
    ) -> Self {
        let choice = |index| Choice::new(index, stops, emulated);
        let choices = (0..request.n).map(choice).collect();
        Self { reader, choices, usage: None, deltas: 0 }
    }

    /// Whether every choice has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.choices.iter().all(Choice::is_finished)
    }

    /// What the cloud counted; without that, one token per delta and an unknown prompt as 0.
    pub(super) fn usage(&self) -> Usage {
        self.usage.unwrap_or(Usage { completion_tokens: self.deltas, ..Usage::default() })
    }

    pub(super) fn has_usage(&self) -> bool {
        self.usage.is_some()
    }

    /// Takes one message of a stream and appends what it means.
    pub(super) fn message(
        &mut self,
        message: &Message,
        out: &mut VecDeque<Event>,
    ) -> Result<Progress, Refusal> {
        if message.failure {
            let told = serde_json::from_str(&message.data).unwrap_or_default();
            return Err(named(&message.event, &told));
        }
        let said = self.reader.read(message)?;
        self.said(said, out)
    }

    /// Takes the whole of an answer that is no stream.
    pub(super) fn whole(
        &mut self,
        body: &[u8],
        out: &mut VecDeque<Event>,
    ) -> Result<Progress, Refusal> {
        let said = self.reader.whole(body)?;
        self.said(said, out)
    }

    fn said(&mut self, said: Said, out: &mut VecDeque<Event>) -> Result<Progress, Refusal> {
        self.usage = said.usage.filter(is_believable).or(self.usage);
        let mut progress = Progress::Nothing;
        for part in said.parts {
            let choice = self
                .choices
                .get_mut(part.choice as usize)
                .ok_or_else(|| garbage("a choice that was not asked for"))?;
            if !part.text.is_empty() {
                self.deltas += 1;
                choice.push(&part.text, part.tokens, out);
                progress = Progress::Content;
            }
            if let Some(reason) = part.finish {
                choice.finish(reason, out);
                progress = Progress::Content;
            }
        }
        Ok(if said.done { Progress::Done } else { progress })
    }
}

fn is_believable(usage: &Usage) -> bool {
    let Usage { prompt_tokens, cached_tokens, completion_tokens } = *usage;
    [prompt_tokens, cached_tokens, completion_tokens].iter().all(|tokens| *tokens <= TOKENS_MAX)
}
