//! What the head of a cloud's answer means.

use std::time::{Duration, SystemTime};

use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};

use super::reply::garbage;
use crate::completion::{Reason, Refusal};
use crate::config::CloudConfig;

/// Longer waits are not believed: a cloud that is back earlier is asked earlier.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Ok when a stream of events follows; else the refusal that status and headers make.
pub(super) fn check<B>(row: &CloudConfig, response: &Response<B>) -> Result<(), Refusal> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(refusal(row, status, response.headers()));
    }
    let value = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let encoding = value(header::CONTENT_ENCODING).unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        // We asked for none, and unpack nothing that could be a bomb.
        return Err(garbage("a compressed answer"));
    }
    // A server that names no type may still stream; one that names another does not.
    let kind = value(header::CONTENT_TYPE).unwrap_or("text/event-stream");
    if !kind.to_ascii_lowercase().starts_with("text/event-stream") {
        return Err(garbage("an answer that is no event stream"));
    }
    Ok(())
}

fn refusal(row: &CloudConfig, status: StatusCode, headers: &HeaderMap) -> Refusal {
    let code = status.as_u16();
    if matches!(code, 401..=404) {
        let cloud = &*row.name;
        tracing::error!(cloud, status = code, "the cloud refuses this configuration");
    }
    let refusal = Refusal::new(Reason::CloudStatus(code), "the cloud did not take the request");
    match retry_after(headers, SystemTime::now()) {
        Some(after) if matches!(code, 429 | 503 | 529) => refusal.with_retry_after(after),
        _ => refusal,
    }
}

/// `retry-after-ms`, or `retry-after` in seconds or as a date; capped.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let millis = text("retry-after-ms").and_then(|t| t.parse().ok()).map(Duration::from_millis);
    let after = millis.or_else(|| {
        let text = text("retry-after")?;
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    })?;
    Some(after.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_every_spelling_and_capped() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        let read = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(read("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(read("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(
            read("retry-after", "Wed, 21 Oct 2026 07:28:10 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(read("retry-after", "Wed, 21 Oct 2020 07:28:10 GMT"), Some(Duration::ZERO));
        assert_eq!(read("retry-after", "99999999"), Some(RETRY_AFTER_MAX));
        for nonsense in ["", "-1", "soon", "1e9", "99999999999999999999999"] {
            assert_eq!(read("retry-after", nonsense), None, "{nonsense:?}");
        }
    }
}
