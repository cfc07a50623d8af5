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
//! Pipes carry what is inside TLS: an https origin is spoken to in plain HTTP/1.1.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Uri;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::Origin;

/// Connections that wait to be accepted.
const BACKLOG: usize = 64;
/// Bytes on their way in one direction before the writer waits.
const PIPE_BYTES: usize = 64 * 1024;

/// Who answers where. Clones are the same network.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<HashMap<Origin, Answer>>>);

enum Answer {
    Listener(mpsc::Sender<DuplexStream>),
    Silence,
}

/// An origin of the network. Once it is dropped, connections are refused there.
pub(crate) struct Listener(mpsc::Receiver<DuplexStream>);

impl Network {
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(origin, answer);
    }

    pub(super) async fn dial(&self, to: &Uri) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let origin = Origin::of(to).ok_or_else(refused)?;
        let listener = {
            let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match answers.get(&origin).ok_or_else(refused)? {
                Answer::Listener(listener) => Some(listener.clone()),
                Answer::Silence => None,
            }
        };
        let Some(listener) = listener else { return std::future::pending().await };
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        listener.try_send(theirs).map_err(|_| refused())?;
        Ok(ours)
    }
}

impl Listener {
    /// The next connection, whose bytes from the client can be read and answered. None: the
    /// network is gone.
    pub(crate) async fn accept(&mut self) -> Option<DuplexStream> {
        self.0.recv().await
    }
}
