use std::collections::BTreeSet;

use proptest::prelude::*;

use super::cut::{Cut, cut, step};
use super::*;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::fixture::{builtin, byte_level, load, load_with};

/// A byte-level vocabulary with exactly the tokens that a family's prompts are made of, and
/// what tells the family apart.
fn vocabulary(family: &Family) -> Tokenizer {
    let more = match family.recognise {
        Recognise::ByName => &[],
        Recognise::ByTokens(tokens) | Recognise::ByConfig { tokens, .. } => tokens,
    };
    let own = [Order::Psm, Order::Spm].into_iter().flat_map(|order| family.tokens(order));
    let tokens: BTreeSet<&str> = own.chain(more.iter().copied()).chain(["<s>"]).collect();
    let tokens: Vec<&str> = tokens.into_iter().collect();
    load_with(&byte_level(&tokens, true), &serde_json::json!({"bos_token": "<s>"}))
}

fn hint(family: &Family) -> FimHint {
    let mut hint = FimHint::default();
    match family.recognise {
        Recognise::ByName => hint.family = Some(family.name.to_owned()),
        Recognise::ByTokens(_) => {}
        Recognise::ByConfig { architecture, attention_bias, .. } => {
            hint.architecture = Some(architecture.to_owned());
            hint.attention_bias = attention_bias;
        }
    }
    hint
}

fn orders(family: &Family) -> impl Iterator<Item = FimOrder> {
    [FimOrder::Psm, FimOrder::Spm].into_iter().filter(|order| family.order(*order).is_ok())
}

const EXTRAS: &[ExtraText<'_>] = &[
    ExtraText { path: "a.rs", text: "fn a() {}\n" },
    ExtraText { path: "b.rs", text: "fn b() {}\n" },
];
const TEXT: FimText<'_> = FimText {
    prefix: "fn main() {\n    ",
    suffix: "\n}\n",
    path: Some("src/main.rs"),
    repository: Some("weir"),
    extras: EXTRAS,
};
const ALONE: FimText<'_> =
    FimText { prefix: "P", suffix: "S", path: None, repository: None, extras: &[] };

#[test]
fn every_family_is_recognised_and_its_ids_are_its_text() {
    for family in FAMILIES.iter().filter(|family| family.name != "yi-coder") {
        let tokenizer = vocabulary(family);
        for order in orders(family) {
            let template = FimTemplate::resolve(&tokenizer, &hint(family), order)
                .unwrap_or_else(|error| panic!("{}: {error}", family.name));
            assert_eq!(template.family().name, family.name);
            for text in [&TEXT, &ALONE, &FimText { path: None, ..TEXT }] {
                let pieces = template.tokenise(&tokenizer, text, 1000).expect("short");
                let rendered = template.render(&pieces, 2000).expect("there is room");
                let dropped = family.extra.is_empty() && !text.extras.is_empty();
                assert_eq!(rendered.truncated, dropped, "{}", family.name);
                let bos = rendered.ids.first() == tokenizer.id("<s>").as_ref();
                assert_eq!(bos, family.bos, "{}", family.name);
                if family.raw.is_empty() {
                    let raw = family.render_text(order, text).expect("it has the order");
                    let ids = tokenizer.encode_special(&raw).expect("short");
                    assert_eq!(&rendered.ids[usize::from(bos)..], ids, "{}: {raw}", family.name);
                }
            }
        }
    }
}

