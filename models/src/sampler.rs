//! From logits to a token, without sorting the vocabulary.

use std::cmp::Ordering;
use std::collections::HashMap;

/// How the next token is drawn from a row's logits. Plain data: the uniform number is drawn by
/// the host from the sequence's seeded generator, so a device keeps no sampling state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Plan {
    /// The highest logit; the lowest id among equals.
    Greedy,
    /// Temperature, then top-k, then min-p, then top-p, then one draw with `uniform`.
    Draw(Draw),
    /// The host needs the logits themselves: penalties, biases, banned ids, top log-probabilities.
    Logits,
}

/// Parameters of one draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Above 0.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 1.0 keeps all.
    pub top_p: f32,
    /// 0.0 keeps all.
    pub min_p: f32,
    /// In `[0, 1)`.
    pub uniform: f32,
}

/// What a request asks of the sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of every id in prompt and output; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of every id in the output.
    pub presence_penalty: f32,
    /// Subtracted from the logit of an id as often as it is in the output.
    pub frequency_penalty: f32,
    /// Added to the logits of ids.
    pub logit_bias: Vec<(u32, f32)>,
    /// None: drawn by the engine.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// Probabilities are counted in whole units of 2^-40 of the likeliest token's, so that a sum
/// does not depend on the order of its terms and every way to sample gives the same token. What
/// is less than one unit (logit more than 27.7 x temperature below the highest) is never drawn.
const UNIT_BITS: u32 = 40;
const UNIT: u64 = 1 << UNIT_BITS;

/// Most candidates that are gathered before a smaller `top_k` is cut back, beside 2 x top_k.
const GATHER_MIN: usize = 256;

/// A token that may still be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    logit: f32,
    id: u32,
    /// Units, at most [`UNIT`].
    weight: u64,
}

/// Buffers of [`choose`] and [`top_logprobs`], kept from token to token.
#[derive(Debug, Default)]
pub struct Scratch {
    candidates: Vec<Candidate>,
}

impl Scratch {
    /// With room for a vocabulary, so that no draw allocates.
    pub fn new(vocab: usize) -> Self {
        Self { candidates: Vec::with_capacity(vocab) }
    }
}

/// A row of logits, and the highest of each strip of them, so that most need not be looked at.
#[derive(Clone, Copy, Debug)]
pub struct Peaked<'a> {
    /// `[vocab]`
    logits: &'a [f32],
    /// `[strips]`, NaN left out of each; empty where they are not known.
    peaks: &'a [f32],
}

impl<'a> Peaked<'a> {
    /// `peaks`: the highest of each [`kernels::STRIP`] logits.
    pub fn new(logits: &'a [f32], peaks: &'a [f32]) -> Self {
        assert_eq!(peaks.len(), logits.len().div_ceil(kernels::STRIP), "a peak for each strip");
        Self { logits, peaks }
    }

    /// The highest logit, the lowest id among equals.
    fn argmax(self) -> Option<u32> {
        if self.peaks.is_empty() {
            return argmax(self.logits);
        }
        let strip = argmax(self.peaks)? as usize;
        let logits = self.logits.chunks(kernels::STRIP).nth(strip)?;
        argmax(logits).map(|id| id + (strip * kernels::STRIP) as u32)
    }

    /// The first id, the peak and the logits of each strip.
    fn strips(self) -> impl Iterator<Item = (u32, f32, &'a [f32])> {
        let each = if self.peaks.is_empty() { self.logits.len().max(1) } else { kernels::STRIP };
        self.logits.chunks(each).enumerate().map(move |(i, logits)| {
            let peak = self.peaks.get(i).copied().unwrap_or(f32::INFINITY);
            ((i * each) as u32, peak, logits)
        })
    }
}

impl<'a> From<&'a [f32]> for Peaked<'a> {
    fn from(logits: &'a [f32]) -> Self {
        Self { logits, peaks: &[] }
    }
}

/// The highest logit, the lowest id among equals. NaN is never chosen; None if there is nothing
/// else.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(usize, f32)> = None;
    for (id, &logit) in logits.iter().enumerate() {
        if best.map_or(!logit.is_nan(), |(_, highest)| logit > highest) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id as u32)
}

