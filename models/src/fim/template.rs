//! A family's format in the ids of one vocabulary.

use super::cut::{cut, precut, step};
use super::{
    BYTES_PER_TOKEN_MAX, EXTRA_FILES_MAX, ExtraText, FAMILIES, Family, FimError, FimHint, FimText,
    Order, PATH_BYTES_MAX, Piece, Recognise,
};
use crate::tokenizer::Tokenizer;
use crate::{FimLines, FimOrder};

/// Repository and header are left out if they take more than one of so many parts of the room.
const HEAD_PART: usize = 8;
/// Tokens below which the beginning of another file is not worth having.
const EXTRA_TOKENS_MIN: usize = 32;

/// How a model wants its FIM prompts, as ids.
#[derive(Clone, Debug)]
pub struct FimTemplate {
    family: &'static Family,
    order: Order,
    form: Vec<Slot>,
    bos: Option<u32>,
    stop_ids: Vec<u32>,
    /// Most tokens of prefix and suffix together.
    text_max: usize,
    lines: FimLines,
}

/// A [`Piece`] of a form, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    Ids(Vec<u32>),
    Prefix,
    Suffix,
    Files,
    Opening,
    Header,
}

/// A cursor in a file, as ids; not cut to a budget yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FimPieces {
    pub prefix: Vec<u32>,
    pub suffix: Vec<u32>,
    /// What names the repository, in the family's way; empty if nothing does.
    pub repository: Vec<u32>,
    /// The other files in the family's way, the most relevant last.
    pub extras: Vec<Vec<u32>>,
    /// What comes between other files and this one; empty if nothing does.
    pub opening: Vec<u32>,
    /// What names this file; empty if nothing does.
    pub header: Vec<u32>,
    /// Whether the text was cut by bytes before it was tokenised.
    pub truncated: bool,
}

/// A FIM prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub ids: Vec<u32>,
    /// Where in `ids` the prefix ends, wherever the order puts it.
    pub cursor: usize,
    /// Whether anything of the input is not in it.
    pub truncated: bool,
}

impl FimTemplate {
    /// Finds the model's family (by `weir.json`, else by name, else by its tokens) and resolves
    /// every token of its format to one id.
    pub fn resolve(
        tokenizer: &Tokenizer,
        hint: &FimHint,
        asked: FimOrder,
    ) -> Result<Self, FimError> {
        let family = find(tokenizer, hint)?;
        let asked = if asked == FimOrder::Auto { hint.order } else { asked };
        let order = family.order(asked)?;
        if let Some(token) = missing(family, order, tokenizer) {
            return Err(FimError::MissingToken { family: family.name, token });
        }
        let form = family.form(order).iter().map(|piece| slot(*piece, family, tokenizer));
        let form = form.collect::<Result<_, _>>()?;
        let bos = match tokenizer.bos() {
            None if family.bos => tokenizer.id(&tokenizer.special_texts().bos),
            bos => bos,
        };
        let stop_ids = family.stops.iter().filter_map(|token| tokenizer.id(token)).collect();
        Ok(Self { family, order, form, bos, stop_ids, text_max: usize::MAX, lines: hint.lines })
    }

    /// Cuts prefix and suffix to at most so many tokens, even where a prompt has room for more.
    pub fn with_text_max(self, text_max: usize) -> Self {
        Self { text_max, ..self }
    }

    /// Most tokens of prefix and suffix together.
    pub fn text_max(&self) -> usize {
        self.text_max
    }

    /// Says how far answers may go, where the model's own word is not to count.
    pub fn with_lines(self, asked: FimLines) -> Self {
        let lines = if asked == FimLines::Auto { self.lines } else { asked };
        Self { lines, ..self }
    }

    /// Whether an answer that is to fit its code ends with its first line.
    pub fn is_single_line(&self) -> bool {
        self.lines == FimLines::One
    }

