//! Fill-in-the-middle: every family's format as data, and prompts rendered from it.
//!
//! [`FimTemplate`] makes token ids for a model we run; [`Family::render_text`] makes the same
//! prompt as text for a raw completions route elsewhere.

mod cut;
mod families;
mod foreign;
mod hint;
mod template;

pub use self::cut::{BYTES_PER_TOKEN_MAX, precut};
pub use self::families::FAMILIES;
pub use self::foreign::{Foreign, Head, recognise};
pub use self::hint::FimHint;
pub use self::template::{FimPieces, FimTemplate, Rendered};
use crate::FimOrder;
use crate::tokenizer::TokenizerError;

/// Other files in one prompt; more are not looked at, the least relevant first.
pub const EXTRA_FILES_MAX: usize = 64;
/// Bytes of a path or repository name; a longer one is left out.
pub const PATH_BYTES_MAX: usize = 1024;

/// How one family of models writes a FIM prompt. Every token stands here as the tokenizer spells
/// it, so a vocabulary decides by strings whether it belongs to the family.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Name an operator can write in a cloud row.
    pub name: &'static str,
    /// What names of its models contain, in lower case.
    pub models: &'static [&'static str],
    /// How to tell the family without a name.
    pub recognise: Recognise,
    /// Prefix, suffix, middle; empty if the family was not trained on this order.
    pub psm: &'static [Piece],
    /// Suffix, prefix, middle; empty if the family was not trained on this order.
    pub spm: &'static [Piece],
    /// The order to use unless asked otherwise.
    pub default: Order,
    /// The prompt as text, where it is not just the pieces above in a row.
    pub raw: &'static [Piece],
    /// [`Piece::Files`] begins with this where the repository is known.
    pub repository: &'static [Piece],
    /// One other file in [`Piece::Files`]; empty: the family has no way to write one.
    pub extra: &'static [Piece],
    /// [`Piece::Opening`], present with a path or other files.
    pub opening: &'static [Piece],
    /// [`Piece::Header`], present with a path.
    pub header: &'static [Piece],
    /// Tokens that end a completion beside the model's own end of text; those that a vocabulary
    /// lacks are left out.
    pub stops: &'static [&'static str],
    /// Texts that end a completion.
    pub stop_texts: &'static [&'static str],
    /// Whether bos goes first even if the tokenizer adds none.
    pub bos: bool,
}

/// A part of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Exactly one id of the vocabulary.
    Token(&'static str),
    Text(&'static str),
    Prefix,
    Suffix,
    /// Repository and other files.
    Files,
    Opening,
    /// Says which file the cursor is in.
    Header,
    /// Name of the repository.
    Repository,
    /// Path of the file at hand.
    Path,
    /// Text of another file.
    Content,
}

/// How a vocabulary gives a family away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognise {
    /// Only by name: others write the same tokens.
    ByName,
    /// By its own tokens and these.
    ByTokens(&'static [&'static str]),
    /// By its own tokens, these, and a first architecture and `attention_bias` in config.json.
    ByConfig { tokens: &'static [&'static str], architecture: &'static str, attention_bias: bool },
}

/// An order of prefix and suffix that a model was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Psm,
    Spm,
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Order::Psm => "PSM",
            Order::Spm => "SPM",
        })
    }
}

/// Why there is no FIM prompt.
#[derive(Debug, thiserror::Error)]
pub enum FimError {
    #[error("the vocabulary has the FIM tokens of no known family")]
    NoFamily,
    #[error("there is no FIM family called {0:?}")]
    UnknownFamily(String),
    #[error("models of the family {0} were not trained to fill in the middle")]
    Untrained(&'static str),
    #[error("the family {family} needs the token {token:?}, which is no single id here")]
    MissingToken { family: &'static str, token: &'static str },
    #[error("models of the family {family} were not trained on the order {order}")]
    MissingOrder { family: &'static str, order: &'static str },
    #[error("{0} is not valid: {1}")]
    File(&'static str, serde_json::Error),
    #[error("a FIM prompt needs at least {needed} tokens, {budget} are left")]
    Budget { needed: usize, budget: usize },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A cursor in a file, and what lies around it.
#[derive(Clone, Copy, Debug, Default)]
pub struct FimText<'a> {
    pub prefix: &'a str,
    pub suffix: &'a str,
    pub path: Option<&'a str>,
    pub repository: Option<&'a str>,
    /// Other files, the most relevant last.
    pub extras: &'a [ExtraText<'a>],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtraText<'a> {
    pub path: &'a str,
    pub text: &'a str,
}

impl Family {
    /// The family of this name.
    pub fn by_name(name: &str) -> Option<&'static Family> {
        FAMILIES.iter().find(|family| family.name.eq_ignore_ascii_case(name))
    }

