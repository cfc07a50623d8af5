//! What a cloud's error means: one table for all of them, since no two use one name for different
//! things.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use crate::completion::{Fault, Reason, Refusal};
use crate::config::CloudConfig;

/// Longer waits are not believed: a cloud that is back earlier is asked earlier.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Bytes of an error that are read, and how long they are waited for.
const ERROR_BYTES_MAX: usize = 64 * 1024;
const ERROR_WAIT: Duration = Duration::from_millis(500);

/// What clouds call their errors, beside the status. Of several names in one answer the one that
/// stands first here counts: `insufficient_quota` comes with the words of a rate limit.
const NAMES: [(Fault, &[&str]); 8] = [
    (
        Fault::Quota,
        &[
            "insufficient_quota",
            "billing_hard_limit_reached",
            "ServiceQuotaExceededException",
            "QuotaExceeded",
            "LimitExceeded",
            "BILLING_DISABLED",
        ],
    ),
    (Fault::Clock, &["RequestTimeTooSkewed", "RequestExpired"]),
    (
        Fault::Filtered,
        &[
            "content_filter",
            "content_policy_violation",
            "ResponsibleAIPolicyViolation",
            "SAFETY",
            "RECITATION",
            "PROHIBITED_CONTENT",
        ],
    ),
    (
        Fault::Throttled,
        &[
            "ThrottlingException",
            "Throttling",
            "ModelNotReadyException",
            "TooManyRequestsException",
            "TooManyRequests",
            "RESOURCE_EXHAUSTED",
            "RateLimitReached",
            "too_many_requests",
            "rate_limit_exceeded",
            "rate_limit_error",
            "rate_limited",
            "service_tier_capacity_exceeded",
            "overloaded",
            "overloaded_error",
            "OutOfHostCapacity",
        ],
    ),
    (
        Fault::Credentials,
        &[
            "SignatureDoesNotMatch",
            "InvalidSignatureException",
            "IncompleteSignatureException",
            "ExpiredToken",
            "ExpiredTokenException",
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "MissingAuthenticationTokenException",
            "MissingAuthenticationToken",
            "IncompleteSignature",
            "OptInRequired",
            "AccessDeniedException",
            "UNAUTHENTICATED",
            "PERMISSION_DENIED",
            "NotAuthenticated",
            "invalid_api_key",
        ],
    ),
    (
        Fault::NotFound,
        &[
            "ResourceNotFoundException",
            "UnknownOperationException",
            "not_found_error",
            "NOT_FOUND",
            "NotAuthorizedOrNotFound",
            "model_not_found",
            "DeploymentNotFound",
            "invalid_model",
            "OperationNotSupported",
        ],
    ),
    (
        Fault::Request,
        &[
            "ValidationException",
            "ValidationError",
            "INVALID_ARGUMENT",
            "InvalidParameter",
            "MissingParameter",
            "CannotParseRequest",
            "exceed_context_size_error",
            "context_length_exceeded",
            "string_above_max_length",
        ],
    ),
    (
        Fault::Failed,
        &[
            "ModelTimeoutException",
            "ModelErrorException",
            "ModelStreamErrorException",
            "ModelStreamError",
            "InternalStreamFailure",
            "InternalDependencyException",
            "InternalFailure",
            "InternalServerException",
            "ServiceUnavailableException",
            "UNAVAILABLE",
            "INTERNAL",
            "ABORTED",
            "CANCELLED",
            "DEADLINE_EXCEEDED",
        ],
    ),
];

/// Words in an error's message that tell a wrong clock, where the name only tells a signature.
const CLOCK_WORDS: [&str; 4] =
    ["Signature expired", "not yet current", "clock skew", "date is not within"];

/// Words that tell a wrong model or endpoint, where the name only tells a wrong request.
const ROUTE_WORDS: [&[&str]; 2] =
    [&["isn't supported on this route"], &["Endpoint ", " not found"]];

/// A refusal for an answer that is no completion; `what` is for the log.
pub(super) fn garbage(what: &str) -> Refusal {
    Refusal::new(Reason::CloudGarbage, "the cloud did not answer with a completion")
        .with_source(std::io::Error::other(what.to_owned()))
}

/// A cloud's word, in an answer that began well, for why it takes no such prompt.
#[cfg(feature = "google")]
pub(super) fn filtered(why: &str) -> Refusal {
    Refusal::new(Reason::Cloud(Fault::Filtered), "the cloud refuses what the request holds")
        .with_source(std::io::Error::other(format!("{why:.64}")))
}

