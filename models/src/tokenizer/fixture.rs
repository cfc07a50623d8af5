//! Small vocabularies for tests.

use serde_json::{Value, json};

use super::{Tokenizer, TokenizerFiles};

/// The tokenizer of the model that comes with weir.
pub(crate) fn builtin() -> Tokenizer {
    Tokenizer::from_files(&TokenizerFiles { tokenizer: BUILTIN, ..TokenizerFiles::default() })
        .expect("the embedded tokenizer is valid")
}

pub(crate) const BUILTIN: &[u8] = include_bytes!("../../default/tokenizer.json");

/// Byte-level: the 256 letters of GPT-2's alphabet, in no order that matters, then `added`.
pub(crate) fn byte_level(added: &[&str], special: bool) -> Value {
    let printable = (0x21u32..=0x7E).chain(0xA1..=0xAC).chain(0xAE..=0xFF);
    let letters = printable.chain(0x100..0x144).filter_map(char::from_u32).map(String::from);
    let vocab: serde_json::Map<String, Value> =
        letters.zip(0u32..).map(|(letter, id)| (letter, json!(id))).collect();
    json!({
        "version": "1.0",
        "added_tokens": added_tokens(added, 256, special),
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true,
            "trim_offsets": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true,
            "trim_offsets": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// As Llama's: a space before the text, `▁` for spaces, lone bytes for what has no piece.
pub(crate) fn pieces() -> Value {
    let mut vocab: serde_json::Map<String, Value> = serde_json::Map::new();
    let bytes = (0..=255u32).map(|byte| format!("<0x{byte:02X}>"));
    let rest = ["▁", "a", "b", "ab", "▁a", "▁ab", "<", "s", ">", "x", "0", "A"];
    let names = ["<unk>", "<s>", "</s>"].map(String::from).into_iter();
    for (name, id) in names.chain(bytes).chain(rest.map(String::from)).zip(0u32..) {
        vocab.insert(name, json!(id));
    }
    json!({
        "version": "1.0",
        "added_tokens": added_tokens(&["<unk>", "<s>", "</s>"], 0, true),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": vocab, "byte_fallback": true, "fuse_unk": true,
            "unk_token": "<unk>",
            "merges": [["a", "b"], ["▁", "a"], ["▁a", "b"]]},
    })
}

fn added_tokens(added: &[&str], first: usize, special: bool) -> Vec<Value> {
    let entry = |(index, content): (usize, &&str)| {
        json!({"id": first + index, "content": content, "special": special, "lstrip": false,
            "rstrip": false, "single_word": false, "normalized": false})
    };
    added.iter().enumerate().map(entry).collect()
}

/// A tokenizer from JSON.
pub(crate) fn load(tokenizer: &Value) -> Tokenizer {
    load_with(tokenizer, &json!({}))
}

/// A tokenizer from JSON with a tokenizer_config.json.
pub(crate) fn load_with(tokenizer: &Value, config: &Value) -> Tokenizer {
    Tokenizer::from_files(&TokenizerFiles {
        tokenizer: tokenizer.to_string().as_bytes(),
        config: Some(config.to_string().as_bytes()),
        chat_template: None,
    })
    .expect("a valid fixture")
}
