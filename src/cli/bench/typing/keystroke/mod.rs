//! `weir bench keystroke`: from a key to the whole of a short answer, with everything warm but what
//! the key has changed.
//!
//! At each [`place`] the context is read once, then keys are pressed, and each asks for a few
//! tokens. Beside a weir in this process another server may be asked the same, key by key in turns.
//! What a key has to cost is known from [`rates`] that are measured at every place too: the tokens
//! that were read again over the prefill rate, and those of the answer over the decode rate.

mod place;
mod press;
mod rates;
mod report;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use models::language::Language;

use self::place::{Place, Places, Size};
use self::press::{Press, press};
use self::rates::{Gauge, Rates};
use self::report::Report;
use super::dialect::{Ask, Dialect};
use super::http::Endpoint;
use super::server::{Own, Server};
use super::{files, json};
use crate::app::LocalError;
use crate::cli::{Failure, block_on, complain, say};
use crate::config::Config;

/// Before each key: whoever answered the last one may still spin for work.
const REST: Duration = Duration::from_millis(300);
/// Control tokens of a prompt, about.
const CONTROL_TOKENS: usize = 3;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct KeystrokeArgs {
    /// Tokens around the cursor
    #[arg(long, value_name = "TOKENS", default_value_t = 1400)]
    prompt: usize,
    /// Which part of them is behind it: 64 lines behind and 256 before, as llama.vim sends, are
    /// about this in files of some 150 lines
    #[arg(long, value_name = "PART", default_value_t = 0.36)]
    suffix: f64,
    /// Tokens of each answer
    #[arg(long, value_name = "TOKENS", default_value_t = 16)]
    tokens: u32,
    /// Places
    #[arg(long, value_name = "N", default_value_t = 8)]
    runs: usize,
    /// Keys pressed at each
    #[arg(long, value_name = "N", default_value_t = 4)]
    keys: usize,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How weir is asked
    #[arg(long, value_enum, default_value_t = Dialect::Openai)]
    dialect: Dialect,
    /// A server that runs and is asked in turns with weir, as in http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    beside: Option<String>,
    #[arg(long, value_enum, default_value_t = Dialect::Infill)]
    beside_dialect: Dialect,
    /// Source files to take the text from; this repository's unless given
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

pub(in crate::cli::bench) fn keystroke(
    args: &KeystrokeArgs,
    config: &Config,
) -> Result<(), Failure> {
    let sound = args.prompt >= 16 && args.tokens > 0 && args.runs > 0 && args.keys > 0;
    if !sound || !(0.0..1.0).contains(&args.suffix) {
        let wrong =
            "prompt must be at least 16, tokens, runs and keys at least 1, and suffix a part";
        return Err(Failure::Other(wrong.into()));
    }
    let report = block_on(measure(args, config))??;
    say(&if args.json { json(&report)? } else { report.to_string() })?;
    Ok(())
}

/// What was measured at a place.
struct Round {
    rates: Rates,
    /// Key by key: weir's and, where there is another server, its.
    keys: Vec<(Press, Option<Press>)>,
    /// Keys that typed what weir had just said.
    through: Vec<Press>,
}

async fn measure(args: &KeystrokeArgs, config: &Config) -> Result<Report, Failure> {
    let source = config.model.path.source();
    let language = Language::load(&source, config.model.fim_order).map_err(LocalError::from)?;
    let files = files(args.files.as_ref())?;
    let mut places = Places::new(&files, &language, args.seed);
    let own = Own::start(config).await?;
    let mut gauge = Gauge::load(&config.model, args.prompt, args.tokens as usize)?;
    let sides = Sides {
        weir: server(own.endpoint(), args.dialect),
        beside: match &args.beside {
            Some(url) => Some(server(Endpoint::parse(url)?, args.beside_dialect)),
            None => None,
        },
        tokens: args.tokens,
    };
    let text = args.prompt - CONTROL_TOKENS;
    let suffix = (text as f64 * args.suffix) as usize;
    let size = Size { prefix: text - suffix, suffix };
    let mut rounds = Vec::new();
    for at in 0..args.runs {
        let place = places.draw(size, args.keys)?;
        rounds.push(sides.round(&place, at % 2 == 1, &mut gauge).await?);
        complain(&format!("{} of {} places", at + 1, args.runs));
    }
    let report = Report::of(own.facts(), args, &rounds);
    own.stop().await;
    report
}

fn server(endpoint: Endpoint, dialect: Dialect) -> Server {
    Server { endpoint, dialect, model: String::new(), room: None }
}

struct Sides {
    weir: Server,
    beside: Option<Server>,
    tokens: u32,
}

impl Sides {
    /// Everything at one place. `swapped`: the other server comes first.
    async fn round(
        &self,
        place: &Place,
        swapped: bool,
        gauge: &mut Gauge,
    ) -> Result<Round, Failure> {
        let mut ask = self.ask(place);
        press(&self.weir, &ask, "place").await?;
        if let Some(beside) = &self.beside {
            press(beside, &ask, "place").await?;
        }
        // Nobody else is busy, so this thread may be.
        let rates = gauge.measure();
        let (mut keys, mut through) = (Vec::new(), Vec::new());
        for (at, key) in place.keys.iter().enumerate() {
            ask.prefix.push_str(key);
            // Each in a session of its own: a key that the answer before it foretold would be known.
            let session = format!("key-{:016x}", fastrand::u64(..));
            keys.push(self.pair(&ask, &session, swapped ^ (at % 2 == 1)).await?);
            let said = keys.last().and_then(|(weir, _)| weir.text.chars().next());
            if let Some(said) = said {
                let mut typed = ask.clone();
                typed.prefix.push(said);
                through.push(self.rested(&self.weir, &typed, &session).await?);
            }
        }
        Ok(Round { rates, keys, through })
    }

    async fn pair(
        &self,
        ask: &Ask,
        session: &str,
        swapped: bool,
    ) -> Result<(Press, Option<Press>), Failure> {
        let Some(beside) = &self.beside else {
            return Ok((self.rested(&self.weir, ask, session).await?, None));
        };
        let (weir, other) = if swapped {
            let other = self.rested(beside, ask, session).await?;
            (self.rested(&self.weir, ask, session).await?, other)
        } else {
            let weir = self.rested(&self.weir, ask, session).await?;
            (weir, self.rested(beside, ask, session).await?)
        };
        Ok((weir, Some(other)))
    }

    async fn rested(&self, server: &Server, ask: &Ask, session: &str) -> Result<Press, Failure> {
        tokio::time::sleep(REST).await;
        press(server, ask, session).await
    }

    fn ask(&self, place: &Place) -> Ask {
        Ask {
            prefix: place.prefix.clone(),
            suffix: place.suffix.clone(),
            path: place.path.clone(),
            max_tokens: self.tokens,
            stream: true,
            exact: true,
            ..Ask::default()
        }
    }
}
