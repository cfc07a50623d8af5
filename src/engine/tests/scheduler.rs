//! Whatever arrives and leaves, everybody gets what a run alone gives, ends once, and leaves
//! nothing behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use models::fit::{CodeStops, Cursor};
use models::sampler::SamplingParams;
use models::step::{Device, DeviceLimits, Rows};
use models::text::StopStrings;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::mock::{Mock, VOCAB, limits, solo, tokenizer, unstoppable};
use crate::completion::{FinishReason, Priority, Reason, TimeLimits};
use crate::engine::draft::Costs;
use crate::engine::message::{
    SequenceEvent, SequenceId, SequenceRules, SequenceSpec, Submission, events_max,
};
use crate::engine::place::Places;
use crate::engine::saturation::Saturation;
use crate::engine::scheduler::{Moment, Scheduler, Span, StepRows};
use crate::telemetry::Telemetry;

/// Random runs of the property test; raise it for a night.
const CASES: u32 = 256;
const OPERATIONS_MAX: usize = 120;

/// A scheduler and its device, stepped by hand.
pub(super) struct Bench {
    pub(super) scheduler: Scheduler,
    pub(super) device: Mock,
    rows: Rows,
    places: Arc<Places>,
    pub(super) clients: Vec<Client>,
    now: Instant,
    pub(super) costs: Costs,
    pub(super) telemetry: Arc<Telemetry>,
}

pub(super) struct Client {
    spec: SequenceSpec,
    pub(super) events: mpsc::Receiver<SequenceEvent>,
    cancelled: bool,
}

/// All that a client got.
#[derive(Debug, Default)]
pub(super) struct Answer {
    text: String,
    pub(super) ids: Vec<u32>,
    end: Option<FinishReason>,
    failure: Option<Reason>,
    cached: usize,
    prompt_logprobs: Vec<Option<f32>>,
}

impl Bench {
    pub(super) fn new(blocks: usize, block_tokens: usize, slots: usize) -> Self {
        Self::with(Mock::new(limits(blocks, block_tokens)), slots, false)
    }

    /// Over a device that has a habit and on which drafted rows are free.
    pub(super) fn habitual(
        blocks: usize,
        block_tokens: usize,
        slots: usize,
        speculate: bool,
    ) -> Self {
        let mut device = Mock::new(limits(blocks, block_tokens));
        device.habit = true;
        Self::with(device, slots, speculate)
    }

    fn with(device: Mock, slots: usize, speculate: bool) -> Self {
        let telemetry = Telemetry::new();
        let scheduler =
            Scheduler::new(device.limits(), slots, tokenizer(), Arc::clone(&telemetry), speculate);
        Self {
            scheduler,
            device,
            rows: Rows::default(),
            places: Arc::new(Places::new(usize::MAX, Saturation::new(slots))),
            clients: Vec::new(),
            now: Instant::now(),
            costs: Costs::free(),
            telemetry,
        }
    }

    /// Submits; returns the client's number, which is the sequence's id.
    pub(super) fn submit(&mut self, spec: SequenceSpec) -> usize {
        self.submit_as(self.clients.len(), spec)
    }

    /// Submits as sequence `id`; returns the client's number.
    fn submit_as(&mut self, id: usize, spec: SequenceSpec) -> usize {
        let (reply, events) = mpsc::channel(events_max(spec.max_tokens));
        let spec = SequenceSpec { id: SequenceId(id as u64), ..spec };
        let place = self.places.reserve(1, spec.priority).expect("there is no limit").remove(0);
        self.clients.push(Client { spec: spec.clone(), events, cancelled: false });
        self.scheduler.arrive(Submission { spec, reply, place, submitted: self.now });
        self.clients.len() - 1
    }

    fn cancel(&mut self, client: usize) {
        self.clients[client].cancelled = true;
        self.scheduler.cancel(SequenceId(client as u64));
    }

    fn schedule(&mut self, prefill_rows: usize) -> StepRows {
        self.schedule_by(|_| prefill_rows)
    }

    fn schedule_by(&mut self, prefill_rows: impl Fn(Span) -> usize) -> StepRows {
        let moment = Moment { now: self.now, arriving: false };
        self.scheduler.schedule(moment, &self.costs, |_, span| prefill_rows(span))
    }

