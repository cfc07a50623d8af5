//! What clouds declare and what tenants and paths require.

use std::sync::Arc;

use super::Checker;
use crate::completion::compliance::{
    Declared, FedRamp, ImpactLevel, NAME_BYTES_MAX, Names, Requires,
};
use crate::config::RawCloud;
use crate::config::raw::RawRequire;
use crate::policy::asked::{RETENTION_DAYS_MAX, is_name};
use crate::policy::claims;

/// Names in one list.
const NAMES_MAX: usize = 64;
/// Longest text of who attests a claim, in bytes; it stands in every record of a request.
const ATTESTED_BYTES_MAX: usize = 256;

impl Checker<'_> {
    /// What a row declares; what its address contradicts is complained about.
    pub(super) fn declared(&mut self, raw: &RawCloud, base_url: Option<&hyper::Uri>) -> Declared {
        let typed = &raw.declared;
        let declared = Declared {
            realm: self.one_name("realm", typed.realm.as_deref()),
            regions: self.names("regions", typed.regions.as_deref()).unwrap_or_default(),
            fedramp: self.level("fedramp", typed.fedramp.as_deref(), &FedRamp::WORDS),
            impact_level: self.level(
                "impact_level",
                typed.impact_level.as_deref(),
                &ImpactLevel::WORDS,
            ),
            certifications: self
                .names("certifications", typed.certifications.as_deref())
                .unwrap_or_default(),
            retention_days: self.retention_days("retention_days", typed.retention_days),
            attested_by: self.attested_by(typed.attested_by.as_deref()),
        };
        if let (Some(url), Some(model)) = (base_url, raw.model.as_deref()) {
            for (key, message) in claims::contradictions(url, model, &declared) {
                self.complain(key, message);
            }
        }
        declared
    }

    pub(super) fn requires(&mut self, raw: Option<&RawRequire>) -> Requires {
        let Some(raw) = raw else { return Requires::default() };
        Requires {
            fedramp: self.level("require.fedramp", raw.fedramp.as_deref(), &FedRamp::WORDS),
            impact_level: self.level(
                "require.impact_level",
                raw.impact_level.as_deref(),
                &ImpactLevel::WORDS,
            ),
            realms: self.some_names("require.realms", raw.realms.as_deref()),
            regions: self.some_names("require.regions", raw.regions.as_deref()),
            certifications: self
                .names("require.certifications", raw.certifications.as_deref())
                .unwrap_or_default(),
            retention_days: self.retention_days("require.retention_days", raw.retention_days),
        }
    }

    fn level<T: Copy>(
        &mut self,
        key: &str,
        typed: Option<&str>,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let words: Vec<_> = words.iter().map(|(word, level)| (*word, Some(*level))).collect();
        self.choice(key, typed, None, &words)
    }

    fn retention_days(&mut self, key: &str, typed: Option<i64>) -> Option<u32> {
        let days = self.optional(key, typed, 0..=i64::from(RETENTION_DAYS_MAX))?;
        u32::try_from(days).ok()
    }

    fn one_name(&mut self, key: &str, typed: Option<&str>) -> Option<Arc<str>> {
        let name = typed?;
        if !is_name(name) {
            self.complain_of_name(key, name);
            return None;
        }
        Some(name.into())
    }

    fn names(&mut self, key: &str, typed: Option<&[String]>) -> Option<Names> {
        let typed = typed?;
        if typed.len() > NAMES_MAX {
            self.complain(key, format!("must be at most {NAMES_MAX} names"));
        }
        Some(typed.iter().filter_map(|name| self.one_name(key, Some(name))).collect())
    }

    /// A list that nobody could meet was not meant.
    fn some_names(&mut self, key: &str, typed: Option<&[String]>) -> Option<Names> {
        if typed.is_some_and(<[_]>::is_empty) {
            self.complain(key, "must not be empty: no cloud would do");
        }
        self.names(key, typed)
    }

    fn complain_of_name(&mut self, key: &str, name: &str) {
        let message =
            format!("must be at most {NAME_BYTES_MAX} of a-z, 0-9, -, _ and ., is {name:?}");
        self.complain(key, message);
    }

    fn attested_by(&mut self, typed: Option<&str>) -> Option<Arc<str>> {
        let text = typed?.trim();
        let printable = !text.chars().any(char::is_control);
        if (1..=ATTESTED_BYTES_MAX).contains(&text.len()) && printable {
            return Some(text.into());
        }
        let message = format!("must be one line of 1 to {ATTESTED_BYTES_MAX} bytes");
        self.complain("attested_by", message);
        None
    }
}