#[test]
fn the_formats_are_those_their_authors_give() {
    let cases = [
        (
            "qwen",
            FimOrder::Psm,
            "<|repo_name|>weir\n<|file_sep|>a.rs\nfn a() {}\n<|file_sep|>b.rs\nfn b() {}\n<|file_sep|>src/main.rs\n<|fim_prefix|>fn main() {\n    <|fim_suffix|>\n}\n<|fim_middle|>",
        ),
        (
            "weir",
            FimOrder::Auto,
            "<|file_sep|>src/main.rs\n<|fim_prefix|><|fim_suffix|>\n}\n<|fim_middle|>fn main() {\n    ",
        ),
        (
            "starcoder2",
            FimOrder::Auto,
            "<repo_name>weir<file_sep>a.rs\nfn a() {}\n<file_sep>b.rs\nfn b() {}\n<file_sep><fim_prefix>src/main.rs\nfn main() {\n    <fim_suffix>\n}\n<fim_middle>",
        ),
        (
            "starcoder",
            FimOrder::Spm,
            "<reponame>weir<filename>a.rs\nfn a() {}\n<filename>b.rs\nfn b() {}\n<filename>src/main.rs\n<fim_prefix><fim_suffix>\n}\n<fim_middle>fn main() {\n    ",
        ),
        (
            "codestral",
            FimOrder::Auto,
            "[SUFFIX]\n}\n[PREFIX]+++++ a.rs\nfn a() {}\n\n\n+++++ b.rs\nfn b() {}\n\n\n+++++ src/main.rs\nfn main() {\n    ",
        ),
        (
            "mellum",
            FimOrder::Auto,
            "<reponame>weir<filename>a.rs\nfn a() {}\n<filename>b.rs\nfn b() {}\n<filename>src/main.rs\n<fim_suffix>\n}\n<fim_prefix>fn main() {\n    <fim_middle>",
        ),
        (
            "deepseek",
            FimOrder::Auto,
            "#a.rs\nfn a() {}\n#b.rs\nfn b() {}\n#src/main.rs\n<｜fim▁begin｜>fn main() {\n    <｜fim▁hole｜>\n}\n<｜fim▁end｜>",
        ),
        ("codellama", FimOrder::Auto, "<PRE> fn main() {\n     <SUF>\n}\n <MID>"),
        (
            "seed-coder",
            FimOrder::Auto,
            "<[fim-suffix]>\n}\n<[fim-prefix]>fn main() {\n    <[fim-middle]>",
        ),
    ];
    for (name, order, expected) in cases {
        let family = Family::by_name(name).expect("in the table");
        assert_eq!(family.render_text(order, &TEXT).expect("it has the order"), expected, "{name}");
    }
}

#[test]
fn the_table_is_consistent() {
    let names: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(names.len(), FAMILIES.len(), "two families of one name");
    for family in FAMILIES {
        for form in [family.psm, family.spm].into_iter().filter(|form| !form.is_empty()) {
            assert!(form.contains(&Piece::Prefix) && form.contains(&Piece::Suffix));
            assert_eq!(form.contains(&Piece::Files), !family.extra.is_empty(), "{}", family.name);
            assert_eq!(form.contains(&Piece::Header), !family.header.is_empty(), "{}", family.name);
        }
        for model in family.models {
            assert_eq!(Family::guess(model).map(|found| found.name), Some(family.name));
        }
    }
}

#[test]
fn families_are_guessed_from_model_names() {
    for (model, family) in [
        ("qwen2.5-coder-7b", Some("qwen")),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", Some("qwen")),
        ("bigcode/starcoder2-3b", Some("starcoder2")),
        ("starcoderbase-1b", Some("starcoder")),
        ("ibm-granite/granite-8b-code-base", Some("granite")),
        ("granite-4.0-h-tiny", Some("granite4")),
        ("Codestral-22B-v0.1", Some("codestral")),
        ("CodeLlama-7b-hf", Some("codellama")),
        ("JetBrains/Mellum-4b-base", Some("mellum")),
        ("gpt-4o", None),
    ] {
        assert_eq!(Family::guess(model).map(|found| found.name), family, "{model}");
    }
}

#[test]
fn what_a_model_lacks_is_refused_by_name() {
    let family = Family::by_name("qwen").expect("in the table");
    let psm = vocabulary(family);
    let asked = FimTemplate::resolve(&psm, &FimHint::default(), FimOrder::Spm);
    assert!(matches!(asked, Err(FimError::MissingOrder { family: "qwen", order: "spm" })));

    let named = FimHint { family: Some("starcoder2".into()), ..FimHint::default() };
    let error = FimTemplate::resolve(&psm, &named, FimOrder::Auto).expect_err("other tokens");
    assert!(error.to_string().contains("<fim_prefix>"), "{error}");

    let unknown = FimHint { family: Some("nobody".into()), ..FimHint::default() };
    let error = FimTemplate::resolve(&psm, &unknown, FimOrder::Auto).expect_err("no such family");
    assert!(matches!(error, FimError::UnknownFamily(_)));

    let none = load(&byte_level(&["<s>"], true));
    let error = FimTemplate::resolve(&none, &FimHint::default(), FimOrder::Auto);
    assert!(matches!(error, Err(FimError::NoFamily)));

    let yi = FimHint { name: "Yi-Coder-1.5B".into(), ..FimHint::default() };
    let starcoder = vocabulary(Family::by_name("starcoder").expect("in the table"));
    let error = FimTemplate::resolve(&starcoder, &yi, FimOrder::Auto).expect_err("not trained");
    assert!(matches!(error, FimError::Untrained("yi-coder")), "{error}");
}