    pub fn family(&self) -> &'static Family {
        self.family
    }

    pub fn order(&self) -> Order {
        self.order
    }

    /// Ids that end a completion beside the model's own end of text.
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Texts that end a completion.
    pub fn stop_texts(&self) -> &'static [&'static str] {
        self.family.stop_texts
    }

    /// Tokens of a prompt with nothing in it.
    pub fn fixed_tokens(&self) -> usize {
        let ids =
            self.form.iter().map(|slot| if let Slot::Ids(ids) = slot { ids.len() } else { 0 });
        ids.sum::<usize>() + usize::from(self.bos.is_some())
    }

    /// Tokenises what may fit `context` tokens. Takes time: off the async threads.
    pub fn tokenise(
        &self,
        tokenizer: &Tokenizer,
        text: &FimText<'_>,
        context: usize,
    ) -> Result<FimPieces, FimError> {
        let family = self.family;
        let bounded = |name: &&str| name.len() <= PATH_BYTES_MAX;
        let (prefix, suffix, truncated) =
            precut(text.prefix, text.suffix, context.min(self.text_max));
        let (extras, extras_cut) = near_extras(text.extras, context, family);
        let text = FimText {
            path: text.path.filter(bounded),
            repository: text.repository.filter(bounded),
            prefix,
            suffix,
            extras: &extras,
        };
        let when =
            |present: bool, pieces| encode(if present { pieces } else { &[] }, &text, tokenizer);
        let header = when(text.path.is_some(), family.header)?;
        let encode_file = |extra: &ExtraText<'_>| {
            let file = FimText { path: Some(extra.path), prefix: extra.text, ..text };
            encode(family.extra, &file, tokenizer)
        };
        Ok(FimPieces {
            // a text goes on after a header, and begins without one
            prefix: if header.is_empty() {
                tokenizer.encode(prefix)?
            } else {
                tokenizer.encode_rest(prefix)?
            },
            suffix: tokenizer.encode_rest(suffix)?,
            repository: when(family.has_repository(&text), family.repository)?,
            extras: extras.iter().map(encode_file).collect::<Result<_, _>>()?,
            opening: when(family.has_opening(&text), family.opening)?,
            header,
            truncated: truncated || extras_cut,
        })
    }

    /// Writes a prompt of at most `budget` tokens. Other files go first, the least relevant
    /// before all; then the prefix is cut from the left and the suffix from the right.
    pub fn render(&self, pieces: &FimPieces, budget: usize) -> Result<Rendered, FimError> {
        let needed = self.fixed_tokens();
        let room = budget.checked_sub(needed).ok_or(FimError::Budget { needed, budget })?;
        let head = pieces.repository.len() + pieces.opening.len() + pieces.header.len();
        let with_head = head <= room / HEAD_PART;
        let room = if with_head { room - head } else { room };
        let cut = cut(pieces.prefix.len(), pieces.suffix.len(), room.min(self.text_max));
        let prefix = &pieces.prefix[cut.prefix_dropped..];
        let suffix = &pieces.suffix[..cut.suffix_kept];
        let spare = room - prefix.len() - suffix.len();
        // in steps, so that files do not come and go with every token typed
        let (extras, extras_cut) = fit_extras(pieces, spare / step(room) * step(room));
        let mut ids = Vec::with_capacity(budget.min(needed + head + room));
        ids.extend(self.bos);
        let mut cursor = ids.len();
        for slot in &self.form {
            match slot {
                Slot::Ids(fixed) => ids.extend(fixed),
                Slot::Prefix => {
                    ids.extend(prefix);
                    cursor = ids.len();
                }
                Slot::Suffix => ids.extend(suffix),
                Slot::Files => {
                    ids.extend(pieces.repository.iter().filter(|_| with_head));
                    extras.iter().for_each(|extra| ids.extend(*extra));
                }
                Slot::Opening => ids.extend(pieces.opening.iter().filter(|_| with_head)),
                Slot::Header => ids.extend(pieces.header.iter().filter(|_| with_head)),
            }
        }
        assert!(ids.len() <= budget, "a prompt stays within its budget");
        let whole = with_head && cut.prefix_dropped == 0 && suffix.len() == pieces.suffix.len();
        Ok(Rendered { ids, cursor, truncated: pieces.truncated || extras_cut || !whole })
    }
}

