//! `weir bench quality`: how far quantised weights are from bf16 on real text.
//!
//! The reference (bf16 weights, f32 KV) continues each prompt greedily. Every format is then asked
//! for its logits along that path, whatever it would have chosen itself, and is judged by its
//! divergence from the reference's. Ids and logits are written down in the layout that
//! benches/peers/quality.py reads, so that other engines can be judged by the same path.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use models::language::Language;
use models::model::{self, ModelSource};
use models::{KvFormat, Quant};
use serde::Serialize;

use super::divergence::Divergence;
use super::passes::{Passes, Room, Sampled};
use super::prompts::Reader;
use super::{Failure, json, say};
use crate::app::LocalError;
use crate::config::ModelConfig;

/// Rows of a pass that reads a prompt.
const CHUNK: usize = 512;
const PROMPTS_MAX: usize = 10_000;
/// Their logits are in memory at one time.
const TOKENS_MAX: usize = 256;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct QualityArgs {
    /// Files from which prompts are drawn; of traces (.json) the prompts as they are
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Folder for ids.jsonl, reference.f32 and the logits of each format
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[arg(long, value_name = "N", default_value_t = 200)]
    prompts: usize,
    /// Tokens after each prompt
    #[arg(long, value_name = "N", default_value_t = 64)]
    tokens: usize,
    /// One line of JSON for each result
    #[arg(long)]
    json: bool,
}

pub(super) fn quality(args: &QualityArgs, config: &ModelConfig) -> Result<(), Failure> {
    for (flag, value, most) in
        [("--prompts", args.prompts, PROMPTS_MAX), ("--tokens", args.tokens, TOKENS_MAX)]
    {
        if !(1..=most).contains(&value) {
            return Err(Failure::Other(format!("{flag} must be 1 to {most}")));
        }
    }
    for report in Quality::new(args, config)?.run()? {
        say(&if args.json { json(&report)? } else { report.to_string() })?;
    }
    Ok(())
}

struct Quality {
    model: String,
    vocab: usize,
    prompts: Vec<Vec<u32>>,
    tokens: usize,
    ids: Output,
    reference: Forced,
    formats: Vec<(Forced, Divergence)>,
}

/// A model that is led along the path.
struct Forced {
    quant: String,
    kv: String,
    passes: Passes,
    output: Output,
}

impl Quality {
    fn new(args: &QualityArgs, config: &ModelConfig) -> Result<Self, Failure> {
        let source = config.path.source();
        let shape = source.config().map_err(LocalError::from)?;
        let most = shape.context.checked_sub(args.tokens).ok_or_else(|| {
            Failure::Other(format!("--tokens leaves no room in the model's {}", shape.context))
        })?;
        let language = Language::load(&source, config.fim_order).map_err(LocalError::from)?;
        let (vocab, context) = (shape.vocab, shape.context);
        let reader = Reader { language: &language, vocab, context, most };
        let prompts = reader.prompts(&args.files, args.prompts)?;
        let longest = prompts.iter().map(Vec::len).max().expect("at least one was asked for");
        let room = Room {
            sequences: 1,
            tokens: longest + args.tokens,
            rows: CHUNK.max(args.tokens),
            samples: args.tokens,
        };
        fs::create_dir_all(&args.out)
            .map_err(|error| Failure::Other(format!("{}: {error}", args.out.display())))?;
        let forced = |name: Option<&str>, quant, kv| {
            Forced::new(&source, (quant, kv), &room, config, |format| {
                Output::create(&args.out, &format!("{}.f32", name.unwrap_or(format)))
            })
        };
        let mut quants = vec![Quant::Bf16, Quant::Q8, Quant::Q4];
        if config.quant != Quant::Auto && !quants.contains(&config.quant) {
            quants.push(config.quant);
        }
        let formats = quants
            .into_iter()
            .map(|quant| Ok((forced(None, quant, config.kv)?, Divergence::default())));
        Ok(Self {
            model: source.name(),
            vocab,
            tokens: args.tokens,
            ids: Output::create(&args.out, "ids.jsonl")?,
            formats: formats.collect::<Result<_, Failure>>()?,
            reference: forced(Some("reference"), Quant::Bf16, KvFormat::F32)?,
            prompts,
        })
    }

