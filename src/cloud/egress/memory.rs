//! A network of pipes within the process, so that a hostile upstream meets the real client in
//! virtual time.
//!
//! ```ignore
//! let network = Network::default();
//! let mut cloud = network.listen("https://cloud.example");
//! let mut egress = Egress::builder_in_memory(network);
//! let way = egress.row(&row("https://cloud.example/v1"))?;
//! let egress = egress.build();
//! let (asked, upstream) = tokio::join!(egress.send(request, way), cloud.accept());
//! ```
//!
//! Pipes carry what is inside TLS: an https origin is spoken to in plain HTTP/1.1, unless the
//! network is one [`with TLS`](Network::with_tls).

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::Uri;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use super::Origin;

/// Connections that wait to be accepted.
const BACKLOG: usize = 64;
/// Bytes on their way in one direction before the writer waits.
const PIPE_BYTES: usize = 64 * 1024;

/// Who answers where. Clones are the same network.
#[derive(Clone, Default)]
pub(crate) struct Network {
    answers: Arc<Mutex<HashMap<Origin, Answer>>>,
    tls: bool,
}

enum Answer {
    Listener(mpsc::Sender<(DuplexStream, Reset)>),
    Silence,
}

/// An origin of the network. Once it is dropped, connections are refused there.
pub(crate) struct Listener(mpsc::Receiver<(DuplexStream, Reset)>);

/// How the other end of a connection will end.
#[derive(Clone, Default)]
pub(crate) struct Reset(Arc<AtomicBool>);

impl Reset {
    /// The end of the pipe is a reset, and no end in good order.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The client's end of a connection.
pub(super) struct Pipe {
    io: DuplexStream,
    reset: Reset,
}

impl Network {
    /// Whose https origins are spoken to in TLS.
    pub(crate) fn with_tls() -> Self {
        Self { tls: true, ..Self::default() }
    }

    pub(super) fn speaks_tls(&self) -> bool {
        self.tls
    }

    /// Serves the origin of `url` from now on.
    pub(crate) fn listen(&self, url: &str) -> Listener {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.answer(url, Answer::Listener(sender));
        Listener(receiver)
    }

    /// From now on, a connection to the origin of `url` neither opens nor fails.
    pub(crate) fn silence(&self, url: &str) {
        self.answer(url, Answer::Silence);
    }

    fn answer(&self, url: &str, answer: Answer) {
        let origin = Origin::of(&url.parse().expect("a URL")).expect("an origin");
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(origin, answer);
    }

    pub(super) async fn dial(&self, to: &Uri) -> io::Result<Pipe> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let origin = Origin::of(to).ok_or_else(refused)?;
        let listener = {
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            match answers.get(&origin).ok_or_else(refused)? {
                Answer::Listener(listener) => Some(listener.clone()),
                Answer::Silence => None,
            }
        };
        let Some(listener) = listener else { return std::future::pending().await };
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let reset = Reset::default();
        listener.try_send((theirs, reset.clone())).map_err(|_| refused())?;
        Ok(Pipe { io: ours, reset })
    }
}

impl Listener {
    /// The next connection, whose bytes from the client can be read and answered. None: the
    /// network is gone.
    pub(crate) async fn accept(&mut self) -> Option<DuplexStream> {
        Some(self.0.recv().await?.0)
    }

    /// The same, with the choice of how it ends.
    pub(crate) async fn accept_to_end(&mut self) -> Option<(DuplexStream, Reset)> {
        self.0.recv().await
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, into))?;
        let ended = into.filled().len() == before;
        match ended && self.reset.0.load(Ordering::SeqCst) {
            true => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Pipe {
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
}