/// The family that the hint names, or that name or tokens give away.
fn find(tokenizer: &Tokenizer, hint: &FimHint) -> Result<&'static Family, FimError> {
    if let Some(name) = &hint.family {
        return Family::by_name(name).ok_or_else(|| FimError::UnknownFamily(name.clone()));
    }
    if let Some(family) = Family::guess(&hint.name)
        && missing(family, family.default, tokenizer).is_none()
    {
        return Ok(family);
    }
    let fits = |family: &&Family| recognised(family, tokenizer, hint);
    FAMILIES.iter().find(fits).ok_or(FimError::NoFamily)
}

fn recognised(family: &Family, tokenizer: &Tokenizer, hint: &FimHint) -> bool {
    let more = match family.recognise {
        Recognise::ByName => return false,
        Recognise::ByTokens(tokens) => tokens,
        Recognise::ByConfig { tokens, architecture, attention_bias } => {
            if hint.architecture.as_deref() != Some(architecture)
                || hint.attention_bias != attention_bias
            {
                return false;
            }
            tokens
        }
    };
    more.iter().all(|token| tokenizer.id(token).is_some())
        && missing(family, family.default, tokenizer).is_none()
}

/// The first token of the family that the vocabulary does not have as one id.
fn missing(family: &Family, order: Order, tokenizer: &Tokenizer) -> Option<&'static str> {
    family.tokens(order).find(|token| tokenizer.id(token).is_none())
}

fn slot(piece: Piece, family: &Family, tokenizer: &Tokenizer) -> Result<Slot, FimError> {
    Ok(match piece {
        Piece::Prefix => Slot::Prefix,
        Piece::Suffix => Slot::Suffix,
        Piece::Files => Slot::Files,
        Piece::Opening => Slot::Opening,
        Piece::Header => Slot::Header,
        Piece::Token(token) => {
            let missing = FimError::MissingToken { family: family.name, token };
            Slot::Ids(vec![tokenizer.id(token).ok_or(missing)?])
        }
        fixed => Slot::Ids(encode(&[fixed], &FimText::default(), tokenizer)?),
    })
}

/// Ids of pieces in a row: tokens as they are, the text between two of them in one go.
fn encode(
    pieces: &[Piece],
    text: &FimText<'_>,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, FimError> {
    let mut ids = Vec::new();
    let mut run = String::new();
    for piece in pieces {
        if let Piece::Token(token) = piece {
            ids.extend(tokenizer.encode_rest(&run)?);
            run.clear();
            ids.extend(tokenizer.id(token));
        } else {
            super::write(&[*piece], text, &mut run);
        }
    }
    ids.extend(tokenizer.encode_rest(&run)?);
    Ok(ids)
}

/// The last files, as many bytes of them as `context` tokens can hold; whether any were left out.
fn near_extras<'a>(
    extras: &[ExtraText<'a>],
    context: usize,
    family: &Family,
) -> (Vec<ExtraText<'a>>, bool) {
    let mut room = context.saturating_mul(BYTES_PER_TOKEN_MAX);
    let mut kept: Vec<ExtraText<'a>> = Vec::new();
    let mut whole = true;
    if family.extra.is_empty() {
        return (kept, !extras.is_empty());
    }
    for extra in extras.iter().rev() {
        if kept.len() == EXTRA_FILES_MAX || room == 0 || extra.path.len() > PATH_BYTES_MAX {
            whole = false;
            continue;
        }
        let text = &extra.text[..extra.text.floor_char_boundary(room)];
        whole &= text.len() == extra.text.len();
        room -= text.len();
        kept.push(ExtraText { path: extra.path, text });
    }
    kept.reverse();
    (kept, !whole)
}

/// The last files that fit into `room` tokens, and the beginning of the one before them.
fn fit_extras(pieces: &FimPieces, mut room: usize) -> (Vec<&[u32]>, bool) {
    let mut kept = Vec::new();
    let mut whole = true;
    for extra in pieces.extras.iter().rev() {
        if extra.len() > room {
            whole = false;
            if room >= EXTRA_TOKENS_MIN {
                kept.push(&extra[..room]);
            }
            break;
        }
        room -= extra.len();
        kept.push(extra.as_slice());
    }
    kept.reverse();
    (kept, !whole)
}
