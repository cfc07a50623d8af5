use proptest::prelude::*;

use super::*;

/// The definition, by sorting everything.
fn naive(logits: &[f32], draw: &Draw) -> Option<u32> {
    let mut sorted: Vec<Candidate> = (0u32..)
        .zip(logits)
        .filter(|(_, logit)| !logit.is_nan())
        .map(|(id, &logit)| Candidate { logit, id, weight: 0 })
        .collect();
    sorted.sort_by(likelier);
    let first = *sorted.first()?;
    for candidate in &mut sorted {
        let relative = ((candidate.logit - first.logit) * draw.temperature.recip()).exp();
        candidate.weight = (f64::from(relative) * UNIT as f64) as u64;
    }
    if draw.top_k > 0 {
        sorted.truncate(draw.top_k as usize);
    }
    sorted.retain(|c| c.weight as f64 >= (f64::from(draw.min_p) * UNIT as f64).floor().max(1.0));
    let total: u64 = sorted.iter().map(|c| c.weight).sum();
    let wanted = f64::from(draw.top_p) * total as f64;
    let mut kept = 0;
    let mut sum = 0;
    while kept < sorted.len() && (draw.top_p >= 1.0 || kept == 0 || (sum as f64) < wanted) {
        sum += sorted[kept].weight;
        kept += 1;
    }
    sorted.truncate(kept);
    sorted.sort_by_key(|c| c.id);
    let target = (f64::from(draw.uniform) * sum as f64) as u64;
    let mut running = 0;
    sorted
        .iter()
        .find(|c| {
            running += c.weight;
            target < running
        })
        .map(|c| c.id)
}

fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        6 => -30.0f32..30.0,
        // few values: ties
        4 => (-4i8..4).prop_map(f32::from),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::NAN),
    ];
    prop::collection::vec(logit, 1..700)
}

fn draw() -> impl Strategy<Value = Draw> {
    (
        0.05f32..3.0,
        prop_oneof![Just(0u32), 1u32..12, 100u32..900],
        prop_oneof![Just(1.0f32), Just(0.0), 0.01f32..1.0],
        prop_oneof![Just(0.0f32), 0.001f32..1.0],
        0.0f32..1.0,
    )
        .prop_map(|(temperature, top_k, top_p, min_p, uniform)| Draw {
            temperature,
            top_k,
            top_p,
            min_p,
            uniform,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn the_draw_is_that_of_a_full_sort(logits in logits(), draw in draw()) {
        let any_finite = logits.iter().any(|logit| logit.is_finite());
        let chosen = choose(&logits[..], &draw, &mut Scratch::default());
        let highest = |strip: &[f32]| strip.iter().fold(f32::NEG_INFINITY, |high, &x| high.max(x));
        let peaks: Vec<f32> = logits.chunks(kernels::STRIP).map(highest).collect();
        if any_finite {
            let peaked = Peaked::new(&logits, &peaks);
            prop_assert_eq!(choose(peaked, &draw, &mut Scratch::default()), chosen);
        }
        if any_finite {
            prop_assert_eq!(chosen, naive(&logits, &draw));
        } else {
            prop_assert_eq!(chosen, argmax(&logits));
        }
        prop_assert!(chosen.is_none_or(|id| !logits[id as usize].is_nan()));
    }

    #[test]
    fn top_logprobs_are_those_of_a_full_sort(logits in logits(), k in 0usize..40) {
        let mut sorted: Vec<(u32, f32)> =
            (0u32..).zip(logits.iter().copied()).filter(|(_, l)| !l.is_nan()).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        sorted.truncate(k);
        let mut top = Vec::new();
        top_logprobs(&logits, k, &mut Scratch::default(), &mut top);
        let ids: Vec<u32> = top.iter().map(|(id, _)| *id).collect();
        prop_assert_eq!(ids, sorted.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        for (id, value) in top {
            let expected = logprob(&logits, id);
            prop_assert!(value == expected || value.is_nan() && expected.is_nan());
        }
    }
}

const PLAIN: Draw = Draw { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, uniform: 0.0 };

#[test]
fn nothing_but_nan_is_no_token() {
    assert_eq!(argmax(&[f32::NAN; 3]), None);
    assert_eq!(choose(&[f32::NAN; 3][..], &PLAIN, &mut Scratch::default()), None);
    assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), Some(1));
    assert_eq!(argmax(&[f32::NAN, 2.0, 2.0]), Some(1));
    assert_eq!(choose(&[1.0, f32::INFINITY][..], &PLAIN, &mut Scratch::default()), Some(1));
}

#[test]
fn draws_follow_the_distribution() {
    let probabilities = [0.5f32, 0.25, 0.125, 0.0625, 0.0625];
    let logits = probabilities.map(f32::ln);
    let uniform = Uniform::new(7, 0);
    let mut scratch = Scratch::new(5);
    let mut counts = [0u32; 5];
    let draws = 40_000u32;
    for index in 0..u64::from(draws) {
        let draw = Draw { uniform: uniform.at(index), ..PLAIN };
        let id = choose(&logits[..], &draw, &mut scratch).expect("finite logits");
        counts[id as usize] += 1;
    }
    let chi_square: f64 = counts
        .iter()
        .zip(probabilities)
        .map(|(&count, p)| {
            let expected = f64::from(p) * f64::from(draws);
            (f64::from(count) - expected).powi(2) / expected
        })
        .sum();
    // 4 degrees of freedom: 99.9 % of fair samplers stay below 18.5
    assert!(chi_square < 18.5, "chi square {chi_square}, counts {counts:?}");
}

#[test]
fn uniform_numbers_are_a_function_of_seed_choice_and_index() {
    let a = Uniform::new(1, 0);
    assert_eq!(a.at(5), Uniform::new(1, 0).at(5));
    assert_ne!(a.at(5), a.at(6));
    assert_ne!(a.at(5), Uniform::new(1, 1).at(5));
    assert_ne!(a.at(5), Uniform::new(2, 0).at(5));
    let mean = (0..10_000).map(|i| f64::from(a.at(i))).sum::<f64>() / 10_000.0;
    assert!((mean - 0.5).abs() < 0.01, "mean {mean}");
    assert!((0..10_000).all(|i| (0.0..1.0).contains(&a.at(i))));
}

#[test]
fn penalties_touch_what_they_name() {
    let params = SamplingParams {
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logit_bias: vec![(3, 1.5), (99, 1.0)],
        ..SamplingParams::default()
    };
    let mut history = History::new(&[0, 1], 4);
    history.push(1);
    history.push(1);
    history.push(2);
    let mut logits = [4.0, -4.0, 4.0, 1.0, 7.0];
    penalise(&mut logits, &params, &history, &[4, 99]);
    assert_eq!(logits, [2.0, -8.0 - 0.5 - 0.5, 2.0 - 0.5 - 0.25, 2.5, f32::NEG_INFINITY]);
    assert!(params.changes_logits() && !SamplingParams::default().changes_logits());
}

#[test]
fn logprobs_sum_to_one() {
    let logits = [1.0, -2.0, 0.5, f32::NEG_INFINITY, 30.0];
    let total: f32 = (0..5).map(|id| logprob(&logits, id).exp()).sum();
    assert!((total - 1.0).abs() < 1e-5, "{total}");
    assert_eq!(logprob(&logits, 3), f32::NEG_INFINITY);
}
