//! Traces that nobody had to record: a day, a burst, a team at its keys.

use std::f64::consts::TAU;

use super::trace::{Arrival, REQUESTS_MAX, Trace};
use crate::completion::Priority;

/// What a trace looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Requests at random, with a quiet night and a busy day.
    Diurnal,
    /// `rate`, so many times as much for a third of the time, and `rate` again.
    Burst { factor: f64 },
    /// So many people, each with thoughts, runs of keys and pauses.
    Team { people: u32 },
}

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    pub shape: Shape,
    pub seconds: f64,
    /// Requests a second: of a day its mean, of a burst what is outside it. A team has its own.
    pub rate: f64,
    pub sizes: Sizes,
    pub seed: u64,
}

/// How large requests are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Prompt tokens that half of the requests have no more of, and how wide they are spread:
    /// the standard deviation of their logarithm.
    pub prompt: (f64, f64),
    /// Of a prompt, the part that is in the prefix cache.
    pub cached: f64,
    /// Generated tokens, likewise.
    pub output: (f64, f64),
    pub max_tokens: u32,
    pub prompt_max: u32,
}

impl Default for Sizes {
    /// An editor's: a file's part around the cursor, most of it known, and a line or two.
    fn default() -> Self {
        Self {
            prompt: (600.0, 0.7),
            cached: 0.85,
            output: (16.0, 0.8),
            max_tokens: 64,
            prompt_max: 4096,
        }
    }
}

/// Where a day's traffic is least, in part of its mean, and most.
const NIGHT: f64 = 0.1;
const DAY_SECONDS: f64 = 86_400.0;
/// A team: seconds between two runs of keys, keys of a run, seconds between two keys, and runs
/// until a longer pause, on average.
const THOUGHT_S: f64 = 12.0;
const KEYS: f64 = 6.0;
const KEY_S: f64 = 0.35;
const RUNS: f64 = 25.0;
const PAUSE_S: f64 = 600.0;
/// Tokens that a key adds.
const TOKENS_PER_KEY: f64 = 0.5;

/// Makes a trace: the same one for the same recipe.
pub fn generate(recipe: &Recipe) -> Result<Trace, String> {
    let Recipe { seconds, rate, .. } = *recipe;
    if !(seconds > 0.0 && rate > 0.0 && seconds <= 366.0 * DAY_SECONDS) {
        return Err("a trace needs a rate above 0 and a time of at most a year".into());
    }
    let mut maker = Maker { recipe: *recipe, luck: fastrand::Rng::with_seed(recipe.seed) };
    let mut trace = match recipe.shape {
        Shape::Diurnal => {
            let most = rate * (2.0 - NIGHT);
            maker.drawn(most, |at| {
                let wave = (1.0 - (TAU * at / DAY_SECONDS).cos()) / 2.0;
                NIGHT / (2.0 - NIGHT) + wave * (2.0 - 2.0 * NIGHT) / (2.0 - NIGHT)
            })
        }
        Shape::Burst { factor } => {
            let most = rate * factor.max(1.0);
            let middle = seconds / 3.0..seconds * 2.0 / 3.0;
            maker.drawn(most, |at| {
                let now = if middle.contains(&at) { rate * factor } else { rate };
                now / most
            })
        }
        Shape::Team { people } => maker.team(people),
    };
    if trace.arrivals.len() >= REQUESTS_MAX {
        return Err(format!("a trace has at most {REQUESTS_MAX} requests"));
    }
    trace.arrivals.sort_by_key(|arrival| arrival.at_ns);
    Ok(trace)
}

struct Maker {
    recipe: Recipe,
    luck: fastrand::Rng,
}

impl Maker {
    /// Independent requests: as many as there would be at `most` a second, each kept with the
    /// chance that `part` gives its time.
    fn drawn(&mut self, most: f64, part: impl Fn(f64) -> f64) -> Trace {
        let mut arrivals = Vec::new();
        let mut at = 0.0;
        while arrivals.len() < REQUESTS_MAX {
            at += self.waited(1.0 / most);
            if at >= self.recipe.seconds {
                break;
            }
            if self.luck.f64() < part(at) {
                arrivals.push(self.request(at));
            }
        }
        Trace { arrivals, sessions: 0 }
    }

    fn request(&mut self, at: f64) -> Arrival {
        let sizes = self.recipe.sizes;
        let prompt = self.prompt();
        let cached = (f64::from(prompt) * sizes.cached) as u32;
        self.arrival(at, prompt, cached.min(prompt - 1), None)
    }

    fn arrival(&mut self, at: f64, prompt: u32, cached: u32, session: Option<u32>) -> Arrival {
        let sizes = self.recipe.sizes;
        let output = self.drawn_around(sizes.output);
        Arrival {
            at_ns: (at * 1e9) as u64,
            prompt_tokens: prompt,
            cached_tokens: cached,
            session,
            output_tokens: (output as u32).clamp(1, sizes.max_tokens),
            max_tokens: sizes.max_tokens,
            priority: Priority::Completion,
        }
    }

    fn prompt(&mut self) -> u32 {
        let drawn = self.drawn_around(self.recipe.sizes.prompt);
        (drawn as u32).clamp(2, self.recipe.sizes.prompt_max)
    }

    fn team(&mut self, people: u32) -> Trace {
        let mut trace = Trace { arrivals: Vec::new(), sessions: people };
        for person in 0..people {
            self.person(person, &mut trace.arrivals);
        }
        trace
    }

    /// Somebody who thinks, types a run of keys, each of which asks, and now and then gets up or
    /// goes to another file, of which nothing is in the cache.
    fn person(&mut self, person: u32, arrivals: &mut Vec<Arrival>) {
        let sizes = self.recipe.sizes;
        let mut at = self.waited(THOUGHT_S);
        let (mut prompt, mut shared) = (self.prompt(), 0);
        while arrivals.len() < REQUESTS_MAX {
            let keys = self.waited(KEYS).ceil() as u32;
            for _ in 0..keys {
                if at >= self.recipe.seconds {
                    return;
                }
                arrivals.push(self.arrival(at, prompt, shared, Some(person)));
                shared = prompt - 1;
                prompt =
                    (prompt + self.waited(TOKENS_PER_KEY).round() as u32).min(sizes.prompt_max);
                at += KEY_S / 2.0 + self.waited(KEY_S / 2.0);
            }
            at += self.waited(THOUGHT_S);
            // The cursor has moved within the file: its beginning is still known.
            shared = (f64::from(shared) * sizes.cached) as u32;
            if self.luck.f64() < RUNS.recip() {
                at += self.waited(PAUSE_S);
                (prompt, shared) = (self.prompt(), 0);
            }
        }
    }

    fn drawn_around(&mut self, (median, spread): (f64, f64)) -> f64 {
        median * (spread * self.normal()).exp()
    }

    /// A time, or a number, that has no memory, of this mean.
    fn waited(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.luck.f64()).ln()
    }

    /// Twelve even numbers are near enough to a normal one for the size of a prompt.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.luck.f64()).sum::<f64>() - 6.0
    }
}