    fn run(mut self) -> Result<Vec<Report>, Failure> {
        for prompt in &self.prompts {
            let path = self.reference.greedy(prompt, self.tokens);
            let line = serde_json::json!({ "prompt": prompt, "path": path });
            self.ids.write(format!("{line}\n").as_bytes())?;
            let reference = self.reference.along(prompt, &path)?;
            for (format, divergence) in &mut self.formats {
                divergence.add(reference, format.along(prompt, &path)?, self.vocab);
            }
        }
        self.ids.close()?;
        self.reference.output.close()?;
        let (model, prompts) = (&self.model, self.prompts.len());
        let reports = self.formats.into_iter();
        reports.map(|(format, divergence)| format.report(model, prompts, &divergence)).collect()
    }
}

impl Forced {
    fn new(
        source: &ModelSource,
        (quant, kv): (Quant, KvFormat),
        room: &Room,
        config: &ModelConfig,
        output: impl FnOnce(&str) -> Result<Output, Failure>,
    ) -> Result<Self, Failure> {
        let model = model::load(source, quant, kv).map_err(LocalError::from)?;
        Ok(Self {
            quant: model.weight_format().to_string(),
            kv: model.kv_format.to_string(),
            passes: Passes::new(&model, config, room)?,
            output: output(&model.weight_format().body.to_string())?,
        })
    }

    /// What this model writes after a prompt, whether or not it would have ended before.
    fn greedy(&mut self, prompt: &[u32], tokens: usize) -> Vec<u32> {
        let mut path = vec![self.passes.read(0, prompt, CHUNK)];
        while path.len() < tokens {
            let last = path[path.len() - 1];
            self.passes.clear();
            self.passes.push(0, prompt.len() + path.len() - 1, &[last], Sampled::Last);
            self.passes.run();
            path.extend(self.passes.chosen());
        }
        path
    }

    /// Logits that predict each token of the path: `[path, vocab]`. One pass gives the bits that a
    /// pass for each token would, as a row does not depend on those beside it.
    fn along(&mut self, prompt: &[u32], path: &[u32]) -> Result<&[f32], Failure> {
        let (last, before) = prompt.split_last().expect("no prompt is empty");
        for (i, part) in before.chunks(CHUNK).enumerate() {
            self.passes.clear();
            self.passes.push(0, i * CHUNK, part, Sampled::None);
            self.passes.run();
        }
        let given = [&[*last], &path[..path.len() - 1]].concat();
        self.passes.clear();
        self.passes.push(0, before.len(), &given, Sampled::Logits);
        self.passes.run();
        let logits = self.passes.logits();
        logits.iter().try_for_each(|logit| self.output.write(&logit.to_le_bytes()))?;
        Ok(logits)
    }

    fn report(
        self,
        model: &str,
        prompts: usize,
        divergence: &Divergence,
    ) -> Result<Report, Failure> {
        let Self { quant, kv, .. } = self;
        self.output.close()?;
        Ok(Report {
            model: model.to_owned(),
            quant,
            kv,
            prompts,
            positions: divergence.positions(),
            agreement: divergence.agreement(),
            kl_mean: divergence.mean(),
            kl_mean_error: divergence.mean_error(),
            kl_max: divergence.highest(),
        })
    }
}

/// A file that says its name when it cannot be written.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    fn create(folder: &Path, name: &str) -> Result<Self, Failure> {
        let path = folder.join(name);
        let file = File::create(&path).map_err(|error| unwritten(&path, &error))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| unwritten(&self.path, &error))
    }

    fn close(mut self) -> Result<(), Failure> {
        self.file.flush().map_err(|error| unwritten(&self.path, &error))
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Other(format!("{}: {error}", path.display()))
}

/// A format against the reference, along the reference's own path.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    /// Format of the weights.
    quant: String,
    /// Format of the KV cache.
    kv: String,
    prompts: usize,
    positions: usize,
    /// Share of the positions at which both have the same likeliest id.
    agreement: f64,
    /// Of KL(reference || format), in nats.
    kl_mean: f64,
    kl_mean_error: f64,
    kl_max: f64,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { model, quant, kv, prompts, positions, .. } = self;
        writeln!(f, "format     weights {quant}, KV {kv}; {model}")?;
        writeln!(f, "work       {positions} positions after {prompts} prompts")?;
        writeln!(f, "agreement  {:.2}% have the same likeliest id", self.agreement * 1e2)?;
        writeln!(
            f,
            "KL         {:.3e} nats (error {:.1e}, highest {:.2e})",
            self.kl_mean, self.kl_mean_error, self.kl_max
        )
    }
}
