//! `GET /v1/usage`: what the caller's requests to clouds were and cost, per day and cloud.

use std::sync::Arc;

use axum::extract::Extension;
use axum::http::Uri;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Service;
use super::error::ApiError;
use super::live::Live;
use super::tenant::TenantId;
use crate::ledger::audit::{self, UsageLine};

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    data: Vec<UsageLine>,
}

/// `?since=2026-11-21`: the first day that is asked for; without it the last 31 days.
pub(super) async fn get<S: Service>(
    Extension(live): Extension<Arc<Live<S>>>,
    Extension(TenantId(tenant)): Extension<TenantId>,
    uri: Uri,
) -> Response {
    let since = match since(uri.query().unwrap_or_default()) {
        Ok(since) => since,
        Err(error) => return error.into_response(),
    };
    // Each tenant sees its own; where nobody has a key there is nobody to hide it from.
    let keyed = live.rules.ask_for_keys();
    let tenant = keyed.then(|| live.rules.tenant(tenant).name.clone());
    match live.service.usage(tenant, since).await {
        Ok(data) => {
            let answer = Answer { object: "list", data };
            let body = serde_json::to_vec(&answer).expect("strings and numbers serialise");
            ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the ledger cannot be read");
            ApiError::unreadable("the ledger cannot be read; the log says why").into_response()
        }
    }
}

fn since(query: &str) -> Result<Option<i64>, ApiError> {
    let parameters = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut since = None;
    for (_, value) in parameters.filter(|(name, _)| *name == "since") {
        let wrong = || ApiError::invalid("since", "must be a day as in 2026-11-21");
        since = Some(audit::day(value).ok_or_else(wrong)?);
    }
    Ok(since)
}

#[cfg(test)]
mod tests {
    use super::since;

    #[test]
    fn the_first_day_is_read_from_the_query() {
        assert_eq!(since("").unwrap(), None);
        assert_eq!(since("other=1").unwrap(), None);
        assert_eq!(since("other=1&since=1970-01-02").unwrap(), Some(1));
        assert_eq!(since("since=yesterday").unwrap_err().message, "must be a day as in 2026-11-21");
    }
}
