//! The one door out: an HTTP client that dials only the origins the operator configured.
//!
//! It exists only when a `[[cloud]]` row does. It follows no redirect (the client below it knows
//! none), unpacks nothing, reads no proxy from the environment, and checks the allow-list where
//! the connection is made, so nothing above can get around it.
//!
//! A [`Builder`] is told every origin first and hands out a [`Way`] for each; then the allow-list
//! is closed. Ways of the same proxy, roots and client certificate share a client and its
//! connections; others never do.

#[cfg_attr(
    not(any(feature = "aws", feature = "azure", feature = "google")),
    allow(dead_code, reason = "only these families have credentials that end")
)]
mod call;
mod dial;
#[cfg(test)]
pub(crate) mod memory;
mod origin;
mod proxy;
mod reach;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio_rustls::TlsConnector;

#[cfg(test)]
pub(crate) use self::call::CallError;
use self::dial::{Dial, Line, Wire};
pub(crate) use self::origin::Origin;
use self::reach::Reach;
use self::tls::Tls;
use crate::config::{CloudConfig, Connection};

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

/// The client. Cheap to clone through its `Arc`; one for all rows that were configured together.
pub(crate) struct Egress {
    /// One for each connection profile; a [`Way`] is a place in it.
    clients: Vec<Client<Dial, Full<Bytes>>>,
}

/// How a registered origin is connected to; valid for the [`Egress`] of the same [`Builder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way(usize);

#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("the host's certificate store has no certificate that can be read")]
    Roots,
    #[error("TLS cannot be set up")]
    Tls(#[source] Box<rustls::Error>),
    #[error("a certificate of the `ca_file` for {0} cannot be used")]
    Authority(Arc<str>, #[source] Box<rustls::Error>),
    #[error("the client certificate or its key for {0} cannot be used")]
    Identity(Arc<str>, #[source] Box<rustls::Error>),
    #[error("{0} needs http or https and a host (an address in its usual form)")]
    NotAnOrigin(Arc<str>),
    #[error(
        "{0} may not be dialled: link-local addresses are for the metadata services that a credential source uses"
    )]
    LinkLocal(Arc<str>),
    #[error("{0} is http, and proxies are asked for https only")]
    ProxyInClear(Arc<str>),
    #[error("`base_url` of cloud {0:?} needs http or https and a host")]
    Origin(Arc<str>),
    #[error("the key of cloud {0:?} has characters that no header can carry")]
    Key(Arc<str>),
}

impl Egress {
    /// Nothing is allowed yet.
    pub(crate) fn builder() -> Builder {
        Builder {
            profiles: Vec::new(),
            tls: Tls::default(),
            #[cfg(test)]
            network: None,
        }
    }

    /// Like [`Egress::builder`], over pipes within the process.
    #[cfg(test)]
    pub(crate) fn builder_in_memory(network: memory::Network) -> Builder {
        Builder { network: Some(network), ..Self::builder() }
    }

    /// Sends one request and waits for the response head. Dropping the future, or later the
    /// body, aborts the exchange.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        way: Way,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        self.clients[way.0].request(request).await
    }
}

/// Collects what may be reached.
pub(crate) struct Builder {
    profiles: Vec<Profile>,
    tls: Tls,
    #[cfg(test)]
    network: Option<memory::Network>,
}

/// What connections are made alike, and shared by whoever needs one like that.
struct Profile {
    connection: Connection,
    reach: Reach,
    /// Origin to connect timeout.
    allowed: HashMap<Origin, Duration>,
    /// None: no origin speaks https.
    tls: Option<TlsConnector>,
}

impl Builder {
    /// The way to a row. Reads the host's certificates when it is the first that needs them.
    pub(crate) fn row(&mut self, row: &CloudConfig) -> Result<Way, EgressError> {
        self.allow(&row.base_url, row.connect_timeout, &row.connection)
    }

    /// The way to another origin than a row's: a token endpoint, for example.
    pub(crate) fn allow(
        &mut self,
        uri: &Uri,
        connect_timeout: Duration,
        connection: &Connection,
    ) -> Result<Way, EgressError> {
        self.register(uri, connect_timeout, connection, Reach::Network)
    }

