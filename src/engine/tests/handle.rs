//! Through the door that dispatch uses, with the real thread behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use models::FimOrder;
use models::chat::ChatTemplate;
use models::fim::{FimHint, FimTemplate};
use models::sampler::SamplingParams;
use models::step::DeviceLimits;
use tokio::time::timeout;

use super::mock::{Fault, Mock, solo, tokenizer, unstoppable};
use crate::completion::{
    Backend, ChatMessage, CompletionRequest, Event, FimInput, FinishReason, Input, Priority,
    Reason, Refusal, StopRules, TimeLimits, Usage,
};
use crate::config::Speculate;
use crate::engine::message::{SequenceId, SequenceRules, SequenceSpec};
use crate::engine::place::WARM_UPS_MAX;
use crate::engine::prompt::Prompts;
use crate::engine::{EngineHandle, EngineOptions, EngineParts, start};
use crate::telemetry::Telemetry;

/// Longer than any of these tests takes; a hang fails instead.
const PATIENCE: Duration = Duration::from_secs(20);
const PACE: Duration = Duration::from_millis(2);
/// Steps that an engine runs before it is ready.
const STEPS_TO_READY: u64 = 3;
const SLOTS: usize = 4;
const QUEUE_MAX: usize = 8;

struct Running {
    engine: EngineHandle,
    rows: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    given_up: Arc<AtomicUsize>,
    telemetry: Arc<Telemetry>,
}

fn limits() -> DeviceLimits {
    let vocab = tokenizer().vocab_size();
    DeviceLimits { vocab, blocks: 64, ..super::mock::limits(64, 16) }
}

fn run(adjust: impl FnOnce(&mut Mock)) -> Running {
    let mut device = Mock::new(limits());
    adjust(&mut device);
    let rows = Arc::clone(&device.rows);
    let (begun, given_up) = (Arc::clone(&device.begun), Arc::clone(&device.given_up));
    let telemetry = Telemetry::new();
    let hint = FimHint { name: "default".into(), ..FimHint::default() };
    let fim = FimTemplate::resolve(&tokenizer(), &hint, FimOrder::Auto);
    let parts = EngineParts {
        device: Box::new(device),
        tokenizer: tokenizer(),
        fim: Some(fim.expect("the default vocabulary has FIM tokens")),
        chat: None,
        model: "mock".into(),
        eos: Vec::new(),
    };
    let options = EngineOptions {
        slots: SLOTS,
        queue_max: QUEUE_MAX,
        step_ms_max: 50,
        speculate: Speculate::Off,
    };
    let engine = start(parts, options, Arc::clone(&telemetry));
    Running { engine, rows, begun, given_up, telemetry }
}

fn request(input: Input, max_tokens: u32) -> CompletionRequest {
    CompletionRequest::greedy("test", input, max_tokens)
}

fn tokens(count: u32, max_tokens: u32) -> CompletionRequest {
    request(Input::Tokens((100..100 + count).collect()), max_tokens)
}

fn alone(ids: &[u32], max_tokens: usize) -> String {
    let rules = SequenceRules {
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        stop_strings: unstoppable(),
        fit: None,
        healing: None,
        stop_ids: Vec::new(),
        min_tokens: 0,
        logprobs: None,
        echo: false,
    };
    let spec = SequenceSpec {
        id: SequenceId(0),
        choice: 0,
        prompt: ids.into(),
        cursor: ids.len(),
        max_tokens,
        rules: Arc::new(rules),
        seed: 0,
        priority: Priority::Completion,
        tenant: 0,
        time_left: None,
        time: TimeLimits::default(),
    };
    solo(&spec, tokenizer().vocab_size(), false).1
}

async fn complete(
    engine: &EngineHandle,
    request: CompletionRequest,
) -> Result<Vec<Event>, Refusal> {
    let stream = engine.complete(Arc::new(request)).await?;
    Ok(timeout(PATIENCE, stream.events.collect()).await.expect("an answer ends"))
}

fn text_of(events: &[Event], wanted: u32) -> String {
    let chunk = |event: &Event| match event {
        Event::Chunk(chunk) if chunk.choice == wanted => Some(chunk.as_str().to_owned()),
        _ => None,
    };
    events.iter().filter_map(chunk).collect()
}