    pub(super) fn step(&mut self, prefill_rows: usize) -> StepRows {
        let rows = self.schedule(prefill_rows);
        if rows != StepRows::default() {
            self.device.run(self.scheduler.step(), &mut self.rows).expect("no fault was set");
            let generated = self.scheduler.advance(&self.rows);
            assert!(generated <= rows.decodes + rows.drafts + self.clients.len());
        }
        rows
    }

    fn wants_step(&self) -> bool {
        self.scheduler.wants_step(Moment { now: self.now, arriving: false })
    }

    /// Schedules a step and gives it up half way.
    fn give_up(&mut self, prefill_rows: usize) {
        if self.schedule(prefill_rows) != StepRows::default() {
            let ticket = self.device.submit(self.scheduler.step(), &mut || false);
            assert_eq!(ticket.expect("no fault was set"), None);
            self.scheduler.discard();
        }
    }

    /// Steps until all is done; panics when that takes more steps than there are tokens.
    pub(super) fn run(&mut self) {
        let tokens = |client: &Client| client.spec.prompt.len() + client.spec.max_tokens + 1;
        let steps_max: usize = self.clients.iter().map(tokens).sum();
        for _ in 0..=steps_max {
            if self.step(16) == StepRows::default() {
                assert!(self.scheduler.is_idle());
                return;
            }
        }
        panic!("still not idle after {steps_max} steps");
    }

    fn answer(&mut self, client: usize) -> Answer {
        let mut answer = Answer::default();
        while let Ok(event) = self.clients[client].events.try_recv() {
            assert!(answer.end.is_none() && answer.failure.is_none(), "nothing follows an end");
            match event {
                SequenceEvent::PromptRead { tokens, .. } => {
                    answer.prompt_logprobs = tokens.iter().map(|token| token.logprob).collect();
                }
                SequenceEvent::Chunk(chunk) => {
                    answer.text.push_str(chunk.as_str());
                    answer.ids.extend(chunk.tokens.iter().map(|token| token.id));
                }
                SequenceEvent::Finished { reason, cached, .. } => {
                    answer.end = Some(reason);
                    answer.cached = cached;
                }
                SequenceEvent::Failed { reason, .. } => answer.failure = Some(reason),
            }
        }
        answer
    }

    /// The answer must be what a run alone gives.
    pub(super) fn check(&mut self, client: usize) -> Answer {
        let answer = self.answer(client);
        let Client { spec, cancelled, .. } = &self.clients[client];
        let (ids, text, stopped) = solo(spec, VOCAB, self.device.habit);
        if *cancelled && answer.end.is_none() {
            assert!(text.starts_with(&answer.text), "a cancelled answer is the beginning of one");
            return answer;
        }
        if spec.priority == Priority::WarmUp && answer.end == Some(FinishReason::Length) {
            assert!(text.starts_with(&answer.text), "a warm-up ends as soon as anybody comes");
            return answer;
        }
        let reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
        assert_eq!(answer.end, Some(reason));
        assert_eq!(answer.text, text);
        assert!(answer.cached < spec.prompt.len(), "the last prompt token always runs");
        if spec.rules.fit.is_some() {
            let tokenizer = tokenizer();
            let told = answer.ids.iter().map(|id| tokenizer.bytes(*id));
            let told: Vec<&[u8]> = told.filter(|bytes| !bytes.is_empty()).collect();
            let makes = |told: &[&[u8]]| String::from_utf8_lossy(&told.concat()).starts_with(&text);
            assert!(makes(&told), "what is told makes the text");
            assert!(told.split_last().is_none_or(|(_, before)| !makes(before)), "and no more");
        } else if spec.rules.logprobs.is_some() && spec.rules.stop_strings_are_none() {
            let shown = ids.len() - usize::from(stopped);
            assert_eq!(answer.ids, ids[..shown]);
        }
        answer
    }
}

impl SequenceRules {
    fn stop_strings_are_none(&self) -> bool {
        Arc::strong_count(&self.stop_strings) > 0 && self.stop_ids != STOPS_WITH_STRINGS
    }
}

/// Marks the rules of the property test that also have stop strings.
const STOPS_WITH_STRINGS: [u32; 2] = [7, 8];

pub(super) fn rules() -> SequenceRules {
    SequenceRules {
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        stop_strings: unstoppable(),
        fit: None,
        healing: None,
        stop_ids: Vec::new(),
        min_tokens: 0,
        logprobs: Some(0),
        echo: false,
    }
}

