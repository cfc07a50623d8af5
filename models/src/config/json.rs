//! Keys of a JSON object, read with their bounds.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::error::LoadError;

/// A value is shown in an error up to here.
const SHOWN_CHARS_MAX: usize = 60;

/// Parses a file that must hold one JSON object.
pub(super) fn object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, LoadError> {
    serde_json::from_slice(bytes)
        .map_err(|error| LoadError::Corrupt { file: PathBuf::from(file), what: error.to_string() })
}

pub(super) fn invalid(key: &str, expected: impl Display, found: impl Display) -> LoadError {
    LoadError::KeyInvalid {
        key: key.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

/// A value as an error shows it.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    text.chars().take(SHOWN_CHARS_MAX).chain("...".chars()).collect()
}

/// The keys of an object; null is as good as absent.
pub(super) struct Keys<'a> {
    object: &'a Map<String, Value>,
    /// Before each key in errors, where the object is inside another.
    prefix: &'static str,
}

impl<'a> Keys<'a> {
    pub(super) fn of(object: &'a Map<String, Value>) -> Self {
        Self { object, prefix: "" }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The keys of an object inside this one.
    pub(super) fn nested(
        &self,
        key: &'static str,
        prefix: &'static str,
    ) -> Result<Option<Keys<'a>>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Keys { object, prefix })),
            Some(other) => Err(invalid(key, "an object", shown(other))),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.object.iter().filter(|(_, value)| !value.is_null())
    }

    /// A whole number from 1 to `max`, which must be there.
    pub(super) fn count(&self, key: &'static str, max: usize) -> Result<usize, LoadError> {
        self.optional_count(key, max)?.ok_or(LoadError::KeyMissing { key })
    }

    /// A whole number from 1 to `max`.
    pub(super) fn optional_count(&self, key: &str, max: usize) -> Result<Option<usize>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value
            .as_u64()
            .filter(|&count| (1..=max as u64).contains(&count))
            .map(|count| Some(count as usize))
            .ok_or_else(|| {
                invalid(&self.name(key), format!("a whole number from 1 to {max}"), shown(value))
            })
    }

    /// A number, whole or not.
    pub(super) fn number(
        &self,
        key: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            let expected = format!("a number from {:e} to {:e}", range.start(), range.end());
            invalid(&self.name(key), expected, shown(value))
        })
    }

    /// True or false; false where absent.
    pub(super) fn flag(&self, key: &str) -> Result<bool, LoadError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(invalid(&self.name(key), "true or false", shown(other))),
        }
    }
}
