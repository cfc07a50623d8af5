//! Workload identity federation: another provider's token, exchanged for one of Google's.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::credentials::timestamp;
use super::jwt::SCOPE;
use crate::cloud::auth::fetch::{Fetch, get, post_form, post_json, token_file};
use crate::cloud::auth::renewed::{CredentialError, Fetched, Source};
use crate::cloud::auth::token::{self, bearer, granted_bearer};
use crate::config::services::{ExternalAccount, Impersonation, Subject, SubjectPlace};

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// All that a token is for that is only shown to become a service account.
const IMPERSONATE: &str = "https://www.googleapis.com/auth/iam";

pub(super) struct Federated {
    pub(super) account: Arc<ExternalAccount>,
    pub(super) services: Arc<dyn Fetch>,
}

impl Source<HeaderValue> for Federated {
    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let subject = self.subject(&self.account.subject).await?;
        let scope = if self.account.impersonation.is_some() { IMPERSONATE } else { SCOPE };
        let form = [
            ("grant_type", TOKEN_EXCHANGE),
            ("audience", &*self.account.audience),
            ("scope", scope),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token", &*subject),
            ("subject_token_type", &*self.account.subject_token_type),
        ];
        let answer = self.services.call(post_form(&self.account.tokens, &form)).await?;
        let federated = granted_bearer(&answer)?;
        match &self.account.impersonation {
            None => Ok(federated),
            Some(as_whom) => self.impersonate(as_whom, federated.value).await,
        }
    }
}

impl Federated {
    async fn subject(&self, subject: &Subject) -> Result<String, CredentialError> {
        let text = match &subject.place {
            SubjectPlace::File(path) => token_file(path).await?,
            SubjectPlace::Url { url, headers } => {
                let mut request = get(url, &[])?;
                for (name, value) in headers {
                    let malformed = |_| {
                        CredentialError(format!("the header {name} has no value that can be sent"))
                    };
                    let value = HeaderValue::from_str(value.expose()).map_err(malformed)?;
                    request.headers_mut().insert(name, value);
                }
                token::text(&self.services.call(request).await?)?
            }
        };
        let Some(field) = subject.field.as_deref() else { return Ok(text) };
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let token = body.get(field).and_then(Value::as_str).filter(|token| !token.is_empty());
        let none = || CredentialError(format!("the subject token's JSON has no text in {field:?}"));
        token.map(str::to_owned).ok_or_else(none)
    }

