//! Bodies as typed fields: one pass over the JSON, each error blamed on its field.
//!
//! Fields nobody knows are skipped without being stored; null is absence; what a client sent is
//! never repeated in a message.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::error::ApiError;

/// Prompts in one list: what an evaluation harness batches, well under the engine's queue.
pub(super) const PROMPTS_MAX: usize = 64;
/// Stop strings of one request.
pub(super) const STOPS_MAX: usize = 32;
/// Bytes of one stop string: it is held back while it may still match.
const STOP_BYTES_MAX: usize = 1024;
/// Stop ids of one request.
const STOP_IDS_MAX: usize = 64;
/// Ids with a bias: OpenAI's own limit is 300.
pub(super) const BIASES_MAX: usize = 1024;

/// A type a known field may have, with the words for "must be ...".
pub(super) trait Field {
    const EXPECTED: &'static str;
}

impl Field for bool {
    const EXPECTED: &'static str = "true or false";
}
impl Field for i64 {
    const EXPECTED: &'static str = "an integer";
}
impl Field for u32 {
    const EXPECTED: &'static str = "an integer from 0 to 4294967295";
}
impl Field for f64 {
    const EXPECTED: &'static str = "a number";
}
impl Field for String {
    const EXPECTED: &'static str = "a string";
}
impl Field for serde_json::Number {
    const EXPECTED: &'static str = "an integer";
}

/// How many tokens an answer may have; None, which LM Studio's clients write as -1: as many as fit.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct MaxTokens(pub(super) Option<u32>);

impl Field for MaxTokens {
    const EXPECTED: &'static str = "an integer from 0 to 4294967295, or -1";
}

impl TryFrom<i64> for MaxTokens {
    type Error = std::num::TryFromIntError;

    fn try_from(typed: i64) -> Result<Self, Self::Error> {
        if typed == -1 { Ok(Self(None)) } else { typed.try_into().map(|most| Self(Some(most))) }
    }
}

/// A body that knows some names.
pub(super) trait Fields: Default {
    /// Takes the value of `key` if it is known, else leaves it in `map` and returns false.
    fn set<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        blame: &Blame,
    ) -> Result<bool, A::Error>;
}

/// Whose fault a parse error is: the field being read and what it must be.
#[derive(Default)]
pub(super) struct Blame(Cell<Option<(&'static str, &'static str)>>);

impl Blame {
    pub(super) fn on(&self, field: &'static str, expected: &'static str) {
        self.0.set(Some((field, expected)));
    }

    fn nobody(&self) {
        self.0.set(None);
    }
}

/// Declares a body: a struct of optional fields, each filled at most once.
macro_rules! body {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        $vis struct $name {
            $($vis $field: Option<$type>,)*
        }

        impl $crate::api::fields::Fields for $name {
            fn set<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
                blame: &$crate::api::fields::Blame,
            ) -> Result<bool, A::Error> {
                use $crate::api::fields::Field;
                match key {
                    $(stringify!($field) => {
                        if self.$field.is_some() {
                            blame.on(stringify!($field), "there only once");
                            return Err(serde::de::Error::custom("twice"));
                        }
                        blame.on(stringify!($field), <$type as Field>::EXPECTED);
                        self.$field = map.next_value()?;
                        Ok(true)
                    })*
                    _ => Ok(false),
                }
            }
        }
    };
}
pub(super) use body;

/// Fields that lie in an object of their own, under [`Section::NAME`]. Its errors name its fields,
/// not the object; null is absence.
#[derive(Default)]
pub(super) struct Nested<T>(pub(super) Option<T>);

/// What may be nested.
pub(super) trait Section: Fields {
    /// As in `options`.
    const NAME: &'static str;
}

impl<T: Section> Fields for Nested<T> {
    fn set<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        blame: &Blame,
    ) -> Result<bool, A::Error> {
        if key != T::NAME {
            return Ok(false);
        }
        if self.0.is_some() {
            blame.on(T::NAME, "there only once");
            return Err(A::Error::custom("twice"));
        }
        blame.on(T::NAME, "an object");
        self.0 = map.next_value_seed(Inside(blame, PhantomData))?;
        Ok(true)
    }
}

