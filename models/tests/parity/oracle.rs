//! Against HF transformers in float32.

use std::path::Path;

use kernels::Isa;
use models::model::{LoadedModel, ModelSource, load};
use models::step::Row;
use models::{KvFormat, Quant};
use safetensors::SafeTensors;

use crate::session::{Sequence, Session, fixture, fixtures};

/// Largest difference of a logit, as a share of the largest logit.
const TOLERANCE: f32 = 1e-4;
/// The same with weights and KV rounded to 8 bits of mantissa.
const TOLERANCE_BF16: f32 = 0.1;

/// What fixtures/make.py wrote.
struct Expected {
    /// The prompt and 64 greedy tokens.
    ids: Vec<u32>,
    prompt: usize,
    /// `[positions, vocab]`: of every position, or of the last ones.
    logits: Vec<f32>,
}

impl Expected {
    fn read(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("expected.safetensors")).expect("a fixture");
        let file = SafeTensors::deserialize(&bytes).expect("a fixture");
        let words = |name: &str| -> Vec<[u8; 4]> {
            let tensor = file.tensor(name).expect("a fixture");
            tensor.data().as_chunks().0.to_vec()
        };
        Self {
            ids: words("ids").into_iter().map(u32::from_le_bytes).collect(),
            prompt: u32::from_le_bytes(words("prompt")[0]) as usize,
            logits: words("logits").into_iter().map(f32::from_le_bytes).collect(),
        }
    }
}

fn variants() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(fixtures())
        .expect("fixtures")
        .map(|entry| entry.expect("fixtures").path())
        .filter(|path| path.join("config.json").exists())
        .map(|path| path.file_name().expect("a folder").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// `got` are the logits of the last positions that `expected` has.
fn assert_close(got: &[Vec<f32>], expected: &Expected, tolerance: f32, what: &str) {
    let vocab = got[0].len();
    assert_eq!(got.len() * vocab, expected.logits.len(), "{what}: positions");
    for (i, (got, wanted)) in got.iter().zip(expected.logits.chunks_exact(vocab)).enumerate() {
        let largest = wanted.iter().fold(0f32, |max, x| max.max(x.abs()));
        let difference = got.iter().zip(wanted).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
        assert!(
            difference <= tolerance * largest,
            "{what}: logits of row {i} are off by {difference}, their largest is {largest}"
        );
    }
}

fn assert_parity(name: &str, model: &LoadedModel, isa: Isa) {
    let expected = Expected::read(&fixtures().join(name));
    let vocab = model.config.vocab;
    let wanted_rows = expected.logits.len() / vocab;
    let what = format!("{name} on {isa}");

    // Prompt and continuation in odd chunks, then the continuation token by token.
    for chunk in [7, 61] {
        let mut session = Session::new(model, isa, 16);
        let mut sequence = Sequence::new(&expected.ids);
        let got = session.prefill(&mut sequence, chunk);
        let what = format!("{what} by {chunk}");
        assert_close(&got[got.len() - wanted_rows..], &expected, TOLERANCE, &what);
    }
    let mut session = Session::new(model, isa, 32);
    let mut sequence = Sequence::new(&expected.ids[..expected.prompt]);
    let rows = session.greedy(&mut sequence, expected.ids.len() - expected.prompt);
    assert_eq!(sequence.ids, expected.ids, "{what}: greedy tokens");
    assert_logprobs(&rows, &expected, vocab);
}

/// The device's log-probabilities against the oracle's logits, where all of those are there.
fn assert_logprobs(rows: &[Row], expected: &Expected, vocab: usize) {
    if expected.logits.len() < expected.ids.len() * vocab {
        return;
    }
    let before_first = expected.prompt - 1;
    for (row, logits) in rows.iter().zip(expected.logits.chunks_exact(vocab).skip(before_first)) {
        let Row::Token { id, logprob, .. } = row else { panic!("a token") };
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let wanted = f64::from(logits[*id as usize]) - sum.ln();
        assert!((f64::from(*logprob) - wanted).abs() < 2e-3, "{logprob} is not {wanted}");
    }
}

#[test]
fn tiny_models_match_transformers() {
    let names = variants();
    assert!(names.len() >= 10, "only {names:?}");
    for name in names {
        let model = fixture(&name, Quant::Auto, KvFormat::Auto);
        for isa in Isa::available() {
            assert_parity(&name, &model, isa);
        }
    }
}

/// What bf16 rounds away is not the oracle's to say; that nothing else goes wrong is.
#[test]
fn tiny_models_in_bf16_stay_near_transformers() {
    for name in variants() {
        let model = fixture(&name, Quant::Bf16, KvFormat::Auto);
        let expected = Expected::read(&fixtures().join(&name));
        for isa in Isa::available() {
            let mut session = Session::new(&model, isa, 16);
            let got = session.prefill(&mut Sequence::new(&expected.ids), 23);
            assert_close(&got, &expected, TOLERANCE_BF16, &format!("{name} in bf16 on {isa}"));
        }
    }
}

#[test]
fn the_embedded_model_matches_transformers() {
    let model = load(&ModelSource::Builtin, Quant::F32, KvFormat::Auto).expect("embedded");
    for isa in Isa::available() {
        assert_parity("default", &model, isa);
    }
}

#[test]
fn the_embedded_model_writes_the_same_text_in_bf16() {
    let expected = Expected::read(&fixtures().join("default"));
    let model = load(&ModelSource::Builtin, Quant::Auto, KvFormat::F32).expect("embedded");
    let mut session = Session::new(&model, Isa::best(), 16);
    let mut sequence = Sequence::new(&expected.ids[..expected.prompt]);
    session.greedy(&mut sequence, expected.ids.len() - expected.prompt);
    // Its weights are bf16 already: nothing was rounded on the way.
    assert_eq!(sequence.ids, expected.ids);
}

/// How often the embedded model's likeliest token, along a text that it wrote itself, is the same
/// in another format.
fn agreement(quant: Quant, isa: Isa) -> f64 {
    let expected = Expected::read(&fixtures().join("default"));
    let best = |quant| -> Vec<Option<u32>> {
        let model = load(&ModelSource::Builtin, quant, KvFormat::Auto).expect("embedded");
        let mut session = Session::new(&model, isa, 16);
        let logits = session.prefill(&mut Sequence::new(&expected.ids), 64);
        logits.iter().map(|logits| models::sampler::argmax(logits)).collect()
    };
    let (wanted, got) = (best(Quant::Bf16), best(quant));
    let same = wanted.iter().zip(&got).filter(|(a, b)| a == b).count();
    same as f64 / wanted.len() as f64
}

#[test]
fn quantised_weights_choose_the_same_tokens() {
    for isa in Isa::available() {
        let (q8, q4) = (agreement(Quant::Q8, isa), agreement(Quant::Q4, isa));
        assert!(q8 >= 0.97, "q8 agrees at {q8} of the positions on {isa}");
        assert!(q4 >= 0.85, "q4 agrees at {q4} of the positions on {isa}");
    }
}
