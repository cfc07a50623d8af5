//! A tokenizer's files, read into what the library gets and what we keep for ourselves.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::bytes::{ByteTable, Entry, Kind, Spelling};
use super::{Lead, SpecialTexts, TokenizerError, TokenizerFiles};

/// Highest id that a vocabulary may have: the largest in use are below 300 thousand, and a
/// corrupt id must not decide how much memory the table takes.
const VOCAB_MAX: usize = 1 << 21;

pub(super) struct Source {
    /// tokenizer.json in which no text matches a control token and no space is put before a text.
    pub(super) plain: Vec<u8>,
    pub(super) lead: Lead,
    pub(super) control: Vec<Added>,
    pub(super) bytes: ByteTable,
    pub(super) bos: Option<u32>,
    pub(super) special: SpecialTexts,
    pub(super) chat_template: Option<String>,
}

/// An entry of `added_tokens`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    special: bool,
}

impl Added {
    /// Whether text must not match it: special tokens, and everything that is shaped like a
    /// marker, because some vocabularies (Qwen's FIM tokens) do not call theirs special.
    fn is_control(&self) -> bool {
        let name = self.content.trim_matches(['▁', ' ']);
        self.special
            || (name.len() > 2 && name.starts_with('<') && name.ends_with('>'))
            || (name.len() > 2 && name.starts_with('[') && name.ends_with(']'))
    }

    /// Whether it is left out of the text. A marker in angle brackets alone (`<think>`) may be
    /// part of an answer.
    fn is_special(&self) -> bool {
        let piped = self.content.starts_with("<|") && self.content.ends_with("|>");
        self.special || (self.is_control() && (piped || self.content.contains("fim")))
    }
}

impl Source {
    pub(super) fn parse(files: &TokenizerFiles<'_>) -> Result<Self, TokenizerError> {
        let mut json: Value = from_json(files.tokenizer, "tokenizer.json")?;
        let config: Value = match files.config {
            Some(bytes) => from_json(bytes, "tokenizer_config.json")?,
            None => Value::Null,
        };
        if !json.is_object() {
            return Err(invalid("it is no JSON object"));
        }
        let added: Vec<Added> = match json.get("added_tokens") {
            Some(list) if !list.is_null() => Vec::deserialize(list)
                .map_err(|error| invalid(&format!("added_tokens: {error}")))?,
            _ => Vec::new(),
        };
        let spelling = spelling(&json["decoder"])?;
        let bytes = ByteTable::new(entries(&json["model"], &added)?, &spelling);
        let bos = bos(&json["post_processor"], &config, &bytes);
        let lead = take_lead(&mut json);
        let control: Vec<Added> = added.into_iter().filter(Added::is_control).collect();
        hide(&mut json, &control);
        // limits and padding are ours to decide
        json["truncation"] = Value::Null;
        json["padding"] = Value::Null;
        json["post_processor"] = Value::Null;
        let plain = serde_json::to_vec(&json)
            .map_err(|source| TokenizerError::Json { file: "tokenizer.json", source })?;
        let special = SpecialTexts {
            bos: token_text(&config["bos_token"]).unwrap_or_default(),
            eos: token_text(&config["eos_token"]).unwrap_or_default(),
        };
        let chat_template = chat_template(files, &config);
        Ok(Self { plain, lead, control, bytes, bos, special, chat_template })
    }
}

fn from_json<T: for<'a> Deserialize<'a>>(
    bytes: &[u8],
    file: &'static str,
) -> Result<T, TokenizerError> {
    serde_json::from_slice(bytes).map_err(|source| TokenizerError::Json { file, source })
}

fn invalid(message: &str) -> TokenizerError {
    TokenizerError::Invalid(message.to_owned())
}

/// Every id's token, added ones over the model's own.
fn entries(model: &Value, added: &[Added]) -> Result<Vec<Option<Entry>>, TokenizerError> {
    let mut entries = Vec::new();
    let mut put = |id: u64, entry: Entry| {
        let slot = usize::try_from(id).ok().filter(|id| *id < VOCAB_MAX);
        let slot = slot.ok_or_else(|| invalid(&format!("token id {id} is too large")))?;
        if entries.len() <= slot {
            entries.resize(slot + 1, None);
        }
        entries[slot] = Some(entry);
        Ok(())
    };
    match &model["vocab"] {
        // BPE, WordLevel, WordPiece
        Value::Object(vocab) => {
            for (token, id) in vocab {
                let id = id.as_u64().ok_or_else(|| invalid("an id in model.vocab is no id"))?;
                put(id, Entry { token: token.clone(), kind: Kind::Vocabulary })?;
            }
        }
        // Unigram: token and score in the order of ids
        Value::Array(vocab) => {
            for (id, pair) in (0u64..).zip(vocab) {
                let token = pair[0].as_str();
                let token = token.ok_or_else(|| invalid("a piece in model.vocab has no text"))?;
                put(id, Entry { token: token.to_owned(), kind: Kind::Vocabulary })?;
            }
        }
        _ => return Err(invalid("there is no model.vocab")),
    }
    for token in added {
        let kind = if token.is_special() { Kind::Special } else { Kind::Text };
        put(token.id.into(), Entry { token: token.content.clone(), kind })?;
    }
    Ok(entries)
}

/// The steps of a component that may be a sequence of several.
fn steps<'a>(component: &'a Value, list: &str) -> Vec<&'a Value> {
    match (component["type"].as_str(), component[list].as_array()) {
        (Some("Sequence"), Some(steps)) => {
            steps.iter().flat_map(|s| self::steps(s, list)).collect()
        }
        (Some(_), _) => vec![component],
        (None, _) => Vec::new(),
    }
}

