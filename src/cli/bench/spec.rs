//! `weir bench spec`: token generation with and without speculation, alternating.
//!
//! A model chooses its own tokens, and both ways must choose the same ones. Random weights choose
//! nonsense, so with `--shape` what is written in the trace counts as chosen: every pass runs with
//! all its rows and all its sampling, and then the recorded tokens decide which drafts were right.
//! Either way drafts come from the prompt and the output alone, never from an earlier run.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use models::FimOrder;
use models::language::Language;
use models::model::ModelSource;
use models::tokenizer::Tokenizer;
use serde::Serialize;

use super::figures::ratio_interval;
use super::passes::{Passes, Room, Sampled, hash, prompt};
use super::subject::{Circumstances, Subject};
use super::trace::{self, Trace};
use super::{Common, Failure, Measured, measure};
use crate::app::LocalError;
use crate::config::{ModelConfig, ModelPath};
use crate::engine::draft::{Costs, DRAFT_MAX, Drafter, Memory, ROWS_MAX};

/// Rows of a pass that reads a prompt.
const CHUNK: usize = 512;
/// Passes of each size from which the costs are known before the first run.
const COST_PASSES: usize = 3;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SpecArgs {
    #[command(flatten)]
    common: Common,
    /// Recorded edits, as in benches/traces; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    trace: Vec<PathBuf>,
}

pub(super) fn spec(args: &SpecArgs, config: &ModelConfig) -> Result<(), Failure> {
    measure(Spec::new(args, config)?, &args.common)
}

struct Spec {
    subject: Subject,
    passes: Passes,
    /// Of the traces.
    tokenizer: Tokenizer,
    edits: Vec<Edit>,
    /// Whether the trace says what was chosen, and not the model.
    recorded: bool,
    costs: Costs,
    /// Which of the two ways goes first changes from run to run.
    plain_first: bool,
    /// Input of the next pass.
    rows: Vec<u32>,
}

/// A trace, whose prompt is in the cache of a sequence of its own.
struct Edit {
    trace: Trace,
    /// The token chosen after the prompt.
    first: u32,
}

/// What generating the output of one trace came to.
struct Pair {
    plain: Duration,
    speculative: Duration,
    passes: usize,
    drafted: usize,
    tokens: usize,
    hash: u64,
}

/// How the tokens of one way came about.
#[derive(Default)]
struct Generated {
    ids: Vec<u32>,
    took: Duration,
    passes: usize,
    drafted: usize,
}

impl Spec {
    fn new(args: &SpecArgs, config: &ModelConfig) -> Result<Self, Failure> {
        let recorded = args.common.shape.is_some();
        if !recorded && config.path != ModelPath::Builtin {
            return Err(Failure::Other(
                "the traces are in ids of the embedded model: it, or a --shape, can run them"
                    .into(),
            ));
        }
        let mut subject = Subject::load(&args.common, config, 0)?;
        let (vocab, most) = (subject.model.config.vocab, subject.model.config.context);
        let mut traces = Vec::new();
        for path in &args.trace {
            traces.extend(trace::read(path, vocab, most)?);
        }
        let length = |trace: &Trace| trace.prompt.len() + trace.output.len();
        let room = Room {
            sequences: traces.len(),
            tokens: traces.iter().map(length).max().expect("no file is empty") + ROWS_MAX,
            rows: CHUNK,
            samples: ROWS_MAX,
        };
        // The last pass may hold drafts that would come after the end.
        let room = Room { tokens: room.tokens.min(most), ..room };
        let prompts: usize = traces.iter().map(|trace| trace.prompt.len()).sum();
        subject.context = prompts / traces.len();
        let mut passes = Passes::new(&subject.model, config, &room)?;
        let costs = costs(&mut passes, vocab);
        let language = Language::load(&ModelSource::Builtin, FimOrder::Auto);
        let tokenizer = language.map_err(LocalError::from)?.tokenizer;
        let edits = traces.into_iter().enumerate().map(|(sequence, trace)| {
            let chosen = passes.read(sequence, &trace.prompt, CHUNK);
            Edit { first: if recorded { trace.output[0] } else { chosen }, trace }
        });
        let edits = edits.collect();
        let rows = Vec::with_capacity(ROWS_MAX);
        Ok(Self { subject, passes, tokenizer, edits, recorded, costs, plain_first: false, rows })
    }

