use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::completion::compliance::RequestPolicy;
use crate::completion::{ChatMessage, ExtraFile, FimInput};
use crate::policy::secrets::SecretRule;
use crate::policy::secrets::tests::{GENERIC, KEYS, drawn};

fn scanner() -> Scanner {
    Scanner::new(&[]).expect("the table compiles")
}

fn request(input: Input) -> CompletionRequest {
    let policy = RequestPolicy { on_secret: OnSecret::Redact, ..RequestPolicy::open() };
    CompletionRequest { policy, ..CompletionRequest::greedy("r", input, 1) }
}

fn fim(prefix: &str, suffix: &str) -> FimInput {
    FimInput { prefix: prefix.into(), suffix: suffix.into(), ..FimInput::default() }
}

fn github() -> String {
    ["ghp", "_0123456789abcdefghijABCDEFGHIJ012345"].concat()
}

fn aws() -> String {
    ["AKIA", "ABCDEFGHIJKLMNOP"].concat()
}

/// All that a part of a request may say.
fn said(request: &mut CompletionRequest) -> Vec<String> {
    texts(request).into_iter().map(|text| text.clone()).collect()
}

/// What the filter makes of an answer that comes in these parts and then ends.
fn restored<'a>(
    restorer: &Arc<Restorer>,
    parts: impl IntoIterator<Item = &'a str>,
    cut: bool,
) -> (String, Result<(), Damaged>) {
    let mut restoring = Restoring::new(restorer.clone());
    let mut out = String::new();
    let pushed = parts.into_iter().try_for_each(|part| restoring.push(part, &mut out));
    let ended = pushed.and_then(|()| restoring.finish(cut, &mut out));
    (out, ended)
}

/// Two secrets' placeholders, and what puts them back.
fn two() -> (Arc<Restorer>, [String; 2]) {
    let text = format!("a = '{}'\nb = '{}'\n", github(), aws());
    let cleared = scanner().clear(&request(Input::Text(text))).expect("it leaves");
    let restorer = cleared.redaction.expect("two secrets").restorer;
    let both = [github(), aws()].map(|s| restorer.placeholder(&s).expect("a secret").to_owned());
    (restorer, both)
}

#[test]
fn every_key_is_replaced_wherever_it_lies_and_restored_exactly() {
    let scanner = scanner();
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let (mut all, mut left) = (0, 0);
    for kind in KEYS.iter().chain(GENERIC) {
        for _ in 0..10 {
            let (key, longest) = drawn(kind, &mut random);
            let quoted = format!("let k = '{key}';\n");
            let message =
                |text: &str| ChatMessage { role: "user".into(), content: text.to_owned() };
            let extra = vec![ExtraFile { path: "b.rs".into(), text: quoted.clone() }];
            let inputs = [
                Input::Fim(fim(&quoted, "}")),
                Input::Fim(fim("fn a() {", &quoted)),
                Input::Fim(FimInput { extra, ..fim("fn a() {", "}") }),
                Input::Text(quoted.clone()),
                Input::Chat(vec![message("hello"), message(&quoted)]),
            ];
            for input in inputs {
                let mut asked = request(input);
                all += 1;
                let Ok(cleared) = scanner.clear(&asked) else { continue };
                // A generic one may look too plain to be one.
                let Some(redaction) = cleared.redaction else { continue };
                left += 1;
                let mut sent = (*cleared.request.expect("it was changed")).clone();
                let restorer = redaction.restorer;
                for (asked, sent) in said(&mut asked).iter().zip(said(&mut sent)) {
                    assert!(!sent.contains(&key[longest.clone()]), "{key} in {sent}");
                    assert_eq!(restored(&restorer, [&*sent], false), (asked.clone(), Ok(())));
                }
            }
        }
    }
    // Private keys without their other half stay.
    assert!(left * 100 >= all * 90, "{left} of {all}");
}

#[test]
fn a_secret_across_the_cursor_stays() {
    let (scanner, mut random) = (scanner(), Rng::with_seed(7));
    for kind in KEYS {
        let (key, longest) = drawn(kind, &mut random);
        for split in (1..key.len()).filter(|split| longest.start < *split && *split < longest.end) {
            // Another one beside it, which could go.
            let before = format!("a = '{}'\nb = '{}", github(), &key[..split]);
            let asked = request(Input::Fim(fim(&before, &format!("{}';\n", &key[split..]))));
            if let Ok(cleared) = scanner.clear(&asked) {
                // Only where nothing of the key could be told for one, in whole or in part.
                let known = scanner.find(&key).is_none();
                assert!(known, "{key} at {split}: {:?}", cleared.request);
            }
        }
    }
}

