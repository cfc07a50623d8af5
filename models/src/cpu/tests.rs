use crate::config::DecoderConfig;
use crate::sampler::Draw;
use crate::step::{BlockCopy, Segment};
use crate::{KvFormat, Quant};

use super::*;

const VOCAB: usize = 40;

fn device() -> CpuDevice {
    let config = br#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 40, "max_position_embeddings": 64}"#;
    let config = DecoderConfig::parse(config, None).expect("a config");
    let model = LoadedModel::random(config, Quant::F32, KvFormat::Auto, 1);
    let options = CpuOptions {
        isa: None,
        threads: 1,
        context: 48,
        blocks: 4,
        block_tokens: 16,
        rows_max: 20,
        samples_max: 10,
    };
    CpuDevice::new(&model, &options).expect("the best ISA is available")
}

/// One sequence of `tokens` in blocks 2 and 1, its last rows sampled by `plans`.
fn step(tokens: &[u32], plans: &[Plan]) -> Step {
    let rows = tokens.len() as u32;
    let first = rows - plans.len() as u32;
    let sample = |(row, &plan): (u32, &Plan)| Sample { row, plan, logprob: true, stop_ids: 0..0 };
    Step {
        tokens: tokens.to_vec(),
        positions: (0..rows).collect(),
        segments: vec![Segment { rows: 0..rows, blocks: 0..2 }],
        blocks: vec![2, 1],
        samples: (first..rows).zip(plans).map(sample).collect(),
        ..Step::default()
    }
}

fn run(device: &mut CpuDevice, step: &Step) -> Rows {
    let mut rows = Rows::default();
    device.run(step, &mut rows).expect("the CPU does not fail");
    rows
}

fn submit(device: &mut CpuDevice, step: &Step) -> Ticket {
    let ticket = device.submit(step, &mut || true).expect("the CPU does not fail");
    ticket.expect("nobody gave it up")
}

fn ids(rows: &Rows) -> Vec<u32> {
    rows.rows
        .iter()
        .map(|row| match row {
            Row::Token { id, .. } => *id,
            Row::NotANumber | Row::Logits(_) => panic!("a token was asked for"),
        })
        .collect()
}

#[test]
fn plans_agree_with_the_logits() {
    let mut device = device();
    let tokens = [3, 9, 27, 1];
    let logits = run(&mut device, &step(&tokens, &[Plan::Logits])).logits;
    assert_eq!(logits.len(), VOCAB);
    let best = sampler::argmax(&logits).expect("finite logits");

    let narrow = Draw { temperature: 1.0, top_k: 1, top_p: 1.0, min_p: 0.0, uniform: 0.99 };
    let wide = Draw { top_k: 0, ..narrow };
    let drawn = sampler::choose(&logits[..], &wide, &mut sampler::Scratch::new(VOCAB));
    for (plan, wanted) in [
        (Plan::Greedy, best),
        (Plan::Draw(narrow), best),
        (Plan::Draw(wide), drawn.expect("finite logits")),
    ] {
        let rows = run(&mut device, &step(&tokens, &[plan])).rows;
        let [Row::Token { id, logprob, stop: false }] = rows[..] else { panic!("{rows:?}") };
        assert_eq!(id, wanted);
        assert!((logprob - sampler::logprob(&logits, id)).abs() < 1e-5);
    }
    assert_ne!(drawn, Some(best), "a draw that cannot be told from greedy tests nothing");
}

#[test]
fn a_logprob_costs_only_those_who_ask_and_stop_ids_are_seen() {
    let mut device = device();
    let mut asked = step(&[5, 6], &[Plan::Greedy]);
    let id = ids(&run(&mut device, &asked))[0];
    asked.samples[0].logprob = false;
    asked.stop_ids = vec![id, (id + 1) % VOCAB as u32, id];
    for (range, wanted) in [(0..1, true), (1..2, false), (1..3, true), (0..0, false)] {
        asked.samples[0].stop_ids = range;
        let rows = run(&mut device, &asked).rows;
        let [Row::Token { id: same, logprob, stop }] = rows[..] else { panic!("{rows:?}") };
        assert_eq!((same, stop), (id, wanted));
        assert!(logprob.is_nan());
    }
}

#[test]
fn the_head_runs_in_tiles_and_answers_in_order() {
    let mut device = device();
    let tokens: Vec<u32> = (0..10).map(|i| i * 7 % 40).collect();
    let mixed: Vec<Plan> =
        (0..10).map(|i| if i % 3 == 0 { Plan::Logits } else { Plan::Greedy }).collect();
    let mut step = step(&tokens, &mixed);
    step.samples.reverse();
    let whole = run(&mut device, &step);
    device.logits.truncate(3 * VOCAB);
    let tiled = run(&mut device, &step);
    assert_eq!(whole.logits, tiled.logits);
    assert_eq!(format!("{:?}", whole.rows), format!("{:?}", tiled.rows));
    let ranges: Vec<_> = tiled
        .rows
        .iter()
        .filter_map(|row| if let Row::Logits(r) = row { Some(r.clone()) } else { None })
        .collect();
    assert_eq!(ranges, [0..40, 40..80, 80..120, 120..160]);
}

#[test]
fn several_tickets_wait_and_their_memory_is_reused() {
    let mut device = device();
    let steps: Vec<Step> = (1..5).map(|i| step(&[i, i + 1], &[Plan::Greedy])).collect();
    let wanted: Vec<_> = steps.iter().map(|step| ids(&run(&mut device, step))).collect();
    let tickets: Vec<Ticket> = steps.iter().map(|step| submit(&mut device, step)).collect();
    let mut rows = Rows::default();
    for (ticket, wanted) in tickets.into_iter().zip(wanted) {
        device.collect(ticket, &mut rows).expect("the CPU does not fail");
        assert_eq!(ids(&rows), wanted);
    }
    let kept = device.spare.len();
    for step in &steps {
        run(&mut device, step);
    }
    assert_eq!(device.spare.len(), kept);
}

