use super::*;
use crate::config::services::{GoogleCredentials, SubjectPlace, Thinking, Vertex, VertexApi};

const KEY: &str = include_str!("../../../tests/fixtures/wires/google/service-account.json");
const FEDERATED: &str = r#"{
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/x:generateAccessToken",
    "service_account_impersonation": {"token_lifetime_seconds": 1200},
    "credential_source": {"url": "http://127.0.0.1:9/t", "headers": {"X-A": "b"},
        "format": {"type": "json", "subject_token_field_name": "token"}}
}"#;

fn row(more: &str) -> String {
    format!(
        "[[cloud]]\nname = \"burst\"\nmodel = \"gemini-2.5-flash\"\nprovider = \"vertex\"\n{more}\n"
    )
}

fn load_with(more: &str, variables: &[(&str, &str)]) -> Result<CloudConfig, Vec<Complaint>> {
    cloud_with(&row(more), variables)
}

fn cloud(more: &str, variables: &[(&str, &str)]) -> (CloudConfig, Vertex) {
    let cloud = load_with(more, variables).unwrap_or_else(|said| panic!("{said:?}\n{more}"));
    let CloudService::Vertex(vertex) = &cloud.service else { panic!("{:?}", cloud.service) };
    let vertex = Vertex::clone(vertex);
    (cloud, vertex)
}

/// A file of credentials with these permissions, whose text may be changed first.
fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    file
}

fn in_file(file: &tempfile::NamedTempFile) -> String {
    format!("vertex.credentials_file = {:?}\n", file.path().display().to_string())
}

#[test]
fn the_address_follows_from_project_location_and_api() {
    let at = "v1/projects/my-project/locations";
    let cases = [
        (
            "us-central1",
            "",
            format!("us-central1-aiplatform.googleapis.com/{at}/us-central1/publishers/google"),
        ),
        (
            "europe-west4",
            "vertex.regional_endpoint = true",
            format!(
                "aiplatform.europe-west4.rep.googleapis.com/{at}/europe-west4/publishers/google"
            ),
        ),
        ("eu", "", format!("aiplatform.eu.rep.googleapis.com/{at}/eu/publishers/google")),
        ("global", "", format!("aiplatform.googleapis.com/{at}/global/publishers/google")),
        (
            "us-central1",
            "vertex.api = \"raw-predict\"",
            format!("us-central1-aiplatform.googleapis.com/{at}/us-central1/publishers/mistralai"),
        ),
        (
            "us-central1",
            "vertex.api = \"openai\"",
            format!("us-central1-aiplatform.googleapis.com/{at}/us-central1/endpoints/openapi"),
        ),
    ];
    for (location, more, url) in cases {
        let place = "vertex.project = \"my-project\"";
        let (cloud, vertex) =
            cloud(&format!("{place}\nvertex.location = {location:?}\n{more}"), &[]);
        assert_eq!(cloud.base_url.to_string(), format!("https://{url}"));
        let fim =
            if vertex.api == VertexApi::RawPredict { CloudFim::Suffix } else { CloudFim::Chat };
        assert_eq!(cloud.fim, fim);
        let GoogleCredentials::Metadata { server } = vertex.credentials else { panic!("a file") };
        assert_eq!(server, "http://metadata.google.internal");
    }
}

#[test]
fn what_the_address_tells_is_what_policy_judges() {
    let place = "vertex.project = \"p\"\nvertex.location = \"us-central1\"\n";
    let high = "fedramp = \"high\"\nregions = [\"us-central1\"]\nrealm = \"google\"";
    let (cloud, _) = cloud(&format!("{place}{high}"), &[]);
    assert!(cloud.declared.fedramp.is_some(), "Google's own models may claim it");
    let partner = format!("{place}{high}\nvertex.api = \"raw-predict\"");
    let said = load_with(&partner, &[]).unwrap_err();
    assert!(said[0].key.ends_with("fedramp"), "a partner's may not: {said:?}");
    let anywhere = "vertex.project = \"p\"\nvertex.location = \"global\"\nregions = [\"us\"]";
    let said = load_with(anywhere, &[]).unwrap_err();
    assert!(said[0].key.ends_with("regions"), "{said:?}");
}

#[test]
fn credentials_are_those_of_googles_own_libraries() {
    let place = "vertex.project = \"p\"\nvertex.location = \"us-central1\"\n";
    let key = file(KEY, 0o600);
    let path = key.path().display().to_string();
    let named = [("GOOGLE_APPLICATION_CREDENTIALS", &*path)];
    for (more, variables) in [(in_file(&key), &[][..]), (String::new(), &named[..])] {
        let (cloud, vertex) = cloud(&format!("{place}{more}"), variables);
        let GoogleCredentials::ServiceAccount { key, exchange: None } = vertex.credentials else {
            panic!("{:?}", vertex.credentials)
        };
        assert_eq!(&*key.email, "weir@project-of-the-test.iam.gserviceaccount.com");
        assert!(!format!("{cloud:?}").contains("PRIVATE KEY"));
    }
    let more = format!("{place}{}vertex.token_exchange = true", in_file(&key));
    let (cloud_of, vertex) = cloud(&more, &[]);
    assert!(matches!(
        vertex.credentials,
        GoogleCredentials::ServiceAccount { exchange: Some(_), .. }
    ));
    let services: Vec<String> =
        cloud_of.service.credential_services().iter().map(ToString::to_string).collect();
    assert_eq!(services, ["https://oauth2.googleapis.com/token"]);

    let federated = file(FEDERATED, 0o644);
    let (cloud_of, vertex) = cloud(&format!("{place}{}", in_file(&federated)), &[]);
    let GoogleCredentials::External(account) = vertex.credentials else { panic!("external") };
    assert!(matches!(account.subject.place, SubjectPlace::Url { .. }));
    assert_eq!(account.subject.field.as_deref(), Some("token"));
    assert_eq!(account.impersonation.as_ref().unwrap().lifetime, Duration::from_secs(1200));
    assert_eq!(cloud_of.service.credential_services().len(), 3);

    let elsewhere = [("GCE_METADATA_HOST", "127.0.0.1:8080")];
    let (_, vertex) = cloud(&format!("{place}vertex.thinking_budget = 0"), &elsewhere);
    let GoogleCredentials::Metadata { server } = vertex.credentials else { panic!("a file") };
    assert_eq!(server, "http://127.0.0.1:8080");
    assert_eq!(vertex.thinking, Some(Thinking::Budget(0)));
}

