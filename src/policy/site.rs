//! What a row's address and model id tell of where it processes.
//!
//! Only what a host name says for certain is read: a private endpoint or an own domain tells
//! nothing, and then the operator's declaration is all there is.

use hyper::Uri;

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

/// By the tables of the user guide, "Supported Regions and models for inference profiles".
const PROFILES: [Profile; 6] = [
    profile("us", &["us-east-", "us-west-"], &["us-east-1", "us-east-2", "us-west-2"]),
    profile("us-gov", &["us-gov-"], &["us-gov-east-1", "us-gov-west-1"]),
    profile("eu", &["eu-"], &["eu-central-1", "eu-north-1", "eu-west-1", "eu-west-3"]),
    profile(
        "apac",
        &["ap-"],
        &["ap-northeast-1", "ap-northeast-2", "ap-south-1", "ap-southeast-1", "ap-southeast-2"],
    ),
    profile("jp", &["ap-northeast-"], &["ap-northeast-1", "ap-northeast-3"]),
    profile("au", &["ap-southeast-"], &["ap-southeast-2", "ap-southeast-4"]),
];

const fn profile(
    prefix: &'static str,
    geography: &'static [&'static str],
    regions: &'static [&'static str],
) -> Profile {
    Profile { prefix, geography, regions }
}

/// What the address and the model tell; None: the host belongs to no service weir knows. An error
/// is a sentence for the operator: the two contradict each other.
pub fn site(base_url: &Uri, model: &str) -> Result<Option<Site>, String> {
    let host = base_url.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').collect();
    if let Some(found) = aws(&labels, model) {
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

fn aws(labels: &[&str], model: &str) -> Option<Result<Site, String>> {
    const DOMAINS: [&[&str]; 6] = [
        &["amazonaws", "com"],
        &["amazonaws", "com", "cn"],
        &["amazonaws", "eu"],
        &["api", "aws"],
        &["api", "amazonwebservices", "com", "cn"],
        &["c2s", "ic", "gov"],
    ];
    let domain = DOMAINS.into_iter().find(|domain| is_under(labels, domain))?;
    let names = &labels[..labels.len() - domain.len()];
    let services = [
        ("bedrock-runtime", "bedrock"),
        ("bedrock-runtime-fips", "bedrock"),
        ("bedrock-mantle", "bedrock"),
        ("bedrock-mantle-fips", "bedrock"),
        ("sagemaker", "sagemaker"),
        ("sagemaker-fips", "sagemaker"),
    ];
    let found = names.iter().enumerate().find_map(|(at, name)| {
        let (_, service) = services.iter().find(|(label, _)| label == name)?;
        Some((*service, names.get(at + 1).copied()))
    });
    let (service, region) = found.unwrap_or(("other", None));
    let partition = aws_partition(domain, region.unwrap_or_default());
    let mut site = Site {
        provider: "aws",
        partition,
        service,
        publisher: None,
        reach: region.map_or(Reach::Untold, |region| Reach::In(region.to_owned())),
    };
    if service == "bedrock"
        && let Err(wrong) = bedrock_model(&mut site, model)
    {
        return Some(Err(wrong));
    }
    Some(Ok(site))
}

fn aws_partition(domain: &[&str], region: &str) -> &'static str {
    let prefixes = [
        ("us-gov-", "aws-us-gov"),
        ("cn-", "aws-cn"),
        ("eusc-", "aws-eusc"),
        ("us-iso", "aws-iso"),
    ];
    let by_region = prefixes.iter().find(|(prefix, _)| region.starts_with(prefix));
    match (by_region, domain) {
        (Some((_, partition)), _) => partition,
        (None, [.., "cn"]) => "aws-cn",
        (None, [.., "eu"]) => "aws-eusc",
        (None, [.., "gov"]) => "aws-iso",
        _ => "aws",
    }
}

/// A model id, a profile's id, or the ARN of either.
fn bedrock_model(site: &mut Site, model: &str) -> Result<(), String> {
    let id = match model.strip_prefix("arn:") {
        None => model,
        Some(arn) => match bedrock_arn(site, arn)? {
            Some(id) => id,
            // An application's own profile: its ARN does not tell what it stands for.
            None => {
                site.reach = Reach::Untold;
                return Ok(());
            }
        },
    };
    let mut parts = id.split('.');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let profile = PROFILES.iter().find(|profile| profile.prefix == first);
    match (profile, second) {
        (Some(profile), publisher) => {
            site.reach = Reach::Among(profile);
            site.publisher = publisher.map(str::to_owned);
        }
        (None, publisher) if first == "global" => {
            site.reach = Reach::Anywhere;
            site.publisher = publisher.map(str::to_owned);
        }
        (None, Some(_)) if !is_geography(first) => site.publisher = Some(first.to_owned()),
        // Neither a publisher's model nor a profile that is known here.
        _ => site.reach = Reach::Untold,
    }
    Ok(())
}

/// Whether the first part looks like the geography of a profile newer than this list: at most four
/// letters, where publishers' names are longer or known.
fn is_geography(first: &str) -> bool {
    const SHORT_PUBLISHERS: [&str; 4] = ["ai21", "meta", "luma", "qwen"];
    first.len() <= 4 && !SHORT_PUBLISHERS.contains(&first)
}

/// The id in an ARN without its `arn:`; None for one that stands for something untold.
fn bedrock_arn<'m>(site: &Site, arn: &'m str) -> Result<Option<&'m str>, String> {
    let mut parts = arn.splitn(5, ':');
    let (partition, _service, region) = (parts.next(), parts.next(), parts.next());
    if partition != Some(site.partition) {
        return Err(format!("is an ARN of another partition than the host's, {}", site.partition));
    }
    if let (Reach::In(here), Some(there)) = (&site.reach, region)
        && !there.is_empty()
        && there != here
    {
        return Err(format!("is an ARN of another region than the host's, {here}"));
    }
    let resource = parts.nth(1).unwrap_or_default();
    match resource.split_once('/') {
        Some(("foundation-model" | "inference-profile", id)) => Ok(Some(id)),
        _ => Ok(None),
    }
}

