use std::time::Duration;

use hyper::Uri;
use serde_json::json;

use super::*;
use crate::cloud::auth::fetch::tests::Recorded;
use crate::config::services::aws::profile::SharedFiles;
use crate::config::services::aws::{AwsRole, ContainerToken};

const DOCUMENT: &str = r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ASIA1",
    "SecretAccessKey":"s3cret","Token":"t0ken","Expiration":"2026-11-21T18:00:00Z"}"#;

/// As the API reference shows an answer to AssumeRole.
const ASSUMED: &str = r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleResult>
    <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/demo/weir</Arn></AssumedRoleUser>
    <Credentials>
      <AccessKeyId>ASIA2</AccessKeyId>
      <SecretAccessKey>wJalr/K7MDENG+x=</SecretAccessKey>
      <SessionToken>AQoDYXdz//EXAMPLE==</SessionToken>
      <Expiration>2026-11-21T18:00:00.500Z</Expiration>
    </Credentials>
  </AssumeRoleResult>
</AssumeRoleResponse>"#;

fn role(external_id: Option<&str>) -> AwsRole {
    AwsRole {
        arn: "arn:aws:iam::123456789012:role/demo".into(),
        session: "weir".into(),
        external_id: external_id.map(Into::into),
    }
}

fn keys_of(id: &str) -> AwsKeys {
    AwsKeys { id: id.into(), secret: Secret::new("base-secret"), token: None }
}

async fn fetched(
    base: AwsBase,
    roles: Vec<AwsRole>,
    services: &Arc<Recorded>,
) -> Result<Fetched<AwsKeys>, CredentialError> {
    struct Shared(Arc<Recorded>);
    impl Fetch for Shared {
        fn call(
            &self,
            request: hyper::Request<http_body_util::Full<Bytes>>,
        ) -> crate::cloud::auth::fetch::Fetching<'_> {
            self.0.call(request)
        }
    }
    let sts: Uri = "https://sts.us-east-1.amazonaws.com".parse().unwrap();
    let credentials = AwsCredentials { base, roles, sts };
    let fetch = Shared(services.clone());
    Chain { credentials, region: "us-east-1".into(), fetch }.fetch().await
}

fn shown(keys: &AwsKeys) -> (&str, &str, Option<&str>) {
    (&keys.id, keys.secret.expose(), keys.token.as_ref().map(Secret::expose))
}

fn at_six(millis: u64) -> Option<SystemTime> {
    let six = httpdate::parse_http_date("Sat, 21 Nov 2026 18:00:00 GMT").unwrap();
    Some(six + Duration::from_millis(millis))
}

#[tokio::test]
async fn an_instance_is_asked_in_three_steps() {
    let services = Recorded::new(&[(200, "tok3n"), (200, "my.role\n"), (200, DOCUMENT)]);
    let imds = || AwsBase::Imds { endpoint: "http://169.254.169.254".parse().unwrap() };
    let keys = fetched(imds(), Vec::new(), &services).await.unwrap();
    assert_eq!(shown(&keys.value), ("ASIA1", "s3cret", Some("t0ken")));
    assert_eq!(keys.until, at_six(0));
    let asked = services.asked();
    let told = |at: usize| (asked[at]["method"].clone(), asked[at]["path"].clone());
    let role = "/latest/meta-data/iam/security-credentials/";
    assert_eq!(told(0), (json!("PUT"), json!("/latest/api/token")));
    assert_eq!(told(1), (json!("GET"), json!(role)));
    assert_eq!(told(2), (json!("GET"), json!(format!("{role}my.role"))));
    assert_eq!(asked[0]["headers"]["x-aws-ec2-metadata-token-ttl-seconds"], "60");
    for at in [1, 2] {
        assert_eq!(asked[at]["headers"]["x-aws-ec2-metadata-token"], "tok3n");
    }
    let failures: [&[(u16, &str)]; 6] = [
        &[(403, "")],
        &[(200, "tok\nen")],
        &[(200, "t"), (404, "")],
        &[(200, "t"), (200, "../../user-data")],
        &[(200, "t"), (200, "r"), (200, r#"{"Code":"AssumeRoleUnauthorizedAccess"}"#)],
        &[(200, "t"), (200, "r"), (200, &DOCUMENT[..40])],
    ];
    for answers in failures {
        let services = Recorded::new(answers);
        assert!(fetched(imds(), Vec::new(), &services).await.is_err(), "{answers:?}");
        assert_eq!(services.asked().len(), answers.len());
    }
}

#[tokio::test]
async fn a_container_shows_its_token() {
    let uri: Uri = "http://169.254.170.23/v1/credentials".parse().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    for token in ["first", "second"] {
        std::fs::write(file.path(), token).unwrap();
        let services = Recorded::new(&[(200, DOCUMENT)]);
        let token_file = ContainerToken::File(file.path().into());
        let base = AwsBase::Container { uri: uri.clone(), token: token_file };
        let keys = fetched(base, Vec::new(), &services).await.unwrap();
        assert_eq!(shown(&keys.value), ("ASIA1", "s3cret", Some("t0ken")));
        assert_eq!(services.asked()[0]["headers"]["authorization"], token, "it rotates");
        assert_eq!(services.asked()[0]["path"], "/v1/credentials");
    }
    let services = Recorded::new(&[(500, "")]);
    let base = AwsBase::Container { uri, token: ContainerToken::None };
    let error = fetched(base, Vec::new(), &services).await.unwrap_err().to_string();
    assert_eq!(error, "the container's endpoint answered 500");
    assert!(services.asked()[0]["headers"].get("authorization").is_none());
}

#[tokio::test]
async fn a_web_identity_is_exchanged_for_keys() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "ey.J.x\n").unwrap();
    let services = Recorded::new(&[(200, ASSUMED)]);
    let base = AwsBase::WebIdentity { role: role(None), token_file: file.path().into() };
    let keys = fetched(base.clone(), Vec::new(), &services).await.unwrap();
    let token = Some("AQoDYXdz//EXAMPLE==");
    assert_eq!(shown(&keys.value), ("ASIA2", "wJalr/K7MDENG+x=", token));
    assert_eq!(keys.until, at_six(500));
    let asked = &services.asked()[0];
    assert_eq!(asked["origin"], "https://sts.us-east-1.amazonaws.com");
    assert_eq!((&asked["method"], &asked["path"]), (&json!("POST"), &json!("/")));
    let expected = json!({
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::123456789012:role/demo",
        "RoleSessionName": "weir",
        "DurationSeconds": "3600",
        "WebIdentityToken": "ey.J.x",
    });
    assert_eq!(asked["form"], expected);
    assert!(asked["headers"].get("authorization").is_none(), "the token is the proof");

    let refused = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredTokenException</Code>\
        <Message>Token ey.J.x expired</Message></Error></ErrorResponse>";
    let services = Recorded::new(&[(400, refused)]);
    let error = fetched(base, Vec::new(), &services).await.unwrap_err().to_string();
    assert_eq!(error, "the token service answered 400: ExpiredTokenException");
}

