//! One running choice: all state of a request that is not in the KV cache.

use std::time::Instant;

use models::sampler::{self, History, Plan, Scratch, Uniform};
use models::step::Row;
use models::text::Progress;
use models::tokenizer::Tokenizer;
use tokio::sync::mpsc::error::TrySendError;

use super::draft::{Drafter, Memory};
use super::heal::Healing;
use super::message::{SequenceEvent, SequenceId, SequenceSpec, Submission};
use super::scheduler::Moment;
use super::text::OutputText;
use crate::completion::{Chunk, FinishReason, Priority, Reason, Reported, TokenLogprob};

/// Where a sequence stands in line: by arrival, each class with a head start. So a class goes
/// before the ones under it, and yet nobody waits for more than so many later arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    turn: u64,
    pub(crate) id: SequenceId,
}

/// Later arrivals of a better class that go before a chat. Eight full batches of 8 slots.
const CHAT_BEHIND: u64 = 64;
/// Later arrivals of a better class that go before a batch job. A full default queue.
const BATCH_BEHIND: u64 = 256;
/// Later arrivals that go before a warm-up: whatever may come while one waits.
const WARM_UP_BEHIND: u64 = 1 << 20;

impl Rank {
    pub(crate) fn new(id: SequenceId, priority: Priority) -> Self {
        let behind = match priority {
            Priority::Completion => 0,
            Priority::Chat => CHAT_BEHIND,
            Priority::Batch => BATCH_BEHIND,
            Priority::WarmUp => WARM_UP_BEHIND,
        };
        Self { turn: id.0 + behind, id }
    }

    /// As if it had arrived so many turns later.
    pub(crate) fn later_by(self, turns: u64) -> Self {
        Self { turn: self.turn + turns, ..self }
    }

    /// The ranks a sequence of this id may have.
    pub(super) fn of(id: SequenceId) -> [Self; 4] {
        [Priority::Completion, Priority::Chat, Priority::Batch, Priority::WarmUp]
            .map(|class| Self::new(id, class))
    }
}

/// What keeps a waiting sequence from running although a slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing, as far as is known.
    No,
    /// Too few blocks, when the scheduler had counted so many releases.
    NoRoom(u64),
    /// Another sequence is computing this one's prompt, up to this token; taking it from the
    /// prefix cache then is cheaper than doing it twice.
    Follows { leader: SequenceId, reach: usize },
}

/// Why a sequence ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished(FinishReason),
    Failed(Reason, &'static str),
    /// Nobody reads any more.
    Cancelled,
}

/// Buffers for sampling on the host, shared by all sequences.
#[derive(Debug)]
pub(super) struct HostSampler {
    scratch: Scratch,
    /// A row's logits after penalties: `[vocab]`.
    penalised: Vec<f32>,
    top: Vec<(u32, f32)>,
}

impl HostSampler {
    pub(super) fn new(vocab: usize) -> Self {
        let penalised = Vec::with_capacity(vocab);
        Self { scratch: Scratch::new(vocab), penalised, top: Vec::new() }
    }
}

/// A chosen token and what is reported of it.
struct Chosen {
    id: u32,
    logprob: f32,
    stop: bool,
}