fn usage_of(events: &[Event]) -> Usage {
    match events.last() {
        Some(Event::Usage(usage)) => *usage,
        other => panic!("usage comes last, not {other:?}"),
    }
}

fn failure_of(events: &[Event]) -> Reason {
    match events.last() {
        Some(Event::Failed(refusal)) => refusal.reason.clone(),
        other => panic!("a failure comes last, not {other:?}"),
    }
}

async fn calm(engine: &EngineHandle) {
    timeout(PATIENCE, engine.drained()).await.expect("all places come back");
    let idle = || {
        let saturation = engine.saturation();
        // an idle box is exactly 0
        saturation.work_ahead_ms() == 0.0
            && saturation.running() == 0
            && saturation.blocks().referenced == 0
    };
    // the last place comes back a moment before the step that gave it is published, and what is
    // published is read number by number
    for _ in 0..1000 {
        if idle() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(idle(), "{:?}", engine.saturation());
}

#[tokio::test]
async fn a_text_is_completed_as_the_device_says() {
    let Running { engine, telemetry, .. } = run(|_| {});
    timeout(PATIENCE, engine.started()).await.expect("it starts").expect("and is ready");
    let text = "fn main() {\n    let answer = ";
    let events = complete(&engine, request(Input::Text(text.into()), 12)).await.expect("room");
    let ids = tokenizer().encode_prompt(text).expect("short");
    assert_eq!(text_of(&events, 0), alone(&ids, 12));
    let usage = usage_of(&events);
    let counted = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens);
    assert_eq!(counted, (ids.len() as u64, 0, 12));
    let again = complete(&engine, request(Input::Text(text.into()), 12)).await.expect("room");
    assert_eq!(usage_of(&again).cached_tokens, ids.len() as u64 - 1);
    calm(&engine).await;
    assert!(telemetry.render().contains("weir_tokens_total{kind=\"generated\"} 24"));
}

#[tokio::test]
async fn choices_share_the_prompt_and_differ_by_seed() {
    let Running { engine, rows, .. } = run(|_| {});
    engine.started().await.expect("ready");
    let before = rows.load(Ordering::SeqCst);
    let sampling = SamplingParams { seed: Some(7), ..SamplingParams::default() };
    let three = CompletionRequest { n: 3, sampling, ..tokens(40, 8) };
    let events = complete(&engine, three).await.expect("room");
    let texts: Vec<String> = (0..3).map(|choice| text_of(&events, choice)).collect();
    assert!(texts[0] != texts[1] && texts[1] != texts[2]);
    let usage = usage_of(&events);
    assert_eq!((usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens), (40, 0, 24));
    assert_eq!(rows.load(Ordering::SeqCst) - before, 40 + 2 + 3 * 7, "the prompt ran once");
    calm(&engine).await;
}

