//! `weir bench predict`: how well the engine foretells its first tokens, from half of what the box
//! can do to three times that, with prompts of which nothing, most and some is cached.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::load::{self, Answered, Load, SIZES};
use super::ways::Place;
use super::{QUIET, Stage};
use crate::app::Local;
use crate::cli::{Failure, block_on, complain};
use crate::config::ModelConfig;
use crate::plan::generate::{Recipe, Shape, Sizes};
use crate::telemetry::Telemetry;

/// A prediction may be off by this part of what it was,
const OFF_PART: f64 = 0.25;
/// or by this, where that is more,
const OFF_MS: f64 = 20.0;
/// in nine of ten requests.
const WITHIN_MIN: f64 = 0.9;
/// Loads, as multiples of C.
const LOADS: [f64; 4] = [QUIET, 1.0, 2.0, 3.0];
/// Requests a second of one person of a team, about.
const PERSON_RATE: f64 = 0.3;
/// What is cached of a prompt.
const KINDS: [(&str, f64); 3] = [("cold", 0.0), ("warm", 0.9), ("mixed", 0.45)];

/// One kind of prompt at one load.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli::bench::spill) struct Foretold {
    prompts: &'static str,
    load: f64,
    requests: usize,
    /// Of them, those that ran here.
    here: usize,
    ttft_p50_ms: f64,
    off_p50_ms: f64,
    off_p90_ms: f64,
    /// The share of predictions that were near enough.
    within: f64,
}

impl Foretold {
    pub(in crate::cli::bench::spill) fn holds(&self) -> bool {
        self.within >= WITHIN_MIN
    }

    fn of(prompts: &'static str, load: f64, answers: &[Answered]) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let here = answers.iter().filter(|answered| answered.place == Place::Local);
        let pairs: Vec<(f64, f64)> = here
            .filter_map(|answered| Some((ms(answered.predicted?), ms(answered.ttft?))))
            .collect();
        let mut off: Vec<f64> = pairs.iter().map(|(told, was)| (told - was).abs()).collect();
        let near = |(told, was): &&(f64, f64)| (told - was).abs() <= (was * OFF_PART).max(OFF_MS);
        let within = pairs.iter().filter(near).count() as f64 / pairs.len().max(1) as f64;
        let mut was: Vec<f64> = pairs.iter().map(|(_, was)| *was).collect();
        Self {
            prompts,
            load,
            requests: answers.len(),
            here: pairs.len(),
            ttft_p50_ms: quantile(&mut was, 0.5),
            off_p50_ms: quantile(&mut off, 0.5),
            off_p90_ms: quantile(&mut off, 0.9),
            within,
        }
    }
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = ((values.len() as f64 * part).ceil() as usize).saturating_sub(1);
    values.get(place).copied().unwrap_or(0.0)
}

impl fmt::Display for Foretold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<6} {:.1} C: {:>5} requests, {:>5} here; first token {:>6.1} ms, off by {:>5.1} ms \
             (p90 {:>6.1}), near enough {:>5.1} %{}",
            self.prompts,
            self.load,
            self.requests,
            self.here,
            self.ttft_p50_ms,
            self.off_p50_ms,
            self.off_p90_ms,
            self.within * 100.0,
            if self.holds() { "" } else { "  MISSED" },
        )
    }
}

/// Every kind at every load, for so many seconds each.
pub(in crate::cli::bench::spill) fn foretold(
    seed: u64,
    seconds: f64,
    model: &ModelConfig,
) -> Result<Vec<Foretold>, Failure> {
    let local = Local::load(model)?;
    block_on(async {
        let engine = local.start(Telemetry::new());
        engine.started().await?;
        let stage = Stage::new(engine, seed).await?;
        let full = stage.fill().await;
        let capacity = stage.capacity(&full).await;
        complain(&format!("C is {capacity:.1} requests/s"));
        let mut all = Vec::new();
        for (prompts, cached) in KINDS {
            for factor in LOADS {
                let load = Load::of(&recipe(capacity * factor, cached, seconds, seed));
                let answers = stage.weir(&load).await?.answers;
                all.push(Foretold::of(prompts, factor, &answers));
            }
        }
        stage.engine.stop();
        Ok::<_, Failure>(all)
    })?
}

fn recipe(rate: f64, cached: f64, seconds: f64, seed: u64) -> Recipe {
    let sizes = Sizes { cached, prompt: load::SIZES.prompt, ..SIZES };
    let people = (rate / PERSON_RATE).round().max(1.0) as u32;
    let shape = match cached {
        0.0 => Shape::Burst { factor: 1.0 },
        _ => Shape::Team { people },
    };
    Recipe { shape, seconds, rate, sizes, seed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten_must_be_near() {
        let answered = |told: u64, was: u64| Answered {
            ttft: Some(Duration::from_millis(was)),
            predicted: Some(Duration::from_millis(told)),
            ..Answered::nothing(Place::Local)
        };
        let near = [answered(30, 50), answered(100, 80), answered(300, 400), answered(5, 4)];
        assert!(Foretold::of("cold", 1.0, &near).holds());
        let far = [near[0], answered(29, 50), answered(299, 400)];
        let foretold = Foretold::of("cold", 1.0, &far);
        assert!(!foretold.holds() && (foretold.within - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!((foretold.off_p50_ms, foretold.off_p90_ms), (21.0, 101.0));
        let elsewhere = [Answered::nothing(Place::Shed), near[0]];
        assert_eq!(Foretold::of("cold", 1.0, &elsewhere).here, 1);
    }
}