    /// The family that a model of this name belongs to: the one whose longest known part of a
    /// name is in it.
    pub fn guess(model: &str) -> Option<&'static Family> {
        let model = model.to_ascii_lowercase().replace(['_', ' '], "-");
        FAMILIES
            .iter()
            .flat_map(|family| family.models.iter().map(move |part| (part.len(), part, family)))
            .filter(|(_, part, _)| model.contains(**part))
            .max_by_key(|(length, ..)| *length)
            .map(|(.., family)| family)
    }

    /// The order that is meant, if the family has it.
    pub fn order(&self, asked: FimOrder) -> Result<Order, FimError> {
        let (order, name) = match asked {
            FimOrder::Auto => (self.default, "auto"),
            FimOrder::Psm => (Order::Psm, "psm"),
            FimOrder::Spm => (Order::Spm, "spm"),
        };
        if self.psm.is_empty() && self.spm.is_empty() {
            return Err(FimError::Untrained(self.name));
        }
        if self.form(order).is_empty() {
            return Err(FimError::MissingOrder { family: self.name, order: name });
        }
        Ok(order)
    }

    /// The pieces of a prompt in this order.
    pub fn form(&self, order: Order) -> &'static [Piece] {
        match order {
            Order::Psm => self.psm,
            Order::Spm => self.spm,
        }
    }

    /// The whole prompt as text, for a server that reads control tokens in it (and adds bos by
    /// itself).
    pub fn render_text(&self, asked: FimOrder, text: &FimText<'_>) -> Result<String, FimError> {
        let order = self.order(asked)?;
        let form =
            if order == self.default && !self.raw.is_empty() { self.raw } else { self.form(order) };
        let mut out = String::with_capacity(text.prefix.len() + text.suffix.len() + 256);
        for piece in form {
            match piece {
                Piece::Files => self.write_files(text, &mut out),
                Piece::Opening if self.has_opening(text) => write(self.opening, text, &mut out),
                Piece::Header if text.path.is_some() => write(self.header, text, &mut out),
                Piece::Opening | Piece::Header => {}
                piece => write(&[*piece], text, &mut out),
            }
        }
        Ok(out)
    }

    fn write_files(&self, text: &FimText<'_>, out: &mut String) {
        if self.has_repository(text) {
            write(self.repository, text, out);
        }
        for extra in text.extras {
            let file = FimText { path: Some(extra.path), prefix: extra.text, ..*text };
            write(self.extra, &file, out);
        }
    }

    fn has_opening(&self, text: &FimText<'_>) -> bool {
        text.path.is_some() || (!text.extras.is_empty() && !self.extra.is_empty())
    }

    fn has_repository(&self, text: &FimText<'_>) -> bool {
        text.repository.is_some() && self.has_opening(text)
    }

    /// Every token that its prompts are made of.
    fn tokens(&self, order: Order) -> impl Iterator<Item = &'static str> {
        [self.form(order), self.repository, self.extra, self.opening, self.header]
            .into_iter()
            .flatten()
            .filter_map(|piece| match piece {
                Piece::Token(token) => Some(*token),
                _ => None,
            })
    }
}

/// Writes pieces that stand for one text each; a file's content is its `prefix`.
fn write(pieces: &[Piece], text: &FimText<'_>, out: &mut String) {
    for piece in pieces {
        out.push_str(match piece {
            Piece::Token(text) | Piece::Text(text) => text,
            Piece::Prefix | Piece::Content => text.prefix,
            Piece::Suffix => text.suffix,
            Piece::Repository => text.repository.unwrap_or_default(),
            Piece::Path => text.path.unwrap_or_default(),
            // only in a form, where the caller expands them
            Piece::Files | Piece::Opening | Piece::Header => "",
        });
    }
}

#[cfg(test)]
mod tests;
