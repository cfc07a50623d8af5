//! `weir plan generate`

use std::io::{self, BufWriter};

use crate::cli::Failure;
use crate::plan::generate::{Recipe, Shape, Sizes, generate};

#[derive(Debug, clap::Args)]
pub(super) struct GenerateArgs {
    #[arg(long, value_enum)]
    shape: Kind,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[arg(long, value_name = "HOURS", default_value_t = 1.0)]
    hours: f64,
    /// Requests a second: of a day its mean, of a burst what is outside it
    #[arg(long, value_name = "RATE", default_value_t = 1.0)]
    rate: f64,
    /// How many times the rate a burst is; it is the middle third
    #[arg(long, value_name = "TIMES", default_value_t = 6.0)]
    factor: f64,
    /// People of a team
    #[arg(long, value_name = "N", default_value_t = 20)]
    people: u32,
    /// Tokens that half of the prompts have no more of
    #[arg(long, value_name = "TOKENS", default_value_t = 600.0)]
    prompt_tokens: f64,
    /// Part of a prompt that is known from the one before
    #[arg(long, value_name = "PART", default_value_t = 0.85)]
    cached: f64,
    /// Tokens that half of the answers have no more of
    #[arg(long, value_name = "TOKENS", default_value_t = 16.0)]
    output_tokens: f64,
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    max_tokens: u32,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    /// A quiet night and a busy day
    Diurnal,
    /// A steady rate, many times as much, and the steady rate again
    Burst,
    /// People who think, type and pause
    Team,
}

/// Most people; each has a cache of its own to remember.
const PEOPLE_MAX: u32 = 100_000;

pub(super) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    let sound = (0.0..=1.0).contains(&args.cached)
        && [args.prompt_tokens, args.output_tokens].iter().all(|&t| (1.0..=1e6).contains(&t))
        && (1..=1_000_000).contains(&args.max_tokens)
        && (1..=PEOPLE_MAX).contains(&args.people)
        && (0.0..=1e6).contains(&args.factor);
    if !sound {
        return Err(Failure::Other("a size, a part or a number of people makes no sense".into()));
    }
    let shape = match args.shape {
        Kind::Diurnal => Shape::Diurnal,
        Kind::Burst => Shape::Burst { factor: args.factor },
        Kind::Team => Shape::Team { people: args.people },
    };
    let usual = Sizes::default();
    let sizes = Sizes {
        prompt: (args.prompt_tokens, usual.prompt.1),
        cached: args.cached,
        output: (args.output_tokens, usual.output.1),
        max_tokens: args.max_tokens,
        prompt_max: usual.prompt_max.max(args.prompt_tokens as u32),
    };
    let seconds = args.hours * 3600.0;
    let recipe = Recipe { shape, seconds, rate: args.rate, sizes, seed: args.seed };
    let trace = generate(&recipe).map_err(Failure::Other)?;
    trace.write(BufWriter::new(io::stdout().lock())).map_err(Into::into)
}