    /// One token a pass.
    fn plain(&mut self, sequence: usize) -> Generated {
        let edit = &self.edits[sequence];
        let (prompt, output) = (edit.trace.prompt.len(), &edit.trace.output);
        let mut ids = Vec::with_capacity(output.len());
        ids.push(edit.first);
        let began = Instant::now();
        while ids.len() < output.len() {
            let last = ids.last().expect("the first is there");
            self.passes.clear();
            let position = prompt + ids.len() - 1;
            self.passes.push(sequence, position, std::slice::from_ref(last), Sampled::All);
            self.passes.run();
            let chosen = self.passes.chosen().next().expect("a row was sampled");
            ids.push(if self.recorded { output[ids.len()] } else { chosen });
        }
        let passes = ids.len() - 1;
        Generated { ids, took: began.elapsed(), passes, drafted: 0 }
    }

    /// Drafts verified beside the last token. Reading the prompt into the drafter counts.
    fn speculative(&mut self, sequence: usize, memory: &mut Memory) -> Generated {
        let Edit { trace, first } = &self.edits[sequence];
        let (prompt, output) = (trace.prompt.len(), &trace.output);
        let mut done = Generated { ids: Vec::with_capacity(output.len()), ..Generated::default() };
        done.ids.push(*first);
        let began = Instant::now();
        let mut drafter = Drafter::new(prompt + output.len());
        let is_control = |id| self.tokenizer.is_special(id);
        drafter.read(&trace.prompt, trace.cursor, memory, is_control);
        drafter.push(*first, memory);
        while done.ids.len() < output.len() {
            let most = (output.len() - done.ids.len() - 1).min(DRAFT_MAX);
            self.rows.clear();
            self.rows.push(*done.ids.last().expect("the first is there"));
            self.rows.extend_from_slice(drafter.draft(most, 0, memory, &self.costs));
            let pass = Instant::now();
            self.passes.clear();
            self.passes.push(sequence, prompt + done.ids.len() - 1, &self.rows, Sampled::All);
            self.passes.run();
            self.costs.record(self.rows.len(), pass.elapsed().as_secs_f64() * 1e3);
            done.passes += 1;
            done.drafted += self.rows.len() - 1;
            let drafts = self.rows[1..].iter().map(Some).chain([None]);
            for (chosen, draft) in self.passes.chosen().zip(drafts) {
                let token = if self.recorded { output[done.ids.len()] } else { chosen };
                done.ids.push(token);
                drafter.push(token, memory);
                if draft != Some(&token) {
                    break;
                }
            }
        }
        Generated { took: began.elapsed(), ..done }
    }

    fn pair(&mut self, sequence: usize, memory: &mut Memory) -> Pair {
        let before = self.plain_first.then(|| self.plain(sequence));
        let speculative = self.speculative(sequence, memory);
        let plain = before.unwrap_or_else(|| self.plain(sequence));
        assert_eq!(plain.ids, speculative.ids, "speculation changes no token");
        Pair {
            plain: plain.took,
            speculative: speculative.took,
            passes: speculative.passes,
            drafted: speculative.drafted,
            // The first was chosen by the prompt's last row.
            tokens: plain.ids.len() - 1,
            hash: hash(plain.ids),
        }
    }

