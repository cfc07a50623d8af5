//! What each provider says when it refuses a request, in its own words.

use serde_json::{Value, json};

use super::wires::Family;

/// A kind of refusal, as weir tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Throttled,
    Quota,
    Credentials,
    Request,
    Filtered,
    NotFound,
    Failed,
    Clock,
}

/// Status, the provider's own header lines, and the body. None: it has no such answer.
pub(crate) fn told(family: Family, kind: Kind) -> Option<(u16, String, Value)> {
    match family {
        Family::OpenAi => openai(kind),
        Family::Azure => azure(kind),
        Family::Mistral => mistral(kind),
        Family::OpenRouter => openrouter(kind),
        Family::Aws => aws(kind),
        Family::Google => google(kind),
        Family::Oracle => oracle(kind),
    }
    .map(|(status, body)| {
        let name = body["errorType"].as_str().map(|name| format!("x-amzn-ErrorType: {name}\r\n"));
        let body = if name.is_some() { json!({"message": body["message"]}) } else { body };
        (status, name.unwrap_or_default(), body)
    })
}

fn openai(kind: Kind) -> Option<(u16, Value)> {
    let (status, code) = match kind {
        Kind::Throttled => (429, "rate_limit_exceeded"),
        Kind::Quota => (429, "insufficient_quota"),
        Kind::Credentials => (401, "invalid_api_key"),
        Kind::Request => (400, "context_length_exceeded"),
        Kind::Filtered => (400, "content_policy_violation"),
        Kind::NotFound => (404, "model_not_found"),
        Kind::Failed => (500, "server_error"),
        Kind::Clock => return None,
    };
    Some((status, json!({"error": {"message": "no", "type": "x", "param": null, "code": code}})))
}

fn azure(kind: Kind) -> Option<(u16, Value)> {
    let (status, code) = match kind {
        Kind::Throttled => (429, "RateLimitReached"),
        Kind::Quota => (429, "insufficient_quota"),
        Kind::Credentials => (401, "401"),
        Kind::Request => (400, "context_length_exceeded"),
        Kind::Filtered => (400, "content_filter"),
        Kind::NotFound => (404, "DeploymentNotFound"),
        Kind::Failed => (500, "InternalServerError"),
        Kind::Clock => return None,
    };
    Some((status, json!({"error": {"message": "no", "code": code}})))
}

fn mistral(kind: Kind) -> Option<(u16, Value)> {
    let error = |kind: &str, code: &str| json!({"object": "error", "message": "no", "type": kind, "code": code});
    Some(match kind {
        Kind::Throttled => (429, error("rate_limited", "1300")),
        Kind::Quota => (402, json!({"detail": "no"})),
        Kind::Credentials => (401, json!({"detail": "Unauthorized"})),
        Kind::Request => (422, json!({"detail": [{"type": "extra_forbidden", "msg": "no"}]})),
        Kind::NotFound => (400, error("invalid_model", "1500")),
        Kind::Failed => (503, error("unreachable_backend", "1100")),
        Kind::Filtered | Kind::Clock => return None,
    })
}

fn openrouter(kind: Kind) -> Option<(u16, Value)> {
    let status = match kind {
        Kind::Throttled => 429,
        Kind::Quota => 402,
        Kind::Credentials => 401,
        Kind::Request => 400,
        Kind::NotFound => 404,
        Kind::Failed => 502,
        Kind::Filtered => {
            let metadata = json!({"reasons": ["x"], "flagged_input": "let"});
            let error = json!({"message": "no", "code": 403, "metadata": metadata});
            return Some((403, json!({ "error": error })));
        }
        Kind::Clock => return None,
    };
    Some((status, json!({"error": {"message": "no", "code": status}})))
}

fn aws(kind: Kind) -> Option<(u16, Value)> {
    let (status, name, message) = match kind {
        Kind::Throttled => (429, "ThrottlingException", "Too many requests"),
        Kind::Quota => (400, "ServiceQuotaExceededException", "no"),
        Kind::Credentials => (403, "UnrecognizedClientException", "The token is invalid."),
        Kind::Request => (400, "ValidationException", "Malformed input request"),
        Kind::NotFound => (404, "ResourceNotFoundException", "Could not resolve the model."),
        Kind::Failed => (500, "InternalServerException", "no"),
        Kind::Clock => (403, "InvalidSignatureException", "Signature expired: x is now earlier"),
        Kind::Filtered => return None,
    };
    let name = format!("{name}:http://internal.amazon.com/coral/");
    Some((status, json!({"errorType": name, "message": message})))
}

fn google(kind: Kind) -> Option<(u16, Value)> {
    let (code, status) = match kind {
        Kind::Throttled => (429, "RESOURCE_EXHAUSTED"),
        Kind::Quota => (403, "PERMISSION_DENIED"),
        Kind::Credentials => (401, "UNAUTHENTICATED"),
        Kind::Request => (400, "INVALID_ARGUMENT"),
        Kind::NotFound => (404, "NOT_FOUND"),
        Kind::Failed => (500, "INTERNAL"),
        Kind::Filtered | Kind::Clock => return None,
    };
    let reason = if kind == Kind::Quota { "BILLING_DISABLED" } else { "OTHER" };
    let error =
        json!({"code": code, "message": "no", "status": status, "details": [{"reason": reason}]});
    Some((code, json!({ "error": error })))
}

fn oracle(kind: Kind) -> Option<(u16, Value)> {
    let (status, code, message) = match kind {
        Kind::Throttled => (429, "TooManyRequests", "Throttled"),
        Kind::Quota => (400, "QuotaExceeded", "no"),
        Kind::Credentials => (401, "NotAuthenticated", "no"),
        Kind::Request => (400, "InvalidParameter", "no"),
        Kind::NotFound => (404, "NotAuthorizedOrNotFound", "no"),
        Kind::Failed => (500, "InternalServerError", "Internal error"),
        Kind::Clock => (401, "NotAuthenticated", "the date is not within the allowed skew"),
        Kind::Filtered => return None,
    };
    Some((status, json!({"code": code, "message": message})))
}
