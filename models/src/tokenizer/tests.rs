use proptest::prelude::*;
use serde_json::json;

use super::fixture::{BUILTIN, builtin, byte_level, load, load_with, pieces};
use super::*;

/// The library as it comes, the oracle.
fn library(json: &[u8]) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_bytes(json).expect("a valid fixture")
}

fn text_of(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.bytes(*id)).copied().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn encoded(oracle: &tokenizers::Tokenizer, text: &str, special: bool) -> Vec<u32> {
    oracle.encode_fast(text, special).expect("text").get_ids().to_vec()
}

const CONTROL: [&str; 3] = ["<|endoftext|>", "<|fim_prefix|>", "<|file_sep|>"];

#[test]
fn control_tokens_spelled_by_a_user_are_plain_text() {
    let tokenizer = builtin();
    let text = "let s = \"<|fim_prefix|>\"; // <|endoftext|>\n<|fim_middle|><|file_sep|>";
    for encode in [Tokenizer::encode, Tokenizer::encode_rest, Tokenizer::encode_prompt] {
        let ids = encode(&tokenizer, text).expect("plain text");
        assert!(ids.iter().all(|id| !tokenizer.is_special(*id)), "{ids:?}");
        assert_eq!(text_of(&tokenizer, &ids), text);
    }
    let special = tokenizer.encode_special(text).expect("plain text");
    assert_eq!(special.iter().filter(|id| tokenizer.is_special(**id)).count(), 4);
    assert_eq!(special, encoded(&library(BUILTIN), text, true));
}

#[test]
fn markers_that_a_vocabulary_does_not_call_special_are_plain_text_too() {
    let tokenizer = load(&byte_level(&["<|fim_prefix|>", "<think>", "    "], false));
    let ids = tokenizer.encode("<|fim_prefix|><think>    ").expect("text");
    assert!(!ids.contains(&256) && !ids.contains(&257), "{ids:?}");
    assert_eq!(ids.last(), Some(&258), "an added token that is no marker stays a token");
    assert!(tokenizer.is_special(256) && tokenizer.bytes(256).is_empty());
    assert_eq!(tokenizer.bytes(257), b"<think>");
    assert_eq!(tokenizer.encode_special("<think>!").expect("text")[0], 257);
}

#[test]
fn ids_are_looked_up_by_spelling() {
    let tokenizer = builtin();
    assert_eq!(tokenizer.vocab_size(), 8192);
    assert_eq!(tokenizer.id("<|endoftext|>"), Some(0));
    assert_eq!(tokenizer.id("<|no_such_token|>"), None);
    assert_eq!(tokenizer.bytes(0), b"");
    assert_eq!(tokenizer.bytes(u32::MAX), b"");
    assert!(!tokenizer.is_special(u32::MAX));
    assert_eq!(tokenizer.bos(), None);
}

#[test]
fn pieces_have_bytes_and_a_leading_space() {
    let json = pieces();
    let tokenizer = load(&json);
    let oracle = library(json.to_string().as_bytes());
    for text in ["ab", " ab", "a b\n", "é🦀", "▁a", ""] {
        let ids = tokenizer.encode(text).expect("text");
        assert_eq!(ids, encoded(&oracle, text, false), "{text:?}");
        let rest = tokenizer.encode_rest(text).expect("text");
        assert_eq!(text_of(&tokenizer, &rest), text.replace('▁', " "));
    }
    assert_eq!(text_of(&tokenizer, &tokenizer.encode("ab").expect("text")), " ab");
    assert_eq!(tokenizer.bytes(tokenizer.id("<0x0A>").expect("in the vocabulary")), b"\n");
    assert_eq!(tokenizer.encode_prompt("ab").expect("text"), encoded(&oracle, "ab", true));
    let spelled = tokenizer.encode_rest("<s>a<0x0A>").expect("text");
    assert!(spelled.iter().all(|id| !tokenizer.is_special(*id)));
    assert_eq!(text_of(&tokenizer, &spelled), "<s>a<0x0A>");
}

#[test]
fn the_config_overrules_the_post_processor_about_bos() {
    let bos = |config| load_with(&pieces(), &config).bos();
    assert_eq!(bos(json!({})), Some(1));
    assert_eq!(bos(json!({"add_bos_token": false, "bos_token": "<s>"})), None);
    assert_eq!(bos(json!({"add_bos_token": true, "bos_token": {"content": "</s>"}})), Some(2));
    assert_eq!(bos(json!({"add_bos_token": true, "bos_token": null})), None);
}

