use std::path::Path;

use super::*;
use crate::config::services::aws::{
    AwsApi, AwsBase, AwsConfig, AwsCredentials, Container, ContainerToken, InvokeShape,
};

const BEDROCK: &str = "[[cloud]]\nname = \"b\"\nprovider = \"bedrock\"\nmodel = \"M\"\n";
const SAGEMAKER: &str =
    "[[cloud]]\nname = \"b\"\nprovider = \"sagemaker\"\nmodel = \"qwen2.5-coder-7b\"\n";
const ROLE: &str = "arn:aws:iam::123456789012:role/a";

fn with(
    row: &str,
    table: &str,
    env: &[(&str, &str)],
) -> Result<(Config, Vec<Complaint>), Vec<Complaint>> {
    let env = |name: &str| match env.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => Ok((*value).to_owned()),
        None => Err(VarError::NotPresent),
    };
    let text = format!("{}[cloud.aws]\n{table}", row.replace("\"M\"", "\"meta.llama3-v1:0\""));
    Config::from_text(&text, Overrides::default(), &env)
}

fn aws(row: &str, table: &str, env: &[(&str, &str)]) -> (CloudConfig, AwsConfig) {
    let (config, _) = with(row, table, env).unwrap();
    let cloud = config.clouds[0].clone();
    let CloudService::Aws(aws) = &cloud.service else { panic!("{:?}", cloud.service) };
    let aws = (**aws).clone();
    (cloud, aws)
}

const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKIA0"), ("AWS_SECRET_ACCESS_KEY", "secret")];

fn found(table: &str, env: &[(&str, &str)]) -> AwsCredentials {
    let table = format!("region = \"us-east-1\"\n{table}");
    aws(BEDROCK, &table, env).1.credentials.expect("a source")
}

/// The one complaint.
fn wrong(row: &str, table: &str, env: &[(&str, &str)]) -> String {
    let said = with(row, table, env).expect_err("it is wrong");
    assert_eq!(said.len(), 1, "{said:?}");
    said[0].to_string()
}

#[test]
fn a_row_knows_where_its_provider_is() {
    let cases = [
        ("", "https://bedrock-runtime.us-east-1.amazonaws.com/", CloudFim::Chat),
        ("fips = true", "https://bedrock-runtime-fips.us-east-1.amazonaws.com/", CloudFim::Chat),
        (
            "api = \"openai\"",
            "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
            CloudFim::Chat,
        ),
        ("api = \"mantle\"", "https://bedrock-mantle.us-east-1.api.aws/v1", CloudFim::Chat),
    ];
    for (keys, url, fim) in cases {
        let (cloud, aws) = aws(BEDROCK, &format!("region = \"us-east-1\"\n{keys}"), &KEYS);
        assert_eq!(cloud.base_url, url, "{keys}");
        assert_eq!((cloud.fim, &*aws.region), (fim, "us-east-1"));
        assert!(
            matches!(aws.credentials.unwrap().base, AwsBase::Keys(keys) if &*keys.id == "AKIA0")
        );
    }
    let row = format!("{BEDROCK}fim_family = \"codellama\"\n");
    let (cloud, invoked) = aws(&row, "region = \"us-east-1\"\napi = \"invoke\"", &KEYS);
    assert_eq!(invoked.api, AwsApi::Invoke(InvokeShape::Llama), "by its publisher");
    assert!(matches!(cloud.fim, CloudFim::Template(_)));
    let keys = "region = \"us-gov-west-1\"\nendpoint = \"e\"\ninference_component = \"c\"";
    let (cloud, endpoint) = aws(SAGEMAKER, keys, &KEYS);
    assert_eq!(cloud.base_url, "https://runtime.sagemaker.us-gov-west-1.amazonaws.com/");
    let AwsApi::SageMaker(endpoint) = endpoint.api else { panic!() };
    assert_eq!((&*endpoint.name, endpoint.container), ("e", Container::OpenAi));
    assert_eq!(endpoint.component.as_deref(), Some("c"));
}