#[test]
fn what_is_wrong_is_named() {
    let place = "vertex.project = \"p\"\nvertex.location = \"us-central1\"\n";
    let cases = [
        (String::new(), "base_url: is required"),
        ("vertex.project = \"p\"".into(), "vertex.location: is required"),
        ("vertex.location = \"a/b\"".into(), "vertex.location: must be a name"),
        (
            "vertex = { project = \"p\", location = \"global\", regional_endpoint = true }".into(),
            "vertex.regional_endpoint: is for a region",
        ),
        (format!("{place}api_key_env = \"KEY\""), "api_key_env: and api_key_file are not for"),
        (format!("{place}fim = \"suffix\""), "fim: must be one of chat"),
        (format!("{place}vertex.api = \"predict\""), "vertex.api: must be one of"),
        (format!("{place}vertex.thinking_budget = -2"), "vertex.thinking_budget: must be -1 to"),
        (
            format!("{place}vertex.thinking_budget = 0\nvertex.thinking_level = \"low\""),
            "vertex.thinking_budget: and vertex.thinking_level exclude",
        ),
        (
            format!("{place}vertex.thinking_level = \"low\"\nvertex.api = \"openai\""),
            "vertex.thinking_level: is for vertex.api = \"generate-content\"",
        ),
        (format!("{place}vertex.token_exchange = true"), "vertex.token_exchange: is for the key"),
        (
            format!("{place}vertex.credentials_file = \"/no/such/file\""),
            "vertex.credentials_file: /no/such/file: cannot be read",
        ),
    ];
    for (more, expected) in cases {
        let said = load_with(&more, &[]).expect_err(&more);
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        let expected = format!("[[cloud]] burst: {expected}");
        assert!(said.iter().any(|line| line.starts_with(&expected)), "{expected}: {said:#?}");
    }
    let model = row(place).replace("gemini-2.5-flash", "google/gemini-2.5-flash");
    assert!(complaints(&model)[0].contains("model: must be the name alone"));
}

#[test]
fn a_file_that_is_no_credential_is_told_and_not_quoted() {
    let changed = |from: &str, to: &str| KEY.replace(from, to);
    let federated = |from: &str, to: &str| FEDERATED.replace(from, to);
    let cases = [
        (KEY.to_owned(), 0o644, "is open to every user"),
        ("{\"type\": \"s3cret".into(), 0o600, "is no credentials file of Google's (line 1)"),
        (changed("service_account", "authorized_user"), 0o600, "must be of type service_account"),
        (changed("BEGIN PRIVATE", "BEGIN PUBLIC"), 0o600, "has no RSA key of 2048"),
        (changed("https://oauth2", "http://oauth2"), 0o600, "has a token_uri that is no https"),
        (changed("\"googleapis.com\"", "\"s3cret.example\""), 0o600, "another universe_domain"),
        (federated("https://sts", "http://sts"), 0o600, "has a token_url that is no https URL"),
        (federated("1200", "59"), 0o600, "token_lifetime_seconds that is not 600 to 43200"),
        (federated("\"url\"", "\"executable\""), 0o600, "neither a file nor a url"),
        (federated("{\"url\"", "{\"environment_id\": \"aws1\", \"url\""), 0o600, "neither a file"),
        (federated("_field_name", "_field"), 0o600, "without subject_token_field_name"),
        (
            federated(
                "\"credential_source\"",
                "\"workforce_pool_user_project\": \"p\", \"credential_source\"",
            ),
            0o600,
            "is of a workforce pool",
        ),
    ];
    for (text, mode, expected) in cases {
        let file = file(&text, mode);
        let more = format!(
            "vertex.project = \"p\"\nvertex.location = \"us-central1\"\n{}",
            in_file(&file)
        );
        let said = load_with(&more, &[]).expect_err(expected);
        let told = said.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(told.contains(expected), "{expected}: {told}");
        assert!(!told.contains("s3cret") && !told.contains("MII"), "{told}");
    }
}

#[test]
fn the_example_of_the_docs_loads() {
    let docs = include_str!("../../../docs/clouds.md");
    let section = docs.split("\n## Google: Vertex AI\n").nth(1).unwrap();
    let toml = section.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    let (config, _) = super::load(toml).unwrap();
    let host = config.clouds[0].base_url.host();
    assert_eq!(host, Some("us-central1-aiplatform.googleapis.com"));
}