fn spelling(decoder: &Value) -> Result<Spelling, TokenizerError> {
    let mut replacements = Vec::new();
    let mut byte_fallback = false;
    for step in steps(decoder, "decoders") {
        match step["type"].as_str().unwrap_or_default() {
            "ByteLevel" => return Ok(Spelling::ByteLevel),
            "ByteFallback" => byte_fallback = true,
            "Metaspace" => {
                let replacement = step["replacement"].as_str().unwrap_or("▁");
                replacements.push((replacement.to_owned(), " ".to_owned()));
            }
            "Replace" => {
                let from = step["pattern"]["String"].as_str();
                let from = from.ok_or_else(|| invalid("a decoder replaces by a pattern"))?;
                let to = step["content"].as_str().unwrap_or_default();
                replacements.push((from.to_owned(), to.to_owned()));
            }
            // Fuse joins what we never split; Strip undoes the space before a text, which a
            // completion never begins with
            "Fuse" | "Strip" => {}
            other => return Err(invalid(&format!("decoder {other} is not supported"))),
        }
    }
    if replacements.is_empty() && !byte_fallback {
        return Err(invalid("it has no decoder"));
    }
    Ok(Spelling::Pieces { replacements, byte_fallback })
}

/// Takes what puts a space before a text out of the pipeline.
fn take_lead(json: &mut Value) -> Lead {
    let mut lead = Lead::None;
    each_step(&mut json["normalizer"], "normalizers", &mut |step| {
        if step["type"] == "Prepend" {
            lead = Lead::Always;
            // a prepended nothing: the library wants a normalizer here
            step["prepend"] = json!("");
        }
    });
    each_step(&mut json["pre_tokenizer"], "pretokenizers", &mut |step| {
        if step["type"] == "Metaspace" {
            let scheme = step["prepend_scheme"].as_str();
            let legacy = scheme.is_none() && step["add_prefix_space"] != false;
            if legacy || matches!(scheme, Some("always" | "first")) {
                lead = Lead::UnlessSpace;
            }
            step["prepend_scheme"] = json!("never");
            step["add_prefix_space"] = json!(false);
        }
        if step["type"] == "ByteLevel" && step["add_prefix_space"] == true {
            lead = Lead::UnlessWhite;
            step["add_prefix_space"] = json!(false);
        }
    });
    lead
}

fn each_step(component: &mut Value, list: &str, edit: &mut impl FnMut(&mut Value)) {
    if component["type"] != "Sequence" {
        if component.is_object() {
            edit(component);
        }
        return;
    }
    if let Some(steps) = component[list].as_array_mut() {
        for step in steps {
            each_step(step, list, edit);
        }
    }
}

/// Gives every control token a spelling that no text has, in its old place, so that all ids stay.
fn hide(json: &mut Value, control: &[Added]) {
    let hidden: HashMap<&str, String> =
        control.iter().map(|token| (token.content.as_str(), hidden_name(token.id))).collect();
    // Not by index: that would put a null where the key is absent.
    if let Some(added) = json.get_mut("added_tokens").and_then(Value::as_array_mut) {
        for token in added {
            let name = token["content"].as_str().and_then(|content| hidden.get(content));
            if let Some(name) = name.cloned() {
                token["content"] = json!(name);
                token["special"] = json!(true);
                token["normalized"] = json!(false);
            }
        }
    }
    match &mut json["model"]["vocab"] {
        Value::Object(vocab) => {
            for (content, name) in &hidden {
                if let Some(id) = vocab.remove(*content) {
                    vocab.insert(name.clone(), id);
                }
            }
        }
        Value::Array(vocab) => {
            for pair in vocab {
                if let Some(name) = pair[0].as_str().and_then(|token| hidden.get(token)) {
                    *pair = json!([name, f64::MIN]);
                }
            }
        }
        _ => {}
    }
    if let Some(name) = json["model"]["unk_token"].as_str().and_then(|token| hidden.get(token)) {
        json["model"]["unk_token"] = json!(name);
    }
    if let Some(merges) = json["model"].get_mut("merges").and_then(Value::as_array_mut) {
        merges.retain(|merge| !hidden.contains_key(merged(merge).as_str()));
    }
}

/// A noncharacter and the id.
fn hidden_name(id: u32) -> String {
    format!("\u{10FFFF}{id}")
}

/// What a merge makes, in either way of writing one.
fn merged(merge: &Value) -> String {
    match merge {
        Value::String(pair) => pair.replacen(' ', "", 1),
        Value::Array(pair) => pair.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}

/// The id before every prompt: what the config says, else what the post-processor does.
fn bos(post_processor: &Value, config: &Value, table: &ByteTable) -> Option<u32> {
    match config["add_bos_token"].as_bool() {
        Some(false) => None,
        Some(true) => token_text(&config["bos_token"]).and_then(|token| table.id(&token)),
        None => steps(post_processor, "processors").into_iter().find_map(|step| {
            let first = step["single"][0]["SpecialToken"]["id"].as_str()?;
            table.id(first)
        }),
    }
}

/// A token in a config is a string or an object with its content.
fn token_text(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

fn chat_template(files: &TokenizerFiles<'_>, config: &Value) -> Option<String> {
    if let Some(file) = files.chat_template {
        return Some(String::from_utf8_lossy(file).into_owned());
    }
    let template = &config["chat_template"];
    // one template, or several with names
    let named = template.as_array().and_then(|list| {
        list.iter().find(|entry| entry["name"] == "default").map(|entry| &entry["template"])
    });
    named.unwrap_or(template).as_str().map(str::to_owned)
}
