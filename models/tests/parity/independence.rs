//! A row's bits do not depend on what else runs: neighbours, chunks, blocks, sharing, history.

use kernels::Isa;
use models::model::{LoadedModel, ModelSource, load};
use models::step::BlockCopy;
use models::{KvFormat, Quant};

use crate::session::{ROWS_MAX, Sequence, Session, assert_same_bits, fixture};

/// Ids without a pattern, the same for the same seed.
fn ids(seed: u32, len: usize, vocab: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % vocab as u32
        })
        .collect()
}

/// Runs `test` on models of every grouping, in every format, on every ISA. The widths of some are
/// no multiple of a group of quantised weights.
fn on_every_model(test: impl Fn(&LoadedModel, Isa, &str)) {
    let models = ["llama-mha", "llama-gqa5-mlp-bias", "llama-llama3", "qwen2-gqa7-v4"];
    let formats = [
        (Quant::F32, KvFormat::F32),
        (Quant::Bf16, KvFormat::Bf16),
        (Quant::Bf16, KvFormat::Q8),
        (Quant::Q8, KvFormat::Auto),
        (Quant::Q4, KvFormat::F32),
    ];
    for name in models {
        for (quant, kv) in formats {
            let model = fixture(name, quant, kv);
            for isa in Isa::available() {
                test(&model, isa, &format!("{name}, {quant:?}, KV {kv:?}, {isa}"));
            }
        }
    }
}

/// The whole sequence in one step, by itself.
fn solo(model: &LoadedModel, isa: Isa, ids: &[u32]) -> Vec<Vec<f32>> {
    Session::new(model, isa, 16).prefill(&mut Sequence::new(ids), ROWS_MAX)
}

#[test]
fn a_batch_gives_each_sequence_its_solo_bits() {
    on_every_model(|model, isa, what| {
        let lengths = [1, 5, 16, 17, 40, 63];
        let mut sequences: Vec<Sequence> = lengths
            .iter()
            .map(|&len| Sequence::new(&ids(len as u32, len, model.config.vocab)))
            .collect();
        let wanted: Vec<_> = sequences.iter().map(|s| solo(model, isa, &s.ids)).collect();
        for block_tokens in [16, 32] {
            let mut session = Session::new(model, isa, block_tokens);
            let mut got = vec![Vec::new(); sequences.len()];
            sequences.iter_mut().for_each(|sequence| *sequence = Sequence::new(&sequence.ids));
            // Decodes and chunks of different lengths meet in every step.
            while sequences.iter().any(|s| s.cached < s.ids.len()) {
                let mut rows = Vec::new();
                for (i, sequence) in sequences.iter_mut().enumerate().rev() {
                    let count = (sequence.ids.len() - sequence.cached).min(1 + 4 * (i % 3));
                    if count > 0 {
                        session.push(sequence, count);
                        rows.extend(std::iter::repeat_n(i, count));
                    }
                }
                for (i, logits) in rows.into_iter().zip(session.run()) {
                    got[i].push(logits);
                }
            }
            for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
                assert_same_bits(got, wanted, &format!("{what}, {block_tokens}, sequence {i}"));
            }
        }
    });
}

#[test]
fn chunk_boundaries_change_nothing() {
    on_every_model(|model, isa, what| {
        let ids = ids(7, 70, model.config.vocab);
        let wanted = solo(model, isa, &ids);
        for chunk in [1, 3, 16, 33] {
            let got = Session::new(model, isa, 16).prefill(&mut Sequence::new(&ids), chunk);
            assert_same_bits(&got, &wanted, &format!("{what}, chunks of {chunk}"));
        }
    });
}

#[test]
fn a_truncated_sequence_goes_on_as_if_it_had_never_been_longer() {
    on_every_model(|model, isa, what| {
        let first = ids(1, 50, model.config.vocab);
        let mut second = first[..21].to_vec();
        second.extend(ids(2, 30, model.config.vocab));
        let mut session = Session::new(model, isa, 16);
        let mut sequence = Sequence::new(&first);
        session.prefill(&mut sequence, 50);
        // Truncation is bookkeeping: later positions are simply written again.
        sequence.cached = 21;
        sequence.ids.clone_from(&second);
        let got = session.prefill(&mut sequence, 9);
        assert_same_bits(&got, &solo(model, isa, &second)[21..], what);
    });
}

#[test]
fn a_shared_prefix_gives_the_same_bits() {
    on_every_model(|model, isa, what| {
        let vocab = model.config.vocab;
        let prefix = ids(3, 41, vocab);
        let longer = |seed| [prefix.clone(), ids(seed, 20, vocab)].concat();
        for block_tokens in [16, 32] {
            let mut session = Session::new(model, isa, block_tokens);
            let mut first = Sequence::new(&longer(4));
            session.prefill(&mut first, 61);
            let mut second = Sequence::new(&longer(5));
            let full = prefix.len() / block_tokens;
            second.blocks.extend(&first.blocks[..full]);
            second.blocks.iter().for_each(|&block| session.pool.retain(block));
            let to = session.pool.alloc().expect("a free block");
            let tokens = (prefix.len() % block_tokens) as u32;
            session.copy(BlockCopy { from: first.blocks[full], to, tokens });
            second.blocks.push(to);
            second.cached = prefix.len();
            let got = session.prefill(&mut second, 6);
            assert_same_bits(&got, &solo(model, isa, &second.ids)[41..], what);

            // The first one's blocks are as they were.
            first.ids.extend(ids(6, 5, vocab));
            let got = session.prefill(&mut first, 2);
            assert_same_bits(&got, &solo(model, isa, &first.ids)[61..], what);

            let free = session.pool.free();
            session.release(&mut first);
            session.release(&mut second);
            assert!(session.pool.free() > free);
            assert!((0..session.pool.total() as u32).all(|b| session.pool.references(b) <= 1));
        }
    });
}

#[test]
fn greedy_tokens_of_the_embedded_model_do_not_depend_on_the_batch() {
    let model = load(&ModelSource::Builtin, Quant::Auto, KvFormat::Auto).expect("embedded");
    for isa in Isa::available() {
        let mut session = Session::new(&model, isa, 16);
        let starts: Vec<Vec<u32>> =
            (0..4u32).map(|i| ids(i, 3 + 5 * i as usize, model.config.vocab)).collect();
        let mut together: Vec<Sequence> = starts.iter().map(|ids| Sequence::new(ids)).collect();
        for _ in 0..12 {
            let mut ends = Vec::new();
            for sequence in &mut together {
                let left = sequence.ids.len() - sequence.cached;
                session.push(sequence, left);
                ends.push(ends.last().map_or(left, |end| end + left));
            }
            let logits = session.run();
            for (sequence, end) in together.iter_mut().zip(ends) {
                let id = models::sampler::argmax(&logits[end - 1]).expect("finite logits");
                sequence.ids.push(id);
            }
        }
        for (start, together) in starts.iter().zip(&together) {
            let mut alone = Sequence::new(start);
            session.greedy(&mut alone, 12);
            assert_eq!(alone.ids, together.ids, "on {isa}");
            session.release(&mut alone);
        }
    }
}