fn google(labels: &[&str], path: &str, model: &str) -> Option<Result<Site, String>> {
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
        return Some(Err(format!("is of location {location}, and its host is not")));
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
mod tests {
    use super::*;

    fn read(url: &str, model: &str) -> Result<Option<Site>, String> {
        site(&url.parse().unwrap(), model)
    }

    /// Provider, partition, service, publisher and reach in one line.
    fn told(url: &str, model: &str) -> String {
        match read(url, model) {
            Err(wrong) => wrong,
            Ok(None) => "nothing".into(),
            Ok(Some(site)) => {
                let reach = match site.reach {
                    Reach::Untold => "untold".into(),
                    Reach::In(region) => region,
                    Reach::Among(profile) => format!("{}.", profile.prefix),
                    Reach::Anywhere => "anywhere".into(),
                };
                let publisher = site.publisher.as_deref().unwrap_or("-");
                let Site { provider, partition, service, .. } = site;
                format!("{provider} {partition} {service} {publisher} {reach}")
            }
        }
    }

    #[test]
    fn hosts_and_models_tell_where_they_are() {
        let gov = "https://bedrock-runtime.us-gov-west-1.amazonaws.com/openai/v1";
        let fips = "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/openai/v1";
        let east = "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1";
        let vertex = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations";
        let cases = [
            (gov, "anthropic.claude-x-v1:0", "aws aws-us-gov bedrock anthropic us-gov-west-1"),
            (fips, "meta.llama3-8b-v1:0", "aws aws-us-gov bedrock meta us-gov-west-1"),
            (gov, "us-gov.anthropic.claude-x", "aws aws-us-gov bedrock anthropic us-gov."),
            (east, "us.anthropic.claude-x", "aws aws bedrock anthropic us."),
            (east, "global.anthropic.claude-x", "aws aws bedrock anthropic anywhere"),
            (east, "zz.anthropic.claude-x", "aws aws bedrock - untold"),
            (east, "openai.gpt-oss-20b-1:0", "aws aws bedrock openai us-east-1"),
            (east, "ai21.jamba-1-5-large-v1:0", "aws aws bedrock ai21 us-east-1"),
            (
                east,
                "arn:aws:bedrock:us-east-1:12:inference-profile/us.amazon.nova-lite-v1:0",
                "aws aws bedrock amazon us.",
            ),
            (
                east,
                "arn:aws:bedrock:us-east-1:12:application-inference-profile/a1b2",
                "aws aws bedrock - untold",
            ),
            (
                east,
                "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/amazon.x",
                "is an ARN of another partition than the host's, aws",
            ),
            (
                east,
                "arn:aws:bedrock:us-west-2::foundation-model/amazon.x",
                "is an ARN of another region than the host's, us-east-1",
            ),
            ("https://bedrock-mantle.eu-west-1.api.aws/v1", "q.m", "aws aws bedrock - untold"),
            (
                "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com/v1",
                "meta.llama",
                "aws aws bedrock meta us-east-1",
            ),
            (
                "https://runtime.sagemaker.us-gov-west-1.amazonaws.com/v1",
                "m",
                "aws aws-us-gov sagemaker - us-gov-west-1",
            ),
            (
                "https://bedrock-runtime.cn-north-1.amazonaws.com.cn/v1",
                "amazon.b",
                "aws aws-cn bedrock amazon cn-north-1",
            ),
            (
                "https://bedrock-runtime.eusc-de-east-1.amazonaws.eu/v1",
                "meta.b",
                "aws aws-eusc bedrock meta eusc-de-east-1",
            ),
            (
                &format!("{vertex}/us-central1/endpoints/openapi"),
                "google/gemini",
                "google google vertex google us-central1",
            ),
            (
                &format!("{vertex}/global/endpoints/openapi"),
                "google/x",
                "is of location global, and its host is not",
            ),
            (
                "https://aiplatform.googleapis.com/v1/projects/p/locations/global/endpoints/openapi",
                "google/g",
                "google google vertex google anywhere",
            ),
            (
                "https://aiplatform.eu.rep.googleapis.com/v1",
                "google/g",
                "google google vertex google eu",
            ),
            ("https://generativelanguage.googleapis.com/v1", "g", "google google other - untold"),
            ("https://res.openai.azure.com/openai/v1", "d", "azure azure openai - untold"),
            ("https://res.openai.azure.us/openai/v1", "d", "azure azure-us-gov openai - untold"),
            ("https://res.services.ai.azure.com/openai/v1", "d", "azure azure openai - untold"),
            ("https://eastus.api.cognitive.microsoft.com/v1", "d", "azure azure openai - eastus"),
            (
                "https://inference.generativeai.us-chicago-1.oci.oraclecloud.com/openai/v1",
                "m",
                "oracle oc1 generativeai - us-chicago-1",
            ),
            (
                "https://inference.generativeai.us-langley-1.oci.oraclegovcloud.com/v1",
                "m",
                "oracle oc2 generativeai - us-langley-1",
            ),
            (
                "https://inference.generativeai.us-gov-ashburn-1.oci.oraclegovcloud.com/v1",
                "m",
                "oracle oc3 generativeai - us-gov-ashburn-1",
            ),
            (
                "https://inference.generativeai.uk-gov-london-1.oci.oraclegovcloud.uk/v1",
                "m",
                "oracle oc4 generativeai - uk-gov-london-1",
            ),
            (
                "https://inference.generativeai.eu-frankfurt-2.oci.oraclecloud.eu/v1",
                "m",
                "oracle oc19 generativeai - eu-frankfurt-2",
            ),
            ("https://api.openai.com/v1", "gpt", "nothing"),
            ("https://amazonaws.com.example/v1", "m", "nothing"),
            ("https://bedrock-runtime.us-gov-west-1.amazonaws.com.evil.example/v1", "m", "nothing"),
            ("http://127.0.0.1:9000/v1", "us.anthropic.claude", "nothing"),
        ];
        for (url, model, expected) in cases {
            assert_eq!(told(url, model), expected, "{url} {model}");
        }
    }
}
