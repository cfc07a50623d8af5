//! The CPU: what a batch, a shared prefix and a cut-off neighbour must not change with the default
//! model, and how soon a larger one stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use models::config::DecoderConfig;
use models::cpu::{CpuDevice, CpuOptions};
use models::kv::BLOCK_TOKENS;
use models::model::{LoadedModel, ModelSource, load};
use models::{KvFormat, Quant};

use super::mock::tokenizer;
use crate::completion::{Backend, CompletionRequest, Event, Input, StopRules, TokenLogprob};
use crate::config::Speculate;
use crate::engine::{EngineHandle, EngineOptions, EngineParts, start};
use crate::telemetry::Telemetry;

const CODE: &str = "\
def mean(values):
    total = 0
    for value in values:
        total += value
    return total / len(values)


def variance(values):
    center = mean(values)
    return ";

fn engine(slots: usize, speculate: Speculate) -> EngineHandle {
    let model = load(&ModelSource::Builtin, Quant::Auto, KvFormat::Auto).expect("it is in here");
    let room = CpuOptions { context: 256, blocks: 96, rows_max: 128, ..ROOM };
    start_on(model, room, slots, speculate)
}

/// Longer than anything here takes; a hang fails instead.
const PATIENCE: Duration = Duration::from_secs(60);
const ROOM: CpuOptions = CpuOptions {
    isa: None,
    threads: 2,
    context: 4096,
    blocks: 256,
    block_tokens: BLOCK_TOKENS,
    rows_max: 512,
    samples_max: 32,
};

fn start_on(
    model: LoadedModel,
    options: CpuOptions,
    slots: usize,
    speculate: Speculate,
) -> EngineHandle {
    let parts = EngineParts {
        device: Box::new(CpuDevice::new(&model, &options).expect("every machine has one ISA")),
        tokenizer: tokenizer(),
        fim: None,
        chat: None,
        model: "default".into(),
        eos: model.config.eos_ids,
    };
    let options = EngineOptions { slots, queue_max: 64, step_ms_max: 50, speculate };
    start(parts, options, Telemetry::new())
}

/// The code up to different places.
fn request(index: usize) -> Arc<CompletionRequest> {
    let end = CODE.floor_char_boundary(CODE.len() * (index + 3) / 12);
    let input = Input::Text(CODE[..end].into());
    Arc::new(CompletionRequest {
        stop: StopRules { ignore_eos: true, ..StopRules::default() },
        logprobs: Some(0),
        ..CompletionRequest::greedy("test", input, 4 + index as u32 % 3 * 4)
    })
}

/// Ids and the bits of their log-probabilities.
async fn answer(engine: EngineHandle, index: usize) -> Vec<(u32, Option<u32>)> {
    let stream = engine.complete(request(index)).await.expect("there is room");
    let events: Vec<Event> = stream.events.collect().await;
    assert!(matches!(events.last(), Some(Event::Usage(_))));
    let exact = |token: &TokenLogprob| (token.id, token.logprob.map(f32::to_bits));
    let tokens = events.iter().flat_map(|event| match event {
        Event::Chunk(chunk) => chunk.tokens.as_slice(),
        _ => &[],
    });
    tokens.map(exact).collect()
}

#[tokio::test]
async fn an_answer_is_the_same_alone_in_a_batch_and_from_the_cache() {
    const REQUESTS: usize = 9;
    let mut alone = Vec::new();
    for index in 0..REQUESTS {
        // an engine that has seen nothing
        alone.push(answer(engine(1, Speculate::Off), index).await);
    }
    let engine = engine(4, Speculate::Always);
    for round in ["together", "cached"] {
        let left = engine.complete(request(5)).await.expect("there is room");
        let together = (0..REQUESTS).map(|index| answer(engine.clone(), index));
        let together = futures_util::future::join_all(together);
        let (together, ()) = tokio::join!(together, async { drop(left) });
        assert_eq!(together, alone, "{round}");
    }
    engine.drained().await;
    engine.stop();
    assert_eq!(engine.saturation().blocks().referenced, 0);
}

/// Starts to read a long prompt, leaves in the midst of it, and says how long after that anything
/// still runs.
async fn stops_after(engine: &EngineHandle, salt: u32) -> Duration {
    let ids = (0..4000).map(|at| (at * 7 + salt * 131) % 8000).collect();
    let request = CompletionRequest::greedy("test", Input::Tokens(ids), 4);
    let stream = engine.complete(Arc::new(request)).await.expect("there is room");
    let saturation = engine.saturation();
    while saturation.running() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // somewhere in a later step
    tokio::time::sleep(Duration::from_millis(u64::from(salt) * 37)).await;
    assert!(saturation.waiting_prefill_tokens() > 1000, "it still reads");
    let left = Instant::now();
    drop(stream);
    while saturation.running() > 0 {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    left.elapsed()
}

#[tokio::test]
async fn work_stops_within_50_ms_in_the_midst_of_a_prompt() {
    // Layers of the 0.5B model. Fewer of them make a step of the same length have more rows in
    // each, so that one layer takes longer, and not less, than in the whole model.
    let config = DecoderConfig::of_shape("qwen2.5-coder-0.5b").expect("a known shape");
    let config = DecoderConfig { layers: 6, vocab: 8192, ..config };
    let model = LoadedModel::random(config, Quant::Q8, KvFormat::Auto, 1);
    let engine = start_on(model, ROOM, 2, Speculate::Off);
    engine.started().await.expect("it is ready");
    // The best of some, because other tests have the cores too.
    let mut best = Duration::MAX;
    for salt in 0..4 {
        let stopped = tokio::time::timeout(PATIENCE, stops_after(&engine, salt));
        best = best.min(stopped.await.expect("it stops"));
    }
    assert!(best < Duration::from_millis(50), "{best:?}");
    engine.stop();
}