pub(super) fn spec(prompt: impl Into<Arc<[u32]>>, max_tokens: usize) -> SequenceSpec {
    let prompt = prompt.into();
    SequenceSpec {
        id: SequenceId(0),
        choice: 0,
        cursor: prompt.len(),
        prompt,
        max_tokens,
        rules: Arc::new(rules()),
        seed: 1,
        priority: Priority::Completion,
        tenant: 0,
        time_left: None,
        time: TimeLimits::default(),
    }
}

pub(super) fn ids(count: usize, salt: u32) -> Vec<u32> {
    (0..count as u32).map(|at| (at * 7 + salt * 13 + 11) % 97).collect()
}

#[test]
fn a_prompt_is_computed_once_for_all_choices() {
    let mut bench = Bench::new(32, 4, 8);
    let clients: Vec<usize> = (0..5).map(|_| bench.submit(spec(ids(23, 1), 6))).collect();
    bench.run();
    let computed: usize = clients.iter().map(|&c| 23 - bench.check(c).cached).sum();
    assert_eq!(computed, 23 + 4, "each follower runs the prompt's last token only");
}

#[test]
fn who_waits_for_a_prefix_goes_on_when_its_leader_is_cancelled() {
    let mut bench = Bench::new(32, 4, 8);
    let leader = bench.submit(spec(ids(40, 1), 6));
    let follower = bench.submit(spec(ids(40, 1), 6));
    bench.step(9);
    assert_eq!(bench.scheduler.load().running, 1);
    bench.cancel(leader);
    bench.run();
    assert_eq!(bench.check(follower).cached, 9, "what the leader did is not lost");
}

#[test]
fn a_longer_prompt_reuses_generated_tokens_to_the_token() {
    let mut bench = Bench::new(32, 4, 2);
    let first = bench.submit(spec(ids(10, 1), 9));
    bench.run();
    let answer = bench.check(first);
    let mut longer = ids(10, 1);
    longer.extend(&answer.ids);
    longer.push(3);
    let second = bench.submit(spec(longer, 4));
    bench.run();
    // the last generated token never ran
    assert_eq!(bench.check(second).cached, 18);
}

#[test]
fn what_is_given_up_half_way_is_gone_on_with() {
    let mut bench = Bench::new(64, 4, 2);
    // While its prompt is read: in a chunk that ends inside a block.
    let reading = bench.submit(spec(ids(40, 1), 6));
    bench.step(11);
    bench.step(10);
    bench.cancel(reading);
    let again = bench.submit(spec(ids(40, 1), 6));
    bench.step(11);
    bench.give_up(11);
    bench.cancel(again);
    let next = bench.submit(spec(ids(40, 1), 6));
    bench.run();
    assert_eq!(bench.check(next).cached, 32, "21 and 11; nothing of the step that was given up");
    // While it is answered: what it has said so far and what the user types after that.
    let answering = bench.submit(spec(ids(30, 2), 20));
    bench.step(64);
    for _ in 0..8 {
        bench.step(64);
    }
    bench.cancel(answering);
    let so_far = bench.answer(answering).ids;
    assert_eq!(so_far.len(), 9);
    let mut typed = ids(30, 2);
    typed.extend(&so_far);
    typed.extend([5, 6]);
    let next = bench.submit(spec(typed, 4));
    bench.run();
    assert_eq!(bench.check(next).cached, 38, "all but the last token, which had not run");
}

#[test]
fn a_speculative_follow_up_finds_prompt_and_answer() {
    // What an editor asks while the suggestion is shown, and what it asks once it was accepted.
    let mut bench = Bench::new(64, 4, 2);
    let first = bench.submit(spec(ids(21, 1), 10));
    bench.run();
    let mut accepted = ids(21, 1);
    accepted.extend(bench.check(first).ids);
    let ahead = bench.submit(spec(accepted.clone(), 8));
    bench.run();
    let ahead = bench.check(ahead);
    assert_eq!(ahead.cached, 30);
    accepted.extend(ahead.ids);
    accepted.push(7);
    let next = bench.submit(spec(accepted, 4));
    bench.run();
    assert_eq!(bench.check(next).cached, 38);
}