pub(super) struct Sequence {
    submission: Submission,
    pub(super) rank: Rank,
    pub(super) deadline: Option<Instant>,
    /// Until when the prompt may be read; known once that has begun.
    prompt_until: Option<Instant>,
    /// Until when the answer may go on past its first line; known once it has a token.
    answer_until: Option<Instant>,
    /// Whether the answer holds a line's end.
    has_line: bool,
    /// Prompt, then generated: all ids known. The last generated one has not run.
    pub(super) tokens: Vec<u32>,
    /// How many of `tokens` are in the KV cache.
    pub(super) computed: usize,
    /// The sequence's blocks in order; the scheduler draws and returns them.
    pub(super) blocks: Vec<u32>,
    /// Blocks that it may still draw.
    pub(super) promised: usize,
    /// Full blocks that are in the prefix cache.
    pub(super) published: usize,
    /// Prompt tokens found in the prefix cache; before admission, how many will be.
    pub(super) cached: usize,
    pub(super) wait: Wait,
    /// Sequences that were admitted past this one while there was no room for it.
    pub(super) passed_by: u32,
    /// None: nothing is drafted for it.
    pub(super) drafter: Option<Drafter>,
    /// Steps in a row that it has sat out, the one being made included.
    pub(super) sat_out: u32,
    /// How many drafted tokens are in the step being run.
    pub(super) drafted: usize,
    /// How many of `tokens` the drafter knows.
    told: usize,
    uniform: Uniform,
    history: Option<History>,
    text: OutputText,
    /// What the first tokens say again; they are not told of.
    healing: Option<Healing>,
    /// Tokens of which nothing has been sent; or, while it is read, those of the prompt.
    reported: Reported,
}

impl Sequence {
    pub(super) fn new(submission: Submission) -> Self {
        let spec = &submission.spec;
        let rules = &spec.rules;
        let mut tokens = Vec::with_capacity(spec.prompt.len() + spec.max_tokens);
        tokens.extend_from_slice(&spec.prompt);
        let history =
            rules.sampling.needs_history().then(|| History::new(&spec.prompt, spec.max_tokens));
        Self {
            rank: Rank::new(spec.id, spec.priority),
            deadline: spec.time_left.map(|left| submission.submitted + left),
            prompt_until: None,
            answer_until: None,
            has_line: false,
            tokens,
            computed: 0,
            blocks: Vec::new(),
            promised: 0,
            published: 0,
            cached: 0,
            wait: Wait::No,
            passed_by: 0,
            drafter: None,
            sat_out: 0,
            drafted: 0,
            told: 0,
            uniform: Uniform::new(spec.seed, spec.choice),
            history,
            text: OutputText::new(rules),
            healing: rules.healing.clone().map(Healing::new),
            reported: Reported::default(),
            submission,
        }
    }

    pub(super) fn spec(&self) -> &SequenceSpec {
        &self.submission.spec
    }

    pub(super) fn submitted(&self) -> Instant {
        self.submission.submitted
    }

    pub(super) fn prompt(&self) -> &[u32] {
        &self.tokens[..self.spec().prompt.len()]
    }

    /// The part of the prompt that may come from the cache: its last token always runs, because
    /// its logits are the answer; and where the prompt is scored, all of it does.
    pub(super) fn reusable(&self) -> &[u32] {
        if self.spec().rules.scores_prompt() {
            return &[];
        }
        let prompt = self.prompt();
        &prompt[..prompt.len() - 1]
    }

    /// Most tokens it will ever hold.
    pub(super) fn room(&self) -> usize {
        self.spec().prompt.len() + self.spec().max_tokens
    }

    pub(super) fn is_prefilling(&self) -> bool {
        self.computed < self.spec().prompt.len()
    }

    /// Whether a row of the next step decodes for it.
    pub(super) fn decodes(&self) -> bool {
        self.sat_out == 0 && !self.is_prefilling()
    }

    /// Whether the next step may read some of its prompt.
    pub(super) fn prefills(&self) -> bool {
        self.sat_out == 0 && self.is_prefilling()
    }

    pub(super) fn generated(&self) -> usize {
        self.tokens.len() - self.spec().prompt.len()
    }

    /// Tokens generated, less those that only said again what the prompt ended in.
    fn answered(&self) -> usize {
        self.generated() - self.healing.as_ref().map_or(0, Healing::tokens)
    }

    pub(super) fn output(&self) -> &[u32] {
        &self.tokens[self.spec().prompt.len()..]
    }

