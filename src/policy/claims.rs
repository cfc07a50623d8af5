//! Holds what a row declares against what its address tells.

use hyper::Uri;

use super::levels::{self, Highest};
use super::site::{Reach, Site, site};
use crate::completion::compliance::{Declared, FedRamp, ImpactLevel};

/// Something wrong with a declaration: the key and a sentence without it.
pub type Contradiction = (&'static str, String);

/// Everything that an address and a model contradict, and every level claimed above what is
/// known, unless somebody attests it.
pub fn contradictions(base_url: &Uri, model: &str, declared: &Declared) -> Vec<Contradiction> {
    let site = match site(base_url, model) {
        Ok(site) => site,
        Err(wrong) => return vec![wrong],
    };
    let mut found = Vec::new();
    if let Some(site) = &site {
        found.extend(realm(site, declared));
        found.extend(regions(site, declared));
    }
    if declared.attested_by.is_none() {
        let highest = levels::highest(site.as_ref(), &declared.regions);
        found.extend(claimed_above(highest, declared));
    }
    found
}

fn realm(site: &Site, declared: &Declared) -> Option<Contradiction> {
    let realm = declared.realm.as_deref()?;
    let wrong = realm != site.partition;
    wrong.then(|| ("realm", format!("is {realm}, and the host is in {}", site.partition)))
}

fn regions(site: &Site, declared: &Declared) -> Option<Contradiction> {
    if declared.regions.is_empty() {
        return None;
    }
    let has = |region: &str| declared.regions.contains(region);
    let message = match &site.reach {
        Reach::In(region) => (!has(region) || declared.regions.len() > 1)
            .then(|| format!("must be {region} alone: the host processes there")),
        Reach::Among(profile) => {
            let inside = |region: &str| profile.geography.iter().any(|g| region.starts_with(g));
            let whole = profile.regions.iter().all(|region| has(region));
            let within = declared.regions.iter().all(|region| inside(region));
            (!whole || !within).then(|| {
                let (prefix, all) = (profile.prefix, profile.regions.join(", "));
                format!("must be regions of the {prefix}. profile, all of them: at least {all}")
            })
        }
        Reach::Anywhere => Some("must not be declared: such a model runs anywhere".into()),
        Reach::Untold => foreign(site.partition, declared),
    };
    message.map(|message| ("regions", message))
}

/// A region whose name belongs to another partition than the host.
fn foreign(partition: &str, declared: &Declared) -> Option<String> {
    const OWN: [(&str, &[&str]); 4] = [
        ("azure-us-gov", &["usgov", "usdod"]),
        ("azure-cn", &["china"]),
        ("aws-us-gov", &["us-gov-"]),
        ("aws-cn", &["cn-"]),
    ];
    let provider = partition.split('-').next().unwrap_or_default();
    let belongs = |region: &str| {
        let of = |(_, prefixes): &&(&str, &[&str])| prefixes.iter().any(|p| region.starts_with(p));
        let home = OWN.iter().filter(|(of, _)| of.starts_with(provider)).find(of);
        home.map_or(provider, |(home, _)| home)
    };
    let region = declared.regions.iter().find(|region| belongs(region) != partition)?;
    // A partition with no list of its own is not judged by names.
    let judged = partition == provider || OWN.iter().any(|(known, _)| *known == partition);
    judged.then(|| format!("has {region}, which is not in the host's partition, {partition}"))
}

fn claimed_above(highest: Highest, declared: &Declared) -> Vec<Contradiction> {
    let source = highest.source.map(|source| format!(", see {source}")).unwrap_or_default();
    let above = |most: Option<&str>| {
        format!(
            "is more than weir knows of this host, model and these regions: {} (checked \
             {}{source}); attested_by says who vouches for it",
            most.unwrap_or("none"),
            levels::checked()
        )
    };
    let mut found = Vec::new();
    if declared.fedramp > highest.fedramp {
        found.push(("fedramp", above(word(highest.fedramp, &FedRamp::WORDS))));
    }
    if declared.impact_level > highest.impact_level {
        found.push(("impact_level", above(word(highest.impact_level, &ImpactLevel::WORDS))));
    }
    found
}

fn word<T: PartialEq>(value: Option<T>, words: &[(&'static str, T)]) -> Option<&'static str> {
    let value = value?;
    words.iter().find(|(_, meant)| *meant == value).map(|(word, _)| *word)
}