#[test]
fn the_files_of_an_editor_stay_cached_while_there_is_room() {
    // Three files of 10 blocks, two keys in each in turn, under another tenant's passing traffic.
    let mut bench = Bench::new(40, 4, 2);
    let key = |bench: &mut Bench, file: u32, tokens: usize| {
        let client = bench.submit(spec(ids(tokens, file), 2));
        bench.run();
        bench.check(client).cached
    };
    for file in 1..=3 {
        assert!(key(&mut bench, file, 36) < 4, "the first look at a file");
    }
    for tokens in [37, 38] {
        for file in 1..=3 {
            assert_eq!(key(&mut bench, file, tokens), tokens - 1);
        }
        let passing = SequenceSpec { tenant: 1, ..spec(ids(12, tokens as u32), 2) };
        bench.submit(passing);
        bench.run();
    }
    // A fourth file does not fit beside the three: the one used longest ago makes room.
    assert!(key(&mut bench, 4, 36) < 4);
    assert_eq!([2, 3].map(|file| key(&mut bench, file, 39)), [38, 38]);
    assert!(key(&mut bench, 1, 39) < 38);
}

#[test]
fn tenants_do_not_share() {
    let mut bench = Bench::new(32, 4, 2);
    bench.submit(spec(ids(20, 1), 2));
    bench.run();
    let other = bench.submit(SequenceSpec { tenant: 1, ..spec(ids(20, 1), 2) });
    bench.run();
    assert_eq!(bench.check(other).cached, 0);
}

#[test]
fn a_prompt_that_is_scored_runs_afresh_and_in_full() {
    let mut bench = Bench::new(32, 4, 2);
    bench.submit(spec(ids(40, 1), 2));
    bench.run();
    let scored = SequenceRules { echo: true, logprobs: Some(2), ..rules() };
    let client = bench.submit(SequenceSpec { rules: Arc::new(scored), ..spec(ids(40, 1), 0) });
    bench.run();
    let answer = bench.check(client);
    assert_eq!(answer.cached, 0);
    assert_eq!(answer.prompt_logprobs.len(), 40);
    assert_eq!(answer.prompt_logprobs[0], None);
    assert!(answer.prompt_logprobs[1..].iter().all(|p| p.is_some_and(|p| p < 0.0)));
}

#[test]
fn what_can_never_fit_is_refused_at_once() {
    let mut bench = Bench::new(8, 4, 2);
    let client = bench.submit(spec(ids(20, 1), 13));
    assert_eq!(bench.answer(client).failure, Some(Reason::ContextLength));
    let whole_pool = bench.submit(spec(ids(20, 1), 12));
    bench.run();
    bench.check(whole_pool);
    // again, now that the pool is full of cached blocks, one of which it would copy from
    let again = bench.submit(spec(ids(19, 1), 13));
    bench.run();
    bench.check(again);
}

#[test]
fn a_large_request_neither_blocks_nor_starves() {
    let mut bench = Bench::new(16, 4, 4);
    let mut small: Vec<usize> = (0..3).map(|salt| bench.submit(spec(ids(6, salt), 6))).collect();
    bench.step(16);
    let large = bench.submit(spec(ids(40, 9), 20));
    let first_after = bench.submit(spec(ids(6, 20), 6));
    let mut large_ended_at = None;
    let mut arrived_before_it_ended = 0;
    for step in 0..400u32 {
        small.push(bench.submit(spec(ids(6, 21 + step), 6)));
        bench.step(16);
        if step == 3 {
            assert!(bench.clients[first_after].events.try_recv().is_ok(), "small ones pass");
        }
        if large_ended_at.is_none() && bench.clients[large].events.is_closed() {
            large_ended_at = Some(step);
            arrived_before_it_ended = small.len();
        }
    }
    assert!(large_ended_at.is_some(), "a stream of small ones must not starve it");
    assert!(arrived_before_it_ended < 200);
    bench.run();
    bench.check(large);
}

#[test]
fn better_classes_go_first_but_not_for_ever() {
    let mut bench = Bench::new(16, 4, 1);
    bench.submit(spec(ids(4, 0), 1));
    let of = |priority, salt| SequenceSpec { priority, ..spec(ids(4, salt), 1) };
    let batch = bench.submit(of(Priority::Batch, 1));
    let chat = bench.submit(of(Priority::Chat, 2));
    let completion = bench.submit(of(Priority::Completion, 3));
    let ended = |bench: &Bench, client: usize| bench.clients[client].events.is_closed();
    while !ended(&bench, completion) {
        assert!(!ended(&bench, chat) && !ended(&bench, batch));
        bench.step(16);
    }
    while !ended(&bench, chat) {
        assert!(!ended(&bench, batch));
        bench.step(16);
    }
    let mut later = 0;
    while !ended(&bench, batch) {
        later += 1;
        assert!(later < 600, "a batch job waits for a bounded number of others");
        bench.submit(of(Priority::Completion, later));
        bench.submit(of(Priority::Completion, later + 1));
        bench.step(16);
    }
    bench.run();
}

