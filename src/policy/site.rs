//! What a row's address and model id tell of where it processes.
//!
//! Only what a host name says for certain is read: a private endpoint or an own domain tells
//! nothing, and then the operator's declaration is all there is.

mod aws;

use hyper::Uri;

use super::claims::Contradiction;

/// A service that a host name is known to belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// `aws`, `azure`, `google`, `oracle`.
    pub provider: &'static str,
    /// The value of `realm` that such a row declares: `aws`, `aws-us-gov`, `oc1` ...
    pub partition: &'static str,
    /// `bedrock`, `sagemaker`, `openai`, `vertex`, `generativeai`; `other` for the rest.
    pub service: &'static str,
    /// Whose model it is, where the model id or the path says so.
    pub publisher: Option<String>,
    pub reach: Reach,
}

/// Where prompts go that are sent to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The address does not tell.
    Untold,
    In(String),
    /// Bedrock's profile of this geography spreads them over its regions.
    Among(&'static Profile),
    Anywhere,
}

/// A geography of Bedrock's inference profiles, told by the first part of a model id.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// Before the first point.
    pub prefix: &'static str,
    /// What its regions' names begin with.
    pub geography: &'static [&'static str],
    /// Regions that such profiles use; some use more.
    pub regions: &'static [&'static str],
}

/// What the address and the model tell; None: the host belongs to no service weir knows. It is an
/// error when they contradict each other.
pub fn site(base_url: &Uri, model: &str) -> Result<Option<Site>, Contradiction> {
    let host = base_url.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').collect();
    if let Some(found) = aws::aws(&labels, model) {
        return found.map(Some);
    }
    if let Some(found) = google(&labels, base_url.path(), model) {
        return found.map(Some);
    }
    Ok(azure(&labels).or_else(|| oracle(&labels)))
}

/// Whether a host's name ends with these labels and has more before.
fn is_under(labels: &[&str], domain: &[&str]) -> bool {
    labels.len() > domain.len() && labels.ends_with(domain)
}

fn google(labels: &[&str], path: &str, model: &str) -> Option<Result<Site, Contradiction>> {
    if !is_under(labels, &["googleapis", "com"]) {
        return None;
    }
    let names = &labels[..labels.len() - 2];
    let (service, reach) = match names {
        ["aiplatform"] => ("vertex", Reach::Anywhere),
        ["aiplatform", region, "rep"] => ("vertex", Reach::In((*region).to_owned())),
        [name] => match name.strip_suffix("-aiplatform") {
            Some(region) => ("vertex", Reach::In(region.to_owned())),
            None => ("other", Reach::Untold),
        },
        _ => ("other", Reach::Untold),
    };
    let after = |folder: &str| path.split('/').skip_while(|part| *part != folder).nth(1);
    let told = match (&reach, after("locations")) {
        (Reach::Anywhere, Some(location)) if location != "global" => Some(location),
        (Reach::In(region), Some(location)) if location != region => Some(location),
        _ => None,
    };
    if let Some(location) = told {
        return Some(Err(("base_url", format!("is of location {location}, and its host is not"))));
    }
    let publisher = after("publishers").or_else(|| Some(model.split_once('/')?.0));
    let publisher = publisher.map(str::to_owned);
    Some(Ok(Site { provider: "google", partition: "google", service, publisher, reach }))
}

fn azure(labels: &[&str]) -> Option<Site> {
    const DOMAINS: [(&[&str], &str); 4] = [
        (&["azure", "com"], "azure"),
        (&["azure", "us"], "azure-us-gov"),
        (&["azure", "cn"], "azure-cn"),
        (&["microsoft", "com"], "azure"),
    ];
    let (domain, partition) = DOMAINS.into_iter().find(|(domain, _)| is_under(labels, domain))?;
    let names = &labels[..labels.len() - domain.len()];
    let (service, reach) = match names {
        [region, "api", "cognitive"] => ("openai", Reach::In((*region).to_owned())),
        [.., "openai" | "cognitiveservices"] | [.., "services", "ai"] => ("openai", Reach::Untold),
        _ => ("other", Reach::Untold),
    };
    // The deployment's name stands where others put a model's: it tells no publisher.
    Some(Site { provider: "azure", partition, service, publisher: None, reach })
}

fn oracle(labels: &[&str]) -> Option<Site> {
    const DOMAINS: [(&[&str], &str); 4] = [
        (&["oraclecloud", "com"], "oc1"),
        (&["oraclegovcloud", "com"], "oc2"),
        (&["oraclegovcloud", "uk"], "oc4"),
        (&["oraclecloud", "eu"], "oc19"),
    ];
    let (domain, realm) = DOMAINS.into_iter().find(|(domain, _)| is_under(labels, domain))?;
    let names = &labels[..labels.len() - domain.len()];
    let at = names.iter().position(|name| *name == "generativeai");
    let region = at.and_then(|at| names.get(at + 1)).map(|region| (*region).to_owned());
    // The government's and the military's realm share a domain; their regions tell them apart.
    let military = region.as_deref().is_some_and(|region| region.starts_with("us-gov-"));
    let partition = if realm == "oc2" && military { "oc3" } else { realm };
    let service = if at.is_some() { "generativeai" } else { "other" };
    let reach = region.map_or(Reach::Untold, Reach::In);
    Some(Site { provider: "oracle", partition, service, publisher: None, reach })
}

#[cfg(test)]
mod tests;
