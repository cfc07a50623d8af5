//! The connector: allow-list first, then name resolution, TCP, a proxy's tunnel and TLS under one
//! timeout.

use std::collections::HashMap;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower::{Service, ServiceExt};

#[cfg(test)]
use super::memory::Network;
use super::proxy::tunnel;
use super::reach::{Reach, Resolver};
use super::{BoxError, Origin};
use crate::config::Proxy;

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0} is not the origin of a configured cloud")]
    NotAllowed(Uri),
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("{0} is no name that a certificate can have")]
    Name(String),
}

/// Connects to the origins of one connection profile.
#[derive(Clone)]
pub(super) struct Dial(Arc<Line>);

/// What the connections of a profile have in common.
pub(super) struct Line {
    /// Origin to connect timeout.
    pub(super) allowed: HashMap<Origin, Duration>,
    pub(super) wire: Wire,
    pub(super) proxy: Option<Proxy>,
    /// None: no origin of the profile speaks https.
    pub(super) tls: Option<TlsConnector>,
}

/// What bytes travel on.
pub(super) enum Wire {
    Tcp(HttpConnector<Resolver>),
    /// Pipes within the process, which end TLS before they are seen.
    #[cfg(test)]
    Memory(Network),
}

impl Wire {
    pub(super) fn tcp(reach: Reach) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(reach));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Self::Tcp(tcp)
    }

    pub(super) async fn open(&self, to: Uri) -> Result<Box<dyn Io>, BoxError> {
        match self {
            Wire::Tcp(tcp) => Ok(Box::new(tcp.clone().oneshot(to).await?.into_inner())),
            #[cfg(test)]
            Wire::Memory(network) => Ok(Box::new(network.dial(&to).await?)),
        }
    }
}

impl Dial {
    pub(super) fn new(line: Line) -> Self {
        Self(Arc::new(line))
    }
}

impl Service<Uri> for Dial {
    type Response = Link;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let line = self.0.clone();
        Box::pin(async move {
            let found = Origin::of(&to).and_then(|origin| line.allowed.get_key_value(&origin));
            let Some((origin, &limit)) = found else {
                return Err(DialError::NotAllowed(to).into());
            };
            match tokio::time::timeout(limit, line.connect(origin, to)).await {
                Ok(connected) => connected,
                Err(_) => Err(DialError::Timeout(limit).into()),
            }
        })
    }
}

impl Line {
    async fn connect(&self, origin: &Origin, to: Uri) -> Result<Link, BoxError> {
        let io = match &self.proxy {
            None => self.wire.open(to).await?,
            Some(proxy) => {
                let mut io = self.wire.open(proxy.uri.clone()).await?;
                tunnel(&mut io, proxy, origin).await?;
                io
            }
        };
        match &self.tls {
            Some(tls) if origin.tls => {
                let name = ServerName::try_from(origin.host.clone())
                    .map_err(|_| DialError::Name(origin.host.clone()))?;
                let stream = tls.connect(name, io).await?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Ok(Link { io: TokioIo::new(Box::new(stream)), http2 })
            }
            _ => Ok(Link { io: TokioIo::new(io), http2: false }),
        }
    }
}

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to an origin, whatever it is made of.
pub(super) struct Link {
    io: TokioIo<Box<dyn Io>>,
    http2: bool,
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.http2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}
