//! The default model on the CPU: what a batch, a shared prefix and a cut-off neighbour must not
//! change.

use std::sync::Arc;

use futures_util::StreamExt;
use models::cpu::{CpuDevice, CpuOptions};
use models::kv::BLOCK_TOKENS;
use models::model::{ModelSource, load};
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
    let options = CpuOptions {
        isa: None,
        threads: 2,
        context: 256,
        blocks: 96,
        block_tokens: BLOCK_TOKENS,
        rows_max: 128,
        samples_max: 32,
    };
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