/// An error inside an answer that began well: an `error` object, or whatever holds its names.
pub(super) fn in_stream(error: &Value) -> Refusal {
    let mut told = Told::default();
    told.collect(error);
    let status = told.status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    told.refusal(status, "the cloud broke off with an error")
}

/// An error that is one name, as an exception in a stream.
pub(super) fn named(name: &str, message: &Value) -> Refusal {
    let mut told = Told::default();
    told.collect(message);
    told.name(name);
    told.refusal(StatusCode::INTERNAL_SERVER_ERROR, "the cloud broke off with an error")
}

/// How a good answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Whole,
}

/// Whether an answer follows, and of what kind: `accept` is the kind of stream that was asked for.
/// None: it is an error, for [`refusal`].
pub(super) fn kind<B>(response: &Response<B>, accept: &str) -> Option<Result<Kind, Refusal>> {
    if response.status() != StatusCode::OK {
        return None;
    }
    let value = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let encoding = value(header::CONTENT_ENCODING).unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        // We asked for none, and unpack nothing that could be a bomb.
        return Some(Err(garbage("a compressed answer")));
    }
    // A server that names no type still answers what it was asked for.
    let kind = value(header::CONTENT_TYPE).unwrap_or(accept).to_ascii_lowercase();
    Some(match kind.as_str() {
        kind if kind.starts_with("application/json") => Ok(Kind::Whole),
        kind if kind.starts_with(accept) => Ok(Kind::Stream),
        _ => Err(garbage("an answer that is no event stream")),
    })
}

/// What an answer that is none means.
pub(super) async fn refusal<B>(row: &CloudConfig, response: Response<B>) -> Refusal
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = response.into_parts();
    if !head.status.is_client_error() && !head.status.is_server_error() {
        return garbage(&format!("an answer with status {}", head.status.as_u16()));
    }
    let mut told = Told::of_head(&head.headers);
    let body = timeout(ERROR_WAIT, Limited::new(body, ERROR_BYTES_MAX).collect()).await;
    if let Ok(Ok(body)) = body
        && let Ok(body) = serde_json::from_slice(&body.to_bytes())
    {
        told.collect(&body);
    }
    let after = retry_after(&head.headers, SystemTime::now()).or(told.retry_after);
    let mut refusal = told.refusal(head.status, "the cloud did not take the request");
    let backpressure = matches!(head.status.as_u16(), 429 | 503 | 529);
    if let Some(after) = after.filter(|_| backpressure) {
        refusal = refusal.with_retry_after(after.min(RETRY_AFTER_MAX));
        if refusal.reason == Reason::Cloud(Fault::Failed) {
            refusal.reason = Reason::Cloud(Fault::Throttled);
        }
    }
    if let Reason::Cloud(Fault::Credentials | Fault::NotFound | Fault::Quota) = refusal.reason {
        let (cloud, status, names) = (&*row.name, head.status.as_u16(), told.names.join(", "));
        tracing::error!(cloud, status, names, "the cloud refuses this configuration");
    }
    refusal
}

/// What an error says of itself.
#[derive(Default)]
struct Told {
    /// Its names, as the table has them. No text of a message: that may quote the prompt.
    names: Vec<&'static str>,
    status: Option<StatusCode>,
    /// What a container behind SageMaker answered, which hands it on within an error of its own.
    original: Option<StatusCode>,
    clock: bool,
    route: bool,
    retry_after: Option<Duration>,
}

/// How deep an error's names may lie: Google's `[0].error.details[0].retryDelay` is five.
const DEPTH_MAX: usize = 6;