    fn report(&self, class: &str, pairs: &[Vec<&Pair>]) -> Report {
        let all = || pairs.iter().flatten();
        let sum = |of: &dyn Fn(&Pair) -> f64| all().map(|pair| of(pair)).sum::<f64>();
        let tokens = sum(&|pair| pair.tokens as f64);
        let (plain, speculative) =
            (sum(&|pair| pair.plain.as_secs_f64()), sum(&|pair| pair.speculative.as_secs_f64()));
        let passes = sum(&|pair| pair.passes as f64);
        let times: Vec<Vec<(f64, f64)>> = pairs
            .iter()
            .map(|runs| {
                let of = |pair: &&Pair| (pair.plain.as_secs_f64(), pair.speculative.as_secs_f64());
                runs.iter().map(of).collect()
            })
            .collect();
        Report {
            circumstances: self.passes.circumstances(&self.subject, pairs[0].len()),
            class: class.to_owned(),
            traces: pairs.len(),
            recorded: self.recorded,
            tokens_per_second: tokens / speculative,
            ms_per_token: 1e3 * speculative / tokens,
            plain_tokens_per_second: tokens / plain,
            ratio: plain / speculative,
            ratio_interval: ratio_interval(&times),
            // A pass comes to what it accepts and one token of its own.
            accepted_per_step: tokens / passes - 1.0,
            drafted_per_step: sum(&|pair| pair.drafted as f64) / passes,
            token_hash: format!("{:016x}", all().next().expect("a run").hash),
        }
    }

    /// The classes in the order of the files.
    fn classes(&self) -> Vec<&str> {
        let mut classes: Vec<&str> = Vec::new();
        for edit in &self.edits {
            if !classes.contains(&edit.trace.class.as_str()) {
                classes.push(&edit.trace.class);
            }
        }
        classes
    }
}

/// What passes of some sizes cost at the beginning of a sequence: the best of a few each, because
/// nothing makes a pass faster than it is.
fn costs(passes: &mut Passes, vocab: usize) -> Costs {
    let mut costs = Costs::default();
    for rows in [1, 2, 4, 8, ROWS_MAX] {
        let ids = prompt(0, rows, vocab);
        let mut best = Duration::MAX;
        for _ in 0..COST_PASSES {
            let began = Instant::now();
            passes.clear();
            passes.push(0, 0, &ids, Sampled::All);
            passes.run();
            best = best.min(began.elapsed());
        }
        costs.set(rows, best.as_secs_f64() * 1e3);
    }
    costs
}

impl Measured for Spec {
    /// One for each trace.
    type Run = Vec<Pair>;
    type Report = Report;

    fn run(&mut self) -> Vec<Pair> {
        self.plain_first = !self.plain_first;
        let mut memory = Memory::new();
        (0..self.edits.len()).map(|sequence| self.pair(sequence, &mut memory)).collect()
    }

    fn reports(&self, runs: &[Vec<Pair>]) -> Vec<Report> {
        let of_trace = |trace: usize| runs.iter().map(|run| &run[trace]).collect::<Vec<_>>();
        let of_class = |class: &str| {
            let traces = (0..self.edits.len()).filter(|&i| self.edits[i].trace.class == class);
            traces.map(of_trace).collect::<Vec<_>>()
        };
        self.classes().into_iter().map(|class| self.report(class, &of_class(class))).collect()
    }
}

/// What the runs of one class came to.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    circumstances: Circumstances,
    class: String,
    traces: usize,
    /// Whether the traces said what was chosen, and not the model.
    recorded: bool,
    tokens_per_second: f64,
    ms_per_token: f64,
    /// Without speculation.
    plain_tokens_per_second: f64,
    ratio: f64,
    /// Of 95 %.
    ratio_interval: (f64, f64),
    accepted_per_step: f64,
    drafted_per_step: f64,
    token_hash: String,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { circumstances, class, traces, .. } = self;
        let (low, high) = self.ratio_interval;
        write!(f, "{circumstances}")?;
        writeln!(
            f,
            "{class:10} {traces} traces, {:.1} tokens/s, {:.1} without speculation",
            self.tokens_per_second, self.plain_tokens_per_second
        )?;
        writeln!(
            f,
            "           {:.2} times as fast ({low:.2} to {high:.2}), {:.2} of {:.2} drafted \
             tokens accepted in a step",
            self.ratio, self.accepted_per_step, self.drafted_per_step
        )?;
        writeln!(f, "ids        {}", self.token_hash)
    }
}
