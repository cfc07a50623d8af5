//! The engine through its own door: whole completions, alone and together, and what the engine
//! adds to the kernels of a step.

mod overhead;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use weir::app::Local;
use weir::completion::{Backend, CompletionRequest, Event, Input, StopRules};
use weir::config::{Config, Overrides};
use weir::engine::EngineHandle;
use weir::telemetry::Telemetry;

const PROMPT: &str = "fn main() {\n    let mut total = 0;\n    for number in 0..10 {\n        ";
const TOKENS: u32 = 64;

fn request(tokens: u32) -> Arc<CompletionRequest> {
    let input = Input::Text(PROMPT.into());
    Arc::new(CompletionRequest {
        stop: StopRules { ignore_eos: true, ..StopRules::default() },
        ..CompletionRequest::greedy("bench", input, tokens)
    })
}

/// Bytes of text, so that the work is seen to be done.
async fn complete(engine: &EngineHandle, tokens: u32) -> usize {
    let mut stream = engine.complete(request(tokens)).await.expect("there is room");
    let mut bytes = 0;
    while let Some(event) = stream.events.next().await {
        match event {
            Event::Chunk(chunk) => bytes += chunk.text.len(),
            Event::Failed(refusal) => panic!("{refusal}"),
            Event::Prompt { .. } | Event::Finished { .. } | Event::Usage(_) => {}
        }
    }
    bytes
}

fn completions(criterion: &mut Criterion) {
    let (config, _) = Config::load(None, Overrides::default()).expect("the defaults are valid");
    let local = Local::load(&config.model).expect("the embedded model loads");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let engine = local.start(Telemetry::new());
    let mut group = criterion.benchmark_group("completions");
    for together in [1, 8] {
        group.throughput(Throughput::Elements(u64::from(TOKENS) * together));
        group.bench_function(format!("{together} x {TOKENS} tokens"), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let all: FuturesUnordered<_> =
                        (0..together).map(|_| complete(&engine, TOKENS)).collect();
                    black_box(all.collect::<Vec<usize>>().await)
                })
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = completions
}

fn main() {
    benches();
    overhead::measure();
    Criterion::default().configure_from_args().final_summary();
}