#[test]
fn deadlines_end_what_waits_and_what_runs() {
    let mut bench = Bench::new(16, 4, 1);
    let soon = |salt| SequenceSpec { time_left: Some(SECOND), ..spec(ids(4, salt), 30) };
    const SECOND: Duration = Duration::from_secs(1);
    let running = bench.submit(soon(1));
    let waiting = bench.submit(soon(2));
    let patient = bench.submit(spec(ids(4, 3), 3));
    bench.step(16);
    bench.now += SECOND;
    bench.step(16);
    let answer = bench.answer(running);
    assert_eq!((answer.end, answer.failure), (Some(FinishReason::Length), None));
    assert_eq!(answer.ids.len(), 1, "the best so far");
    assert_eq!(bench.answer(waiting).failure, Some(Reason::Deadline), "nothing was done for it");
    bench.run();
    bench.check(patient);
}

#[test]
fn a_deadline_leaves_every_choice_what_it_has() {
    let mut bench = Bench::new(64, 4, 2);
    let time_left = Some(Duration::from_secs(1));
    let choices = (0..4).map(|choice| SequenceSpec { choice, time_left, ..spec(ids(30, 1), 9) });
    let clients: Vec<usize> = choices.map(|spec| bench.submit(spec)).collect();
    bench.step(16);
    assert_eq!(bench.scheduler.load().running, 1, "the first reads the prompt for all");
    bench.now += Duration::from_secs(1);
    bench.schedule(16);
    assert!(bench.scheduler.is_idle());
    for client in clients {
        assert_eq!(bench.answer(client).end, Some(FinishReason::Length));
    }
}

#[test]
fn a_prompt_that_takes_too_long_is_gone_on_with_by_the_next_key() {
    let mut bench = Bench::new(64, 4, 2);
    let limit = TimeLimits { prompt: Some(Duration::from_millis(500)), predict: None };
    let first = bench.submit(SequenceSpec { time: limit, ..spec(ids(50, 1), 4) });
    bench.now += Duration::from_secs(2);
    bench.step(20);
    bench.now += Duration::from_millis(400);
    bench.step(20);
    bench.schedule(20);
    assert!(bench.wants_step());
    bench.now += Duration::from_millis(100);
    assert!(!bench.wants_step(), "counted from when it began to run");
    bench.scheduler.discard();
    assert_eq!(bench.step(20), StepRows::default());
    let answer = bench.answer(first);
    assert_eq!((answer.text.as_str(), answer.end), ("", Some(FinishReason::Length)));
    let mut longer = ids(50, 1);
    longer.push(5);
    let next = bench.submit(SequenceSpec { time: limit, ..spec(longer, 4) });
    bench.step(20);
    bench.now += Duration::from_secs(10);
    bench.run();
    assert_eq!(bench.check(next).cached, 40, "and with the prompt read there is no such limit");
}

#[test]
fn an_answer_that_takes_too_long_ends_once_it_has_a_line() {
    let limits = DeviceLimits { vocab: tokenizer().vocab_size(), ..limits(64, 4) };
    let has_line = |&id: &u32| tokenizer().bytes(id).contains(&b'\n');
    let lines: Vec<u32> = (0..limits.vocab as u32).filter(has_line).collect();
    let sampling = |bias| SamplingParams {
        temperature: 0.0,
        logit_bias: lines.iter().map(|&id| (id, bias)).collect(),
        ..SamplingParams::default()
    };
    for (bias, ends) in [(1e3, true), (-1e3, false)] {
        let mut bench = Bench::with(Mock::new(limits.clone()), 2, false);
        let time = TimeLimits { prompt: None, predict: Some(Duration::from_millis(250)) };
        let rules = Arc::new(SequenceRules { sampling: sampling(bias), ..rules() });
        let client = bench.submit(SequenceSpec { time, rules, ..spec(ids(4, 1), 40) });
        bench.now += Duration::from_secs(2);
        for _ in 0..3 {
            bench.step(16);
            bench.now += Duration::from_millis(100);
        }
        bench.step(16);
        assert!(!bench.clients[client].events.is_closed(), "200 ms since the first token");
        bench.now += Duration::from_millis(100);
        bench.step(16);
        assert_eq!(bench.clients[client].events.is_closed(), ends);
        bench.run();
        let answer = bench.answer(client);
        assert_eq!(answer.end, Some(FinishReason::Length));
        assert_eq!(answer.ids.len(), if ends { 4 } else { 40 });
    }
}