    async fn impersonate(
        &self,
        as_whom: &Impersonation,
        proof: HeaderValue,
    ) -> Result<Fetched<HeaderValue>, CredentialError> {
        let lifetime = format!("{}s", as_whom.lifetime.as_secs());
        let body = json!({ "delegates": null, "scope": [SCOPE], "lifetime": lifetime });
        let mut request = post_json(&as_whom.url, &body);
        request.headers_mut().insert(AUTHORIZATION, proof);
        let granted: Impersonated = token::json(&self.services.call(request).await?)?;
        let until = timestamp(&granted.expire_time);
        let no_end = || CredentialError("the service account's token has no end".into());
        Ok(Fetched {
            value: bearer(&granted.access_token)?,
            until: Some(until.ok_or_else(no_end)?),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: String,
    expire_time: String,
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::cloud::auth::fetch::tests::Recorded;
    use crate::cloud::google::credentials::{Exchanged, Machine};
    use crate::cloud::google::jwt::tests::key;
    use crate::config::Secret;

    /// What google-auth asks; see tests/oracles/google_credentials.py.
    const ORACLE: &str = include_str!("../../../tests/fixtures/wires/google/token-requests.json");
    const SUBJECT: (u16, &str) =
        (200, r#"{"id_token":"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwb2QifQ.c2ln"}"#);
    const GRANTED: (u16, &str) =
        (200, r#"{"access_token":"token-of-the-oracle","expires_in":3599,"token_type":"Bearer"}"#);
    const IMPERSONATED: (u16, &str) = (
        200,
        r#"{"accessToken":"impersonated-of-the-oracle","expireTime":"2026-11-21T13:00:00Z"}"#,
    );

    fn oracle() -> Value {
        serde_json::from_str(ORACLE).unwrap()
    }

    /// One kind of credential in the oracle: its file, and what it made google-auth ask.
    fn exchange(name: &str) -> (Value, Vec<Value>) {
        let all = oracle();
        let all = all["exchanges"].as_array().unwrap();
        let found = all.iter().find(|exchange| exchange["name"] == name).unwrap();
        (found["inputs"].clone(), found["requests"].as_array().unwrap().clone())
    }

    /// The account that a file describes, with its token in `folder`.
    fn account(file: &Value, folder: &Path) -> ExternalAccount {
        let text = |at: &Value| at.as_str().unwrap().to_owned();
        let source = &file["credential_source"];
        let place = match source["file"].as_str() {
            Some(name) => SubjectPlace::File(folder.join(name)),
            None => SubjectPlace::Url {
                url: text(&source["url"]).parse().unwrap(),
                headers: vec![("x-of-the-test".parse().unwrap(), Secret::new("y"))],
            },
        };
        let field = source["format"]["subject_token_field_name"].as_str().map(Into::into);
        let impersonation = file["service_account_impersonation_url"].as_str().map(|url| {
            let lifetime = &file["service_account_impersonation"]["token_lifetime_seconds"];
            let lifetime = Duration::from_secs(lifetime.as_u64().unwrap_or(3600));
            Impersonation { url: url.parse().unwrap(), lifetime }
        });
        ExternalAccount {
            audience: text(&file["audience"]).into(),
            subject_token_type: text(&file["subject_token_type"]).into(),
            subject: Subject { place, field },
            tokens: text(&file["token_url"]).parse().unwrap(),
            impersonation,
        }
    }

    async fn federate(
        name: &str,
        answers: &[(u16, &'static str)],
    ) -> Result<Fetched<HeaderValue>, String> {
        let (file, mut expected) = exchange(name);
        let folder = tempfile::tempdir().unwrap();
        let token = oracle()["subject_token"].as_str().unwrap().to_owned();
        std::fs::write(folder.path().join("token"), format!("{token}\n")).unwrap();
        std::fs::write(folder.path().join("token.json"), SUBJECT.1).unwrap();
        let services = Recorded::new(answers);
        let account = account(&file, folder.path());
        let source = Federated { account: account.into(), services: services.clone() };
        let fetched = source.fetch().await;
        expected.truncate(answers.len());
        assert_eq!(services.asked(), expected, "{name}");
        fetched.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn weir_asks_what_googles_own_library_asks() {
        for name in ["a file", "a field of a file"] {
            assert_eq!(
                federate(name, &[GRANTED]).await.unwrap().value,
                "Bearer token-of-the-oracle"
            );
        }
        let by_url = federate("a url", &[SUBJECT, GRANTED]).await.unwrap();
        assert_eq!(by_url.value, "Bearer token-of-the-oracle");
        for name in ["a file, then impersonation", "a file, then impersonation for a while"] {
            let fetched = federate(name, &[GRANTED, IMPERSONATED]).await.unwrap();
            assert_eq!(fetched.value, "Bearer impersonated-of-the-oracle");
            assert_eq!(fetched.until, timestamp("2026-11-21T13:00:00Z"));
        }
    }

    #[tokio::test]
    async fn whatever_refuses_on_the_way_is_told() {
        let refused = (403, r#"{"error":{"status":"PERMISSION_DENIED","message":"s3cret"}}"#);
        let name = "a file, then impersonation";
        let told = |fetched: Result<Fetched<HeaderValue>, String>| fetched.err().unwrap();
        let first = told(federate(name, &[refused]).await);
        assert_eq!(first, "the token service refuses: status 403, PERMISSION_DENIED");
        assert_eq!(told(federate(name, &[GRANTED, refused]).await), first);
        let endless = (200, r#"{"accessToken":"t","expireTime":"soon"}"#);
        let endless = told(federate(name, &[GRANTED, endless]).await);
        assert_eq!(endless, "the service account's token has no end");
        let empty = told(federate("a url", &[(200, r#"{"id_token":""}"#)]).await);
        assert!(empty.contains(r#"no text in "id_token""#), "{empty}");
    }

    #[tokio::test]
    async fn a_service_account_and_a_machine_ask_as_googles_own_library_does() {
        let (_, mut expected) = exchange("service account");
        let services = Recorded::new(&[GRANTED]);
        let tokens = "https://oauth2.googleapis.com/token".parse().unwrap();
        let source = Exchanged { key: key(), tokens, services: services.clone() };
        assert_eq!(source.fetch().await.unwrap().value, "Bearer token-of-the-oracle");
        let mut asked = services.asked();
        // The assertion's time differs; its bytes are held against the oracle's in `jwt`.
        let assertion = asked[0]["form"]["assertion"].take();
        assert_eq!(assertion.as_str().unwrap().split('.').count(), 3);
        expected[0]["form"]["assertion"].take();
        assert_eq!(asked, expected);

        let (_, expected) = exchange("metadata server");
        let services = Recorded::new(&[GRANTED]);
        let server = "http://metadata.google.internal".parse().unwrap();
        let source = Machine { server, services: services.clone() };
        assert_eq!(source.fetch().await.unwrap().value, "Bearer token-of-the-oracle");
        assert_eq!(services.asked(), expected);
    }
}