#[test]
fn the_model_that_comes_with_weir_gets_its_own_order() {
    let hint = FimHint::from_files(
        "builtin",
        include_bytes!("../../default/config.json"),
        Some(include_bytes!("../../default/weir.json")),
    )
    .expect("valid files");
    let tokenizer = builtin();
    let template = FimTemplate::resolve(&tokenizer, &hint, FimOrder::Auto).expect("has FIM");
    assert_eq!(template.order(), Order::Spm);
    let [prefix, suffix, middle, file] =
        ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>"]
            .map(|token| tokenizer.id(token).expect("in the vocabulary"));
    let text = FimText { path: Some("a.rs"), ..ALONE };
    let pieces = template.tokenise(&tokenizer, &text, 100).expect("short");
    let encode = |text: &str| tokenizer.encode(text).expect("short");
    let expected = [
        vec![file],
        encode("a.rs\n"),
        vec![prefix, suffix],
        encode("S"),
        vec![middle],
        encode("P"),
    ]
    .concat();
    assert_eq!(template.render(&pieces, 100).expect("room").ids, expected);
    assert!(template.stop_ids().contains(&0));
    let psm = FimTemplate::resolve(&tokenizer, &hint, FimOrder::Psm).expect("on request");
    assert_eq!(psm.order(), Order::Psm);
}

