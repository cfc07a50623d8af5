//! The highest level that a row may claim: a dated list with its sources, read when a claim is.

use std::sync::LazyLock;

use serde::Deserialize;

use super::site::Site;
use crate::completion::compliance::{FedRamp, ImpactLevel, Names};

static LIST: LazyLock<List> =
    LazyLock::new(|| toml::from_str(include_str!("levels.toml")).expect("a test reads the list"));

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// When somebody last went through all sources.
    checked: String,
    level: Vec<Line>,
    none: Vec<NoLevel>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    provider: String,
    partition: String,
    service: String,
    /// `["*"]`: any, told or not.
    publishers: Vec<String>,
    regions: Vec<String>,
    fedramp: Option<String>,
    impact_level: Option<String>,
    source: String,
}

/// What has no level anywhere, said so that nobody adds one by oversight.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoLevel {
    provider: String,
    service: String,
    source: String,
}

/// The most that may be claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Highest {
    pub fedramp: Option<FedRamp>,
    pub impact_level: Option<ImpactLevel>,
    /// Where that was read; None: of this host, model or region nothing was.
    pub source: Option<&'static str>,
}

/// When the list was last checked against its sources.
pub fn checked() -> &'static str {
    &LIST.checked
}

/// The most that a row may claim that processes in these regions; nothing where a host is
/// unknown, or no region was declared.
pub fn highest(site: Option<&Site>, regions: &Names) -> Highest {
    let Some(site) = site else { return Highest::default() };
    if let Some(line) = LIST.level.iter().find(|line| line.is_about(site, regions)) {
        return line.highest();
    }
    let of = |none: &&NoLevel| none.provider == site.provider && none.service == site.service;
    let source = LIST.none.iter().find(of).map(|none| none.source.as_str());
    Highest { source, ..Highest::default() }
}

impl Line {
    fn is_about(&self, site: &Site, regions: &Names) -> bool {
        let publisher = |known: &String| known == "*" || Some(known) == site.publisher.as_ref();
        self.provider == site.provider
            && self.partition == site.partition
            && self.service == site.service
            && self.publishers.iter().any(publisher)
            && !regions.is_empty()
            && regions.iter().all(|region| self.regions.iter().any(|known| **known == **region))
    }

    fn highest(&'static self) -> Highest {
        Highest {
            source: Some(&self.source),
            fedramp: meaning(self.fedramp.as_deref(), &FedRamp::WORDS),
            impact_level: meaning(self.impact_level.as_deref(), &ImpactLevel::WORDS),
        }
    }
}

fn meaning<T: Copy>(text: Option<&str>, words: &[(&str, T)]) -> Option<T> {
    let text = text?;
    words.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_date(text: &str) -> bool {
        let parts: Vec<&str> = text.split('-').collect();
        parts.iter().map(|part| part.len()).eq([4, 2, 2])
            && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    }

    #[test]
    fn the_list_is_dated_and_sourced_and_each_word_is_one() {
        assert!(is_date(checked()));
        for line in &LIST.level {
            assert!(line.source.starts_with("https://"), "{line:?}");
            let highest = line.highest();
            assert_eq!(highest.fedramp.is_some(), line.fedramp.is_some(), "{line:?}");
            assert_eq!(highest.impact_level.is_some(), line.impact_level.is_some(), "{line:?}");
            assert!(highest.fedramp.is_some() || highest.impact_level.is_some(), "{line:?}");
            assert!(!line.publishers.is_empty() && !line.regions.is_empty(), "{line:?}");
            let denied = LIST.none.iter().any(|none| {
                none.source.starts_with("https://")
                    && (&none.provider, &none.service) == (&line.provider, &line.service)
            });
            assert!(!denied, "{line:?}");
        }
    }

    #[test]
    fn a_level_needs_the_whole_of_its_line() {
        let at = |url: &str, model: &str, regions: &[&str]| {
            let site = super::super::site::site(&url.parse().unwrap(), model).unwrap();
            highest(site.as_ref(), &regions.iter().map(|&region| region.into()).collect()).fedramp
        };
        let gov = "https://bedrock-runtime.us-gov-west-1.amazonaws.com/openai/v1";
        assert_eq!(at(gov, "anthropic.claude", &["us-gov-west-1"]), Some(FedRamp::High));
        assert_eq!(at(gov, "anthropic.claude", &[]), None);
        assert_eq!(at(gov, "anthropic.claude", &["us-gov-west-1", "us-east-1"]), None);
        assert_eq!(at(gov, "mistral.devstral", &["us-gov-west-1"]), None);
        let east = "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1";
        assert_eq!(at(east, "anthropic.claude", &["us-east-1"]), Some(FedRamp::Moderate));
        let oracle = "https://inference.generativeai.us-langley-1.oci.oraclegovcloud.com/v1";
        assert_eq!(at(oracle, "m", &["us-langley-1"]), None);
        assert_eq!(at("https://vllm.agency.example/v1", "m", &["us-gov-west-1"]), None);
    }
}
