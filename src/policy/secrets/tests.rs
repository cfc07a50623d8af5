use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::*;
use crate::completion::{ExtraFile, FimInput};

const HEX: &str = "0123456789abcdef";
const UPPER_HEX: &str = "0123456789ABCDEF";
const DIGITS: &str = "0123456789";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const BASE32: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const ALNUM: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const URL: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
const BASE64: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/";

/// A part of a key: itself, or so many characters of an alphabet.
#[derive(Clone, Copy)]
pub(in crate::policy) enum Part {
    Is(&'static str),
    Of(&'static str, usize),
}
use Part::{Is, Of};

/// Keys as their providers describe them, written down beside the patterns and not from them.
pub(in crate::policy) const KEYS: &[&[Part]] = &[
    &[Is("AKIA"), Of(BASE32, 16)],
    &[Is("ASIA"), Of(BASE32, 16)],
    &[Is("ABSK"), Of(BASE64, 128)],
    &[Is("ghp_"), Of(ALNUM, 36)],
    &[Is("gho_"), Of(ALNUM, 36)],
    &[Is("ghs_"), Of(ALNUM, 36)],
    &[Is("github_pat_"), Of(ALNUM, 22), Is("_"), Of(ALNUM, 59)],
    &[Is("glpat-"), Of(URL, 20)],
    &[Is("xoxb-"), Of(DIGITS, 12), Is("-"), Of(DIGITS, 12), Is("-"), Of(ALNUM, 24)],
    &[
        Is("https://hooks.slack.com/services/T"),
        Of(UPPER, 10),
        Is("/B"),
        Of(UPPER, 10),
        Is("/"),
        Of(ALNUM, 24),
    ],
    &[Is("sk_live_"), Of(ALNUM, 24)],
    &[Is("rk_live_"), Of(ALNUM, 99)],
    &[Is("whsec_"), Of(ALNUM, 32)],
    &[Is("sk-proj-"), Of(URL, 74), Is("T3BlbkFJ"), Of(URL, 74)],
    &[Is("sk-"), Of(ALNUM, 20), Is("T3BlbkFJ"), Of(ALNUM, 20)],
    &[Is("sk-ant-api03-"), Of(URL, 93), Is("AA")],
    &[Is("sk-or-v1-"), Of(HEX, 64)],
    &[Is("gsk_"), Of(ALNUM, 52)],
    &[Is("nvapi-"), Of(URL, 64)],
    &[Is("r8_"), Of(ALNUM, 37)],
    &[Is("hf_"), Of(LETTERS, 34)],
    &[Is("AIza"), Of(URL, 35)],
    &[Is("GOCSPX-"), Of(URL, 28)],
    &[Is("ya29."), Of(URL, 120)],
    &[Is("AccountKey="), Of(BASE64, 86), Is("==")],
    &[Of(ALNUM, 3), Is("8Q~"), Of(ALNUM, 34)],
    &[Is("npm_"), Of(ALNUM, 36)],
    &[Is("pypi-AgEIcHlwaS5vcmc"), Of(URL, 120)],
    &[Is("rubygems_"), Of(HEX, 48)],
    &[Is("dckr_pat_"), Of(URL, 27)],
    &[Is("SG."), Of(URL, 22), Is("."), Of(URL, 43)],
    &[Is("SK"), Of(HEX, 32)],
    &[Of(DIGITS, 10), Is(":AA"), Of(URL, 33)],
    &[Is("M"), Of(ALNUM, 25), Is("."), Of(URL, 6), Is("."), Of(URL, 38)],
    &[Is("dop_v1_"), Of(HEX, 64)],
    &[Is("hvs."), Of(URL, 90)],
    &[Of(ALNUM, 14), Is(".atlasv1."), Of(ALNUM, 67)],
    &[Is("dapi"), Of(HEX, 32)],
    &[Is("NRAK-"), Of(UPPER, 27)],
    &[Is("glsa_"), Of(ALNUM, 32), Is("_"), Of(HEX, 8)],
    &[Is("shpat_"), Of(HEX, 32)],
    &[Is("sq0atp-"), Of(URL, 22)],
    &[Is("lin_api_"), Of(ALNUM, 40)],
    &[Is("PMAK-"), Of(HEX, 24), Is("-"), Of(HEX, 34)],
    &[Is("sbp_"), Of(HEX, 40)],
    &[Is("AGE-SECRET-KEY-1"), Of(UPPER, 58)],
    &[Is("-----BEGIN RSA PRIVATE KEY-----\n"), Of(BASE64, 64), Is("\n")],
    &[Is("-----BEGIN PRIVATE KEY-----\\n"), Of(BASE64, 64), Is("\\n")],
    &[Is("-----BEGIN OPENSSH PRIVATE KEY-----\n"), Of(BASE64, 70)],
    &[Of(BASE64, 64), Is("\n"), Of(BASE64, 30), Is("==\n-----END RSA PRIVATE KEY-----")],
    &[Is("eyJ"), Of(URL, 33), Is(".eyJ"), Of(URL, 70), Is("."), Of(URL, 43)],
    &[Is("postgres://app:"), Of(ALNUM, 18), Is("@db.internal:5432/app")],
    &[Is("mongodb+srv://app:"), Of(ALNUM, 18), Is("@cluster0.mongodb.net")],
];

/// Keys that nobody gave a prefix.
pub(in crate::policy) const GENERIC: &[&[Part]] = &[
    &[Is("api_key = \""), Of(ALNUM, 32), Is("\"")],
    &[Is("\"clientSecret\": \""), Of(URL, 40), Is("\"")],
    &[Is("PASSWORD='"), Of(ALNUM, 20), Is("'")],
    &[Is("const authToken = `"), Of(HEX, 40), Is("`")],
    &[Is("db_password := \""), Of(BASE64, 24), Is("\"")],
    &[Is("secret_access_key: \""), Of(BASE64, 40), Is("\"")],
    &[Is("x-api-key: '"), Of(UPPER_HEX, 32), Is("'")],
];

fn key(parts: &[Part], random: &mut Rng) -> String {
    drawn(parts, random).0
}

/// A key, and where in it the longest part lies that nobody can guess.
pub(in crate::policy) fn drawn(parts: &[Part], random: &mut Rng) -> (String, Range<usize>) {
    let (mut key, mut longest) = (String::new(), 0..0);
    for part in parts {
        match part {
            Is(text) => key += text,
            Of(alphabet, count) => {
                let alphabet = alphabet.as_bytes();
                let letters = (0..*count).map(|_| alphabet[random.usize(..alphabet.len())] as char);
                if *count > longest.len() {
                    longest = key.len()..key.len() + count;
                }
                key.extend(letters);
            }
        }
    }
    (key, longest)
}

fn scanner() -> Scanner {
    Scanner::new(&[]).expect("the table compiles")
}

fn fim(prefix: &str, suffix: &str, extra: &str) -> CompletionRequest {
    let extra = vec![ExtraFile { path: "b.rs".into(), text: extra.into() }];
    let (prefix, suffix) = (prefix.into(), suffix.into());
    let path = Some("src/a.rs".into());
    let fim = FimInput { prefix, suffix, extra, path, ..FimInput::default() };
    CompletionRequest::greedy("r", Input::Fim(fim), 1)
}

/// A request for each place where a key may lie, and for each two that it may be split between.
fn holding(key: &str, split: usize) -> [CompletionRequest; 6] {
    let (head, tail) = key.split_at(split);
    let quoted = format!("let k = '{key}';\n");
    let (head, tail) = (format!("let k = '{head}"), format!("{tail}';\n"));
    let mut two = fim("fn a() {", "}", &tail);
    if let Input::Fim(fim) = &mut two.input {
        fim.extra.insert(0, ExtraFile { path: "a.rs".into(), text: head.clone() });
    }
    [
        fim(&quoted, "}", ""),
        fim("fn a() {", &quoted, ""),
        fim("fn a() {", "}", &quoted),
        fim(&head, &tail, "fn b() {}"),
        fim(&tail, "}", &head),
        two,
    ]
}

/// Share of keys that are found, wherever in a request they lie.
fn recall(kinds: &[&[Part]], rounds: usize) -> f64 {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let (mut random, scanner) = (Rng::with_seed(seed), scanner());
    let (mut found, mut all, mut missed) = (0_u32, 0_u32, Vec::new());
    for kind in kinds {
        for round in 0..rounds {
            let key = key(kind, &mut random);
            // Once at every split, and then at any.
            let any = random.usize(..=key.len());
            let splits = if round == 0 { 0..=key.len() } else { any..=any };
            for request in splits.flat_map(|split| holding(&key, split)) {
                let is_found = scanner.scan(&request).is_some();
                all += 1;
                found += u32::from(is_found);
                if !is_found {
                    missed.push(key.clone());
                }
            }
        }
    }
    eprintln!("missed {} of {all}: {:?}", missed.len(), &missed[..missed.len().min(5)]);
    f64::from(found) / f64::from(all)
}

#[test]
fn keys_of_providers_are_found_wherever_they_lie() {
    assert!(KEYS.len() >= 40);
    let recall = recall(KEYS, 20);
    assert!(recall >= 0.99, "{recall}");
}

#[test]
fn keys_without_a_prefix_are_found_by_their_name_and_their_looks() {
    let recall = recall(GENERIC, 50);
    assert!(recall >= 0.90, "{recall}");
}

/// Folders that hold what is built, what was measured, and keys made to be committed.
const NOT_SOURCES: [&str; 3] = ["target", "record", "fixtures"];

fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !NOT_SOURCES.contains(&&*name) {
            sources(&path, all);
        } else if path.is_file() && !path.ends_with("secrets/tests.rs") {
            all.push(path);
        }
    }
}