#[test]
fn a_reader_that_left_is_noticed_in_the_queue_and_while_it_runs() {
    let mut bench = Bench::new(16, 4, 1);
    bench.submit(spec(ids(4, 1), 30));
    bench.submit(spec(ids(4, 2), 30));
    bench.step(16);
    bench.clients.clear();
    assert_eq!(bench.step(16), StepRows::default());
}

#[test]
fn a_step_is_given_up_once_nobody_wants_its_prompts() {
    let mut bench = Bench::new(64, 4, 4);
    let chat = bench.submit(spec(ids(4, 1), 12));
    bench.step(16);
    let [leaves, stays] = [2, 3].map(|salt| bench.submit(spec(ids(30, salt), 2)));
    bench.schedule(16);
    assert!(bench.wants_step());
    bench.clients[leaves].events.close();
    assert!(!bench.wants_step(), "the other's prompt is in the next step");
    bench.scheduler.discard();
    bench.schedule(64);
    bench.clients[stays].events.close();
    assert!(bench.wants_step(), "the chat lost one step, and not two");
    bench.step(64);
    assert_eq!(bench.step(64), StepRows { decodes: 1, ..StepRows::default() });
    bench.schedule(64);
    assert!(bench.wants_step());
    bench.run();
    bench.check(chat);
}

#[test]
fn a_prompt_s_rows_are_many_alone_and_few_beside_a_completion() {
    let mut bench = Bench::new(64, 4, 4);
    let rows = |span| match span {
        Span::Long => 24,
        Span::Step => 12,
        Span::Short => 3,
    };
    let prefills = |bench: &mut Bench| {
        let prefills = bench.schedule_by(rows).prefills;
        bench.device.run(bench.scheduler.step(), &mut bench.rows).expect("no fault was set");
        bench.scheduler.advance(&bench.rows);
        prefills
    };
    // three choices are one request
    let cursor = spec(ids(60, 1), 3);
    let choices = (0..3).map(|choice| SequenceSpec { choice, ..cursor.clone() });
    let clients: Vec<usize> = choices.map(|spec| bench.submit(spec)).collect();
    assert_eq!(prefills(&mut bench), 24);
    let chat = SequenceSpec { priority: Priority::Chat, ..spec(ids(90, 2), 4) };
    let chat = bench.submit(chat);
    assert_eq!(prefills(&mut bench), 12, "somebody waits");
    while !clients.iter().all(|&client| bench.clients[client].events.is_closed()) {
        prefills(&mut bench);
    }
    assert_eq!(prefills(&mut bench), 12, "a chat alone");
    let late = bench.submit(spec(ids(4, 3), 3));
    assert_eq!(
        prefills(&mut bench),
        4,
        "the completion first, and of the chat what a short step has"
    );
    assert_eq!(prefills(&mut bench), 3, "beside a completion that decodes");
    bench.run();
    for client in clients.into_iter().chain([chat, late]) {
        bench.check(client);
    }
}

#[test]
fn a_step_with_a_prompt_that_somebody_wants_goes_on() {
    let mut bench = Bench::new(64, 4, 4);
    let clients = [2, 3].map(|salt| bench.submit(spec(ids(10, salt), 2)));
    bench.schedule(20);
    bench.clients[clients[0]].events.close();
    assert!(bench.wants_step());
    bench.clients[clients[1]].events.close();
    assert!(!bench.wants_step());
}

#[test]
fn an_answer_that_nobody_reads_is_given_up_in_the_step() {
    let mut bench = Bench::new(64, 4, 4);
    let clients = [2, 3].map(|salt| bench.submit(spec(ids(4, salt), 20)));
    bench.step(16);
    bench.schedule(16);
    for client in clients {
        assert!(bench.wants_step());
        bench.clients[client].events.close();
    }
    assert!(!bench.wants_step());
}

#[test]
fn a_crowd_that_leaves_at_once_takes_nobody_along() {
    let mut bench = Bench::new(16, 4, 2);
    for family in 0..40 {
        bench.submit(spec(ids(4, family), 30));
    }
    bench.clients.clear();
    let patient = bench.submit_as(40, spec(ids(4, 50), 3));
    bench.run();
    bench.check(patient);
}

