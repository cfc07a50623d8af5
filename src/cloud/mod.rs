//! Remote backends: OpenAI-shaped clouds.
//!
//! [`Provider`] is one `[[cloud]]` row. A request is rendered by [`wire`], leaves through
//! [`egress`], and its answer is read by [`stream`]: bytes to events by [`sse`], events to ours by
//! [`reply`], each choice cleaned and cut by [`choice`].

mod choice;
mod clean;
mod egress;
mod reply;
mod sse;
mod status;
mod stream;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
pub use egress::EgressError;
use egress::{Egress, Way};
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Uri};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::completion::compliance::Declared;
use crate::completion::{Backend, CompletionRequest, CompletionStream, Reason, Refusal};
use crate::config::{CloudConfig, CloudFim};
use crate::money::Asked;
use reply::Reply;
use stream::{Reading, Timing};
use wire::{Rendered, Shape};

/// One cloud row.
pub struct Provider {
    row: CloudConfig,
    egress: Arc<Egress>,
    way: Way,
    /// One permit per exchange; the stream holds it.
    in_flight: Arc<Semaphore>,
    completions: Uri,
    chat: Uri,
    authorization: Option<HeaderValue>,
}

/// A provider for every row, all behind one client. No row, no client.
pub fn providers(rows: &[CloudConfig]) -> Result<Vec<Provider>, EgressError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut egress = Egress::builder();
    let ways: Vec<Way> = rows.iter().map(|row| egress.row(row)).collect::<Result<_, _>>()?;
    let egress = Arc::new(egress.build());
    let rows = rows.iter().zip(ways);
    rows.map(|(row, way)| Provider::new(row, egress.clone(), way)).collect()
}

impl Provider {
    fn new(row: &CloudConfig, egress: Arc<Egress>, way: Way) -> Result<Self, EgressError> {
        let bad = || EgressError::Origin(row.name.clone());
        let authorization = match &row.api_key {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
                    .map_err(|_| EgressError::Key(row.name.clone()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self {
            completions: under(&row.base_url, "completions").ok_or_else(bad)?,
            chat: under(&row.base_url, "chat/completions").ok_or_else(bad)?,
            in_flight: Arc::new(Semaphore::new(row.max_in_flight.min(Semaphore::MAX_PERMITS))),
            row: row.clone(),
            egress,
            way,
            authorization,
        })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.row.name
    }

    /// What the operator says it is.
    pub fn declared(&self) -> &Declared {
        &self.row.declared
    }

    /// The row as it was configured.
    pub fn row(&self) -> &CloudConfig {
        &self.row
    }

    /// What a request would be here, without rendering it; or why it cannot be one.
    pub fn quote(&self, request: &CompletionRequest) -> Result<Asked, Refusal> {
        wire::quote(request, &self.row)
    }

    /// The request as it leaves. Nothing of the client's own headers is in it.
    fn outgoing(&self, id: &str, rendered: &Rendered) -> Request<Full<Bytes>> {
        let uri = match rendered.shape {
            Shape::Completion => &self.completions,
            Shape::Chat => &self.chat,
        };
        let mut request = Request::post(uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "text/event-stream")
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(rendered.body.clone()))
            .expect("constant headers are valid");
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        // An id that a client chose may name somebody, so only another weir of its own gets it.
        let told = self.row.fim == CloudFim::Peer || is_our_own(id);
        if let (true, Ok(id)) = (told, HeaderValue::from_str(id)) {
            request.headers_mut().insert("x-request-id", id);
        }
        request
    }
}

impl Backend for Provider {
    /// Returns once the cloud answered 200 with an event stream. The stream's first event may
    /// still be [`Failed`](crate::completion::Event::Failed); nothing was promised until then.
    async fn complete(&self, request: Arc<CompletionRequest>) -> Result<CompletionStream, Refusal> {
        let rendered = wire::render(&request, &self.row)?;
        let permit = self.in_flight.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(Reason::CloudBusy, "the cloud has all the requests it may have")
        })?;
        let started = Instant::now();
        let timing = Timing::new(&self.row, request.deadline, started);
        let sending = self.egress.send(self.outgoing(&request.id, &rendered), self.way);
        let response = timeout_at(timing.first_due(), sending)
            .await
            .map_err(|_| timing.late(Instant::now()))?
            .map_err(unreachable)?;
        status::check(&self.row, &response)?;
        let bytes_max = stream::bytes_max(rendered.max_tokens, request.n);
        let reply = Reply::new(&request, &rendered);
        let reading = Reading::new(response.into_body(), permit, reply, timing, bytes_max);
        Ok(CompletionStream {
            model: self.row.model.clone(),
            truncated: false,
            events: Box::pin(reading.into_stream()),
        })
    }
}

/// Whether an id is one that weir gave to a request without: `req_` and 32 digits.
fn is_our_own(id: &str) -> bool {
    id.strip_prefix("req_").is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

fn unreachable(error: hyper_util::client::legacy::Error) -> Refusal {
    Refusal::new(Reason::CloudUnreachable, "the cloud cannot be reached").with_source(error)
}

/// `base_url` with `route` appended to its path.
fn under(base: &Uri, route: &str) -> Option<Uri> {
    let authority = base.authority()?.as_str();
    let path = base.path().trim_end_matches('/');
    format!("{}://{authority}{path}/{route}", base.scheme_str()?).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Budget, Connection};

    /// A row with short timeouts.
    pub(super) fn row(base_url: &str) -> CloudConfig {
        CloudConfig {
            name: "burst".into(),
            base_url: base_url.parse().unwrap(),
            api_key: None,
            model: "coder".into(),
            fim: CloudFim::Suffix,
            max_tokens: 64,
            max_in_flight: 4,
            connect_timeout: Duration::from_millis(500),
            first_token_timeout: Duration::from_millis(500),
            idle_timeout: Duration::from_millis(500),
            declared: Declared::default(),
            budget: Budget::default(),
            price: None,
            connection: Connection::default(),
        }
    }

    #[test]
    fn without_rows_there_is_no_client() {
        assert!(providers(&[]).unwrap().is_empty());
    }

    #[test]
    fn routes_are_appended_to_the_base() {
        let at = |base: &str| under(&base.parse().unwrap(), "completions").unwrap().to_string();
        assert_eq!(at("http://h:9000/v1"), "http://h:9000/v1/completions");
        assert_eq!(at("https://h/a/v1/"), "https://h/a/v1/completions");
        assert_eq!(at("https://h"), "https://h/completions");
    }
}
