//! Whether a request holds a secret: scanned before it may leave, and never ignored.
//!
//! One pass over the text finds the marks that keys carry; only the patterns of marks that are
//! there are looked for, each in linear time, whatever the text. What was found is told by the
//! rule's name alone.

mod extent;
mod formats;
mod looks;
#[cfg(test)]
pub(super) mod tests;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex::bytes::{Captures, Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::upstream::UpstreamNames;
use crate::completion::{CompletionRequest, Input};
pub(super) use extent::is_key_byte;
use formats::{BEHIND_BYTES, Check, FORMATS, Place};
use looks::{id_before, is_random, is_reference, is_stand_in};

/// Most patterns of the operator's own.
pub const OWN_MAX: usize = 256;
/// Longest of them in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Memory that compiling them may take; a pattern that needs more is refused when it is loaded.
const COMPILED_BYTES_MAX: usize = 16 << 20;

/// A pattern of the operator's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRule {
    pub name: Arc<str>,
    /// Of the `regex` crate.
    pub pattern: String,
}

/// Finds secrets.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// Names: of the known formats in their order, then of the operator's patterns.
    names: Vec<Arc<str>>,
    /// The operator's patterns, all at once and one by one.
    own: RegexSet,
    own_each: Vec<Regex>,
}

/// A secret in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) rule: &'a Arc<str>,
    /// Bytes that the rule is sure of.
    pub(super) sure: Range<usize>,
    /// The whole; None: it may reach beyond the text's end, or began before what is sure.
    pub(super) whole: Option<Range<usize>>,
}

/// The known formats, compiled once for all scanners.
struct Known {
    marks: AhoCorasick,
    /// The format of each mark.
    of_mark: Vec<usize>,
    patterns: Vec<Regex>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let marks = FORMATS
        .iter()
        .enumerate()
        .flat_map(|(index, format)| format.marks.iter().map(move |mark| (index, *mark)));
    let (of_mark, marks): (Vec<usize>, Vec<&str>) = marks.unzip();
    // Several times faster than the automaton that it would choose for so many.
    let marks = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(marks);
    let pattern = |format: &formats::Format| compile(format.pattern);
    Known {
        marks: marks.expect("the table's marks compile"),
        of_mark,
        patterns: FORMATS.iter().map(pattern).collect::<Result<_, _>>().expect("so do patterns"),
    }
});

/// The formats whose marks are in a text and where those are, by their ends.
struct Marks(Vec<(usize, Range<usize>)>);

impl Marks {
    fn of(text: &str) -> Self {
        let found = KNOWN.marks.find_overlapping_iter(text);
        Self(found.map(|mark| (KNOWN.of_mark[mark.pattern().as_usize()], mark.range())).collect())
    }

    /// Those of a part of the text, as if it were alone.
    fn within(&self, part: &Range<usize>) -> Self {
        let inside =
            self.0.iter().filter(|(_, mark)| part.start <= mark.start && mark.end <= part.end);
        let alone = |mark: &Range<usize>| mark.start - part.start..mark.end - part.start;
        Self(inside.map(|(index, mark)| (*index, alone(mark))).collect())
    }

    /// Formats to look for in all of the text.
    fn anywhere(&self) -> [bool; FORMATS.len()] {
        let mut anywhere = [false; FORMATS.len()];
        for (index, _) in &self.0 {
            anywhere[*index] |= FORMATS[*index].place == Place::Anywhere;
        }
        anywhere
    }

    /// Formats and the marks right behind which they may be.
    fn behind(&self) -> impl Iterator<Item = &(usize, Range<usize>)> {
        self.0.iter().filter(|(index, _)| FORMATS[*index].place == Place::Behind)
    }
}