#[tokio::test]
async fn roles_are_assumed_one_by_the_other() {
    let services = Recorded::new(&[(200, ASSUMED), (200, ASSUMED)]);
    let base = AwsBase::Keys(keys_of("AKIA0"));
    let keys = fetched(base, vec![role(None), role(Some("e&x"))], &services).await.unwrap();
    assert_eq!(&*keys.value.id, "ASIA2");
    let asked = services.asked();
    let signed = |at: usize| asked[at]["headers"]["authorization"].as_str().unwrap();
    let begins = |id: &str| format!("AWS4-HMAC-SHA256 Credential={id}/");
    assert!(signed(0).starts_with(&begins("AKIA0")), "{}", signed(0));
    assert!(signed(1).starts_with(&begins("ASIA2")), "{}", signed(1));
    for at in [0, 1] {
        assert!(signed(at).contains("/us-east-1/sts/aws4_request, "), "{}", signed(at));
        assert_eq!(asked[at]["form"]["Action"], "AssumeRole");
    }
    assert!(asked[0]["headers"].get("x-amz-security-token").is_none());
    assert_eq!(asked[1]["headers"]["x-amz-security-token"], "AQoDYXdz//EXAMPLE==");
    assert!(asked[0]["form"].get("ExternalId").is_none());
    assert_eq!(asked[1]["form"]["ExternalId"], "e&x");
}

#[tokio::test]
async fn a_profile_is_read_anew() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let files = SharedFiles { config: None, credentials: Some(file.path().into()) };
    let base = AwsBase::Profile { files, name: "dev".into() };
    let services = Recorded::new(&[]);
    for id in ["AKIA1", "AKIA2"] {
        let text = format!("[dev]\naws_access_key_id={id}\naws_secret_access_key=x\n");
        std::fs::write(file.path(), text).unwrap();
        let keys = fetched(base.clone(), Vec::new(), &services).await.unwrap();
        assert_eq!((&*keys.value.id, keys.until), (id, None));
    }
    std::fs::write(file.path(), "[dev]\n").unwrap();
    let error = fetched(base, Vec::new(), &services).await.unwrap_err().to_string();
    assert_eq!(error, "profile \"dev\" holds no keys any more");
}

#[test]
fn an_answer_without_its_parts_is_none() {
    for (from, to) in [
        ("AccessKeyId>", "X>"),
        ("<SessionToken>AQo", "<SessionToken><b/>AQo"),
        ("ASIA2", "A&amp;B"),
        ("2026-11-21T18:00:00.500Z", "soon"),
    ] {
        let xml = ASSUMED.replace(from, to);
        let answer = Response::new(Bytes::from(xml));
        assert!(sts::keys(answer).is_err(), "{to}");
    }
}