    /// The way to a metadata service at 169.254.169.254, 169.254.170.2, 169.254.170.23, their
    /// IPv6 addresses or `metadata.google.internal`, for a credential source that uses it.
    #[cfg(any(test, feature = "aws", feature = "azure", feature = "google"))]
    pub(crate) fn allow_metadata(
        &mut self,
        uri: &Uri,
        connect_timeout: Duration,
    ) -> Result<Way, EgressError> {
        self.register(uri, connect_timeout, &Connection::default(), Reach::Metadata)
    }

    /// The way to whoever grants credentials: a metadata service, or another service.
    #[cfg(any(feature = "aws", feature = "azure", feature = "google"))]
    pub(crate) fn allow_credentials(
        &mut self,
        uri: &Uri,
        connect_timeout: Duration,
        connection: &Connection,
    ) -> Result<Way, EgressError> {
        let is_metadata = Origin::of(uri).is_some_and(|origin| Reach::Metadata.permits(&origin));
        if is_metadata {
            return self.allow_metadata(uri, connect_timeout);
        }
        // The certificate that a cloud knows us by is none of theirs, and nothing on this machine
        // is reached through a proxy.
        let connection = match uri.scheme_str() {
            Some("http") => Connection::default(),
            _ => Connection { identity: None, ..connection.clone() },
        };
        self.allow(uri, connect_timeout, &connection)
    }

    fn register(
        &mut self,
        uri: &Uri,
        connect_timeout: Duration,
        connection: &Connection,
        reach: Reach,
    ) -> Result<Way, EgressError> {
        let origin = Origin::of(uri).ok_or_else(|| EgressError::NotAnOrigin(told(uri)))?;
        if !reach.permits(&origin) {
            return Err(EgressError::LinkLocal(told(uri)));
        }
        if connection.proxy.is_some() && !origin.tls {
            return Err(EgressError::ProxyInClear(told(uri)));
        }
        let way = self.profile(connection, reach);
        if origin.tls && self.profiles[way].tls.is_none() && self.speaks_tls() {
            let made = self.tls.connector(connection, &origin.host)?;
            self.profiles[way].tls = Some(made);
        }
        // Two of one origin share connections, so also the longer patience.
        let limit = self.profiles[way].allowed.entry(origin).or_default();
        *limit = connect_timeout.max(*limit);
        Ok(Way(way))
    }

    fn profile(&mut self, connection: &Connection, reach: Reach) -> usize {
        let alike = |profile: &Profile| profile.connection == *connection && profile.reach == reach;
        self.profiles.iter().position(alike).unwrap_or_else(|| {
            self.profiles.push(Profile {
                connection: connection.clone(),
                reach,
                allowed: HashMap::new(),
                tls: None,
            });
            self.profiles.len() - 1
        })
    }

    #[cfg(not(test))]
    fn speaks_tls(&self) -> bool {
        true
    }

    #[cfg(test)]
    fn speaks_tls(&self) -> bool {
        self.network.as_ref().is_none_or(memory::Network::speaks_tls)
    }

    #[cfg(not(test))]
    fn wire(&self, reach: Reach) -> Wire {
        Wire::tcp(reach)
    }

    #[cfg(test)]
    fn wire(&self, reach: Reach) -> Wire {
        self.network.clone().map_or_else(|| Wire::tcp(reach), Wire::Memory)
    }

    /// Closes the allow-list.
    pub(crate) fn build(mut self) -> Egress {
        let profiles = std::mem::take(&mut self.profiles);
        let dial = |profile: Profile| {
            Dial::new(Line {
                allowed: profile.allowed,
                wire: self.wire(profile.reach),
                proxy: profile.connection.proxy,
                tls: profile.tls,
            })
        };
        Egress { clients: profiles.into_iter().map(dial).map(client).collect() }
    }
}

fn told(uri: &Uri) -> Arc<str> {
    uri.to_string().into()
}

fn client(dial: Dial) -> Client<Dial, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_IDLE_MAX)
        .http1_max_headers(RESPONSE_HEADERS_MAX)
        .http1_max_buf_size(HTTP1_BUFFER_MAX)
        .http2_max_header_list_size(HTTP2_HEADER_LIST_MAX)
        .http2_keep_alive_interval(HTTP2_PING_EVERY)
        .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .build(dial)
}
