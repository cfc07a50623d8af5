//! Stock candle-transformers behind the line protocol of `benches/peers/README.md`: one job of JSON
//! per line in, one answer of JSON per line out. The model stays loaded, so that the runner can
//! alternate it with weir.

mod network;

use std::io::{BufRead, Write};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use network::Network;

/// `decode`: `context` tokens are prefilled in each of `batch` sequences, then `tokens` are decoded.
/// `prefill`: `tokens` tokens in one pass, from an empty cache.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Job {
    Decode {
        context: usize,
        tokens: usize,
        #[serde(default = "one")]
        batch: usize,
    },
    Prefill {
        tokens: usize,
    },
}

#[derive(Serialize)]
struct Answer {
    tokens_per_second: f64,
    /// Of one step: with a batch, the time of one token of every sequence.
    ms_per_token: f64,
    seconds: f64,
    token_hash: String,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    engine: &'static str,
    version: &'static str,
    model: String,
    weights: String,
    threads: usize,
    avx: bool,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(path), dtype, None) = (args.next(), args.next(), args.next()) else {
        bail!("usage: peer-candle FILE.gguf | peer-candle FOLDER f32|bf16");
    };
    let dtype = match dtype.as_deref() {
        None | Some("f32") => DType::F32,
        Some("bf16") => DType::BF16,
        Some(other) => bail!("{other} is neither f32 nor bf16"),
    };
    let mut network = Network::load(path.as_ref(), dtype)?;
    say(&Ready {
        ready: true,
        engine: "candle-transformers",
        version: "0.11.1",
        model: file_name(&path),
        weights: network.weights(),
        threads: candle_core::utils::get_num_threads(),
        avx: candle_core::utils::with_avx(),
    })?;
    for line in std::io::stdin().lock().lines() {
        let job: Job = serde_json::from_str(&line?).context("a job")?;
        let answer = match job {
            Job::Decode { context, tokens, batch } => decode(&mut network, context, tokens, batch),
            Job::Prefill { tokens } => prefill(&mut network, tokens),
        };
        say(&answer?)?;
    }
    Ok(())
}

fn decode(network: &mut Network, context: usize, tokens: usize, batch: usize) -> Result<Answer> {
    network.clear();
    let mut last = next(network, &prompt(network.vocab(), batch, context)?, 0)?;
    let mut hash = Fnv::default();
    let began = Instant::now();
    for position in context..context + tokens {
        let ids = Tensor::from_vec(last, (batch, 1), &Device::Cpu)?;
        last = next(network, &ids, position)?;
        last.iter().for_each(|&id| hash.add(id));
    }
    Ok(answer(began, tokens, batch, &hash))
}

fn prefill(network: &mut Network, tokens: usize) -> Result<Answer> {
    network.clear();
    let ids = prompt(network.vocab(), 1, tokens)?;
    let mut hash = Fnv::default();
    let began = Instant::now();
    let first = next(network, &ids, 0)?;
    let answer = answer(began, tokens, 1, &hash);
    hash.add(first[0]);
    Ok(Answer { token_hash: hash.hex(), ..answer })
}

/// Runs `[batch, tokens]` ids and returns the likeliest next id of every sequence.
fn next(network: &mut Network, ids: &Tensor, position: usize) -> Result<Vec<u32>> {
    let logits = network.forward(ids, position)?;
    Ok(logits.argmax(candle_core::D::Minus1)?.flatten_all()?.to_vec1()?)
}

fn answer(began: Instant, steps: usize, batch: usize, hash: &Fnv) -> Answer {
    let seconds = began.elapsed().as_secs_f64();
    Answer {
        tokens_per_second: (steps * batch) as f64 / seconds,
        ms_per_token: 1e3 * seconds / steps as f64,
        seconds,
        token_hash: hash.hex(),
    }
}

/// `[batch, tokens]`, the ids that `weir bench` uses.
fn prompt(vocab: usize, batch: usize, tokens: usize) -> Result<Tensor> {
    let id = |sequence, at| ((sequence * 7919 + at * 104_729 + 17) % vocab) as u32;
    let ids = (0..batch).flat_map(|sequence| (0..tokens).map(move |at| id(sequence, at)));
    Ok(Tensor::from_vec(ids.collect(), (batch, tokens), &Device::Cpu)?)
}

fn say(line: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(line)?)?;
    Ok(out.flush()?)
}

/// FNV-1a over ids, as `weir bench` hashes them.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, id: u32) {
        for byte in id.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}

fn one() -> usize {
    1
}

fn file_name(path: &str) -> String {
    let name = std::path::Path::new(path).file_name();
    name.map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}