#[test]
fn a_folder_is_read_with_what_is_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = Tokenizer::from_folder(folder.path()).expect_err("nothing there");
    assert!(matches!(missing, TokenizerError::Read { .. }), "{missing}");
    std::fs::write(folder.path().join("tokenizer.json"), BUILTIN).expect("written");
    let config = json!({"chat_template": "inline", "eos_token": "<|endoftext|>"}).to_string();
    std::fs::write(folder.path().join("tokenizer_config.json"), config).expect("written");
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("valid");
    assert_eq!(tokenizer.chat_template(), Some("inline"));
    assert_eq!(tokenizer.special_texts().eos, "<|endoftext|>");
    std::fs::write(folder.path().join("chat_template.jinja"), "file").expect("written");
    let tokenizer = Tokenizer::from_folder(folder.path()).expect("valid");
    assert_eq!(tokenizer.chat_template(), Some("file"));
}

#[test]
fn corrupt_files_are_errors() {
    let load = |bytes: &[u8]| {
        Tokenizer::from_files(&TokenizerFiles { tokenizer: bytes, ..Default::default() })
    };
    let whole = pieces().to_string();
    for length in (0..whole.len()).step_by(37) {
        let error = load(&whole.as_bytes()[..length]).expect_err("truncated");
        assert!(matches!(error, TokenizerError::Json { .. }), "{error}");
    }
    let mut cases = vec![json!(null), json!([]), json!({}), json!("x")];
    for (pointer, value) in [
        ("/model", json!(null)),
        ("/model/vocab", json!(7)),
        ("/model/vocab/a", json!(-1)),
        ("/model/vocab/a", json!(u64::MAX)),
        ("/model/vocab/ab", json!("x")),
        ("/model/merges/0", json!(["no", "such"])),
        ("/model/merges", json!({})),
        ("/model/type", json!("Unknown")),
        ("/decoder", json!(null)),
        ("/decoder", json!({"type": "WordPiece"})),
        ("/added_tokens", json!({})),
        ("/added_tokens/0/id", json!("x")),
        ("/normalizer/normalizers", json!(3)),
    ] {
        let mut json = pieces();
        *json.pointer_mut(pointer).expect("in the fixture") = value;
        cases.push(json);
    }
    for case in cases {
        assert!(load(case.to_string().as_bytes()).is_err(), "{case}");
    }
}

#[test]
fn a_text_has_a_longest_length() {
    let tokenizer = load(&byte_level(&[], true));
    let error = tokenizer.encode(&"x".repeat(ENCODE_BYTES_MAX + 1)).expect_err("too long");
    assert!(matches!(error, TokenizerError::TooLong { .. }));
}

#[test]
fn long_runs_of_one_character_are_encoded() {
    let tokenizer = builtin();
    for character in [" ", "\n", "\t", "a", "=", "é", " \n"] {
        let text = character.repeat(100_000) + "x";
        let ids = tokenizer.encode(&text).expect("long, not too long");
        assert!(text_of(&tokenizer, &ids) == text, "{character:?}");
        assert!((1..=ids.len()).contains(&tokenizer.tokens_min(text.len())), "{character:?}");
    }
}

fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-zA-Z_(){};=., \n\t]{0,20}",
        "\\PC{0,8}",
        prop::sample::select(CONTROL.to_vec()).prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

#[test]
fn encoding_is_the_librarys_and_bytes_are_its_decoding() {
    let tokenizer = builtin();
    let oracle = library(BUILTIN);
    let config = ProptestConfig::with_cases(300);
    proptest!(config, |(text in text(), ids in prop::collection::vec(0u32..8192, 0..40))| {
        let plain = tokenizer.encode(&text).expect("text");
        prop_assert_eq!(text_of(&tokenizer, &plain), text.as_str());
        prop_assert!(plain.iter().all(|id| !tokenizer.is_special(*id)));
        prop_assert!(plain.len() >= tokenizer.tokens_min(text.len()));
        if !CONTROL.iter().any(|token| text.contains(token)) {
            prop_assert_eq!(&plain, &encoded(&oracle, &text, false));
        }
        prop_assert_eq!(tokenizer.encode_special(&text).expect("text"), encoded(&oracle, &text, false));
        prop_assert_eq!(text_of(&tokenizer, &ids), oracle.decode(&ids, true).expect("ids"));
    });
}