#[tokio::test]
async fn a_cursor_in_a_long_file_is_cut_to_fit() {
    let Running { engine, .. } = run(|_| {});
    let input = FimInput {
        prefix: "let mut total = 0;\n".repeat(100),
        suffix: "\n    total\n}\n".repeat(40),
        ..FimInput::default()
    };
    let stream = engine.complete(Arc::new(request(Input::Fim(input), 20))).await.expect("room");
    assert!(stream.truncated);
    let events: Vec<Event> = stream.events.collect().await;
    let usage = usage_of(&events);
    assert!(usage.prompt_tokens + 20 <= engine.context() as u64);
    assert!(usage.prompt_tokens > engine.context() as u64 / 2, "what fits is kept");
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_its_reason() {
    let Running { engine, .. } = run(|_| {});
    let context = engine.context() as u32;
    let past = Some(tokio::time::Instant::now());
    let message = ChatMessage { role: "user".into(), content: "hi".into() };
    let bad = Reason::Invalid { param: Some("prompt") };
    let table = [
        (tokens(context, 1), Reason::ContextLength),
        (tokens(context + 1, 0), Reason::ContextLength),
        (request(Input::Text("x = 1;\n".repeat(500)), 5), Reason::ContextLength),
        (request(Input::Tokens(vec![9, 8192]), 5), bad.clone()),
        (request(Input::Tokens(Vec::new()), 5), bad),
        (request(Input::Chat(vec![message]), 5), Reason::Unsupported),
        (CompletionRequest { n: 0, ..tokens(4, 4) }, Reason::Invalid { param: Some("n") }),
        (CompletionRequest { n: 4096, ..tokens(4, 4) }, Reason::Invalid { param: Some("n") }),
        (CompletionRequest { deadline: past, ..tokens(4, 4) }, Reason::Deadline),
        (
            CompletionRequest {
                stop: StopRules { strings: vec![String::new()], ..StopRules::default() },
                ..tokens(4, 4)
            },
            Reason::Invalid { param: Some("stop") },
        ),
    ];
    for (request, reason) in table {
        let refusal = complete(&engine, request).await.expect_err("it is refused");
        assert_eq!(refusal.reason, reason, "{refusal}");
    }
    // and what just fits is served
    let events = complete(&engine, tokens(context, 0)).await.expect("room");
    assert_eq!(usage_of(&events).completion_tokens, 0);
    let events = complete(&engine, tokens(context - 3, 50)).await.expect("room");
    assert_eq!(usage_of(&events).completion_tokens, 3, "max_tokens is clamped to what fits");
    calm(&engine).await;
}

#[tokio::test]
async fn a_full_queue_refuses_and_an_abandoned_one_empties() {
    let Running { engine, .. } = run(|mock| mock.pace = PACE);
    engine.started().await.expect("ready");
    let mut streams = Vec::new();
    for salt in 0..(SLOTS + QUEUE_MAX) as u32 {
        let own = request(Input::Tokens(vec![salt + 1; 30]), 200);
        streams.push(engine.complete(Arc::new(own)).await.expect("there is a place"));
        assert!(engine.saturation().work_ahead_ms() > 0.0, "a burst is seen while it arrives");
    }
    let refusal = complete(&engine, tokens(4, 4)).await.expect_err("the queue is full");
    assert_eq!(refusal.reason, Reason::QueueFull);
    assert!(refusal.retry_after.is_some_and(|after| after > Duration::ZERO));
    let mut first = streams.swap_remove(0);
    assert!(matches!(first.events.next().await, Some(Event::Chunk(_))));
    drop((first, streams));
    calm(&engine).await;
    let text = text_of(&complete(&engine, tokens(9, 9)).await.expect("room"), 0);
    assert_eq!(text, alone(&(100..109).collect::<Vec<u32>>(), 9), "and others are unharmed");
}

#[tokio::test]
async fn two_thousand_broken_off_answers_leave_nothing_behind() {
    let Running { engine, .. } = run(|_| {});
    let mut random = fastrand::Rng::with_seed(2);
    let places = SLOTS + QUEUE_MAX;
    for _ in 0..2000usize.div_ceil(places) {
        let abort = |seed: u64| {
            let engine = engine.clone();
            let mut random = fastrand::Rng::with_seed(seed);
            async move {
                let own = tokens(random.u32(1..120), random.u32(0..100));
                let mut answering = Box::pin(engine.complete(Arc::new(own)));
                if random.u8(0..8) == 0 {
                    // gone while it is tokenised
                    return drop(futures_util::poll!(&mut answering));
                }
                // a place may come back a moment after its answer was dropped
                let Ok(mut stream) = answering.await else { return };
                for _ in 0..random.u32(0..20) {
                    stream.events.next().await;
                }
            }
        };
        futures_util::future::join_all((0..places).map(|_| abort(random.u64(..)))).await;
    }
    timeout(Duration::from_secs(1), engine.drained()).await.expect("all is free within a second");
    calm(&engine).await;
    let ids: Vec<u32> = (100..140).collect();
    let text = text_of(&complete(&engine, tokens(40, 20)).await.expect("room"), 0);
    assert_eq!(text, alone(&ids, 20));
}

/// Waits until one more step than `before` has begun.
async fn next_step(begun: &AtomicUsize, before: usize) {
    let started = Instant::now();
    while begun.load(Ordering::SeqCst) <= before {
        assert!(started.elapsed() < PATIENCE, "no step begins");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_step_that_reads_its_prompt() {
    // What is too long to wait for is long enough to begin, to leave and to be noticed.
    const STEP: Duration = Duration::from_secs(8);
    let Running { engine, begun, given_up, .. } = run(|mock| {
        mock.pace = STEP;
        mock.layers = 400;
        mock.fast_steps = STEPS_TO_READY;
    });
    engine.started().await.expect("ready");
    let leaves = engine.complete(Arc::new(tokens(50, 4))).await.expect("room");
    next_step(&begun, STEPS_TO_READY as usize).await;
    let left = Instant::now();
    drop(leaves);
    calm(&engine).await;
    assert!(left.elapsed() < STEP / 4, "{:?}", left.elapsed());
    assert_eq!(given_up.load(Ordering::SeqCst), 1);
}

fn warm_up(salt: u32) -> CompletionRequest {
    let input = Input::Tokens((100 * salt..100 * salt + 200).collect());
    CompletionRequest { priority: Priority::WarmUp, ..request(input, 0) }
}

#[tokio::test]
async fn warm_ups_are_no_work_and_are_over_when_some_comes() {
    const STEP: Duration = Duration::from_secs(8);
    let Running { engine, begun, given_up, .. } = run(|mock| {
        mock.pace = STEP;
        mock.layers = 400;
        // an engine that is ready, and the work that comes
        mock.fast_steps = STEPS_TO_READY;
        mock.slow_rows = 20;
    });
    engine.started().await.expect("ready");
    let mut streams = Vec::new();
    for salt in 1..=WARM_UPS_MAX as u32 {
        let stream = engine.complete(Arc::new(warm_up(salt))).await;
        streams.push(stream.expect("a warm-up is never refused"));
        // The others wait for the end of the first one's step.
        next_step(&begun, STEPS_TO_READY as usize).await;
    }
    assert_eq!(engine.saturation().work_ahead_ms(), 0.0);
    let saturation = engine.saturation();
    assert_eq!((saturation.running(), saturation.waiting()), (0, 0));
    let one_too_many = complete(&engine, warm_up(40)).await.expect("no refusal");
    assert_eq!(usage_of(&one_too_many).completion_tokens, 0);
    let came = Instant::now();
    let events = complete(&engine, tokens(8, 1)).await.expect("room");
    assert!(came.elapsed() < STEP / 4, "{:?}", came.elapsed());
    assert_eq!(usage_of(&events).completion_tokens, 1);
    assert_eq!(given_up.load(Ordering::SeqCst), 1);
    for stream in streams {
        let events: Vec<Event> = timeout(PATIENCE, stream.events.collect()).await.expect("an end");
        assert_eq!(usage_of(&events).completion_tokens, 0);
    }
    calm(&engine).await;
}

#[tokio::test]
async fn a_deadline_ends_an_answer_that_has_begun() {
    let Running { engine, .. } = run(|mock| mock.pace = PACE);
    engine.started().await.expect("ready");
    let deadline = Some(tokio::time::Instant::now() + 100 * PACE);
    let events = complete(&engine, CompletionRequest { deadline, ..tokens(8, 200) }).await;
    let events = events.expect("room");
    let text = text_of(&events, 0);
    let ids: Vec<u32> = (100..108).collect();
    assert!(!text.is_empty() && alone(&ids, 200).starts_with(&text), "the best so far: {text}");
    assert!(usage_of(&events).completion_tokens < 200);
    calm(&engine).await;
}

#[tokio::test]
async fn draining_finishes_what_runs_and_refuses_the_rest() {
    let Running { engine, .. } = run(|mock| mock.pace = PACE);
    let running = engine.complete(Arc::new(tokens(8, 20))).await.expect("room");
    engine.drain();
    let refusal = complete(&engine, tokens(8, 4)).await.expect_err("it is draining");
    assert_eq!(refusal.reason, Reason::Draining);
    let events: Vec<Event> = running.events.collect().await;
    assert_eq!(usage_of(&events).completion_tokens, 20);
    calm(&engine).await;
    engine.stop();
    assert!(!engine.ready());
}

#[tokio::test]
async fn stopping_ends_what_runs() {
    let Running { engine, .. } = run(|mock| mock.pace = PACE);
    let mut running = engine.complete(Arc::new(tokens(8, 200))).await.expect("room");
    assert!(matches!(running.events.next().await, Some(Event::Chunk(_))));
    let stopper = engine.clone();
    tokio::task::spawn_blocking(move || stopper.stop()).await.expect("it stops");
    let rest: Vec<Event> = running.events.collect().await;
    assert_eq!(failure_of(&rest), Reason::Draining);
    calm(&engine).await;
}

async fn everybody_hears_of(fault: Fault) {
    let Running { engine, .. } = run(|mock| {
        mock.fault = Some((20, fault));
        mock.pace = PACE;
    });
    engine.started().await.expect("the first token is fine");
    let mut streams = Vec::new();
    for salt in 0..8 {
        let own = request(Input::Tokens(vec![salt + 1; 30]), 200);
        streams.push(engine.complete(Arc::new(own)).await.expect("there is a place"));
    }
    for stream in streams {
        let events: Vec<Event> =
            timeout(PATIENCE, stream.events.collect()).await.expect("nobody hangs");
        assert_eq!(failure_of(&events), Reason::EngineFailed);
    }
    assert!(!engine.ready());
    let refusal = complete(&engine, tokens(4, 4)).await.expect_err("there is no engine");
    assert_eq!(refusal.reason, Reason::EngineFailed);
    timeout(PATIENCE, engine.drained()).await.expect("all places come back");
    engine.stop();
    assert_eq!(engine.saturation().running(), 0);
}

#[tokio::test]
async fn a_device_that_fails_is_an_end_for_everybody() {
    everybody_hears_of(Fault::Error).await;
}

#[tokio::test]
async fn a_panic_on_the_engine_s_thread_is_an_end_for_everybody() {
    everybody_hears_of(Fault::Panic).await;
}

#[tokio::test]
async fn a_device_that_never_worked_is_never_ready() {
    let Running { engine, .. } = run(|mock| mock.fault = Some((1, Fault::Error)));
    let refusal = timeout(PATIENCE, engine.started()).await.expect("it says so");
    assert_eq!(refusal.expect_err("it failed").reason, Reason::EngineFailed);
}

#[tokio::test]
async fn an_echoed_prompt_comes_first_with_its_log_probabilities() {
    let Running { engine, .. } = run(|_| {});
    let text = "let x = 1;";
    let echo =
        CompletionRequest { echo: true, logprobs: Some(2), ..request(Input::Text(text.into()), 3) };
    let events = complete(&engine, echo).await.expect("room");
    let Event::Prompt { choice: 0, text: echoed, tokens } = &events[0] else {
        panic!("the prompt comes first, not {:?}", events[0]);
    };
    assert_eq!(echoed, text);
    assert_eq!(tokens[0].logprob, None);
    assert!(tokens[1..].iter().all(|t| t.logprob.is_some_and(|p| p < 0.0) && t.top.len() == 2));
    let ended = |event: &Event| {
        matches!(event, Event::Finished { choice: 0, reason: FinishReason::Length })
    };
    assert!(events.iter().any(ended));
}

#[test]
fn control_tokens_spelled_out_in_a_message_are_text() {
    let template = "{% for message in messages %}<|file_sep|>{{ message.content }}{% endfor %}";
    let chat = ChatTemplate::new(template, tokenizer().special_texts().clone());
    let prompts = Prompts {
        tokenizer: tokenizer(),
        fim: None,
        chat: Some(chat.expect("a template")),
        eos: Vec::new(),
        vocab: tokenizer().vocab_size(),
        context: 1024,
    };
    let message = ChatMessage { role: "user".into(), content: "a <|file_sep|> b".into() };
    let prompt = prompts.prompt(&request(Input::Chat(vec![message]), 4)).expect("it fits");
    let separator = tokenizer().id("<|file_sep|>").expect("the vocabulary has it");
    let separators = prompt.ids.iter().filter(|&&id| id == separator).count();
    assert_eq!(separators, 1, "the template's own");
}
