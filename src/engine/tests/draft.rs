//! What is said is the same with and without drafts, to the last event.

use std::sync::Arc;

use models::sampler::SamplingParams;
use models::text::StopStrings;
use proptest::prelude::*;

use super::scheduler::{Bench, ids, rules, spec};
use crate::engine::message::{SequenceEvent, SequenceRules, SequenceSpec};
use crate::engine::scheduler::StepRows;

/// Random runs; raise it for a night.
const CASES: u32 = 128;

/// Every way in which a token is chosen or a sequence ends.
fn every_rules() -> Vec<SequenceRules> {
    let drawn = |temperature| SamplingParams { temperature, ..SamplingParams::default() };
    let penalised = SamplingParams {
        repetition_penalty: 1.1,
        presence_penalty: 0.1,
        frequency_penalty: 0.05,
        logit_bias: vec![(5, -2.0), (6, 0.5)],
        ..drawn(0.0)
    };
    let strings = |texts: &[&str]| Arc::new(StopStrings::new(texts).expect("few and short"));
    vec![
        rules(),
        SequenceRules { logprobs: None, ..rules() },
        SequenceRules { logprobs: Some(3), ..rules() },
        SequenceRules { sampling: drawn(0.2), ..rules() },
        SequenceRules { sampling: SamplingParams { top_p: 0.8, ..drawn(0.9) }, ..rules() },
        SequenceRules { sampling: penalised.clone(), ..rules() },
        SequenceRules { sampling: SamplingParams { temperature: 0.1, ..penalised }, ..rules() },
        SequenceRules { stop_ids: (0..4).collect(), ..rules() },
        SequenceRules { stop_ids: (0..30).collect(), min_tokens: 9, ..rules() },
        SequenceRules { stop_strings: strings(&["!", "a", "#$"]), ..rules() },
        SequenceRules { stop_strings: strings(&["%", "&'"]), min_tokens: 5, ..rules() },
        SequenceRules { echo: true, logprobs: Some(1), ..rules() },
    ]
}

/// All events of all clients in order, as text; without how much was cached, which is a matter
/// of who came first.
fn events(bench: &mut Bench) -> Vec<Vec<String>> {
    let of = |client: &mut super::scheduler::Client| {
        let mut all = Vec::new();
        while let Ok(mut event) = client.events.try_recv() {
            if let SequenceEvent::Finished { cached, .. } = &mut event {
                *cached = 0;
            }
            all.push(format!("{event:?}"));
        }
        all
    };
    bench.clients.iter_mut().map(of).collect()
}

fn run(specs: &[SequenceSpec], slots: usize, speculate: bool) -> (Vec<Vec<String>>, String) {
    let mut bench = Bench::habitual(128, 4, slots, speculate);
    for spec in specs {
        bench.submit(spec.clone());
    }
    bench.run();
    bench.scheduler.kv().assert_sound();
    assert_eq!(bench.scheduler.kv().promised(), 0);
    assert_eq!(bench.scheduler.load().blocks.referenced, 0);
    (events(&mut bench), bench.telemetry.render())
}

fn specs() -> impl Strategy<Value = Vec<SequenceSpec>> {
    let rules: Vec<_> = every_rules().into_iter().map(Arc::new).collect();
    let one = (0..3u32, 1..60usize, 0..50usize, 0..rules.len(), any::<u64>(), 0..2u32, 1..4u32);
    let one = one.prop_map(move |(family, length, max_tokens, kind, seed, tenant, choices)| {
        let cursor = (seed % (length as u64 + 1)) as usize;
        let first = spec(ids(length, family), max_tokens);
        let rules = Arc::clone(&rules[kind]);
        let first = SequenceSpec { rules, seed, tenant, cursor, ..first };
        (0..choices).map(|choice| SequenceSpec { choice, ..first.clone() }).collect::<Vec<_>>()
    });
    prop::collection::vec(one, 1..6).prop_map(|requests| requests.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn every_event_is_the_same_with_and_without_drafts(specs in specs(), slots in 1..7usize) {
        let (without, _) = run(&specs, slots, false);
        let (with, _) = run(&specs, slots, true);
        prop_assert_eq!(without, with);
    }
}

#[test]
fn drafts_are_made_counted_and_right_where_a_text_repeats_itself() {
    let (without, off) = run(&[spec(ids(8, 1), 200)], 1, false);
    let (with, on) = run(&[spec(ids(8, 1), 200)], 1, true);
    assert_eq!(without, with);
    let value = |scrape: &str, name: &str| {
        let line = scrape.lines().find(|line| line.starts_with(name)).expect("it is exported");
        line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).expect("a count")
    };
    assert_eq!(value(&off, "weir_draft_tokens_total"), 0);
    let (drafted, accepted) =
        (value(&on, "weir_draft_tokens_total"), value(&on, "weir_draft_accepted_total"));
    assert!(accepted > 60 && accepted < drafted, "{accepted} of {drafted}");
    for scrape in [off, on] {
        assert_eq!(value(&scrape, "weir_tokens_total{kind=\"generated\"}"), 200, "usage is usage");
    }
}

#[test]
fn drafts_keep_to_the_room_of_the_step() {
    for slots in [1, 5, 15, 16, 20] {
        let mut bench = Bench::habitual(512, 4, slots, true);
        for salt in 0..slots as u32 {
            bench.submit(spec(ids(12, salt), 60));
        }
        let mut most = StepRows::default();
        loop {
            let rows = bench.step(64);
            if rows == StepRows::default() {
                break;
            }
            assert!(rows.drafts == 0 || rows.prefills == 0, "{rows:?}");
            assert!(rows.drafts == 0 || rows.decodes + rows.drafts <= 16, "{rows:?}");
            most.drafts = most.drafts.max(rows.drafts);
        }
        assert!(most.drafts > 0, "the last of {slots} have room for drafts");
        assert!(bench.scheduler.is_idle());
    }
}