#[test]
fn reading_a_prompt_alone_fills_the_cache_and_says_nothing() {
    let mut bench = Bench::new(16, 4, 1);
    let warm = bench.submit(spec(ids(22, 1), 0));
    bench.run();
    let answer = bench.check(warm);
    assert_eq!((answer.text.as_str(), answer.end), ("", Some(FinishReason::Length)));
    let next = bench.submit(spec(ids(22, 1), 3));
    bench.run();
    assert_eq!(bench.check(next).cached, 21);
    let scrape = bench.telemetry.render();
    assert!(scrape.contains("weir_prefix_cache_hits_total 21"), "{scrape}");
    assert!(scrape.contains("weir_tokens_total{kind=\"cached\"} 21"), "{scrape}");
}

fn warm_up(prompt: Vec<u32>) -> SequenceSpec {
    SequenceSpec { priority: Priority::WarmUp, ..spec(prompt, 0) }
}

#[test]
fn a_warm_up_runs_when_nothing_else_does_and_ends_when_anybody_comes() {
    let mut bench = Bench::new(64, 4, 4);
    let work = bench.submit(spec(ids(10, 1), 3));
    let warm = [2, 3].map(|salt| bench.submit(warm_up(ids(50, salt))));
    let busy = bench.scheduler.load();
    assert_eq!((busy.waiting, busy.prefill_tokens), (1, 10), "warm-ups delay nobody");
    while !bench.clients[work].events.is_closed() {
        bench.step(16);
        assert_eq!(bench.scheduler.step().segments.len(), 1);
    }
    assert_eq!(bench.step(20).prefills, 20);
    assert_eq!(bench.step(20).prefills, 20, "the older one first");
    let idle = bench.scheduler.load();
    assert_eq!((idle.running, idle.waiting, idle.prefill_tokens), (0, 0, 0));
    bench.schedule(20);
    let moment = |arriving| Moment { now: bench.now, arriving };
    assert!(bench.scheduler.wants_step(moment(false)));
    assert!(!bench.scheduler.wants_step(moment(true)), "somebody is on his way");
    bench.scheduler.discard();
    let next = bench.submit(spec(ids(50, 2), 3));
    for client in warm {
        assert_eq!(bench.answer(client).end, Some(FinishReason::Length));
    }
    bench.run();
    assert_eq!(bench.check(next).cached, 40, "what it had read is there");
    bench.check(work);
}

#[test]
fn somebody_on_his_way_is_enough_to_end_a_warm_up() {
    let mut bench = Bench::new(64, 4, 4);
    let warm = bench.submit(warm_up(ids(50, 2)));
    bench.step(16);
    let moment = Moment { now: bench.now, arriving: true };
    assert!(bench.scheduler.schedule(moment, &bench.costs, |_, _| 16).is_empty());
    assert_eq!(bench.answer(warm).end, Some(FinishReason::Length));
    assert!(bench.scheduler.is_idle());
}

