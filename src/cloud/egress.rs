//! The one door out: an HTTP client that dials only the origins the operator configured.
//!
//! It exists only when a `[[cloud]]` row does. It follows no redirect (the client below it knows
//! none), reads no proxy from the environment, and checks the allow-list where the connection is
//! made, so nothing above can get around it.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tower::Service;

use crate::config::CloudConfig;

/// An idle connection is closed before the usual server timeout of 5 s can race our next use.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept per origin: the default `max_in_flight` of a row.
const POOL_IDLE_MAX: usize = 64;
const RESPONSE_HEADERS_MAX: usize = 64;
/// Response head (and read buffer) of an HTTP/1 connection.
const HTTP1_BUFFER_MAX: usize = 64 * 1024;
const HTTP2_HEADER_LIST_MAX: u32 = 64 * 1024;
/// A silent HTTP/2 connection is probed this often, and given up when a probe stays unanswered.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(20);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

type BoxError = Box<dyn Error + Send + Sync>;

/// The client. Cheap to clone through its `Arc`; one per process.
pub(crate) struct Egress {
    client: Client<Dial, Full<Bytes>>,
}

#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("the host's certificate store cannot be read")]
    Roots(#[source] std::io::Error),
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("`base_url` of cloud {0:?} needs http or https and a host")]
    Origin(Arc<str>),
    #[error("the key of cloud {0:?} has characters that no header can carry")]
    Key(Arc<str>),
}

impl Egress {
    /// A client for the origins of these rows. Reads the host's certificates only when a row
    /// speaks https.
    pub(crate) fn new(rows: &[CloudConfig]) -> Result<Self, EgressError> {
        let mut allowed: HashMap<Origin, Duration> = HashMap::new();
        for row in rows {
            let origin =
                Origin::of(&row.base_url).ok_or_else(|| EgressError::Origin(row.name.clone()))?;
            // Two rows of one origin share connections, so also the longer patience.
            let limit = allowed.entry(origin).or_default();
            *limit = row.connect_timeout.max(*limit);
        }
        let tls = tls(allowed.keys().any(|origin| origin.tls))?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .http1_max_headers(RESPONSE_HEADERS_MAX)
            .http1_max_buf_size(HTTP1_BUFFER_MAX)
            .http2_max_header_list_size(HTTP2_HEADER_LIST_MAX)
            .http2_keep_alive_interval(HTTP2_PING_EVERY)
            .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT)
            .build(Dial { https, allowed: Arc::new(allowed) });
        Ok(Self { client })
    }

    /// Sends one request and waits for the response head. Dropping the future, or later the
    /// body, aborts the exchange.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        self.client.request(request).await
    }
}

fn tls(with_roots: bool) -> Result<ClientConfig, EgressError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(EgressError::Tls)?;
    let builder = if with_roots {
        builder.with_native_roots().map_err(EgressError::Roots)?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}

/// What a connection is made to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Some(Self { tls, host: uri.host()?.to_ascii_lowercase(), port })
    }
}

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0} is not the origin of a configured cloud")]
    NotAllowed(Uri),
    #[error("no connection within {0:?}")]
    Timeout(Duration),
}

/// The connector: allow-list first, then name resolution, TCP and TLS under one timeout.
#[derive(Clone)]
struct Dial {
    https: HttpsConnector<HttpConnector>,
    /// Origin to connect timeout.
    allowed: Arc<HashMap<Origin, Duration>>,
}

impl Service<Uri> for Dial {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let limit = Origin::of(&to).and_then(|origin| self.allowed.get(&origin).copied());
        let Some(limit) = limit else {
            return Box::pin(async move { Err(DialError::NotAllowed(to).into()) });
        };
        let connecting = self.https.call(to);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(DialError::Timeout(limit).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::cloud::tests::row;

    fn get(uri: &str) -> Request<Full<Bytes>> {
        Request::get(uri).body(Full::default()).unwrap()
    }

    fn chain(error: &dyn Error) -> String {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            text += &format!(": {source}");
            next = source.source();
        }
        text
    }

    /// Answers every connection's first request with `head`, and counts connections.
    async fn listener(head: &'static str) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialled = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = dialled.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    let _ = stream.read(&mut buffer).await;
                    let _ = stream.write_all(head.as_bytes()).await;
                });
            }
        });
        (port, dialled)
    }

    #[tokio::test]
    async fn only_configured_origins_are_dialled() {
        let (port, dialled) = listener("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let (other, other_dialled) = listener("HTTP/1.1 200 OK\r\n\r\n").await;
        let egress = Egress::new(&[row(&format!("http://127.0.0.1:{port}/v1"))]).unwrap();
        let ok = egress.send(get(&format!("http://127.0.0.1:{port}/any"))).await.unwrap();
        assert_eq!(ok.status(), 200);
        for uri in [
            format!("http://127.0.0.1:{other}/v1"),
            format!("http://localhost:{port}/v1"),
            format!("https://127.0.0.1:{port}/v1"),
            "http://169.254.169.254/latest/meta-data".to_owned(),
        ] {
            let refused = egress.send(get(&uri)).await.unwrap_err();
            assert!(chain(&refused).contains("not the origin"), "{uri}: {}", chain(&refused));
        }
        assert_eq!(dialled.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert_eq!(other_dialled.load(std::sync::atomic::Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_not_followed() {
        let (target, dialled) = listener("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let head = format!(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{target}/\r\ncontent-length: 0\r\n\r\n"
        );
        let (port, _) = listener(head.leak()).await;
        let rows = [port, target].map(|port| row(&format!("http://127.0.0.1:{port}/v1")));
        let egress = Egress::new(&rows).unwrap();
        let answer = egress.send(get(&format!("http://127.0.0.1:{port}/v1"))).await.unwrap();
        assert_eq!(answer.status(), 302);
        assert_eq!(dialled.load(std::sync::atomic::Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_hanging_tls_handshake_ends_at_the_connect_timeout() {
        // Accepts and says nothing: TCP connects, TLS never does.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut row = row(&format!("https://{}/v1", silent.local_addr().unwrap()));
        row.connect_timeout = Duration::from_millis(100);
        let egress = Egress::new(std::slice::from_ref(&row)).unwrap();
        let started = Instant::now();
        let error = egress.send(get(&row.base_url.to_string())).await.unwrap_err();
        assert!(error.is_connect(), "{}", chain(&error));
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn response_heads_are_bounded() {
        let many =
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(RESPONSE_HEADERS_MAX + 1));
        let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(2 * HTTP1_BUFFER_MAX));
        for head in [many, long] {
            let (port, _) = listener(head.leak()).await;
            let uri = format!("http://127.0.0.1:{port}/v1");
            let egress = Egress::new(&[row(&uri)]).unwrap();
            assert!(egress.send(get(&uri)).await.is_err());
        }
    }

    #[test]
    fn an_origin_needs_scheme_and_host() {
        assert!(matches!(Egress::new(&[row("/v1")]), Err(EgressError::Origin(_))));
        assert!(matches!(Egress::new(&[row("ftp://a/v1")]), Err(EgressError::Origin(_))));
        let of = |uri: &str| Origin::of(&uri.parse().unwrap());
        assert_eq!(of("https://A.example/v1"), of("https://a.example:443"));
        assert_ne!(of("https://a.example"), of("http://a.example"));
    }
}
