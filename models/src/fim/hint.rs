//! What a model's files say about its FIM format beside the vocabulary.

use serde::Deserialize;

use super::FimError;
use crate::{FimLines, FimOrder};

/// What is known about a model before its vocabulary is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FimHint {
    /// The family, as `weir.json` names it; taken at its word.
    pub family: Option<String>,
    /// The order that `weir.json` wants; Auto is the family's own.
    pub order: FimOrder,
    /// How far the model's answers are worth having, as `weir.json` says; Auto: it says nothing.
    pub lines: FimLines,
    /// The model's name: a folder or a repository.
    pub name: String,
    /// The first of `architectures` in `config.json`.
    pub architecture: Option<String>,
    /// `attention_bias` in `config.json`.
    pub attention_bias: bool,
}

/// `weir.json` beside a model: what its other files do not say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeirJson {
    #[serde(default)]
    fim: FimJson,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FimJson {
    family: Option<String>,
    order: Option<OrderJson>,
    lines: Option<LinesJson>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LinesJson {
    One,
    Block,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OrderJson {
    Psm,
    Spm,
}

/// The keys of `config.json` that tell families apart.
#[derive(Debug, Deserialize)]
struct ConfigJson {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    attention_bias: Option<bool>,
}

impl FimHint {
    /// Reads `config.json` and, where it is, `weir.json`. `name`: the model's name.
    pub fn from_files(name: &str, config: &[u8], weir: Option<&[u8]>) -> Result<Self, FimError> {
        let config: ConfigJson =
            serde_json::from_slice(config).map_err(|error| FimError::File("config.json", error))?;
        let weir: WeirJson = match weir {
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|error| FimError::File("weir.json", error))?
            }
            None => WeirJson::default(),
        };
        Ok(Self {
            family: weir.fim.family,
            order: match weir.fim.order {
                None => FimOrder::Auto,
                Some(OrderJson::Psm) => FimOrder::Psm,
                Some(OrderJson::Spm) => FimOrder::Spm,
            },
            lines: match weir.fim.lines {
                None => FimLines::Auto,
                Some(LinesJson::One) => FimLines::One,
                Some(LinesJson::Block) => FimLines::Block,
            },
            name: name.to_owned(),
            architecture: config.architectures.and_then(|list| list.into_iter().next()),
            attention_bias: config.attention_bias.unwrap_or(false),
        })
    }
}
