//! `weir cloud list`

use std::collections::BTreeMap;

use hyper::Method;

use super::super::ledger::table;
use super::super::remote::{List, Where, ask, read};
use super::super::{Failure, block_on, chain, complain, say};
use crate::cloud::Question;
use crate::completion::Usage;
use crate::completion::compliance::{Declared, FedRamp, ImpactLevel, Names};
use crate::config::{CloudConfig, Config};
use crate::dispatch::Standing;
use crate::money::Price;
use crate::policy::site::site;

const HEAD: [&str; 9] =
    ["cloud", "state", "provider", "model", "realm", "regions", "levels", "keeps", "usd"];

pub(super) fn run(place: &Where, config: &Config) -> Result<(), Failure> {
    let states = match states(place, config) {
        Ok(states) => states,
        // Only whoever named a weir has to have one.
        Err(failure) if place.url.is_some() => return Err(failure),
        Err(failure) => {
            complain(&format!("states are not known: {}", chain(&failure)));
            BTreeMap::new()
        }
    };
    say(&shown(&config.clouds, &states)).map_err(Into::into)
}

/// By name, of the weir that runs.
fn states(place: &Where, config: &Config) -> Result<BTreeMap<String, String>, Failure> {
    let remote = place.remote(&config.serve)?;
    let question =
        Question { method: Method::GET, path: "/clouds", headers: Vec::new(), body: Vec::new() };
    let said = block_on(ask(&remote, question))??;
    let told: List<Standing> = read(&said)?;
    Ok(told.data.into_iter().map(|standing| (standing.cloud, standing.state)).collect())
}

fn shown(rows: &[CloudConfig], states: &BTreeMap<String, String>) -> String {
    let cells = |row: &CloudConfig| {
        let declared = &row.declared;
        let state = states.get(&*row.name).map_or("-", String::as_str);
        let realm = declared.realm.as_deref().unwrap_or("-");
        let levels = levels(declared);
        let keeps = declared.retention_days.map_or_else(|| "-".into(), |days| format!("{days} d"));
        let provider = provider(row);
        let regions = listed(&declared.regions, "anywhere");
        let price = price(row.price.as_ref());
        [&row.name, state, &provider, &row.model, realm, &regions, &levels, &keeps, &price]
            .map(str::to_owned)
            .to_vec()
    };
    let head = [HEAD.map(str::to_owned).to_vec()];
    let rows: Vec<_> = head.into_iter().chain(rows.iter().map(cells)).collect();
    table(&rows, HEAD.len())
}

/// As far as the address tells; else whose address it is.
fn provider(row: &CloudConfig) -> String {
    match site(&row.base_url, &row.model) {
        Ok(Some(site)) => format!("{} {}", site.provider, site.service),
        _ => row.base_url.authority().map_or_else(|| "-".into(), |at| at.as_str().to_owned()),
    }
}

fn listed(names: &Names, none: &str) -> String {
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    if names.is_empty() { none.to_owned() } else { names.join(",") }
}

fn levels(declared: &Declared) -> String {
    let fedramp = FedRamp::WORDS.iter().find(|(_, level)| Some(*level) == declared.fedramp);
    let impact = ImpactLevel::WORDS.iter().find(|(_, level)| Some(*level) == declared.impact_level);
    let fedramp = fedramp.map(|(word, _)| format!("fedramp-{word}"));
    let impact = impact.map(|(word, _)| (*word).to_owned());
    let names = declared.certifications.iter().map(|name| (**name).to_owned());
    let all: Vec<String> = fedramp.into_iter().chain(impact).chain(names).collect();
    if all.is_empty() { "-".into() } else { all.join(",") }
}

/// Of a million tokens in and out, or of an hour.
fn price(price: Option<&Price>) -> String {
    const MILLION: u64 = 1_000_000;
    let input = Usage { prompt_tokens: MILLION, ..Usage::default() };
    let output = Usage { completion_tokens: MILLION, ..Usage::default() };
    match price {
        None => "-".into(),
        Some(Price::Hourly(per_hour)) => format!("{per_hour}/h"),
        Some(price) => format!("{} in, {} out", price.actual(&input), price.actual(&output)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn a_row_is_shown_as_it_was_declared() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let toml = r#"
            [[cloud]]
            name = "gov"
            base_url = "https://bedrock-runtime.us-gov-west-1.amazonaws.com/openai/v1"
            model = "meta.llama"
            fim = "chat"
            realm = "aws-us-gov"
            regions = ["us-gov-west-1"]
            fedramp = "high"
            impact_level = "il5"
            certifications = ["hipaa"]
            retention_days = 0
            price = { input_usd_per_mtok = 0.15, output_usd_per_mtok = 0.6 }
            [[cloud]]
            name = "rack"
            base_url = "http://rack:8000/v1"
            model = "coder"
            hourly_usd = 4
            max_in_flight = 8
        "#;
        std::fs::write(file.path(), toml).unwrap();
        let (config, _) = Config::load(Some(file.path()), Overrides::default()).unwrap();
        let states = BTreeMap::from([("rack".to_owned(), "cloud_held".to_owned())]);
        let shown = shown(&config.clouds, &states);
        let cells: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let cells: Vec<Vec<&str>> = cells
            .into_iter()
            .map(|row| row.into_iter().filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(cells[0], HEAD);
        let levels = "fedramp-high,il5,hipaa";
        let gov = ["gov", "-", "aws bedrock", "meta.llama", "aws-us-gov", "us-gov-west-1", levels];
        assert_eq!(cells[1][..7], gov);
        assert_eq!(cells[1][7..], ["0 d", "0.15 in, 0.60 out"]);
        let rack = ["rack", "cloud_held", "rack:8000", "coder", "-", "anywhere", "-", "-"];
        assert_eq!(cells[2][..8], rack);
        assert_eq!(cells[2][8..], ["4.00/h"]);
    }
}