impl Told {
    fn of_head(headers: &HeaderMap) -> Self {
        let mut told = Self::default();
        if let Some(name) = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok()) {
            told.name(name);
        }
        told
    }

    fn collect(&mut self, body: &Value) {
        self.collect_within(body, DEPTH_MAX);
    }

    fn collect_within(&mut self, value: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        match value {
            Value::Array(all) => all.iter().for_each(|one| self.collect_within(one, depth)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.field(key, value, depth);
                }
            }
            _ => {}
        }
    }

    fn field(&mut self, key: &str, value: &Value, depth: usize) {
        match (key, value) {
            (
                "code" | "type" | "__type" | "error_type" | "status" | "reason" | "Code",
                Value::String(name),
            ) => {
                self.name(name);
                // Oracle writes the status as a name, Azure as text where it has no name.
                self.status(name.parse().ok());
            }
            // OpenRouter's way to say that a provider's moderation refused the prompt.
            ("flagged_input", _) => self.name("content_filter"),
            ("code" | "status", Value::Number(number)) => {
                self.status(number.as_u64().and_then(|code| u16::try_from(code).ok()));
            }
            ("message" | "Message", Value::String(text)) => {
                self.clock |= CLOCK_WORDS.iter().any(|words| text.contains(words));
                let all = |words: &&[&str]| words.iter().all(|part| text.contains(part));
                self.route |= ROUTE_WORDS.iter().any(all);
            }
            ("OriginalStatusCode", Value::Number(number)) => {
                let status = number.as_u64().and_then(|code| u16::try_from(code).ok());
                let status = status.filter(|code| (400..600).contains(code));
                self.original = status.and_then(|code| StatusCode::from_u16(code).ok());
            }
            ("retryDelay", Value::String(text)) => {
                let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok());
                self.retry_after = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
            }
            _ => self.collect_within(value, depth),
        }
    }

    /// The first that is one of an error counts.
    fn status(&mut self, code: Option<u16>) {
        let code = code.filter(|code| (400..600).contains(code));
        self.status = self.status.or(code.and_then(|code| StatusCode::from_u16(code).ok()));
    }

    /// AWS writes `name:URL` in a header and `namespace#name` in a body.
    fn name(&mut self, written: &str) {
        let name = written.split(':').next().unwrap_or_default();
        let name = name.rsplit('#').next().unwrap_or_default().trim();
        let mut known = NAMES.iter().flat_map(|(_, names)| *names);
        self.names.extend(known.find(|known| known.eq_ignore_ascii_case(name)));
    }

    fn fault(&self, status: StatusCode) -> Fault {
        let named = |(_, names): &&(Fault, &[&str])| names.iter().any(|n| self.names.contains(n));
        let by_status = || by_status(self.original.unwrap_or(status));
        match NAMES.iter().find(named).map_or_else(by_status, |(fault, _)| *fault) {
            Fault::Credentials if self.clock => Fault::Clock,
            Fault::Request if self.route => Fault::NotFound,
            fault => fault,
        }
    }

    fn refusal(&self, status: StatusCode, message: &str) -> Refusal {
        let detail = format!("status {}, {}", status.as_u16(), self.names.join(", "));
        Refusal::new(Reason::Cloud(self.fault(status)), message)
            .with_source(std::io::Error::other(detail))
    }
}

/// What a status alone tells.
fn by_status(status: StatusCode) -> Fault {
    match status.as_u16() {
        401 | 403 => Fault::Credentials,
        402 => Fault::Quota,
        404 | 410 => Fault::NotFound,
        408 | 424 | 425 => Fault::Failed,
        429 | 529 => Fault::Throttled,
        400..500 => Fault::Request,
        _ => Fault::Failed,
    }
}

/// `retry-after-ms`, or `retry-after` in seconds or as a date; capped.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
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

    fn fault(status: u16, name: &str) -> Fault {
        let mut told = Told::default();
        told.collect(&serde_json::json!({"error": {"code": name, "type": "server_error"}}));
        told.fault(StatusCode::from_u16(status).unwrap())
    }

    #[test]
    fn every_name_means_what_the_table_says_whatever_the_status() {
        for (expected, names) in NAMES {
            for name in names {
                assert_eq!(fault(400, name), expected, "{name}");
                assert_eq!(fault(500, name), expected, "{name}");
            }
        }
    }

    #[test]
    fn without_a_known_name_the_status_tells() {
        let cases = [
            (400, Fault::Request),
            (401, Fault::Credentials),
            (402, Fault::Quota),
            (403, Fault::Credentials),
            (404, Fault::NotFound),
            (408, Fault::Failed),
            (413, Fault::Request),
            (422, Fault::Request),
            (424, Fault::Failed),
            (429, Fault::Throttled),
            (500, Fault::Failed),
            (503, Fault::Failed),
            (529, Fault::Throttled),
        ];
        for (status, expected) in cases {
            assert_eq!(fault(status, "something_new"), expected, "{status}");
        }
    }

    #[test]
    fn the_graver_of_two_names_counts() {
        let mut told = Told::default();
        told.collect(&serde_json::json!({
            "error": {"type": "rate_limit_error", "code": "insufficient_quota"},
        }));
        assert_eq!(told.fault(StatusCode::TOO_MANY_REQUESTS), Fault::Quota);
    }

    #[test]
    fn a_signature_out_of_time_is_the_clock() {
        let message = "Signature expired: 20261121T000000Z is now earlier than 20261121T001500Z";
        let mut told = Told::default();
        told.name("InvalidSignatureException:http://internal.amazon.com/coral/");
        told.collect(&serde_json::json!({ "message": message }));
        assert_eq!(told.fault(StatusCode::FORBIDDEN), Fault::Clock);
    }

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
