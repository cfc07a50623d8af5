//! The CPU as a device: a step runs while it is submitted, and its rows wait to be collected.

use std::collections::VecDeque;

use kernels::{BandwidthProbe, Cpu, Isa, Rounds, STRIP};

use crate::decoder::{Decoder, Scratch};
use crate::error::LoadError;
use crate::kv::KvMemory;
use crate::model::LoadedModel;
use crate::sampler::{self, Peaked, Plan};
use crate::step::{Device, DeviceError, DeviceLimits, Row, Rows, Sample, Step, Ticket};

/// Logits that exist at one time, in bytes: room for some 50 rows of the largest vocabulary in
/// use, so that the head's weights are read once for as many samples.
const LOGITS_BYTES_MAX: usize = 32 << 20;

/// How much of the machine a model gets.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuOptions {
    /// None: the widest this machine has.
    pub isa: Option<Isa>,
    pub threads: usize,
    /// Longest sequence, in tokens; at most the model's own.
    pub context: usize,
    /// KV blocks.
    pub blocks: usize,
    /// Tokens in a block, 16 or 32.
    pub block_tokens: usize,
    /// Most rows of one step.
    pub rows_max: usize,
    /// Most rows of one step whose logits may be asked for.
    pub samples_max: usize,
}

/// A decoder with its KV memory, on the CPU.
pub struct CpuDevice {
    decoder: Decoder,
    cpu: Cpu,
    kv: KvMemory,
    scratch: Scratch,
    sampler: sampler::Scratch,
    /// `[tile, vocab]`: the head runs over so many samples at a time.
    logits: Vec<f32>,
    /// `[tile, strips]`: the highest of each strip of them.
    peaks: Vec<f32>,
    limits: DeviceLimits,
    /// Answers that were not collected yet, oldest first.
    pending: VecDeque<(Ticket, Rows)>,
    /// Memory of answers that were.
    spare: Vec<Rows>,
    next: u64,
}

impl CpuDevice {
    /// Allocates everything that steps will need. Fails where the machine lacks the ISA.
    pub fn new(model: &LoadedModel, options: &CpuOptions) -> Result<Self, LoadError> {
        let config = &model.config;
        assert!(options.context <= config.context, "a context beyond the model's");
        assert!(options.rows_max > 0 && options.samples_max > 0, "a device without rows");
        let isa = options.isa.unwrap_or_else(Isa::best);
        let cpu = Cpu::new(isa, options.threads).ok_or(LoadError::Isa(isa))?;
        let tile = (LOGITS_BYTES_MAX / (4 * config.vocab)).clamp(1, options.samples_max);
        let limits = DeviceLimits {
            vocab: config.vocab,
            blocks: options.blocks,
            block_tokens: options.block_tokens,
            context: options.context,
            rows_max: options.rows_max,
            samples_max: options.samples_max,
        };
        Ok(Self {
            decoder: Decoder::new(config.clone(), model.weights.clone(), options.context),
            cpu,
            kv: KvMemory::new(config, model.kv_format, options.blocks, options.block_tokens),
            scratch: Scratch::new(config, options.rows_max, options.samples_max),
            sampler: sampler::Scratch::new(config.vocab),
            logits: vec![0.0; tile * config.vocab],
            peaks: vec![0.0; tile * config.vocab.div_ceil(STRIP)],
            limits,
            pending: VecDeque::new(),
            spare: Vec::new(),
            next: 0,
        })
    }

    pub fn isa(&self) -> Isa {
        self.cpu.isa()
    }

    pub fn threads(&self) -> usize {
        self.cpu.threads()
    }

    /// Size of the KV cache in memory.
    pub fn kv_bytes(&self) -> usize {
        self.kv.bytes()
    }

    /// A probe of memory's read bandwidth over as many bytes.
    pub fn bandwidth_probe(&self, bytes: usize) -> BandwidthProbe {
        self.cpu.bandwidth_probe(bytes)
    }

    /// Reads the probe's buffer with this device's threads.
    pub fn read(&self, probe: &BandwidthProbe, rounds: &mut Rounds) {
        probe.round(&self.cpu, rounds);
    }

    fn answer(&mut self, step: &Step, rows: &mut Rows) {
        let tile = self.logits.len() / self.limits.vocab;
        for (i, samples) in step.samples.chunks(tile).enumerate() {
            if samples.iter().all(|sample| sample.plan == Plan::Greedy && !sample.logprob) {
                self.answer_greedy(step, i * tile, samples, rows);
            } else {
                self.answer_from_logits(step, i * tile, samples, rows);
            }
        }
    }

