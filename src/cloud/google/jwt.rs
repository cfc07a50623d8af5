//! Proofs that a service account signs with its own key: JSON Web Tokens, RS256.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::cloud::auth::renewed::{CredentialError, Fetched};
use crate::config::services::ServiceAccountKey;

/// The longest that Google accepts.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The service by its own name, whatever host of it is asked: such a token opens nothing else.
const VERTEX: &str = "https://aiplatform.googleapis.com/";
/// Who exchanges proofs, whatever address the key's file gives.
const EXCHANGE: &str = "https://oauth2.googleapis.com/token";
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A proof that Vertex accepts in place of a token.
pub(super) fn self_signed(
    key: &ServiceAccountKey,
    now: SystemTime,
) -> Result<Fetched<String>, CredentialError> {
    let email = quoted(&key.email);
    let (issued, ends) = period(now);
    let claims = format!(
        r#"{{"iss": {email}, "sub": {email}, "iat": {issued}, "exp": {ends}, "aud": "{VERTEX}"}}"#
    );
    Ok(Fetched { value: token(key, &claims)?, until: now.checked_add(LIFETIME) })
}

/// A proof that Google exchanges for a token.
pub(super) fn assertion(
    key: &ServiceAccountKey,
    now: SystemTime,
) -> Result<String, CredentialError> {
    let email = quoted(&key.email);
    let (issued, ends) = period(now);
    token(
        key,
        &format!(
            r#"{{"iat": {issued}, "exp": {ends}, "iss": {email}, "aud": "{EXCHANGE}", "scope": "{SCOPE}"}}"#
        ),
    )
}

fn period(now: SystemTime) -> (u64, u64) {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_secs(), (now + LIFETIME).as_secs())
}

/// Written field by field, and with Python's spaces, so that whole tokens can be held against
/// those of Google's own library.
fn token(key: &ServiceAccountKey, claims: &str) -> Result<String, CredentialError> {
    let header = format!(r#"{{"typ": "JWT", "alg": "RS256", "kid": {}}}"#, quoted(&key.id));
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let mut signature = vec![0; key.pair.public_modulus_len()];
    key.pair
        .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
        .map_err(|_| CredentialError("the service account's key does not sign".into()))?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value;

    use super::*;

    /// What google-auth signs with the same key at the same time; see
    /// tests/oracles/google_credentials.py.
    const ORACLE: &str = include_str!("../../../tests/fixtures/wires/google/jwt.json");
    const KEY: &str = include_str!("../../../tests/fixtures/wires/google/service-account.json");

    /// The key of the fixtures.
    pub(in crate::cloud::google) fn key() -> ServiceAccountKey {
        let file: Value = serde_json::from_str(KEY).unwrap();
        let text = |name: &str| file[name].as_str().unwrap();
        let (email, id) = (text("client_email"), text("private_key_id"));
        ServiceAccountKey::new(email, id, text("private_key")).unwrap()
    }

    #[test]
    fn tokens_are_those_of_googles_own_library_to_the_byte() {
        let oracle: Value = serde_json::from_str(ORACLE).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(oracle["now"].as_u64().unwrap());
        let signed = self_signed(&key(), now).unwrap();
        assert_eq!(oracle["self_signed"]["token"], signed.value);
        assert_eq!(signed.until, Some(now + Duration::from_secs(3600)));
        assert_eq!(oracle["assertion"]["token"], assertion(&key(), now).unwrap());
    }

    #[test]
    fn a_key_that_is_none_is_told() {
        let text = KEY.replace("MII", "AAA");
        let file: Value = serde_json::from_str(&text).unwrap();
        let pem = file["private_key"].as_str().unwrap();
        for pem in [pem, "", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"] {
            assert!(ServiceAccountKey::new("a@b", "1", pem).is_err(), "{pem}");
        }
        let shown = format!("{:?}", key());
        assert!(shown.contains("weir@") && !shown.contains("PRIVATE"), "{shown}");
    }
}