#[test]
fn a_bearer_token_goes_before_keys() {
    let mut env = KEYS.to_vec();
    env.push(("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-x"));
    let (cloud, row) = aws(BEDROCK, "region = \"us-east-1\"", &env);
    assert_eq!(cloud.api_key.unwrap().expose(), "bedrock-api-key-x");
    assert!(row.credentials.is_none());
    let (cloud, row) = aws(BEDROCK, "region = \"us-east-1\"\ncredentials = \"environment\"", &env);
    assert!(cloud.api_key.is_none() && row.credentials.is_some());
    let (cloud, row) = aws(SAGEMAKER, "region = \"us-east-1\"\nendpoint = \"e\"", &env);
    assert!(cloud.api_key.is_none() && row.credentials.is_some());
}

#[test]
fn sources_are_found_in_the_order_of_awss_own_tools() {
    let container = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")];
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", ROLE)];
    let env = |parts: &[&[(&'static str, &'static str)]]| parts.concat();
    let base = |env: &[(&str, &str)]| found("", env).base;
    assert!(matches!(base(&env(&[&KEYS, &web, &container])), AwsBase::Keys(_)));
    assert!(matches!(
        base(&env(&[&web, &container])),
        AwsBase::WebIdentity { role, token_file }
            if &*role.arn == ROLE && token_file == Path::new("/token")
    ));
    assert!(matches!(
        base(&container),
        AwsBase::Container { uri, token: ContainerToken::None } if uri == "http://169.254.170.2/v2/x"
    ));
    assert!(
        matches!(base(&[]), AwsBase::Imds { endpoint } if endpoint == "http://169.254.169.254/")
    );
    let (_, warnings) = with(BEDROCK, "region = \"us-east-1\"", &[]).unwrap();
    assert!(warnings.iter().any(|said| said.message.contains("metadata service is asked")));
    let off = [("AWS_EC2_METADATA_DISABLED", "true")];
    assert!(
        wrong(BEDROCK, "region = \"us-east-1\"", &off).contains("aws.credentials: there are none")
    );
}

#[test]
fn only_what_is_in_the_machine_hands_out_keys_in_clear_text() {
    let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let good = [
        "http://127.0.0.1:8080/x",
        "http://[::1]/x",
        "http://localhost/x",
        "http://169.254.170.23/v1/credentials",
        "http://[fd00:ec2::23]/v1/credentials",
        "https://keys.example/x",
    ];
    for uri in good {
        let base = found("credentials = \"container\"", &[(full, uri)]).base;
        assert!(matches!(base, AwsBase::Container { .. }), "{uri}");
    }
    for uri in ["http://10.0.0.1/x", "http://keys.example/x", "ftp://127.0.0.1/x", "/x"] {
        let table = "region = \"us-east-1\"\ncredentials = \"container\"";
        assert!(wrong(BEDROCK, table, &[(full, uri)]).contains("must be an https:// URL"), "{uri}");
    }
}

#[test]
fn the_metadata_service_is_where_it_is_said_to_be() {
    let endpoint = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    for uri in ["http://[fd00:ec2::254]", "http://127.0.0.1:1338/"] {
        let base = found("credentials = \"imds\"", &[(endpoint, uri)]).base;
        assert!(matches!(base, AwsBase::Imds { .. }), "{uri}");
    }
    for uri in ["http://10.0.0.1", "http://169.254.169.254/latest", "169.254.169.254"] {
        let table = "region = \"us-east-1\"\ncredentials = \"imds\"";
        assert!(wrong(BEDROCK, table, &[(endpoint, uri)]).contains(endpoint), "{uri}");
    }
}