#[test]
fn the_same_secret_has_the_same_placeholder_in_every_part() {
    let key = github();
    let extra = vec![ExtraFile { path: format!("{key}.rs"), text: format!("use {key};") }];
    let cursor = FimInput {
        extra,
        path: Some(format!("src/{key}/a.rs")),
        repository: Some(format!("https://{key}@h/weir.git")),
        ..fim(&format!("a = '{key}';"), &format!("b = '{key}';"))
    };
    let mut asked = request(Input::Fim(cursor));
    asked.stop.strings = vec![format!("end {key}")];
    let cleared = scanner().clear(&asked).expect("it leaves");
    let redaction = cleared.redaction.expect("a secret");
    assert_eq!(redaction.rules, [Arc::from("github-token")]);
    let mut sent = (*cleared.request.expect("changed")).clone();
    assert_eq!(&*sent.policy.rule, "open, redacted github-token");
    let placeholder = redaction.restorer.placeholder(&key).expect("the secret").to_owned();
    let digits = placeholder.strip_prefix("WEIR_SECRET_1_").expect("the shape");
    assert!(digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{placeholder}");
    for text in said(&mut sent) {
        assert!(text.contains(&placeholder) && !text.contains(&key), "{text}");
    }
    let again = scanner().clear(&asked).expect("it leaves").redaction.expect("a secret");
    assert!(again.restorer.placeholder(&key) != Some(&placeholder), "nobody can guess it");
}

#[test]
fn a_secret_that_a_rule_found_once_is_replaced_where_no_rule_sees_it() {
    let text = "db = 'postgres://app:horse-staple-9@db/x'\nconnect(user, \"horse-staple-9\")";
    let cleared = scanner().clear(&request(Input::Text(text.into()))).expect("it leaves");
    let mut sent = (*cleared.request.expect("changed")).clone();
    let sent = said(&mut sent).concat();
    assert!(sent.contains("postgres://app:WEIR_SECRET_1_"), "{sent}");
    assert!(sent.contains("connect(user, \"WEIR_SECRET_1_"), "{sent}");
}

#[test]
fn what_cannot_be_undone_exactly_stays() {
    let stays =
        |asked: &CompletionRequest| scanner().clear(asked).err().map(|rule| rule.to_string());
    let secret = || Input::Text(format!("a = '{}'", github()));
    let github = Some("github-token".to_owned());
    let plain = request(secret());
    assert_eq!(stays(&plain), None);
    let with = |change: fn(&mut CompletionRequest)| {
        let mut asked = request(secret());
        change(&mut asked);
        stays(&asked)
    };
    assert_eq!(with(|r| r.policy.on_secret = OnSecret::Stay), github);
    assert_eq!(with(|r| r.logprobs = Some(0)), github);
    assert_eq!(with(|r| r.echo = true), github);
    assert_eq!(with(|r| r.stop.strings = vec!["_".into()]), github, "it ends each placeholder");
    assert_eq!(with(|r| r.stop.strings = vec!["\nWEIR".into()]), github, "or before each");
    assert_eq!(with(|r| r.stop.strings = vec!["\n".into()]), None);

    let key = "-----BEGIN PRIVATE KEY-----\nMIIB\n";
    let private = |text: &str| stays(&request(Input::Text(text.into())));
    assert_eq!(private(key), Some("private-key".into()));
    assert_eq!(private(&format!("{key}-----END PRIVATE KEY-----\n")), None);
    assert_eq!(private("MIIB\n-----END PRIVATE KEY-----\n"), Some("private-key-end".into()));

    let taken = format!("weir-secret Weir\\_Hidden weirmasked {}", super::tests::github());
    assert_eq!(stays(&request(Input::Text(taken))), github);
    let mut random = Rng::with_seed(1);
    let many: Vec<String> = (0..=SECRETS_MAX).map(|_| drawn(KEYS[0], &mut random).0).collect();
    assert!(stays(&request(Input::Text(many.join("\n")))).is_some());
    let everything = SecretRule { name: "everything".into(), pattern: "a*".into() };
    let scanner = Scanner::new(&[everything]).expect("it compiles");
    assert!(scanner.clear(&plain).is_err());
}

#[test]
fn what_holds_nothing_leaves_as_it_is_or_without_roots() {
    let scanner = scanner();
    let plain = scanner.clear(&request(Input::Text("fn a() {}".into()))).expect("it leaves");
    assert!(plain.request.is_none() && plain.redaction.is_none());
    let noted = Input::Text("# path: /home/ada/a.py\nx = 1".into());
    let noted = scanner.clear(&request(noted)).expect("it leaves");
    let mut sent = (*noted.request.expect("cut")).clone();
    assert_eq!(
        (said(&mut sent).concat().as_str(), noted.redaction.is_none()),
        ("# path: a.py\nx = 1", true)
    );
}

#[test]
fn an_answer_is_restored_at_every_split() {
    let (restorer, [a, b]) = two();
    let answers = [
        format!("x = \"{a}\";"),
        format!("{a}{b}{a}"),
        format!("Wei {a}W{b}_tail weir"),
        format!("é{b}é"),
        "no placeholder at all, Where, we, WEI".to_owned(),
    ];
    for answer in answers {
        let whole = answer.replace(&a, &github()).replace(&b, &aws());
        for first in (0..=answer.len()).filter(|at| answer.is_char_boundary(*at)) {
            for second in (first..=answer.len()).filter(|at| answer.is_char_boundary(*at)) {
                let parts = [&answer[..first], &answer[first..second], &answer[second..]];
                assert_eq!(restored(&restorer, parts, false), (whole.clone(), Ok(())));
            }
        }
    }
}

#[test]
fn nothing_is_held_back_but_what_may_begin_a_placeholder() {
    let (restorer, [a, _]) = two();
    let mut restoring = Restoring::new(restorer);
    let mut out = String::new();
    let mut given = |text: &str| {
        out.clear();
        restoring.push(text, &mut out).expect("nothing is damaged");
        out.clone()
    };
    assert_eq!(given("let x = "), "let x = ");
    assert_eq!(given("W"), "");
    assert_eq!(given("i"), "Wi");
    assert_eq!(given(&a[..a.len() - 1]), "");
    assert_eq!(given(&a[a.len() - 1..]), github());
    assert_eq!(given(";"), ";");
}

#[test]
fn a_damaged_placeholder_ends_the_answer_before_it() {
    let (restorer, [a, _]) = two();
    let nonce = a.rsplit('_').next().expect("the digits").to_owned();
    let damaged = [
        a.to_lowercase(),
        a.replace('_', "-"),
        a.replace('_', "\\_"),
        a.replace("WEIR_SECRET", "WeirSecret"),
        a.replace("_1_", "_7_"),
        format!("{} ", &a[..a.len() - 1]),
        format!("WEIR_SECRET_1_{}", "0".repeat(12)),
        format!("${nonce}"),
    ];
    for wrong in damaged {
        let answer = format!("ok {wrong} more");
        let (out, ended) = restored(&restorer, [&*answer], false);
        assert_eq!(ended, Err(Damaged), "{wrong}");
        assert!("ok $".starts_with(&out) && out.starts_with("ok "), "{wrong}: {out}");
    }
}

#[test]
fn an_answer_that_ends_within_a_placeholder_is_dropped_there() {
    let (restorer, [a, _]) = two();
    for at in 1..a.len() {
        let answer = format!("ok {}", &a[..at]);
        assert_eq!(restored(&restorer, [&*answer], true), ("ok ".into(), Err(Damaged)), "{at}");
        let (out, ended) = restored(&restorer, [&*answer], false);
        // The first letters alone are nobody's placeholder, where a model ended of its own will.
        let expected = if at < 6 { (answer, Ok(())) } else { ("ok ".into(), Err(Damaged)) };
        assert_eq!((out, ended), expected, "{at}");
    }
}

proptest! {
    #[test]
    fn splits_do_not_matter(
        pieces in prop::collection::vec(0usize..16, 0..12),
        step in 1usize..9,
        cut in any::<bool>(),
    ) {
        let (restorer, [a, b]) = two();
        let nonce = a.rsplit('_').next().unwrap();
        let words = [
            &*a, &*b, "W", "we", "WEIR", "_", "é", " ", "\n", "weir-", "SECRET", &nonce[..1],
            &nonce[..5], "x = ", &a[..14], &a[14..],
        ];
        let answer: String = pieces.iter().map(|piece| words[*piece]).collect();
        let whole = restored(&restorer, [&*answer], cut);
        let letters: Vec<String> = answer.chars().map(String::from).collect();
        let parts: Vec<String> = letters.chunks(step).map(|part| part.concat()).collect();
        let split = restored(&restorer, parts.iter().map(String::as_str), cut);
        prop_assert_eq!(&split, &whole);
        if whole.1.is_ok() {
            prop_assert_eq!(whole.0, answer.replace(&a, &github()).replace(&b, &aws()));
        }
    }
}