/// Draws a token: temperature, then `top_k`, then `min_p`, then `top_p` over what is left, then
/// the id at `uniform` of the remaining mass, counted in the order of ids. Among equal logits
/// the lower id is kept.
///
/// `logits`: `[vocab]`, untempered. A temperature of 0 or less is greedy. NaN is never chosen;
/// None if there is nothing else. Costs time linear in the vocabulary, or in its strips that
/// reach high enough.
pub fn choose<'a>(
    logits: impl Into<Peaked<'a>>,
    draw: &Draw,
    scratch: &mut Scratch,
) -> Option<u32> {
    let logits = logits.into();
    let best = logits.argmax()?;
    let highest = logits.logits[best as usize];
    // with an infinite logit there is nothing to weigh
    if draw.temperature <= 0.0 || draw.top_k == 1 || !highest.is_finite() {
        return Some(best);
    }
    let candidates = &mut scratch.candidates;
    gather(logits, highest, draw, candidates);
    weigh(candidates, highest, draw);
    if draw.top_p < 1.0 {
        keep_top_p(candidates, draw.top_p);
    }
    // the cuts above reorder; without them the ids are still in order and this is one pass
    candidates.sort_unstable_by_key(|candidate| candidate.id);
    Some(pick(candidates, draw.uniform).unwrap_or(best))
}

/// Collects what `top_k` keeps of the logits close enough to the highest to have any weight.
fn gather(logits: Peaked<'_>, highest: f32, draw: &Draw, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    let reach = UNIT_BITS as f32 * std::f32::consts::LN_2 * draw.temperature;
    let mut floor = highest - reach;
    let top_k = match draw.top_k {
        0 => usize::MAX,
        k => k as usize,
    };
    let full = top_k.saturating_mul(2).max(GATHER_MIN);
    let mut cut = false;
    for (first, peak, logits) in logits.strips() {
        // ids ascend, so after a cut an equal logit would lose against the one that set the floor
        if peak < floor || (cut && peak == floor) {
            continue;
        }
        for (id, &logit) in (first..).zip(logits) {
            if logit < floor || (cut && logit == floor) || logit.is_nan() {
                continue;
            }
            candidates.push(Candidate { logit, id, weight: 0 });
            if candidates.len() == full {
                floor = keep_top_k(candidates, top_k);
                cut = true;
            }
        }
    }
    if candidates.len() > top_k {
        keep_top_k(candidates, top_k);
    }
}

/// Keeps the `top_k` likeliest of more than `top_k` candidates; returns the lowest logit kept.
fn keep_top_k(candidates: &mut Vec<Candidate>, top_k: usize) -> f32 {
    let (_, last, _) = candidates.select_nth_unstable_by(top_k - 1, likelier);
    let floor = last.logit;
    candidates.truncate(top_k);
    floor
}

/// Likelier first; among equals the lower id. No candidate is NaN.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Turns logits into weights and drops what `min_p` excludes.
fn weigh(candidates: &mut Vec<Candidate>, highest: f32, draw: &Draw) {
    let sharpness = draw.temperature.recip();
    let least = ((f64::from(draw.min_p) * UNIT as f64) as u64).max(1);
    candidates.retain_mut(|candidate| {
        let relative = ((candidate.logit - highest) * sharpness).exp();
        candidate.weight = (f64::from(relative) * UNIT as f64) as u64;
        candidate.weight >= least
    });
}

/// Keeps the fewest likeliest candidates that together have at least `top_p` of the mass: a
/// quickselect by mass, so every round halves what is looked at.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f32) {
    let total = mass(candidates);
    let mut missing = ((f64::from(top_p) * total as f64).ceil() as u64).max(1);
    let least = lightest_needed(candidates, missing);
    candidates.retain(|candidate| candidate.weight >= least);
    // candidates[..low] are kept, candidates[high..] are dropped
    let (mut low, mut high) = (0, candidates.len());
    while high - low > 1 {
        let middle = (high - low) / 2;
        let open = &mut candidates[low..high];
        open.select_nth_unstable_by(middle, likelier);
        let upper = mass(&open[..middle]);
        if upper >= missing {
            high = low + middle;
        } else {
            missing -= upper;
            low += middle;
        }
    }
    candidates.truncate(high);
}

/// A weight, a power of two, such that the candidates of at least this weight have the mass that
/// is `missing`: most of a vocabulary is far lighter and need not be selected from.
fn lightest_needed(candidates: &[Candidate], mut missing: u64) -> u64 {
    let mut mass_by_magnitude = [0u64; UNIT_BITS as usize + 1];
    for candidate in candidates {
        mass_by_magnitude[candidate.weight.ilog2() as usize] += candidate.weight;
    }
    for (magnitude, mass) in mass_by_magnitude.into_iter().enumerate().rev() {
        if mass >= missing {
            return 1 << magnitude;
        }
        missing -= mass;
    }
    0
}

fn mass(candidates: &[Candidate]) -> u64 {
    candidates.iter().map(|candidate| candidate.weight).sum()
}

/// The candidate in which the running sum passes `uniform` of the total.
fn pick(candidates: &[Candidate], uniform: f32) -> Option<u32> {
    let mut left = (f64::from(uniform) * mass(candidates) as f64) as u64;
    for candidate in candidates {
        if left < candidate.weight {
            return Some(candidate.id);
        }
        left -= candidate.weight;
    }
    candidates.last().map(|candidate| candidate.id)
}

