use super::*;
use crate::config::services::{Azure, AzureAuth, EntraIdentity};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const CLIENT: &str = "66666666-7777-8888-9999-000000000000";

fn row(more: &str) -> String {
    format!(
        "[[cloud]]\nname = \"burst\"\nmodel = \"my-deployment\"\nprovider = \"azure\"\n{more}\n"
    )
}

type Variables = [(&'static str, &'static str)];

/// With these variables beside `KEY`.
fn load_with(more: &str, variables: &[(&str, &str)]) -> Result<CloudConfig, Vec<Complaint>> {
    cloud_with(&row(more), variables)
}

fn cloud(more: &str, variables: &[(&str, &str)]) -> (CloudConfig, Azure) {
    let cloud = load_with(more, variables).unwrap_or_else(|said| panic!("{said:?}\n{more}"));
    let CloudService::Azure(azure) = &cloud.service else { panic!("{:?}", cloud.service) };
    let azure = Azure::clone(azure);
    (cloud, azure)
}

fn identity(more: &str, variables: &[(&str, &str)]) -> (String, EntraIdentity) {
    let (_, azure) = cloud(&format!("azure.resource = \"res\"\n{more}"), variables);
    let AzureAuth::Entra(entra) = azure.auth else { panic!("{:?}", azure.auth) };
    (entra.resource.to_string(), entra.identity)
}

#[test]
fn the_address_follows_from_the_resource() {
    let cases = [
        ("", "https://res.openai.azure.com/openai/v1"),
        ("azure.partition = \"azure-us-gov\"", "https://res.openai.azure.us/openai/v1"),
        ("azure.partition = \"azure-cn\"", "https://res.openai.azure.cn/openai/v1"),
        (
            "azure.api_version = \"2024-10-21\"",
            "https://res.openai.azure.com/openai/deployments/my-deployment",
        ),
        (
            "base_url = \"https://res.services.ai.azure.com/openai/v1\"",
            "https://res.services.ai.azure.com/openai/v1",
        ),
        ("base_url = \"https://gateway.example/azure\"", "https://gateway.example/azure"),
    ];
    for (more, url) in cases {
        let more = format!("api_key_env = \"KEY\"\nazure.resource = \"res\"\n{more}");
        let (cloud, azure) = cloud(&more, &[]);
        assert_eq!(cloud.base_url.to_string(), url);
        assert_eq!(cloud.fim, CloudFim::Chat);
        assert!(matches!(azure.auth, AzureAuth::Key));
    }
    let (_, azure) = cloud(
        "api_key_env = \"KEY\"\nazure = { resource = \"res\", reasoning_effort = \"minimal\" }",
        &[],
    );
    assert!(azure.dialect.max_completion_tokens && !azure.dialect.sampling);
}

#[test]
fn identities_are_those_of_azures_own_libraries() {
    let typed = format!(
        "azure.auth = \"client-secret\"\nazure.tenant_id = \"{TENANT}\"\n\
         azure.client_id = \"{CLIENT}\"\nazure.client_secret_env = \"KEY\"\n\
         azure.partition = \"azure-us-gov\""
    );
    let (resource, secret) = identity(&typed, &[]);
    assert_eq!(resource, "https://cognitiveservices.azure.us");
    let EntraIdentity::Secret { tokens, client_id, secret } = secret else { panic!("{secret:?}") };
    let at = format!("https://login.microsoftonline.us/{TENANT}/oauth2/v2.0/token");
    assert_eq!((tokens.to_string(), &*client_id, secret.expose()), (at, CLIENT, "sk-secret"));

    let pod = [
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/secrets/token"),
        ("AZURE_AUTHORITY_HOST", "https://login.chinacloudapi.cn/"),
        ("AZURE_CLIENT_SECRET", "s3cret"),
    ];
    let (_, workload) = identity("azure.auth = \"workload-identity\"", &pod);
    let EntraIdentity::Workload { tokens, token_file, .. } = workload else {
        panic!("{workload:?}")
    };
    let at = format!("https://login.chinacloudapi.cn/{TENANT}/oauth2/v2.0/token");
    assert_eq!(tokens.to_string(), at);
    assert_eq!(token_file, Path::new("/var/run/secrets/token"));
    let (resource, secret) = identity(
        "azure.auth = \"client-secret\"\nazure.scope = \"https://ai.azure.com/.default\"",
        &pod,
    );
    let EntraIdentity::Secret { secret, .. } = secret else { panic!("{secret:?}") };
    assert_eq!((&*resource, secret.expose()), ("https://ai.azure.com", "s3cret"));

    let (_, machine) = identity("azure.auth = \"managed-identity\"", &[]);
    let EntraIdentity::Managed { endpoint, header: None, client_id: None } = machine else {
        panic!("{machine:?}")
    };
    assert_eq!(endpoint, "http://169.254.169.254/metadata/identity/oauth2/token");
    let app = [("IDENTITY_ENDPOINT", "http://localhost:42/msi"), ("IDENTITY_HEADER", "h")];
    let managed = format!("azure.auth = \"managed-identity\"\nazure.client_id = \"{CLIENT}\"");
    let (_, app) = identity(&managed, &app);
    let EntraIdentity::Managed { endpoint, header: Some(_), client_id: Some(_) } = app else {
        panic!("{app:?}")
    };
    assert_eq!(endpoint, "http://localhost:42/msi");
}