    /// Answers samples `first..` of which only the likeliest tokens are wanted: the logits are
    /// not stored, but for those beside the highest, which are computed again.
    fn answer_greedy(&mut self, step: &Step, first: usize, samples: &[Sample], rows: &mut Rows) {
        let strips = self.limits.vocab.div_ceil(STRIP);
        let peaks = &mut self.peaks[..samples.len() * strips];
        let (decoder, cpu) = (&self.decoder, &self.cpu);
        decoder.peaks(cpu, &mut self.scratch, first, None, peaks);
        for (i, (sample, peaks)) in samples.iter().zip(peaks.chunks_exact(strips)).enumerate() {
            let strip = cpu.argmax(peaks);
            let mut logits = [f32::NAN; STRIP];
            decoder.strip(cpu, &self.scratch, i, strip, &mut logits);
            rows.rows.push(match sampler::argmax(&logits) {
                Some(id) => token(step, sample, id + (strip * STRIP) as u32, f32::NAN),
                None => Row::NotANumber,
            });
        }
    }

    fn answer_from_logits(
        &mut self,
        step: &Step,
        first: usize,
        samples: &[Sample],
        rows: &mut Rows,
    ) {
        let (vocab, strips) = (self.limits.vocab, self.limits.vocab.div_ceil(STRIP));
        let logits = &mut self.logits[..samples.len() * vocab];
        let peaks = &mut self.peaks[..samples.len() * strips];
        self.decoder.peaks(&self.cpu, &mut self.scratch, first, Some(logits), peaks);
        let all = logits.chunks_exact(vocab).zip(peaks.chunks_exact(strips));
        for (sample, (logits, peaks)) in samples.iter().zip(all) {
            let drawn = match sample.plan {
                Plan::Logits => {
                    let start = rows.logits.len();
                    rows.logits.extend_from_slice(logits);
                    rows.rows.push(Row::Logits(start..start + vocab));
                    continue;
                }
                Plan::Greedy => None,
                Plan::Draw(draw) => {
                    sampler::choose(Peaked::new(logits, peaks), &draw, &mut self.sampler)
                }
            };
            rows.rows.push(chosen(&self.cpu, step, sample, logits, drawn));
        }
    }
}

/// The answer with a token that was drawn, or with the likeliest where none was (greedy, or
/// logits that are all NaN).
fn chosen(cpu: &Cpu, step: &Step, sample: &Sample, logits: &[f32], drawn: Option<u32>) -> Row {
    let id = drawn.unwrap_or_else(|| cpu.argmax(logits) as u32);
    let logit = logits[id as usize];
    if logit.is_nan() {
        return Row::NotANumber;
    }
    let logprob = if sample.logprob { logit - cpu.log_sum_exp(logits) } else { f32::NAN };
    token(step, sample, id, logprob)
}

fn token(step: &Step, sample: &Sample, id: u32, logprob: f32) -> Row {
    let stop_ids = &step.stop_ids[sample.stop_ids.start as usize..sample.stop_ids.end as usize];
    Row::Token { id, logprob, stop: stop_ids.contains(&id) }
}

impl Device for CpuDevice {
    fn limits(&self) -> DeviceLimits {
        self.limits.clone()
    }

    fn submit(
        &mut self,
        step: &Step,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Ticket>, DeviceError> {
        step.assert_valid(&self.limits);
        for &copy in &step.copies {
            self.kv.copy(copy);
        }
        if !self.decoder.forward(&self.cpu, step, &mut self.kv, &mut self.scratch, go_on) {
            return Ok(None);
        }
        let mut rows = self.spare.pop().unwrap_or_default();
        rows.clear();
        self.answer(step, &mut rows);
        let ticket = Ticket(self.next);
        self.next += 1;
        self.pending.push_back((ticket, rows));
        Ok(Some(ticket))
    }

    fn collect(&mut self, ticket: Ticket, rows: &mut Rows) -> Result<(), DeviceError> {
        let (oldest, mut answer) = self.pending.pop_front().expect("collected more than submitted");
        assert_eq!(oldest, ticket, "tickets are collected in order");
        std::mem::swap(rows, &mut answer);
        self.spare.push(answer);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
