use super::*;

fn read(url: &str, model: &str) -> Result<Option<Site>, Contradiction> {
    site(&url.parse().unwrap(), model)
}

/// Provider, partition, service, publisher and reach in one line.
fn told(url: &str, model: &str) -> String {
    match read(url, model) {
        Err((_, wrong)) => wrong,
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