#[test]
fn what_is_wrong_is_named() {
    let key = "api_key_env = \"KEY\"\n";
    let resource = "azure.resource = \"res\"\n";
    let secret = format!("{resource}azure.auth = \"client-secret\"\n");
    let arc = [("IDENTITY_ENDPOINT", "http://localhost:40342/metadata/identity/oauth2/token")];
    let plain = [("AZURE_AUTHORITY_HOST", "http://login.example"), ("AZURE_TENANT_ID", TENANT)];
    let cases: [(String, &Variables, &str); 17] = [
        (key.into(), &[], "base_url: is required"),
        (resource.into(), &[], "api_key_env: or api_key_file is required"),
        (format!("{secret}{key}"), &[], "api_key_env: and api_key_file are for"),
        (secret.clone(), &[], "azure.tenant_id: is required, or the variable AZURE_TENANT_ID"),
        (secret.clone(), &[], "azure.client_secret_env: variable AZURE_CLIENT_SECRET is not set"),
        (format!("{secret}azure.tenant_id = \"a/b\""), &[], "azure.tenant_id: must be an id"),
        (secret.clone(), &plain, "azure.authority: or the variable AZURE_AUTHORITY_HOST must be"),
        (
            format!("{key}{resource}azure.token_file = \"t\""),
            &[],
            "azure.token_file: is for azure.auth = workload-identity",
        ),
        (
            format!("{resource}azure.auth = \"managed-identity\"\nazure.tenant_id = \"t\""),
            &[],
            "azure.tenant_id: is for azure.auth = client-secret, workload-identity",
        ),
        (
            format!("{resource}azure.auth = \"managed-identity\""),
            &arc,
            "azure.auth: managed identity of Azure Arc is not supported",
        ),
        (
            format!("{secret}azure.scope = \"cognitive\""),
            &[
                ("AZURE_TENANT_ID", TENANT),
                ("AZURE_CLIENT_ID", CLIENT),
                ("AZURE_CLIENT_SECRET", "s"),
            ],
            "azure.scope: must be as in https://ai.azure.com/.default",
        ),
        (format!("{key}azure.resource = \"res.openai.azure.com\""), &[], "azure.resource: must be"),
        (
            format!("{key}{resource}azure.partition = \"aws\""),
            &[],
            "azure.partition: must be one of azure, azure-us-gov, azure-cn",
        ),
        (
            format!("{key}base_url = \"https://res.openai.azure.us/openai/v1\""),
            &[],
            "azure.partition: is azure, and the host of base_url is in azure-us-gov",
        ),
        (
            format!("{key}base_url = \"https://bedrock-runtime.us-east-1.amazonaws.com/v1\""),
            &[],
            "base_url: is no host of Azure's",
        ),
        (
            format!("{key}{resource}azure.api_version = \"v1&x=y\""),
            &[],
            "azure.api_version: must be a version",
        ),
        (
            format!("{key}{resource}regions = [\"usgovvirginia\"]"),
            &[],
            "regions: has usgovvirginia, which is not in the host's partition",
        ),
    ];
    for (more, variables, expected) in cases {
        let said = load_with(&more, variables).expect_err(&more);
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        let expected = format!("[[cloud]] burst: {expected}");
        assert!(said.iter().any(|line| line.starts_with(&expected)), "{expected}: {said:#?}");
    }
}

#[test]
fn the_example_of_the_docs_loads() {
    let docs = include_str!("../../../docs/clouds.md");
    let section = docs.split("\n## Azure\n").nth(1).unwrap();
    let toml = section.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    let (config, _) = super::load(&toml.replace("AZURE_OPENAI_KEY", "KEY")).unwrap();
    let host = config.clouds[0].base_url.host();
    assert_eq!(host, Some("my-resource.openai.azure.us"));
}