    /// Guesses up to `most` next tokens: how likely each and all before it are right. The last
    /// token that it may generate needs no row after it.
    pub(super) fn propose(
        &mut self,
        most: usize,
        memory: &mut Memory,
        tokenizer: &Tokenizer,
    ) -> &[f32] {
        if self.is_healing() {
            return &[];
        }
        let left = self.spec().max_tokens - self.generated() - 1;
        let Some(drafter) = &mut self.drafter else { return &[] };
        let spec = &self.submission.spec;
        if self.told == 0 {
            drafter.read(&spec.prompt, spec.cursor, memory, |id| tokenizer.is_special(id));
            self.told = spec.prompt.len();
        }
        for &token in &self.tokens[self.told..] {
            drafter.push(token, memory);
        }
        self.told = self.tokens.len();
        drafter.propose(most.min(left), memory)
    }

    /// The drafted tokens in the step being run.
    pub(super) fn draft(&self) -> &[u32] {
        self.drafter.as_ref().map_or(&[], |drafter| drafter.tokens(self.drafted))
    }

    pub(super) fn nobody_reads(&self) -> bool {
        self.submission.reply.is_closed()
    }

    /// Whether it only reads a prompt that may be asked for, as long as nobody asks for anything.
    pub(super) fn is_warm_up(&self) -> bool {
        self.spec().priority == Priority::WarmUp
    }

    /// How it ends if it has to, whatever it is doing. Asked in each layer of a step.
    pub(super) fn over(&self, moment: Moment) -> Option<End> {
        let now = moment.now;
        if self.nobody_reads() {
            return Some(End::Cancelled);
        }
        if self.is_warm_up() && moment.arriving {
            return Some(WARM_ENOUGH);
        }
        let late = is_past(self.deadline, now)
            || (self.is_prefilling() && is_past(self.prompt_until, now))
            || (self.has_line && is_past(self.answer_until, now));
        late.then_some(TIME_IS_UP)
    }

    /// How it ends when its deadline passes before it has run. A request that nothing was done for
    /// has failed, and its first choice says so; others may have siblings that have an answer.
    pub(super) fn never_ran(&self) -> End {
        if self.spec().choice == 0 { TOO_LATE } else { TIME_IS_UP }
    }

    /// It runs from now on.
    pub(super) fn begin(&mut self, now: Instant) {
        self.prompt_until = self.spec().time.prompt.and_then(|limit| now.checked_add(limit));
    }