#[test]
#[should_panic(expected = "in order")]
fn tickets_are_collected_in_order() {
    let mut device = device();
    let first = submit(&mut device, &step(&[1], &[Plan::Greedy]));
    submit(&mut device, &step(&[2], &[Plan::Greedy]));
    let later = Ticket(first.0 + 1);
    let _ = device.collect(later, &mut Rows::default());
}

/// The rows of `whole` from this position on.
fn rest(whole: &Step, position: u32) -> Step {
    let mut rest = whole.clone();
    rest.tokens.drain(..position as usize);
    rest.positions.drain(..position as usize);
    rest.segments[0].rows.end -= position;
    rest.samples[0].row -= position;
    rest
}

#[test]
fn a_step_that_is_given_up_has_made_its_copies_and_its_rows_run_again() {
    let mut device = device();
    let whole = step(&[3, 9, 27, 1, 4], &[Plan::Logits]);
    let wanted = run(&mut device, &whole).logits;
    let copied = Step { blocks: vec![0, 1], ..rest(&whole, 2) };
    // Other tokens at the same positions, so that what they leave there is wrong.
    let mut other = rest(&step(&[3, 9, 8, 8, 8], &[Plan::Logits]), 2);
    other.copies.push(BlockCopy { from: 2, to: 0, tokens: 2 });
    let mut given_up = 0;
    loop {
        let mut left = given_up;
        let mut go_on = || {
            left -= 1;
            left >= 0
        };
        let ticket = device.submit(&other, &mut go_on).expect("the CPU does not fail");
        if let Some(ticket) = ticket {
            device.collect(ticket, &mut Rows::default()).expect("it ran");
            break;
        }
        assert_eq!(run(&mut device, &copied).logits, wanted, "given up at {given_up}");
        assert_eq!(run(&mut device, &rest(&whole, 2)).logits, wanted, "given up at {given_up}");
        given_up += 1;
    }
    assert_eq!(given_up, 4, "asked in each half of two layers");
    assert!(device.pending.is_empty(), "what was given up has no answer");
}

#[test]
fn a_step_of_copies_alone_is_a_step() {
    let mut device = device();
    let step = Step { copies: vec![BlockCopy { from: 0, to: 3, tokens: 16 }], ..Step::default() };
    assert!(run(&mut device, &step).rows.is_empty());
}

#[test]
fn broken_steps_are_caught_before_they_touch_the_cache() {
    type Break = fn(&mut Step);
    let breaks: &[(&str, Break)] = &[
        ("too many rows", |s| {
            s.tokens.resize(21, 0);
            s.positions = (0..21).collect();
            s.segments[0].rows.end = 21;
        }),
        ("a position missing", |s| s.positions.truncate(1)),
        ("a token outside", |s| s.tokens[1] = 40),
        ("positions that fall", |s| s.positions = vec![1, 0]),
        ("positions that stay", |s| s.positions = vec![1, 1]),
        ("a position beyond the context", |s| {
            s.positions = vec![0, 48];
            s.blocks = vec![0, 1, 2, 3];
            s.segments[0].blocks.end = 4;
        }),
        ("a table too short", |s| s.positions = vec![0, 32]),
        ("a block outside", |s| s.blocks[1] = 4),
        ("a row of nobody", |s| s.segments[0].rows.end = 1),
        ("rows counted twice", |s| s.segments.push(s.segments[0].clone())),
        ("an empty segment", |s| s.segments.push(Segment { rows: 2..2, blocks: 0..2 })),
        ("a sample of no row", |s| s.samples[0].row = 2),
        ("too many samples", |s| s.samples = vec![s.samples[0].clone(); 11]),
        ("stop ids outside", |s| s.samples[0].stop_ids = 0..1),
        ("a copy outside", |s| s.copies.push(BlockCopy { from: 0, to: 4, tokens: 1 })),
        ("a copy over itself", |s| s.copies.push(BlockCopy { from: 1, to: 1, tokens: 1 })),
        ("a copy too long", |s| s.copies.push(BlockCopy { from: 0, to: 1, tokens: 17 })),
    ];
    let limits = device().limits();
    let good = step(&[1, 2], &[Plan::Greedy]);
    good.assert_valid(&limits);
    for (what, broken) in breaks {
        let mut step = good.clone();
        broken(&mut step);
        let caught = std::panic::catch_unwind(|| step.assert_valid(&limits));
        assert!(caught.is_err(), "{what} went through");
    }
}

#[test]
fn a_machine_without_the_isa_says_so() {
    let Some(missing) = Isa::ALL.into_iter().find(|isa| !isa.is_available()) else { return };
    let config = DecoderConfig::of_shape("qwen2.5-coder-0.5b").expect("a known shape");
    let config = DecoderConfig { layers: 1, vocab: 8, hidden: 8, intermediate: 8, ..config };
    let model = LoadedModel::random(config, Quant::Auto, KvFormat::Auto, 1);
    let options = CpuOptions {
        isa: Some(missing),
        threads: 1,
        context: 16,
        blocks: 1,
        block_tokens: 16,
        rows_max: 1,
        samples_max: 1,
    };
    let error = CpuDevice::new(&model, &options).err().expect("a refusal");
    assert_eq!(error.to_string(), format!("this machine has no {missing}"));
}