/// ln of the sum of exp over the logits, NaN left out.
fn log_sum_exp(logits: &[f32]) -> f32 {
    let Some(best) = argmax(logits) else { return f32::NAN };
    let highest = logits[best as usize];
    if !highest.is_finite() {
        return highest;
    }
    let sum: f64 = logits
        .iter()
        .filter(|logit| !logit.is_nan())
        .map(|logit| f64::from((logit - highest).exp()))
        .sum();
    highest + sum.ln() as f32
}

/// Natural logarithm of the probability of `id` under the untempered softmax.
pub fn logprob(logits: &[f32], id: u32) -> f32 {
    logits[id as usize] - log_sum_exp(logits)
}

/// Writes the `k` likeliest ids and their log-probabilities over `out`, best first.
pub fn top_logprobs(logits: &[f32], k: usize, scratch: &mut Scratch, out: &mut Vec<(u32, f32)>) {
    out.clear();
    let Some(best) = argmax(logits) else { return };
    if k == 0 {
        return;
    }
    // only top_k and the unlimited reach of an infinite temperature matter to `gather`
    let top_k = u32::try_from(k).unwrap_or(u32::MAX);
    let all = Draw { temperature: f32::INFINITY, top_k, top_p: 1.0, min_p: 0.0, uniform: 0.0 };
    let candidates = &mut scratch.candidates;
    gather(logits.into(), logits[best as usize], &all, candidates);
    candidates.sort_unstable_by(likelier);
    let norm = log_sum_exp(logits);
    out.extend(candidates.iter().map(|candidate| (candidate.id, candidate.logit - norm)));
}

/// How often each id is in a sequence, kept up to date token by token. Holds at most as many
/// entries as the sequence has different ids.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By id, how often it is in the output; 0 for one that is in the prompt alone.
    counts: HashMap<u32, u32>,
}

impl History {
    /// Counts a prompt and keeps room for `max_tokens` more.
    pub fn new(prompt: &[u32], max_tokens: usize) -> Self {
        let mut counts = HashMap::with_capacity(prompt.len() + max_tokens);
        counts.extend(prompt.iter().map(|id| (*id, 0)));
        Self { counts }
    }

    /// Counts a generated token.
    pub fn push(&mut self, id: u32) {
        *self.counts.entry(id).or_insert(0) += 1;
    }
}

impl SamplingParams {
    /// Whether [`penalise`] would change anything, so that logits need to come to the host.
    pub fn changes_logits(&self) -> bool {
        self.needs_history() || !self.logit_bias.is_empty()
    }

    /// Whether a [`History`] has to be kept.
    pub fn needs_history(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
    }

    /// How to draw with this uniform number; greedy at temperature 0.
    pub fn plan(&self, uniform: f32) -> Plan {
        if self.temperature <= 0.0 {
            return Plan::Greedy;
        }
        Plan::Draw(Draw {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            uniform,
        })
    }
}

/// Applies biases, then penalties, then bans, in place. Ids beyond the vocabulary are ignored.
///
/// `logits`: `[vocab]`. `banned` can not be chosen afterwards: the ids that end a text, before
/// `min_tokens`.
pub fn penalise(logits: &mut [f32], params: &SamplingParams, history: &History, banned: &[u32]) {
    for &(id, bias) in &params.logit_bias {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += bias;
        }
    }
    if params.needs_history() {
        for (&id, &count) in &history.counts {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = penalised(*logit, count, params);
            }
        }
    }
    for &id in banned {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

fn penalised(logit: f32, count: u32, params: &SamplingParams) -> f32 {
    let repeated = if logit > 0.0 {
        logit / params.repetition_penalty
    } else {
        logit * params.repetition_penalty
    };
    if count == 0 {
        return repeated;
    }
    repeated - params.presence_penalty - params.frequency_penalty * count as f32
}

/// The uniform numbers of one sequence. The number for a token depends on seed, choice and the
/// token's index alone, so the same seed gives the same text whatever else runs, and a token
/// that is computed twice gets the same number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uniform {
    key: u64,
}

impl Uniform {
    pub fn new(seed: u64, choice: u32) -> Self {
        Self { key: mix(mix(seed).wrapping_add(u64::from(choice))) }
    }

    /// The number for the output token at `index`, in `[0, 1)`.
    pub fn at(&self, index: u64) -> f32 {
        let bits = mix(self.key.wrapping_add(index.wrapping_mul(GOLDEN))) >> 40;
        bits as f32 / (1u32 << 24) as f32
    }
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of splitmix64.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