/// Reads an object of fields, or null.
struct Inside<'b, T>(&'b Blame, PhantomData<T>);

impl<'de, T: Section> DeserializeSeed<'de> for Inside<'_, T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Section> Visitor<'de> for Inside<'_, T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Option<T>, M::Error> {
        let mut fields = T::default();
        while let Some(key) = map.next_key::<String>()? {
            if !fields.set(&key, &mut map, self.0)? {
                map.next_value::<IgnoredAny>()?;
            }
            self.0.on(T::NAME, "an object");
        }
        Ok(Some(fields))
    }
}

/// Parses a whole body into the fields of a route and those all routes share.
pub(super) fn parse<A: Fields, B: Fields>(body: &[u8]) -> Result<(A, B), ApiError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| ApiError::invalid(None, "the body is not valid UTF-8"))?;
    let blame = Blame::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let both = Both { a: A::default(), b: B::default(), blame: &blame };
    both.deserialize(&mut json)
        .and_then(|both| json.end().map(|()| both))
        .map_err(|error| explain(&error, &blame))
}

fn explain(error: &serde_json::Error, blame: &Blame) -> ApiError {
    match (error.classify(), blame.0.get()) {
        // "number out of range" is a syntax error to the parser, but the field's to its author
        (serde_json::error::Category::Data, Some((field, expected))) => {
            ApiError::invalid(field, format!("`{field}` must be {expected}"))
        }
        (serde_json::error::Category::Data, None) => {
            ApiError::invalid(None, "the body must be a JSON object")
        }
        (_, field) => ApiError::invalid(
            field.map(|(field, _)| field),
            format!("the body is not valid JSON: {error}"),
        ),
    }
}

struct Both<'b, A, B> {
    a: A,
    b: B,
    blame: &'b Blame,
}

impl<'de, A: Fields, B: Fields> DeserializeSeed<'de> for Both<'_, A, B> {
    type Value = (A, B);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(A, B), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, A: Fields, B: Fields> Visitor<'de> for Both<'_, A, B> {
    type Value = (A, B);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(A, B), M::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let known = self.a.set(&key, &mut map, self.blame)?
                || self.b.set(&key, &mut map, self.blame)?;
            if !known {
                map.next_value::<IgnoredAny>()?;
            }
            self.blame.nobody();
        }
        Ok((self.a, self.b))
    }
}

/// For a route with no more fields than one of the two can hold.
impl Fields for () {
    fn set<'de, A: MapAccess<'de>>(
        &mut self,
        _key: &str,
        _map: &mut A,
        _blame: &Blame,
    ) -> Result<bool, A::Error> {
        Ok(false)
    }
}

/// One or more prompts of one kind.
#[derive(Debug, PartialEq)]
pub(super) enum Prompts {
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

impl Field for Prompts {
    const EXPECTED: &'static str = "a string, a list of at most 64 strings, a list of token ids, or a list of at most 64 \
         such lists";
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptsVisitor)
    }
}

struct PromptsVisitor;

impl<'de> Visitor<'de> for PromptsVisitor {
    type Value = Prompts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Prompts::EXPECTED)
    }

    fn visit_str<E>(self, text: &str) -> Result<Prompts, E> {
        Ok(Prompts::Texts(vec![text.to_owned()]))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Prompts, S::Error> {
        let wrong = || S::Error::custom(Prompts::EXPECTED);
        match list.next_element::<Element>()?.ok_or_else(wrong)? {
            Element::Text(first) => Ok(Prompts::Texts(rest(list, first, PROMPTS_MAX, wrong)?)),
            Element::Ids(first) => Ok(Prompts::Tokens(rest(list, first, PROMPTS_MAX, wrong)?)),
            // As many as the body holds; the context decides whether they fit.
            Element::Id(first) => Ok(Prompts::Tokens(vec![rest(list, first, usize::MAX, wrong)?])),
        }
    }
}