    /// Looks at the clock between two steps.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.answer_until.is_none() && self.generated() > 0 {
            self.answer_until = self.spec().time.predict.and_then(|limit| now.checked_add(limit));
        }
    }

    /// Whether the row at this position is sampled, and how.
    pub(super) fn plan(&self, position: usize) -> Option<Plan> {
        let rules = &self.spec().rules;
        let Some(index) = (position + 1).checked_sub(self.spec().prompt.len()) else {
            return rules.scores_prompt().then_some(Plan::Logits);
        };
        if self.spec().max_tokens == 0 {
            return None;
        }
        let on_host = rules.sampling.changes_logits()
            || rules.logprobs.is_some_and(|top| top > 0)
            || self.is_healing()
            || !self.banned(index).is_empty();
        if on_host {
            return Some(Plan::Logits);
        }
        Some(rules.sampling.plan(self.uniform.at(index as u64)))
    }

    /// Whether the word that the prompt ended in is still being said again.
    fn is_healing(&self) -> bool {
        self.healing.as_ref().is_some_and(|healing| !healing.is_over())
    }

    /// Ids that must not be chosen as the output's token at this index.
    fn banned(&self, index: usize) -> &[u32] {
        let rules = &self.spec().rules;
        if index < rules.min_tokens { &rules.stop_ids } else { &[] }
    }

    /// Takes the logits of a prompt's row: they say how likely the next prompt token was.
    pub(super) fn score_prompt(
        &mut self,
        position: usize,
        logits: &[f32],
        host: &mut HostSampler,
        tokenizer: &Tokenizer,
    ) {
        let next = self.tokens[position + 1];
        let logprob = sampler::logprob(logits, next);
        let top = self.alternatives(logits, host, tokenizer);
        self.reported.push(report(next, Some(logprob), top, tokenizer));
    }

    /// The whole prompt has run. Ends a sequence of which no more was asked.
    pub(super) fn prompt_read(&mut self, tokenizer: &Tokenizer) -> Option<End> {
        if self.spec().rules.echo {
            let choice = self.spec().choice;
            let mut tokens = self.reported.take_all();
            if self.spec().rules.scores_prompt() {
                tokens.insert(0, report(self.tokens[0], None, Vec::new(), tokenizer));
            }
            if let Some(end) = self.send(SequenceEvent::PromptRead { choice, tokens }) {
                return Some(end);
            }
        }
        (self.spec().max_tokens == 0).then_some(End::Finished(FinishReason::Length))
    }

    /// Takes the row that decides the next token: appends it and sends the text that is certain.
    pub(super) fn take_row(
        &mut self,
        row: &Row,
        logits: &[f32],
        host: &mut HostSampler,
        tokenizer: &Tokenizer,
    ) -> Option<End> {
        let mut top = Vec::new();
        let chosen = match row {
            &Row::Token { id, logprob, stop } => Chosen { id, logprob, stop },
            Row::NotANumber => return Some(End::Failed(Reason::EngineFailed, NO_NUMBERS)),
            Row::Logits(range) => {
                let logits = &logits[range.clone()];
                top = self.alternatives(logits, host, tokenizer);
                match self.choose(logits, host, tokenizer) {
                    Some(chosen) => chosen,
                    None => return Some(End::Failed(Reason::EngineFailed, NO_NUMBERS)),
                }
            }
        };
        self.tokens.push(chosen.id);
        if let Some(history) = &mut self.history {
            history.push(chosen.id);
        }
        if chosen.stop {
            return Some(End::Finished(FinishReason::Stop));
        }
        if self.spec().rules.logprobs.is_some() {
            self.reported.push(report(chosen.id, Some(chosen.logprob), top, tokenizer));
        }
        let bytes = tokenizer.bytes(chosen.id);
        let bytes = self.healing.as_mut().map_or(bytes, |healing| healing.take(bytes));
        self.append_text(bytes)
    }

    fn append_text(&mut self, bytes: &[u8]) -> Option<End> {
        self.has_line |= bytes.contains(&b'\n');
        let mut chunk = Chunk { choice: self.spec().choice, ..Chunk::default() };
        let progress = if self.generated() <= self.spec().rules.min_tokens {
            self.text.push_through(bytes, &mut chunk.text)
        } else {
            self.text.push(bytes, &mut chunk.text)
        };
        self.reported.took(bytes.len(), chunk.text.len());
        if progress == Progress::Stopped {
            self.reported.forget_held();
            chunk.tokens = self.reported.take_all();
            return self.send_chunk(chunk).or(Some(End::Finished(FinishReason::Stop)));
        }
        if !chunk.text.is_empty() {
            chunk.tokens = self.reported.take();
            return self.send_chunk(chunk).or_else(|| self.end_at_length());
        }
        self.end_at_length()
    }

    fn end_at_length(&self) -> Option<End> {
        let most = self.spec().max_tokens;
        let is_long = match &self.healing {
            Some(healing) => self.answered() == healing.own_tokens(most),
            None => false,
        };
        (is_long || self.generated() == most).then_some(End::Finished(FinishReason::Length))
    }

    fn choose(
        &self,
        logits: &[f32],
        host: &mut HostSampler,
        tokenizer: &Tokenizer,
    ) -> Option<Chosen> {
        let rules = &self.spec().rules;
        let banned = self.banned(self.generated());
        let healing = self.healing.as_ref().filter(|_| self.is_healing());
        let changes = rules.sampling.changes_logits() || !banned.is_empty();
        let weighed = if changes || healing.is_some() {
            host.penalised.clear();
            host.penalised.extend_from_slice(logits);
            let none = History::default();
            let history = self.history.as_ref().unwrap_or(&none);
            sampler::penalise(&mut host.penalised, &rules.sampling, history, banned);
            if let Some(healing) = healing {
                healing.mask(&mut host.penalised, tokenizer);
            }
            &host.penalised
        } else {
            logits
        };
        let id = match rules.sampling.plan(self.uniform.at(self.generated() as u64)) {
            Plan::Draw(draw) => sampler::choose(weighed, &draw, &mut host.scratch),
            Plan::Greedy | Plan::Logits => sampler::argmax(weighed),
        }?;
        let logprob = rules.logprobs.map_or(f32::NAN, |_| sampler::logprob(logits, id));
        Some(Chosen { id, logprob, stop: rules.stop_ids.contains(&id) })
    }

    fn alternatives(
        &self,
        logits: &[f32],
        host: &mut HostSampler,
        tokenizer: &Tokenizer,
    ) -> Vec<(Vec<u8>, f32)> {
        let Some(count @ 1..) = self.spec().rules.logprobs else { return Vec::new() };
        sampler::top_logprobs(logits, count, &mut host.scratch, &mut host.top);
        host.top.iter().map(|&(id, logprob)| (tokenizer.bytes(id).to_vec(), logprob)).collect()
    }

    fn send_chunk(&self, chunk: Chunk) -> Option<End> {
        if chunk.text.is_empty() && chunk.tokens.is_empty() {
            return None;
        }
        self.send(SequenceEvent::Chunk(chunk))
    }

    /// Sends without waiting; a reader that left ends the sequence.
    fn send(&self, event: SequenceEvent) -> Option<End> {
        match self.submission.reply.try_send(event) {
            Ok(()) => None,
            Err(TrySendError::Closed(_)) => Some(End::Cancelled),
            Err(TrySendError::Full(_)) => panic!("a reply has room for all events of its sequence"),
        }
    }

    /// Sends the text that was held back and the end, and gives the place back.
    pub(super) fn finish(mut self, end: End) {
        let last = match end {
            End::Cancelled => return,
            End::Failed(reason, message) => SequenceEvent::Failed { reason, message },
            End::Finished(reason) => {
                if self.is_prefilling() {
                    // They are the prompt's.
                    self.reported.take_all();
                }
                let mut chunk = Chunk { choice: self.spec().choice, ..Chunk::default() };
                self.text.finish(&mut chunk.text);
                self.reported.took(0, chunk.text.len());
                if self.text.is_fitted() {
                    self.reported.forget_held();
                }
                chunk.tokens = self.reported.take_all();
                self.send_chunk(chunk);
                SequenceEvent::Finished {
                    choice: self.spec().choice,
                    reason,
                    cached: self.cached,
                    generated: self.answered(),
                }
            }
        };
        // A reader that left just now needs no end.
        let _gone = self.send(last);
    }
}

/// A warm-up is given up; what it has read stays in the prefix cache.
pub(super) const WARM_ENOUGH: End = End::Finished(FinishReason::Length);

/// What there is by now is the answer.
const TIME_IS_UP: End = End::Finished(FinishReason::Length);

const TOO_LATE: End =
    End::Failed(Reason::Deadline, "The request's deadline passed before it was begun.");

pub(super) fn is_past(limit: Option<Instant>, now: Instant) -> bool {
    limit.is_some_and(|limit| limit <= now)
}

const NO_NUMBERS: &str = "The model's output is not a number.";

fn report(
    id: u32,
    logprob: Option<f32>,
    top: Vec<(Vec<u8>, f32)>,
    tokenizer: &Tokenizer,
) -> TokenLogprob {
    TokenLogprob { bytes: tokenizer.bytes(id).to_vec(), id, logprob, top }
}
