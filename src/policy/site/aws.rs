//! Hosts of AWS, and the model ids of Bedrock, which may mean other regions than the host's.

use super::{Profile, Reach, Site, is_under};
use crate::policy::claims::Contradiction;

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

pub(super) fn aws(labels: &[&str], model: &str) -> Option<Result<Site, Contradiction>> {
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
fn bedrock_model(site: &mut Site, model: &str) -> Result<(), Contradiction> {
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
fn bedrock_arn<'m>(site: &Site, arn: &'m str) -> Result<Option<&'m str>, Contradiction> {
    let mut parts = arn.splitn(5, ':');
    let (partition, _service, region) = (parts.next(), parts.next(), parts.next());
    if partition != Some(site.partition) {
        let message = format!("is an ARN of another partition than the host's, {}", site.partition);
        return Err(("model", message));
    }
    if let (Reach::In(here), Some(there)) = (&site.reach, region)
        && !there.is_empty()
        && there != here
    {
        return Err(("model", format!("is an ARN of another region than the host's, {here}")));
    }
    let resource = parts.nth(1).unwrap_or_default();
    match resource.split_once('/') {
        Some(("foundation-model" | "inference-profile", id)) => Ok(Some(id)),
        _ => Ok(None),
    }
}
