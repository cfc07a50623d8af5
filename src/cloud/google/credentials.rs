//! Where Google's tokens come from. The exchanges are ours: Cargo.toml says why.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, Uri};

use super::jwt::{self, SCOPE};
use crate::cloud::auth::fetch::{Fetch, get, post_form};
use crate::cloud::auth::renewed::{CredentialError, Fetched, Source};
use crate::cloud::auth::token::{bearer, granted_bearer};
use crate::config::services::ServiceAccountKey;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const MACHINE_TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// The header that a metadata server wants to see, and shows.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const GOOGLE: HeaderValue = HeaderValue::from_static("Google");

/// From 1 March of year 0 to 1 January 1970.
const EPOCH_DAYS: u64 = 719_468;

/// A service account's own proof.
pub(super) struct SelfSigned(pub(super) ServiceAccountKey);

impl Source<HeaderValue> for SelfSigned {
    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let Fetched { value, until } = jwt::self_signed(&self.0, SystemTime::now())?;
        Ok(Fetched { value: bearer(&value)?, until })
    }
}

/// A token for a service account's proof.
pub(super) struct Exchanged {
    pub(super) key: ServiceAccountKey,
    pub(super) tokens: Uri,
    pub(super) services: Arc<dyn Fetch>,
}

impl Source<HeaderValue> for Exchanged {
    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let assertion = jwt::assertion(&self.key, SystemTime::now())?;
        let form = [("assertion", &*assertion), ("grant_type", JWT_BEARER)];
        granted_bearer(&self.services.call(post_form(&self.tokens, &form)).await?)
    }
}

/// The token of the machine's own service account.
pub(super) struct Machine {
    pub(super) server: Uri,
    pub(super) services: Arc<dyn Fetch>,
}

impl Source<HeaderValue> for Machine {
    async fn fetch(&self) -> Result<Fetched<HeaderValue>, CredentialError> {
        let at = format!("{}{MACHINE_TOKEN}", self.server.to_string().trim_end_matches('/'));
        let at: Uri = at.parse().map_err(|_| CredentialError("no metadata server".into()))?;
        let mut request = get(&at, &[("scopes", SCOPE)])?;
        request.headers_mut().insert(FLAVOR, GOOGLE);
        let answer = self.services.call(request).await?;
        is_googles(&answer)?;
        granted_bearer(&answer)
    }
}

/// Whatever else answers at that name does not show the header.
fn is_googles(answer: &Response<Bytes>) -> Result<(), CredentialError> {
    match answer.headers().get(FLAVOR) {
        Some(flavor) if flavor == GOOGLE => Ok(()),
        _ => Err(CredentialError("what answered is no metadata server of Google's".into())),
    }
}

/// RFC 3339 in UTC, as Google writes the end of a token: `2026-11-21T13:00:00Z`, with or without
/// parts of a second.
pub(super) fn timestamp(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let time = time.split('.').next()?;
    let numbers = |text: &str, by| -> Option<[u64; 3]> {
        let all: Vec<u64> = text.split(by).map(|n| n.parse().ok()).collect::<Option<_>>()?;
        all.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(time, ':')?);
    let is_one = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !is_one {
        return None;
    }
    // A year that begins in March has its leap day at its end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = 365 * year + leap_days + (153 * month + 2) / 5 + day - 1;
    let seconds = (days - EPOCH_DAYS) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_those_of_the_calendar() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("2026-11-21T13:00:00Z", 1_795_266_000),
            ("2026-11-21T13:00:00.123456789Z", 1_795_266_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ];
        for (text, seconds) in cases {
            let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(timestamp(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2026-11-21T13:00:00",
            "2026-11-21T13:00:00+01:00",
            "2026-11-21",
            "2026-11-00T13:00:00Z",
            "2026-13-21T13:00:00Z",
            "2026-11-21T24:00:00Z",
            "0000-00-00T00:00:00Z",
            "2026-11--1T13:00:00Z",
            "99999999999999999999-11-21T13:00:00Z",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }
}
