//! A small exchange as a whole: what token endpoints and metadata services are asked with.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::Request;
use hyper::header::{self, HeaderValue};
use hyper::http::response::Parts;

use super::{BoxError, Egress, Way};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("there is no connection, or none that lasts")]
    Connection(#[source] hyper_util::client::legacy::Error),
    #[error("the answer broke off")]
    Cut(#[source] BoxError),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the answer is compressed, which nobody asked for")]
    Compressed,
}

impl Egress {
    /// Sends one request and waits for all of the answer, whatever its status is: at most
    /// `body_max` bytes within `timeout`, connecting included. A redirect is an answer.
    pub(crate) async fn call(
        &self,
        mut request: Request<Full<Bytes>>,
        way: Way,
        body_max: usize,
        timeout: Duration,
    ) -> Result<(Parts, Bytes), CallError> {
        let identity = HeaderValue::from_static("identity");
        request.headers_mut().insert(header::ACCEPT_ENCODING, identity);
        let exchange = self.exchange(request, way, body_max);
        tokio::time::timeout(timeout, exchange).await.map_err(|_| CallError::Timeout(timeout))?
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        way: Way,
        body_max: usize,
    ) -> Result<(Parts, Bytes), CallError> {
        let response = self.send(request, way).await.map_err(CallError::Connection)?;
        let (head, body) = response.into_parts();
        let encoding = head.headers.get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(CallError::Compressed);
        }
        match Limited::new(body, body_max).collect().await {
            Ok(body) => Ok((head, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLong(body_max)),
            Err(error) => Err(CallError::Cut(error)),
        }
    }
}
