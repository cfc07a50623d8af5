//! Names of AWS's endpoints, by the rules that its tools are published with.

use crate::config::services::aws::AwsApi;

/// Longest name of a region, with room.
const REGION_MAX: usize = 32;

/// What the regions of a partition begin with, the domain of its services, and the newer one; the
/// last is everybody else's.
const PARTITIONS: [(&str, &str, &str); 8] = [
    ("us-gov-", "amazonaws.com", "api.aws"),
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ("", "amazonaws.com", "api.aws"),
];

/// Letters, a direction, a number.
pub(super) fn is_region(name: &str) -> bool {
    let mut parts = name.split('-');
    let first = parts.next().unwrap_or_default();
    let last = parts.next_back().unwrap_or_default();
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    let middle: Vec<&str> = parts.collect();
    name.len() <= REGION_MAX
        && letters(first)
        && !middle.is_empty()
        && middle.into_iter().all(letters)
        && !last.is_empty()
        && last.bytes().all(|b| b.is_ascii_digit())
}

fn domains(region: &str) -> (&'static str, &'static str) {
    let of = PARTITIONS.iter().find(|(prefix, ..)| region.starts_with(prefix));
    let (_, domain, newer) = of.expect("the last begins every name");
    (domain, newer)
}

fn is_gov(region: &str) -> bool {
    region.starts_with("us-gov-")
}

/// Where `api` is in `region`, up to what its paths are appended to.
pub(super) fn address(api: &AwsApi, region: &str, fips: bool) -> Result<String, String> {
    if fips {
        has_fips(region)?;
    }
    let (domain, newer) = domains(region);
    let bedrock = if fips { "bedrock-runtime-fips" } else { "bedrock-runtime" };
    Ok(match api {
        AwsApi::Converse | AwsApi::Invoke(_) => format!("https://{bedrock}.{region}.{domain}"),
        AwsApi::OpenAi => format!("https://{bedrock}.{region}.{domain}/openai/v1"),
        AwsApi::Mantle if fips => {
            return Err(
                "bedrock-mantle has no FIPS endpoint that weir knows of: type base_url".into()
            );
        }
        AwsApi::Mantle => format!("https://bedrock-mantle.{region}.{newer}/v1"),
        // In GovCloud the endpoint is a FIPS one under its plain name.
        AwsApi::SageMaker(_) if fips && !is_gov(region) => {
            format!("https://runtime-fips.sagemaker.{region}.{domain}")
        }
        AwsApi::SageMaker(_) => format!("https://runtime.sagemaker.{region}.{domain}"),
    })
}

/// The region in a host of AWS that is not this one.
pub(super) fn other_region<'h>(host: &'h str, region: &str) -> Option<&'h str> {
    let aws = PARTITIONS.iter().any(|(_, domain, newer)| {
        [domain, newer].into_iter().any(|domain| host.ends_with(&format!(".{domain}")))
    });
    let named = host.split('.').find(|label| is_region(label));
    named.filter(|named| aws && *named != region)
}

/// The token service of the region.
pub(super) fn sts(region: &str, fips: bool) -> String {
    let (domain, _) = domains(region);
    let name = if fips && !is_gov(region) { "sts-fips" } else { "sts" };
    format!("https://{name}.{region}.{domain}")
}

fn has_fips(region: &str) -> Result<(), String> {
    if is_gov(region) || region.starts_with("us-") || region.starts_with("ca-") {
        return Ok(());
    }
    Err(format!("there are FIPS endpoints in the US and in Canada, not in {region}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::services::aws::{Container, SageMakerEndpoint};

    #[test]
    fn hosts_are_those_that_botocore_makes() {
        let sagemaker = AwsApi::SageMaker(SageMakerEndpoint {
            name: "e".into(),
            container: Container::Tgi,
            component: None,
        });
        let cases = [
            (&AwsApi::Converse, "us-east-1", false, "bedrock-runtime.us-east-1.amazonaws.com"),
            (&AwsApi::Converse, "us-west-2", true, "bedrock-runtime-fips.us-west-2.amazonaws.com"),
            (
                &AwsApi::Converse,
                "us-gov-west-1",
                true,
                "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
            ),
            (&AwsApi::Converse, "cn-north-1", false, "bedrock-runtime.cn-north-1.amazonaws.com.cn"),
            (
                &AwsApi::Converse,
                "eusc-de-east-1",
                false,
                "bedrock-runtime.eusc-de-east-1.amazonaws.eu",
            ),
            (
                &AwsApi::OpenAi,
                "us-east-2",
                false,
                "bedrock-runtime.us-east-2.amazonaws.com/openai/v1",
            ),
            (&AwsApi::Mantle, "us-east-2", false, "bedrock-mantle.us-east-2.api.aws/v1"),
            (&sagemaker, "eu-west-1", false, "runtime.sagemaker.eu-west-1.amazonaws.com"),
            (&sagemaker, "us-east-1", true, "runtime-fips.sagemaker.us-east-1.amazonaws.com"),
            (&sagemaker, "us-gov-west-1", true, "runtime.sagemaker.us-gov-west-1.amazonaws.com"),
            (&sagemaker, "cn-north-1", false, "runtime.sagemaker.cn-north-1.amazonaws.com.cn"),
        ];
        for (api, region, fips, expected) in cases {
            assert_eq!(address(api, region, fips).unwrap(), format!("https://{expected}"));
        }
        assert!(address(&AwsApi::Converse, "eu-west-1", true).is_err());
        assert!(address(&AwsApi::Mantle, "us-east-1", true).is_err());
        assert_eq!(sts("us-gov-west-1", true), "https://sts.us-gov-west-1.amazonaws.com");
        assert_eq!(sts("us-east-1", true), "https://sts-fips.us-east-1.amazonaws.com");
        assert_eq!(sts("eu-west-1", false), "https://sts.eu-west-1.amazonaws.com");
        assert_eq!(sts("cn-north-1", false), "https://sts.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn a_host_names_its_region() {
        let host = "vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com";
        assert_eq!(other_region(host, "us-east-1"), Some("eu-west-1"));
        assert_eq!(other_region(host, "eu-west-1"), None);
        assert_eq!(other_region("bedrock.eu-west-1.corp.example", "us-east-1"), None);
        assert_eq!(other_region("bedrock.corp.example", "us-east-1"), None);
    }

    #[test]
    fn a_region_is_a_name_that_may_stand_in_a_host() {
        for name in ["us-east-1", "us-gov-west-1", "eusc-de-east-1", "ap-southeast-12"] {
            assert!(is_region(name), "{name}");
        }
        for name in
            ["", "us", "us-1", "us-east-", "us-east-1.evil.example", "US-EAST-1", "us--east-1"]
        {
            assert!(!is_region(name), "{name}");
        }
    }
}