#[test]
fn what_the_address_tells_is_held_against_what_a_row_declares() {
    let gov = BEDROCK.replace("\"M\"", "\"us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0\"");
    let row = |declared: &str| format!("{gov}realm = \"aws-us-gov\"\n{declared}\n");
    let both = "regions = [\"us-gov-east-1\", \"us-gov-west-1\"]";
    let table = "region = \"us-gov-west-1\"\nfips = true";
    let (cloud, _) = aws(&row(&format!("{both}\nfedramp = \"high\"")), table, &KEYS);
    assert_eq!(cloud.declared.realm.as_deref(), Some("aws-us-gov"));
    let one = row("regions = [\"us-gov-west-1\"]");
    assert!(wrong(&one, table, &KEYS).contains("us-gov. profile"), "it spreads over both");
    let public = "region = \"us-east-1\"";
    assert!(wrong(&row(""), public, &KEYS).contains("realm: is aws-us-gov"));
}

/// Files for one test, and the variables that name them.
fn files(config: &str, credentials: &str) -> (tempfile::TempDir, [(&'static str, String); 2]) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let env = [
        ("AWS_CONFIG_FILE", write("config", config)),
        ("AWS_SHARED_CREDENTIALS_FILE", write("credentials", credentials)),
    ];
    (folder, env)
}

#[test]
fn a_profile_leads_to_keys() {
    let config = format!(
        "[profile chained]\nrole_arn = {ROLE}1\nsource_profile = middle\nexternal_id = x\n\
         [profile middle]\nrole_arn = {ROLE}2\nsource_profile = keys\n\
         [profile own]\nrole_arn = {ROLE}3\nsource_profile = own\n\
         [profile pod]\nrole_arn = {ROLE}4\nweb_identity_token_file = /t\n\
         [profile machine]\nrole_arn = {ROLE}5\ncredential_source = Ec2InstanceMetadata\n\
         [profile loop]\nrole_arn = {ROLE}6\nsource_profile = loop\n\
         [profile program]\ncredential_process = /bin/x\n\
         [profile bare]\nregion = x\n\
         [profile lost]\nrole_arn = {ROLE}\nsource_profile = nobody\n\
         [profile half]\nrole_arn = {ROLE}\n"
    );
    let keys = "[keys]\naws_access_key_id = AKIA1\naws_secret_access_key = x\n\
                [own]\naws_access_key_id = AKIA2\naws_secret_access_key = x\n";
    let (_folder, env) = files(&config, keys);
    let env: Vec<(&str, &str)> = env.iter().map(|(name, path)| (*name, path.as_str())).collect();
    let of = |name: &str| found(&format!("profile = {name:?}"), &env);
    let roles = |of: &AwsCredentials| {
        of.roles
            .iter()
            .map(|role| role.arn.rsplit('/').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let named = |of: &AwsCredentials| match &of.base {
        AwsBase::Profile { name, .. } => name.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!((named(&of("keys")), roles(&of("keys"))), ("keys".into(), vec![]));
    let chained = of("chained");
    assert_eq!((named(&chained), roles(&chained)), ("keys".into(), vec!["a2".into(), "a1".into()]));
    assert_eq!(chained.roles[1].external_id.as_deref(), Some("x"));
    assert_eq!((named(&of("own")), roles(&of("own"))), ("own".into(), vec!["a3".into()]));
    assert!(
        matches!(of("pod").base, AwsBase::WebIdentity { role, .. } if role.arn.ends_with("a4"))
    );
    assert!(matches!(of("machine").base, AwsBase::Imds { .. }));
    let last = found(&format!("profile = \"chained\"\nrole_arn = \"{ROLE}9\""), &env);
    assert_eq!(roles(&last), ["a2", "a1", "a9"]);
    for (name, said) in [
        ("loop", "leads through more than"),
        ("program", "has credential_process, which weir does not do"),
        ("bare", "has neither keys nor a role"),
        ("lost", "there is no \"nobody\""),
        ("half", "needs source_profile"),
        ("gone", "there is no \"gone\""),
    ] {
        let table = format!("region = \"us-east-1\"\nprofile = {name:?}");
        assert!(wrong(BEDROCK, &table, &env).contains(said), "{name}");
    }
}

#[test]
fn each_wrong_key_of_aws_is_named() {
    let region = "region = \"us-east-1\"\n";
    let typed = |url: &str| format!("{BEDROCK}base_url = \"{url}\"\n");
    let fim = format!("{BEDROCK}fim = \"suffix\"\n");
    let keyed = format!("{SAGEMAKER}api_key_env = \"AWS_ACCESS_KEY_ID\"\n");
    let both = format!("{BEDROCK}api_key_env = \"AWS_ACCESS_KEY_ID\"\n");
    let cases = [
        (BEDROCK, String::new(), "aws.region: is required"),
        (BEDROCK, "region = \"x.y\"".into(), "aws.region: must be a region"),
        (BEDROCK, format!("{region}api = \"x\""), "aws.api: must be one of"),
        (BEDROCK, format!("{region}shape = \"llama\""), "aws.shape: is for api"),
        (BEDROCK, format!("{region}endpoint = \"e\""), "aws.endpoint: is for provider"),
        (BEDROCK, "region = \"eu-west-1\"\nfips = true".into(), "aws.fips: there are FIPS"),
        (BEDROCK, format!("{region}api = \"mantle\"\nfips = true"), "aws.fips: bedrock-mantle"),
        (BEDROCK, format!("{region}role_arn = \"me\""), "aws.role_arn: must be a role's ARN"),
        (BEDROCK, format!("{region}external_id = \"x\""), "aws.external_id: is for a role_arn"),
        (BEDROCK, format!("{region}sts_url = \"https://a/b\""), "aws.sts_url: must be"),
        (BEDROCK, format!("{region}unheard = 1"), "aws.unheard: unknown key"),
        (
            BEDROCK,
            format!("{region}profile = \"x\"\ncredentials = \"imds\""),
            "aws.profile: is for credentials",
        ),
        (&both, format!("{region}credentials = \"imds\""), "aws.credentials: and a key exclude"),
        (&fim, region.into(), "fim: must be one of chat"),
        (SAGEMAKER, region.into(), "aws.endpoint: is required"),
        (SAGEMAKER, format!("{region}endpoint = \"a/b\""), "aws.endpoint: must be at most"),
        (&keyed, format!("{region}endpoint = \"e\""), "api_key_env: SageMaker knows no keys"),
        (
            &typed("https://bedrock-runtime.us-west-2.amazonaws.com"),
            region.into(),
            "aws.region: is us-east-1, and the host is in us-west-2",
        ),
        (CLOUD, region.into(), "aws: is for provider"),
    ];
    for (row, table, said) in cases {
        let is = wrong(row, &table, &KEYS);
        assert!(is.contains(said), "{table}: {is}");
    }
    let model = BEDROCK.replace("\"M\"", "\"arn:aws:bedrock:us-east-1:1:imported-model/x\"");
    let row = format!("{model}fim_family = \"qwen\"\n");
    let is = wrong(&row, &format!("{region}api = \"invoke\""), &KEYS);
    assert!(is.contains("aws.shape: is required"), "{is}");
}

#[test]
fn no_key_of_aws_is_told() {
    let table = "region = \"us-east-1\"\ncredentials = \"environment\"";
    let mut env = KEYS.to_vec();
    env.push(("AWS_SESSION_TOKEN", "t0ken"));
    let (config, _) = with(BEDROCK, table, &env).unwrap();
    let told = format!("{config:?}");
    assert!(told.contains("AKIA0") && !told.contains("secret\"") && !told.contains("t0ken"));
}

#[test]
fn the_examples_of_the_docs_load() {
    let docs = include_str!("../../../docs/clouds.md");
    for heading in ["## AWS: Bedrock", "## AWS: SageMaker"] {
        let section = docs.split(heading).nth(1).unwrap();
        let toml = section.split("```toml").nth(1).unwrap().split("```").next().unwrap();
        let env = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" | "XDG_STATE_HOME" => Ok("/x".into()),
            _ => Err(VarError::NotPresent),
        };
        let (config, _) = Config::from_text(toml, Overrides::default(), &env).unwrap();
        assert!(matches!(config.clouds[0].service, CloudService::Aws(_)));
    }
}
