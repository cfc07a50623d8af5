//! The doors of a weir that runs, as a command asks them: one small exchange at a time.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, Uri};

use super::egress::{Egress, EgressError, Way};
use crate::config::{CloudConfig, Secret};

/// Largest answer: a list of 64 clouds is a hundredth of it.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// For a whole exchange, connecting included.
const PATIENCE: Duration = Duration::from_secs(30);

/// A weir at an address.
pub struct Remote {
    /// Up to and including `/v1`.
    base: Uri,
    key: Option<Secret>,
    egress: Egress,
    way: Way,
}

/// What is asked of it.
pub struct Question<'a> {
    pub method: Method,
    /// Behind `/v1`.
    pub path: &'a str,
    pub headers: Vec<(&'static str, &'a str)>,
    /// JSON; empty: none.
    pub body: Vec<u8>,
}

/// What it said, whatever that is.
pub struct Said {
    pub status: u16,
    pub body: Bytes,
}

/// Why it said nothing.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{0}")]
    Url(String),
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error("a header cannot hold what it should")]
    Header(#[source] hyper::http::Error),
    #[error("no weir answers at {0}")]
    Silent(Uri, #[source] Box<dyn Error + Send + Sync>),
}

impl Remote {
    /// Asks nothing yet.
    pub fn new(url: &Uri, key: Option<Secret>) -> Result<Self, RemoteError> {
        let row = CloudConfig::of_peer(url).map_err(RemoteError::Url)?;
        let mut egress = Egress::builder();
        let way = egress.row(&row)?;
        Ok(Self { base: row.base_url, key, egress: egress.build(), way })
    }

    pub async fn ask(&self, question: Question<'_>) -> Result<Said, RemoteError> {
        let Question { method, path, headers, body } = question;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {}", key.expose()));
        }
        let request = request.body(Full::from(body)).map_err(RemoteError::Header)?;
        let called = self.egress.call(request, self.way, ANSWER_BYTES_MAX, PATIENCE).await;
        let silent = |error| RemoteError::Silent(self.base.clone(), Box::new(error));
        let (head, body) = called.map_err(silent)?;
        Ok(Said { status: head.status.as_u16(), body })
    }
}
