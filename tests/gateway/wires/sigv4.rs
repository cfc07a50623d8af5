//! Signature Version 4, checked as the specification says it and by nothing that weir signs with.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256};

use crate::support::cloud::Seen;

/// AWS's tolerance for clocks.
pub(crate) const SKEW: Duration = Duration::from_secs(5 * 60);

/// Whose requests are accepted, and what for.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
    pub(crate) region: String,
    pub(crate) service: String,
}

/// Why a request is not accepted at `now`.
pub(crate) fn verify(seen: &Seen, scope: &Scope, now: SystemTime) -> Result<(), String> {
    let proof = seen.header("authorization").ok_or("no Authorization")?;
    let proof = proof.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another scheme")?;
    let fields: BTreeMap<&str, &str> =
        proof.split(", ").filter_map(|field| field.split_once('=')).collect();
    let field = |name: &str| fields.get(name).copied().ok_or(format!("no {name}"));
    let time = seen.header("x-amz-date").ok_or("no date")?;
    let credential: Vec<&str> = field("Credential")?.split('/').collect();
    let (date, _) = time.split_at_checked(8).ok_or("no time")?;
    let expected = [&*scope.key, date, &scope.region, &scope.service, "aws4_request"];
    if credential != expected {
        return Err(format!("signed for {credential:?}"));
    }
    if seen.header("x-amz-security-token") != scope.token.as_deref() {
        return Err("another token".into());
    }
    let signed: Vec<&str> = field("SignedHeaders")?.split(';').collect();
    if !signed.is_sorted() {
        return Err("headers out of order".into());
    }
    let names = seen.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let names = names.map(|(name, _)| name.to_ascii_lowercase());
    let required =
        |name: &String| name.starts_with("x-amz") || name == "host" || name == "content-type";
    if let Some(missing) = names.filter(required).find(|name| !signed.contains(&name.as_str())) {
        return Err(format!("{missing} is not signed"));
    }
    let canonical = canonical(seen, &signed)?;
    if signature(&canonical, scope, time) != field("Signature")? {
        return Err(format!("another signature than of\n{canonical}"));
    }
    let apart = now.duration_since(instant(time)?).unwrap_or_else(|behind| behind.duration());
    if apart > SKEW { Err("Signature expired".into()) } else { Ok(()) }
}

/// The canonical request. Paths have no dots and no doubled slashes here, so none are taken out.
fn canonical(seen: &Seen, signed: &[&str]) -> Result<String, String> {
    let mut words = seen.head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_unstable();
    let mut text = format!("{method}\n{}\n{}\n", encoded(path), pairs.join("&"));
    for name in signed {
        let value = seen.header(name).ok_or(format!("no {name}"))?;
        let words: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
        text += &format!("{name}:{}\n", words.join(" "));
    }
    Ok(text + &format!("\n{}\n{}", signed.join(";"), hex(digest(&SHA256, &seen.raw).as_ref())))
}

/// A path as it stands in the request, encoded once more, but for its slashes.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn signature(canonical: &str, scope: &Scope, time: &str) -> String {
    let (date, region, service) = (&time[..8], &scope.region, &scope.service);
    let hashed = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
    let text =
        format!("AWS4-HMAC-SHA256\n{time}\n{date}/{region}/{service}/aws4_request\n{hashed}");
    let first = format!("AWS4{}", scope.secret).into_bytes();
    let key = [date, region, service, "aws4_request"]
        .into_iter()
        .fold(first, |key, part| mac(&key, part.as_bytes()));
    hex(&mac(&key, text.as_bytes()))
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20261121T180000Z`.
fn instant(time: &str) -> Result<SystemTime, String> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let number = |from: usize, to: usize| time.get(from..to).and_then(|part| part.parse().ok());
    let parts = [(0, 4), (4, 6), (6, 8), (9, 11), (11, 13), (13, 15)];
    let parts: Option<Vec<usize>> = parts.into_iter().map(|(from, to)| number(from, to)).collect();
    let [year, month, day, hour, minute, second] = parts.ok_or("no time")?[..] else {
        unreachable!("six parts")
    };
    let month = MONTHS.get(month.wrapping_sub(1)).ok_or("no month")?;
    // The reader refuses a date that is not of its weekday, which is not told here.
    let of = |weekday: &&str| {
        let date =
            format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT");
        httpdate::parse_http_date(&date).ok()
    };
    let time = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].iter().find_map(of);
    time.ok_or_else(|| "no date".into())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// AWS's published vectors: what is checked against must itself be right.
    #[test]
    fn the_published_vectors_hold() {
        let fixture =
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wires/aws/sigv4-vectors.json");
        let vectors: Value =
            serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
        for name in [
            "get-vanilla",
            "get-vanilla-with-session-token",
            "get-vanilla-query-order-key-case",
            "get-unreserved",
            "get-header-value-trim",
            "post-vanilla",
            "post-header-key-sort",
            "post-sts-header-before",
        ] {
            let vector = &vectors[name];
            let given = |key: &str| vector["context"]["credentials"][key].as_str();
            let scope = Scope {
                key: given("access_key_id").unwrap().into(),
                secret: given("secret_access_key").unwrap().into(),
                token: given("token").map(Into::into),
                region: "us-east-1".into(),
                service: "service".into(),
            };
            let canonical = vector["canonical"].as_str().unwrap();
            let signature = signature(canonical, &scope, "20150830T123600Z");
            assert_eq!(signature, vector["signature"].as_str().unwrap(), "{name}");
            let mut head = vector["request"].as_str().unwrap().to_owned();
            let signed: Vec<&str> = canonical.rsplit('\n').nth(1).unwrap().split(';').collect();
            head = head.trim_end().to_owned() + "\nX-Amz-Date:20150830T123600Z";
            if let Some(token) = &scope.token {
                head += &format!("\nX-Amz-Security-Token:{token}");
            }
            let seen = Seen { head, body: Value::Null, raw: Vec::new() };
            assert_eq!(super::canonical(&seen, &signed).unwrap(), canonical, "{name}");
        }
    }
}