#[test]
fn files_beside_a_model_are_checked() {
    let read = |config: &str, weir: &str| {
        FimHint::from_files("m", config.as_bytes(), Some(weir.as_bytes()))
    };
    assert!(read("{}", "{}").is_ok());
    for (config, weir) in [
        ("{", "{}"),
        ("{}", "{"),
        ("{}", r#"{"fim": {"order": "mps"}}"#),
        ("{}", r#"{"fim": {"ordre": "psm"}}"#),
        (r#"{"architectures": 3}"#, "{}"),
    ] {
        assert!(matches!(read(config, weir), Err(FimError::File(..))), "{config} {weir}");
    }
}

#[test]
fn a_budget_too_small_for_the_tokens_is_refused() {
    let tokenizer = vocabulary(Family::by_name("qwen").expect("in the table"));
    let template =
        FimTemplate::resolve(&tokenizer, &FimHint::default(), FimOrder::Auto).expect("qwen");
    let pieces = template.tokenise(&tokenizer, &ALONE, 10).expect("short");
    assert!(matches!(template.render(&pieces, 2), Err(FimError::Budget { needed: 3, budget: 2 })));
    assert!(template.render(&pieces, 3).expect("just enough").truncated);
    assert!(!template.render(&pieces, 5).expect("all of it").truncated);
}

#[test]
fn the_least_relevant_file_goes_first() {
    let tokenizer = vocabulary(Family::by_name("qwen").expect("in the table"));
    let template =
        FimTemplate::resolve(&tokenizer, &FimHint::default(), FimOrder::Auto).expect("qwen");
    let texts = ["a", "b", "c"].map(|letter| letter.repeat(200));
    let extras: Vec<ExtraText<'_>> =
        texts.iter().map(|text| ExtraText { path: "x", text }).collect();
    let text = FimText { path: Some("y"), extras: &extras, ..ALONE };
    let pieces = template.tokenise(&tokenizer, &text, 1000).expect("short");
    let count = |budget: usize| {
        let rendered = template.render(&pieces, budget).expect("room");
        ["a", "b", "c"].map(|letter| {
            let id = tokenizer.encode(letter).expect("short")[0];
            rendered.ids.iter().filter(|other| **other == id).count()
        })
    };
    assert_eq!(count(1000), [200, 200, 200]);
    let [a, b, c] = count(500);
    assert!(a < 100 && b == 200 && c == 200, "{a} {b} {c}");
    let [a, b, c] = count(250);
    assert!(a == 0 && b < 100 && c == 200, "{a} {b} {c}");
}

#[test]
fn text_that_may_not_fill_the_room_leaves_it_to_other_files() {
    let tokenizer = vocabulary(Family::by_name("qwen").expect("in the table"));
    let template =
        FimTemplate::resolve(&tokenizer, &FimHint::default(), FimOrder::Auto).expect("qwen");
    let (prefix, suffix, file) = ("p".repeat(300), "s".repeat(300), "f".repeat(200));
    let extras = [ExtraText { path: "x", text: &file }];
    let text = FimText { prefix: &prefix, suffix: &suffix, extras: &extras, ..ALONE };
    let kept = |template: &FimTemplate| {
        let pieces = template.tokenise(&tokenizer, &text, 1000).expect("short");
        let rendered = template.render(&pieces, 420).expect("room");
        assert!(rendered.truncated && rendered.ids.len() <= 420);
        ["p", "s", "f"].map(|letter| {
            let id = tokenizer.encode(letter).expect("short")[0];
            rendered.ids.iter().filter(|other| **other == id).count()
        })
    };
    let [p, s, f] = kept(&template);
    assert!(p + s > 350 && f < 60, "{p} {s} {f}");
    let [p, s, f] = kept(&template.clone().with_text_max(160));
    assert!((100..=120).contains(&p) && s == 40 && f == 200, "{p} {s} {f}");
}

/// What is kept of a prefix and a suffix of these lengths.
fn kept(prefix: usize, suffix: usize, room: usize) -> (usize, usize) {
    let Cut { prefix_dropped, suffix_kept } = cut(prefix, suffix, room);
    (prefix - prefix_dropped, suffix_kept)
}

#[test]
fn room_is_shared_three_to_one_and_lent() {
    assert_eq!(kept(500, 500, 1000), (500, 500));
    assert_eq!(kept(5000, 5000, 1000), (750, 250));
    assert_eq!(kept(5000, 100, 1000), (875, 100));
    assert_eq!(kept(100, 5000, 1000), (100, 875));
    assert_eq!(kept(7, 7, 0), (0, 0));
}

fn template_of(name: &str) -> (Tokenizer, FimTemplate) {
    let family = Family::by_name(name).expect("in the table");
    let tokenizer = vocabulary(family);
    let template = FimTemplate::resolve(&tokenizer, &hint(family), FimOrder::Auto).expect(name);
    (tokenizer, template)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn cuts_fit_and_use_the_room(
        prefix in 0usize..3000, suffix in 0usize..3000, room in 0usize..2000,
    ) {
        let (p, s) = kept(prefix, suffix, room);
        prop_assert!(p + s <= room);
        // never more left unused than the two steps in which the cuts move
        prop_assert!(p + s == prefix + suffix || p + s + 2 * step(room) > room);
    }

    #[test]
    fn cuts_stay_while_a_step_is_typed(
        prefix in 0usize..3000, suffix in 0usize..3000, room in 8usize..2000,
    ) {
        let cuts: BTreeSet<(usize, usize)> = (prefix..prefix + step(room))
            .map(|prefix| cut(prefix, suffix, room))
            .map(|cut| (cut.prefix_dropped, cut.suffix_kept))
            .collect();
        // one step of the prefix, one of the suffix, and the first time that something is cut
        prop_assert!(cuts.len() <= 4, "{cuts:?}");
    }

    #[test]
    fn bytes_are_cut_at_characters_next_to_the_cursor(
        prefix in "[aé🦀]{0,200}", suffix in "[aé🦀]{0,200}", context in 0usize..30,
    ) {
        let (p, s, truncated) = precut(&prefix, &suffix, context);
        let room = context * BYTES_PER_TOKEN_MAX;
        prop_assert!(p.len() <= room && s.len() <= room);
        prop_assert!(prefix.ends_with(p) && suffix.starts_with(s));
        prop_assert_eq!(truncated, p.len() + s.len() < prefix.len() + suffix.len());
    }

    #[test]
    fn prompts_stay_in_budget_and_keep_the_cursor(
        name in prop::sample::select(vec!["qwen", "weir", "starcoder2", "codestral", "mellum"]),
        prefix in "[a-z\n]{0,300}", suffix in "[A-Z\n]{0,300}",
        extras in prop::collection::vec("[0-9\n]{0,200}", 0..4),
        path in prop::option::of("[a-z/]{1,40}"),
        budget in 6usize..500,
    ) {
        let (tokenizer, template) = template_of(name);
        let extras: Vec<ExtraText<'_>> =
            extras.iter().map(|text| ExtraText { path: "x", text }).collect();
        let text = FimText {
            prefix: &prefix,
            suffix: &suffix,
            path: path.as_deref(),
            repository: Some("r"),
            extras: &extras,
        };
        let pieces = template.tokenise(&tokenizer, &text, 1000).expect("short");
        let rendered = template.render(&pieces, budget).expect("room for the tokens");
        prop_assert!(rendered.ids.len() <= budget);
        let has = |part: &[u32]| part.is_empty() || rendered.ids.windows(part.len()).any(|w| w == part);
        let room = budget - template.fixed_tokens();
        // in this vocabulary a token is a byte; half of the share is left after any rounding
        let near_prefix = &pieces.prefix[pieces.prefix.len().saturating_sub(room * 3 / 8)..];
        let near_suffix = &pieces.suffix[..pieces.suffix.len().min(room / 8)];
        prop_assert!(has(near_prefix) && has(near_suffix));
        if !rendered.truncated {
            prop_assert!(has(&pieces.prefix) && has(&pieces.suffix));
            prop_assert!(pieces.extras.iter().all(|extra| has(extra)));
        }
    }
}
