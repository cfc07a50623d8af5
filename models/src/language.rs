//! A model's text side: tokenizer, FIM format and chat template, read from its files.

use crate::FimOrder;
use crate::chat::ChatTemplate;
use crate::error::LoadError;
use crate::fim::{FimError, FimHint, FimTemplate};
use crate::model::ModelSource;
use crate::tokenizer::{Tokenizer, TokenizerFiles};

/// Far above any real tokenizer.json; those of 250,000 tokens take some 30 MB.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// Far above the other small files.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Everything between text and ids.
pub struct Language {
    pub tokenizer: Tokenizer,
    /// None: the model only completes prefixes.
    pub fim: Option<FimTemplate>,
    /// None: the model does not chat.
    pub chat: Option<ChatTemplate>,
    /// What the model cannot do, and why, as sentences for the operator.
    pub notes: Vec<String>,
}

impl Language {
    /// Reads a model's files. A model without FIM tokens or with an unusable chat template still
    /// loads, with a note; a FIM order that was asked for and does not exist is an error.
    pub fn load(source: &ModelSource, order: FimOrder) -> Result<Self, LoadError> {
        let required = |name: &str, max| {
            source.read(name, max)?.ok_or_else(|| LoadError::Missing(source.path(name)))
        };
        let tokenizer_json = required("tokenizer.json", TOKENIZER_BYTES_MAX)?;
        let config = required("config.json", FILE_BYTES_MAX)?;
        let optional = |name| source.read(name, FILE_BYTES_MAX);
        let tokenizer = Tokenizer::from_files(&TokenizerFiles {
            tokenizer: &tokenizer_json,
            config: optional("tokenizer_config.json")?.as_deref(),
            chat_template: optional("chat_template.jinja")?.as_deref(),
        })?;
        let weir = optional("weir.json")?;
        let hint = FimHint::from_files(&source.name(), &config, weir.as_deref())?;
        let mut notes = Vec::new();
        let fim = match FimTemplate::resolve(&tokenizer, &hint, order) {
            Ok(fim) => Some(fim),
            Err(
                error @ (FimError::NoFamily
                | FimError::Untrained(_)
                | FimError::MissingToken { .. }),
            ) if order == FimOrder::Auto => {
                notes.push(format!("completes prefixes only: {error}"));
                None
            }
            Err(error) => return Err(error.into()),
        };
        let chat = chat_template(&tokenizer, &mut notes);
        Ok(Self { tokenizer, fim, chat, notes })
    }
}

fn chat_template(tokenizer: &Tokenizer, notes: &mut Vec<String>) -> Option<ChatTemplate> {
    let source = tokenizer.chat_template()?;
    match ChatTemplate::new(source, tokenizer.special_texts().clone()) {
        Ok(chat) => Some(chat),
        Err(error) => {
            notes.push(format!("does not chat: {error}"));
            None
        }
    }
}