#[test]
fn real_files_are_hardly_ever_flagged() {
    const WINDOWS: usize = 20_000;
    const WINDOW_BYTES: usize = 4096;
    let mut files = Vec::new();
    sources(Path::new(env!("CARGO_MANIFEST_DIR")), &mut files);
    let texts: Vec<String> =
        files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert!(texts.len() > 200, "the repository's own files");
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let (mut random, scanner) = (Rng::with_seed(seed), scanner());
    let mut flagged = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..WINDOWS {
        let text = &texts[random.usize(..texts.len())];
        let start = text.floor_char_boundary(random.usize(..=text.len()));
        let end = text.floor_char_boundary(text.len().min(start + WINDOW_BYTES));
        if let Some(rule) = scanner.find(&text[start..end]) {
            *flagged.entry(rule.to_string()).or_default() += 1;
        }
    }
    let all: usize = flagged.values().sum();
    assert!(all * 200 <= WINDOWS, "{flagged:?}");
}

#[test]
fn examples_and_references_are_no_secrets() {
    let scanner = scanner();
    for text in [
        "api_key = \"YOUR_API_KEY_GOES_HERE_123\"",
        "password: \"${DB_PASSWORD_2024}\"",
        "postgres://user:password@localhost/db",
        "postgres://app:${PGPASSWORD}@db/app",
        "let token = \"end_of_text_token_name\";",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0B",
        "sk-learn and sk-image",
        "task_id = 'AKIA'",
    ] {
        assert_eq!(scanner.find(text), None, "{text}");
    }
}

#[test]
fn a_password_that_holds_a_telling_word_is_a_password() {
    let found = scanner().find("postgres://app:prodtest7Kd@db.internal/app").cloned();
    assert_eq!(found.as_deref(), Some("connection-string"));
}

#[test]
fn the_operators_own_patterns_count_and_wrong_ones_are_named() {
    let own = |pattern: &str| SecretRule { name: "ticket".into(), pattern: pattern.into() };
    let scanner = Scanner::new(&[own(r"\bACME-[0-9]{6}\b")]).expect("it compiles");
    assert_eq!(scanner.find("see ACME-123456").map(|name| &**name), Some("ticket"));
    assert_eq!(scanner.find("see ACME-12345").map(|name| &**name), None);
    let (index, _) = Scanner::new(&[own("a"), own("(")]).expect_err("it is no pattern");
    assert_eq!(index, 1);
    assert!(Scanner::new(&[own("(a{1000}){1000}")]).is_err(), "it needs too much memory");
}
