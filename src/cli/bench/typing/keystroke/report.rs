//! What the keys came to, beside what they had to cost.

use std::fmt;

use serde::Serialize;

use super::super::super::figures::{median, ratio_interval};
use super::super::counts::{Spread, ms};
use super::press::Press;
use super::{KeystrokeArgs, Round};
use crate::app::Facts;
use crate::cli::Failure;

/// Medians, but where something else is said. Times are from the request to the end of its answer.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model: String,
    quant: String,
    isa: String,
    threads: usize,
    /// FIM family and order of weir's prompts.
    order: String,
    places: usize,
    keys: usize,
    prompt: usize,
    tokens: u32,
    weir: Side,
    /// By hand in this process, a measurement at each place; tokens a second.
    prefill_rate: f64,
    decode_rate: f64,
    /// What weir's keys had to cost: what was read again and generated, at those rates.
    due_ms: f64,
    over_due: f64,
    /// Over the answer's tokens alone.
    over_decode: f64,
    /// Keys that typed what weir had just said.
    typed_through_ms: Spread,
    beside: Option<Side>,
    /// Weir's time over the other's, and the interval of 95 %.
    ratio: Option<f64>,
    ratio_interval: Option<(f64, f64)>,
}

/// One of the servers.
#[derive(Debug, Serialize)]
struct Side {
    ms: Spread,
    ttft_ms: Spread,
    /// Tokens of the prompt, and how many of them were not cached.
    prompt: f64,
    read_again: f64,
    generated: f64,
    /// By its own timings, where it has them; tokens a second.
    prefill_rate: Option<f64>,
    decode_rate: Option<f64>,
}

impl Side {
    fn of<'a>(keys: impl Iterator<Item = &'a Press> + Clone) -> Self {
        let times = |of: fn(&Press) -> Option<f64>| keys.clone().filter_map(of).collect::<Vec<_>>();
        let middle = |of: fn(&Press) -> Option<f64>| {
            let figures = times(of);
            (!figures.is_empty()).then(|| median(figures))
        };
        Self {
            ms: Spread::of(&times(|key| Some(ms(key.total)))),
            ttft_ms: Spread::of(&times(|key| key.ttft.map(ms))),
            prompt: middle(|key| key.told.prompt.map(|prompt| prompt as f64)).unwrap_or(0.0),
            read_again: middle(|key| Some(key.read_again())).unwrap_or(0.0),
            generated: middle(|key| key.told.generated.map(|tokens| tokens as f64)).unwrap_or(0.0),
            prefill_rate: middle(|key| Some(key.read_again() / key.told.prefill_ms? * 1e3)),
            decode_rate: middle(|key| Some(key.told.generated? as f64 / key.told.decode_ms? * 1e3)),
        }
    }
}

impl Report {
    /// Fails where an answer has not as many tokens as were asked for: its time says nothing then.
    pub(super) fn of(
        facts: &Facts,
        args: &KeystrokeArgs,
        rounds: &[Round],
    ) -> Result<Self, Failure> {
        let pairs = || rounds.iter().flat_map(|round| &round.keys);
        let keys = pairs().count();
        for press in pairs().flat_map(|(weir, beside)| [Some(weir), beside.as_ref()]).flatten() {
            if press.told.generated != Some(u64::from(args.tokens)) {
                let told = press.told.generated;
                let wrong = format!("an answer has {told:?} tokens, not {}", args.tokens);
                return Err(Failure::Other(wrong));
            }
        }
        let decode = |round: &Round| f64::from(args.tokens) / round.rates.decode * 1e3;
        let due = |round: &Round, key: &Press| {
            key.read_again() / round.rates.prefill * 1e3 + decode(round)
        };
        let weirs =
            || rounds.iter().flat_map(|round| round.keys.iter().map(move |key| (round, &key.0)));
        let times: Vec<Vec<(f64, f64)>> = rounds.iter().map(times).collect();
        let both = times.iter().all(|times| !times.is_empty());
        let ratios = times.iter().flatten().map(|(weir, beside)| weir / beside);
        let beside = both.then(|| Side::of(pairs().filter_map(|(_, beside)| beside.as_ref())));
        let through = rounds.iter().flat_map(|round| &round.through);
        Ok(Self {
            model: facts.model.to_string(),
            quant: facts.weight_format.to_string(),
            isa: facts.isa.to_string(),
            threads: facts.threads,
            order: facts.fim.clone().unwrap_or_default(),
            places: rounds.len(),
            keys,
            prompt: args.prompt,
            tokens: args.tokens,
            weir: Side::of(pairs().map(|(weir, _)| weir)),
            prefill_rate: median(rounds.iter().map(|round| round.rates.prefill)),
            decode_rate: median(rounds.iter().map(|round| round.rates.decode)),
            due_ms: median(weirs().map(|(round, key)| due(round, key))),
            over_due: median(weirs().map(|(round, key)| ms(key.total) / due(round, key))),
            over_decode: median(weirs().map(|(round, key)| ms(key.total) / decode(round))),
            typed_through_ms: Spread::of(&through.map(|key| ms(key.total)).collect::<Vec<_>>()),
            beside,
            ratio: both.then(|| median(ratios)),
            ratio_interval: both.then(|| ratio_interval(&times)),
        })
    }
}

/// Weir's time and the other's of every key; none where there is no other.
fn times(round: &Round) -> Vec<(f64, f64)> {
    let both = |(weir, beside): &(Press, Option<Press>)| {
        Some((ms(weir.total), ms(beside.as_ref()?.total)))
    };
    round.keys.iter().filter_map(both).collect()
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |figure: Option<f64>| figure.map_or("?".into(), |ms| format!("{ms:.1}"));
        write!(
            f,
            "p50 {}, p95 {} ms; {:.0} of {:.0} tokens read, {:.0} generated",
            figure(self.ms.p50),
            figure(self.ms.p95),
            self.read_again,
            self.prompt,
            self.generated
        )?;
        match (self.prefill_rate, self.decode_rate) {
            (Some(prefill), Some(decode)) => {
                write!(f, "; by its own count {prefill:.0} and {decode:.1} tokens/s")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, quant, isa, threads, order, places, keys, prompt, tokens, .. } = self;
        writeln!(f, "model      {model}, {quant}; {isa}, {threads} threads; {order}")?;
        writeln!(
            f,
            "work       {keys} keys at {places} places, {prompt} tokens around, {tokens} answered"
        )?;
        writeln!(f, "weir       {}", self.weir)?;
        writeln!(
            f,
            "due        {:.1} ms at {:.0} and {:.1} tokens/s: {:.3} of it, {:.3} of decoding alone",
            self.due_ms, self.prefill_rate, self.decode_rate, self.over_due, self.over_decode
        )?;
        if let Some(p50) = self.typed_through_ms.p50 {
            let p95 = self.typed_through_ms.p95.unwrap_or(p50);
            writeln!(
                f,
                "through    p50 {p50:.2}, p95 {p95:.2} ms for keys that type what was said"
            )?;
        }
        if let (Some(beside), Some(ratio), Some((low, high))) =
            (&self.beside, self.ratio, self.ratio_interval)
        {
            writeln!(f, "beside     {beside}")?;
            writeln!(f, "ratio      {ratio:.3} ({low:.3} to {high:.3})")?;
        }
        Ok(())
    }
}