fn rest<'de, S: SeqAccess<'de>, T: Deserialize<'de>>(
    mut list: S,
    first: T,
    max: usize,
    wrong: impl Fn() -> S::Error,
) -> Result<Vec<T>, S::Error> {
    let mut all = vec![first];
    while let Some(next) = list.next_element()? {
        if all.len() == max {
            return Err(wrong());
        }
        all.push(next);
    }
    Ok(all)
}

/// The first element of a prompt list; decides what the others must be.
enum Element {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id or a list of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Text(text.to_owned()))
    }

    fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<Element, E> {
        u32::try_from(id).map(Element::Id).map_err(E::custom)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Element, S::Error> {
        let mut ids = Vec::new();
        while let Some(id) = list.next_element()? {
            ids.push(id);
        }
        Ok(Element::Ids(ids))
    }
}

/// Stop strings; empty ones, which would end everything at once, are left out.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Stops(pub(super) Vec<String>);

impl Field for Stops {
    const EXPECTED: &'static str =
        "a string or a list of at most 32 strings, each at most 1024 bytes";
}

impl<'de> Deserialize<'de> for Stops {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopsVisitor)
    }
}

struct StopsVisitor;

impl<'de> Visitor<'de> for StopsVisitor {
    type Value = Stops;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Stops::EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Stops, E> {
        let mut stops = Stops::default();
        stops.push(text.to_owned())?;
        Ok(stops)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Stops, S::Error> {
        let mut stops = Stops::default();
        while let Some(text) = list.next_element()? {
            stops.push(text)?;
        }
        Ok(stops)
    }
}

impl Stops {
    fn push<E: serde::de::Error>(&mut self, text: String) -> Result<(), E> {
        if text.len() > STOP_BYTES_MAX || self.0.len() == STOPS_MAX {
            return Err(E::custom(Stops::EXPECTED));
        }
        if !text.is_empty() {
            self.0.push(text);
        }
        Ok(())
    }
}

/// Ids that end a choice.
#[derive(Debug, Default, PartialEq)]
pub(super) struct StopIds(pub(super) Vec<u32>);

impl Field for StopIds {
    const EXPECTED: &'static str = "a list of at most 64 token ids";
}

impl<'de> Deserialize<'de> for StopIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ids = Vec::<u32>::deserialize(deserializer)?;
        if ids.len() > STOP_IDS_MAX {
            return Err(D::Error::custom(Self::EXPECTED));
        }
        Ok(Self(ids))
    }
}

/// `{"id": bias}`
#[derive(Debug, Default, PartialEq)]
pub(super) struct LogitBias(pub(super) Vec<(u32, f32)>);

impl Field for LogitBias {
    const EXPECTED: &'static str =
        "an object of at most 1024 token ids, each with a number from -100 to 100";
}

impl<'de> Deserialize<'de> for LogitBias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LogitBiasVisitor)
    }
}

struct LogitBiasVisitor;

impl<'de> Visitor<'de> for LogitBiasVisitor {
    type Value = LogitBias;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(LogitBias::EXPECTED)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<LogitBias, M::Error> {
        let wrong = || M::Error::custom(LogitBias::EXPECTED);
        let mut biases = Vec::new();
        while let Some((id, bias)) = map.next_entry::<String, f64>()? {
            let id: u32 = id.parse().map_err(|_| wrong())?;
            if !(-100.0..=100.0).contains(&bias) || biases.len() == BIASES_MAX {
                return Err(wrong());
            }
            biases.push((id, bias as f32));
        }
        // An id written twice ("7" and "07") keeps its last bias.
        biases.reverse();
        biases.sort_by_key(|&(id, _)| id);
        biases.dedup_by_key(|&mut (id, _)| id);
        Ok(LogitBias(biases))
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
}

impl Field for StreamOptions {
    const EXPECTED: &'static str = "an object with `include_usage`: true or false";
}
