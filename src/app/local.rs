//! The local model: from `[model]` to an engine that can start.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use models::cache::Unwritten;
use models::cpu::{CpuDevice, CpuOptions};
use models::error::LoadError;
use models::kv::BLOCK_TOKENS;
use models::language::Language;
use models::model::{self, Loaded, LoadedModel};
use models::weights::WeightFormat;

use crate::config::ModelConfig;
use crate::engine::{
    self, EngineHandle, EngineOptions, EngineParts, MemoryPlan, MemoryWish, available_memory,
    plan_memory,
};
use crate::telemetry::Telemetry;

/// A context that nobody configured is at most this: more costs memory that completions, which
/// look at a few thousand tokens around the cursor, do not use.
const CONTEXT_DEFAULT_MAX: usize = 8192;
/// Rows of one step: what a fast machine prefills in `step_ms_max`; a slow one never fills it.
pub(crate) const STEP_ROWS_MAX: usize = 512;
/// Sampled rows of one step beside one for each slot: prompts whose log-probabilities are asked.
const STEP_SAMPLES_SPARE: usize = 16;

/// A model in memory, not running yet.
pub struct Local {
    parts: EngineParts,
    options: EngineOptions,
    facts: Facts,
    unwritten: Option<Unwritten>,
}

/// What was loaded, for the operator.
#[derive(Clone, Debug)]
pub struct Facts {
    pub model: Arc<str>,
    pub parameters: u64,
    pub weight_format: WeightFormat,
    pub weight_bytes: usize,
    pub kv_format: kernels::KvFormat,
    pub isa: kernels::Isa,
    pub threads: usize,
    pub context: usize,
    pub slots: usize,
    pub kv_bytes: usize,
    /// Family and order, for a model that fills in the middle.
    pub fim: Option<String>,
    pub chat: bool,
    /// Ids below this exist.
    pub vocabulary: usize,
    /// What is not as asked for, or not as one might expect.
    pub notes: Vec<String>,
}

/// Why there is no local model.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("the model cannot be loaded: {0}")]
    Load(#[from] LoadError),
    #[error("not even one short sequence fits into the KV memory; raise kv_memory_mb")]
    Memory,
}

impl Local {
    /// Reads the model and allocates everything it will need. Blocks for as long as that takes.
    pub fn load(config: &ModelConfig) -> Result<Self, LocalError> {
        let source = config.path.source();
        let language = Language::load(&source, config.fim_order)?;
        let began = Instant::now();
        let Loaded { model: loaded, from_cache, unwritten } =
            model::load_cached(&source, config.quant, config.kv, config.cache.as_ref())?;
        tracing::info!(from_cache, seconds = began.elapsed().as_secs_f64(), "weights are loaded");
        let mut notes = language.notes;
        let plan = plan(config, &loaded, &mut notes)?;
        let device = CpuDevice::new(&loaded, &device_options(config, &plan))?;
        let facts = Facts {
            model: source.name().into(),
            parameters: loaded.config.parameters(),
            weight_format: loaded.weight_format(),
            weight_bytes: loaded.weights.bytes(),
            kv_format: loaded.kv_format,
            isa: device.isa(),
            threads: device.threads(),
            context: plan.context,
            slots: plan.slots,
            kv_bytes: device.kv_bytes(),
            fim: language.fim.as_ref().map(|fim| format!("{} {}", fim.family().name, fim.order())),
            chat: language.chat.is_some(),
            vocabulary: loaded.config.vocab,
            notes,
        };
        let parts = EngineParts {
            device: Box::new(device),
            tokenizer: Arc::new(language.tokenizer),
            fim: language
                .fim
                .map(|fim| fim.with_text_max(config.fim_text_tokens).with_lines(config.fim_lines)),
            chat: language.chat,
            model: facts.model.clone(),
            eos: loaded.config.eos_ids.clone(),
        };
        let options = EngineOptions {
            slots: plan.slots,
            queue_max: config.queue_max,
            step_ms_max: config.step_ms_max,
            speculate: config.speculate,
        };
        Ok(Self { parts, options, facts, unwritten })
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What should be written to the cache once nobody waits for an answer, with
    /// [`write_cache`]. The second call has nothing.
    pub fn take_unwritten(&mut self) -> Option<Unwritten> {
        self.unwritten.take()
    }

    /// Starts the engine's thread.
    pub fn start(self, telemetry: Arc<Telemetry>) -> EngineHandle {
        engine::start(self.parts, self.options, telemetry)
    }
}

/// Writes packed weights to the cache; that it fails costs the next start some seconds and is
/// only logged. Blocks for as long as it takes.
pub fn write_cache(unwritten: &Unwritten) {
    let began = Instant::now();
    match unwritten.write() {
        Ok(()) => {
            let seconds = began.elapsed().as_secs_f64();
            tracing::info!(seconds, "the packed weights are in the cache");
        }
        Err(error) => tracing::warn!(%error, "the packed weights are not in the cache"),
    }
}

fn plan(
    config: &ModelConfig,
    loaded: &LoadedModel,
    notes: &mut Vec<String>,
) -> Result<MemoryPlan, LocalError> {
    let most = loaded.config.context;
    let asked = config.context.unwrap_or(CONTEXT_DEFAULT_MAX);
    if config.context.is_some_and(|asked| asked > most) {
        notes.push(format!("context lowered from {asked} to {most}: the model has no more"));
    }
    let wish = MemoryWish {
        slots: config.slots,
        context: asked.min(most),
        token_bytes: loaded.kv_bytes_per_token(),
        block_tokens: BLOCK_TOKENS,
        memory_mb: config.kv_memory_mb,
    };
    let plan = plan_memory(&wish, available_memory()).ok_or(LocalError::Memory)?;
    notes.extend(plan.notes.iter().cloned());
    Ok(plan)
}

fn device_options(config: &ModelConfig, plan: &MemoryPlan) -> CpuOptions {
    CpuOptions {
        isa: config.isa,
        threads: config.threads.unwrap_or_else(kernels::default_threads),
        context: plan.context,
        blocks: plan.blocks,
        block_tokens: BLOCK_TOKENS,
        rows_max: STEP_ROWS_MAX.max(plan.slots + STEP_SAMPLES_SPARE),
        samples_max: plan.slots + STEP_SAMPLES_SPARE,
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "model    {}, {:.1} million parameters, weights {} ({:.0} MiB)",
            self.model,
            self.parameters as f64 / 1e6,
            self.weight_format,
            mib(self.weight_bytes),
        )?;
        writeln!(f, "device   cpu {}, {} threads", self.isa, self.threads)?;
        writeln!(
            f,
            "room     context {} tokens, {} slots, KV {} ({:.0} MiB)",
            self.context,
            self.slots,
            self.kv_format,
            mib(self.kv_bytes),
        )?;
        let fim = self.fim.as_deref().unwrap_or("no: completes prefixes only");
        let chat = if self.chat { "yes" } else { "no template" };
        writeln!(f, "can      fill in the middle: {fim}; chat: {chat}")?;
        for note in &self.notes {
            writeln!(f, "note     {note}")?;
        }
        Ok(())
    }
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