impl Scanner {
    /// The known formats and the operator's own; the error names what is wrong with one of those.
    pub fn new(own: &[SecretRule]) -> Result<Self, (usize, String)> {
        let each = own
            .iter()
            .enumerate()
            .map(|(index, rule)| compile(&rule.pattern).map_err(|error| (index, error)));
        let own_each = each.collect::<Result<_, _>>()?;
        let set = RegexSetBuilder::new(own.iter().map(|rule| rule.pattern.as_str()))
            .unicode(false)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| (own.len().saturating_sub(1), error.to_string()))?;
        // Not with the first request that leaves.
        LazyLock::force(&KNOWN);
        let known = FORMATS.iter().map(|format| format.name.into());
        let names = known.chain(own.iter().map(|rule| rule.name.clone())).collect();
        Ok(Self { names, own: set, own_each })
    }

    /// The first rule that finds something in a request: in each of its texts, and in all of them
    /// one after another, since a cursor may stand in the middle of a key.
    pub fn scan(&self, request: &CompletionRequest) -> Option<&Arc<str>> {
        let parts = parts(&request.input);
        let whole = parts.concat();
        let marks = Marks::of(&whole);
        let each = || {
            let mut start = 0;
            parts.iter().filter(|_| parts.len() > 1).find_map(|part| {
                let place = start..start + part.len();
                start = place.end;
                self.find_by(part, &marks.within(&place))
            })
        };
        let first = self.find_by(&whole, &marks).or_else(each);
        first.or_else(|| self.find(&request.stop.strings.join("\n")))
    }

    /// The first rule that finds something in a text.
    pub fn find(&self, text: &str) -> Option<&Arc<str>> {
        self.find_by(text, &Marks::of(text))
    }

    fn find_by(&self, text: &str, marks: &Marks) -> Option<&Arc<str>> {
        let known = || known(text, marks).next().map(|(index, _)| index);
        let own = || self.own.matches(text.as_bytes()).iter().next().map(|i| FORMATS.len() + i);
        known().or_else(own).map(|index| &self.names[index])
    }

    /// Every secret in a text, as one rule or another sees it.
    pub(super) fn find_all(&self, text: &str) -> Vec<Found<'_>> {
        let marks = Marks::of(text);
        let known = known(text, &marks).map(|(index, sure)| Found {
            rule: &self.names[index],
            whole: extent::of(FORMATS[index].name, text, sure.clone()),
            sure,
        });
        let mut all: Vec<Found<'_>> = known.collect();
        for index in self.own.matches(text.as_bytes()) {
            for found in self.own_each[index].find_iter(text.as_bytes()) {
                // A pattern of bytes may end within a character.
                let start = text.floor_char_boundary(found.start());
                let sure = start..text.ceil_char_boundary(found.end());
                let whole = Some(sure.clone());
                all.push(Found { rule: &self.names[FORMATS.len() + index], sure, whole });
            }
        }
        all
    }
}

/// The known formats in a text with these marks, each with what is sure to be of the secret.
fn known(text: &str, marks: &Marks) -> impl Iterator<Item = (usize, Range<usize>)> {
    let anywhere = marks.anywhere();
    let searched = (0..FORMATS.len()).filter(move |index| anywhere[*index]);
    let searched = searched.flat_map(|index| {
        let all = KNOWN.patterns[index].captures_iter(text.as_bytes());
        all.map(move |captures| (index, secret(&captures)))
    });
    let behind = marks.behind().filter_map(|&(index, ref mark)| {
        let seen = &text.as_bytes()[mark.end..text.len().min(mark.end + BEHIND_BYTES)];
        let pattern = &KNOWN.patterns[index];
        // Most marks have nothing behind them, and saying so is cheaper than looking for groups.
        let captures = pattern.is_match(seen).then(|| pattern.captures(seen))??;
        let value = secret(&captures);
        Some((index, mark.end + value.start..mark.end + value.end))
    });
    searched.chain(behind).filter_map(|(index, value)| sure(index, text, value))
}

/// The secret of a match.
fn secret(captures: &Captures<'_>) -> Range<usize> {
    captures.name("value").unwrap_or_else(|| captures.get_match()).range()
}

/// What passes the format's check.
fn sure(index: usize, text: &str, value: Range<usize>) -> Option<(usize, Range<usize>)> {
    let bytes = &text.as_bytes()[value.clone()];
    let mut start = value.start;
    let passes = match FORMATS[index].check {
        Check::None => true,
        Check::Random => is_random(bytes),
        Check::NotAPlaceholder => !is_reference(bytes) && !is_stand_in(bytes),
        Check::BehindAnId => {
            // The mark is the point between the two.
            let id = id_before(&text.as_bytes()[..start - 1]);
            start -= 1 + id.unwrap_or_default();
            id.is_some()
        }
    };
    // What patterns exclude may be a part of a character, and so may be what they include.
    let range = text.floor_char_boundary(start)..text.ceil_char_boundary(value.end);
    passes.then_some((index, range))
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).unicode(false).size_limit(COMPILED_BYTES_MAX).build();
    built.map_err(|error| error.to_string())
}

/// Every text of a request that would leave: names, and then what a key may be split between.
pub(super) fn parts(input: &Input) -> Vec<Cow<'_, str>> {
    match input {
        Input::Text(text) => vec![text.into()],
        // Ids never leave.
        Input::Tokens(_) => Vec::new(),
        Input::Chat(messages) => {
            messages.iter().map(|message| (&*message.content).into()).collect()
        }
        Input::Fim(fim) => {
            // Names as they would be sent: what is cut from them stays anyway.
            let UpstreamNames { path, repository, extras } = UpstreamNames::of(fim);
            let names = repository.into_iter().chain(path).chain(extras).map(Cow::from);
            let texts = fim.extra.iter().map(|file| &file.text).chain([&fim.prefix, &fim.suffix]);
            names.chain(texts.map(Cow::from)).collect()
        }
    }
}