#[test]
fn few_warm_ups_wait_and_a_tenant_drops_its_own_oldest() {
    let mut bench = Bench::new(64, 4, 4);
    bench.submit(spec(ids(10, 1), 30));
    bench.step(16);
    let of = |tenant, salt| SequenceSpec { tenant, ..warm_up(ids(20, salt)) };
    let first = bench.submit(of(1, 2));
    let others = [3, 4, 5].map(|salt| bench.submit(of(2, salt)));
    let newer = bench.submit(of(2, 6));
    let closed = |bench: &Bench, client: usize| bench.clients[client].events.is_closed();
    assert!(closed(&bench, others[0]) && !closed(&bench, others[1]) && !closed(&bench, newer));
    let stranger = bench.submit(of(3, 7));
    assert!(closed(&bench, stranger), "nobody else's is dropped");
    assert!(!closed(&bench, first));
    bench.run();
    for client in [first, others[1], newer] {
        bench.check(client);
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Submit { family: u32, length: usize, own: usize, max_tokens: usize, kind: Kind, class: u8 },
    Cancel(prop::sample::Index),
    Step(usize),
    GiveUp(usize),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Greedy,
    Drawn,
    StopIds,
    StopStrings,
    Fitted,
    OnHost,
    Scored,
    Silent,
}

fn operation() -> impl Strategy<Value = Operation> {
    let kind = prop::sample::select(vec![
        Kind::Greedy,
        Kind::Drawn,
        Kind::StopIds,
        Kind::StopStrings,
        Kind::Fitted,
        Kind::OnHost,
        Kind::Scored,
        Kind::Silent,
    ]);
    let submit = (0..3u32, 1..40usize, 0..4usize, 0..24usize, kind, 0..8u8).prop_map(
        |(family, length, own, max_tokens, kind, class)| Operation::Submit {
            family,
            length,
            own,
            max_tokens,
            kind,
            class,
        },
    );
    prop_oneof![
        3 => submit,
        1 => any::<prop::sample::Index>().prop_map(Operation::Cancel),
        5 => (1..40usize).prop_map(Operation::Step),
        1 => (1..40usize).prop_map(Operation::GiveUp),
    ]
}

fn of_kind(kind: Kind) -> SequenceRules {
    let drawn = SamplingParams { temperature: 0.8, top_p: 0.9, ..SamplingParams::default() };
    match kind {
        Kind::Greedy => rules(),
        Kind::Drawn => SequenceRules { sampling: drawn, ..rules() },
        Kind::StopIds => SequenceRules { stop_ids: (0..8).collect(), ..rules() },
        Kind::StopStrings => SequenceRules {
            stop_strings: Arc::new(StopStrings::new(&["!", "a", "#$"]).expect("few and short")),
            stop_ids: STOPS_WITH_STRINGS.to_vec(),
            ..rules()
        },
        Kind::Fitted => SequenceRules { fit: Some(in_brackets()), ..rules() },
        Kind::OnHost => SequenceRules {
            logprobs: Some(3),
            min_tokens: 4,
            stop_ids: (0..20).collect(),
            ..rules()
        },
        Kind::Scored => SequenceRules { echo: true, ..rules() },
        Kind::Silent => SequenceRules { logprobs: None, ..rules() },
    }
}

/// Where the suffix closes what the prefix opens.
fn in_brackets() -> Arc<Cursor> {
    let stops = CodeStops { block: true, ..CodeStops::default() };
    Arc::new(Cursor::new(stops, "f(g[{", "}]);\n", None))
}

fn apply(bench: &mut Bench, operation: &Operation, capacity: usize) {
    match *operation {
        Operation::Submit { family, length, own, max_tokens, kind, class } => {
            let mut prompt = ids(length, family);
            prompt.extend(ids(own, bench.clients.len() as u32 % 5));
            let max_tokens = max_tokens.min(capacity.saturating_sub(prompt.len()));
            prompt.truncate(capacity);
            let cursor = prompt.len().saturating_sub(own);
            let priority =
                [Priority::Completion, Priority::Chat, Priority::Batch, Priority::WarmUp];
            bench.submit(SequenceSpec {
                rules: Arc::new(of_kind(kind)),
                priority: priority[usize::from(class % 4)],
                tenant: u32::from(class / 4),
                seed: u64::from(family),
                cursor,
                ..spec(prompt, max_tokens)
            });
        }
        Operation::Cancel(index) if !bench.clients.is_empty() => {
            let client = index.index(bench.clients.len());
            bench.cancel(client);
        }
        Operation::Cancel(_) => {}
        Operation::Step(prefill_rows) => {
            bench.step(prefill_rows);
        }
        Operation::GiveUp(prefill_rows) => bench.give_up(prefill_rows),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn everybody_gets_what_a_run_alone_gives(
        operations in prop::collection::vec(operation(), 1..OPERATIONS_MAX),
        blocks in 3..60usize,
        block_tokens in prop::sample::select(vec![1usize, 4, 16]),
        slots in 1..9usize,
        speculate: bool,
    ) {
        let mut bench = match speculate {
            true => Bench::habitual(blocks, block_tokens, slots, true),
            false => Bench::new(blocks, block_tokens, slots),
        };
        for operation in &operations {
            apply(&mut bench, operation, blocks * block_tokens);
            bench.scheduler.assert_sound();
            bench.scheduler.kv().assert_sound();
        }
        bench.run();
        bench.scheduler.kv().assert_sound();
        for client in 0..bench.clients.len() {
            bench.check(client);
        }
        let load = bench.scheduler.load();
        prop_assert_eq!((load.running, load.waiting, load.prefill_tokens), (0, 0, 0));
        prop_assert_eq!(load.blocks.referenced, 0);
        prop_assert_eq!(bench.scheduler.kv().promised(), 0);
        prop_assert_eq!(bench.places.taken(), 0);
    }
}
