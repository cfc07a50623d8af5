//! Connections: accepted up to a number, bounded in what they may take, drained on the way down.
//!
//! A body has its deadline in `body`, and hyper's timer ends an idle HTTP/1.1 connection; here are
//! the bounds that hyper has not: a peer that says nothing or only half a head, and a peer that
//! stops reading.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::http::Version;
use bytes::Bytes;
use http_body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::guard::{LocalAddress, PeerAddress};
use super::{Api, Lifecycle, Service};
use crate::config::ServeConfig;

/// Headers of a request: browsers send about 20, SDKs about 25.
const HEADERS_MAX: usize = 64;
/// Bytes of a request's head, and of what waits to be written on one connection.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 128;
/// HTTP/2 peers are asked this often whether they are there,
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// and have this long to say so.
const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause when the system has no file descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// After the grace time: how long the last events may take to be written.
const FLUSH: Duration = Duration::from_secs(1);
/// How often histograms fold what was recorded, so that memory stays flat without a scrape.
const UPKEEP: Duration = Duration::from_secs(5);

/// What a peer may take.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// For a request's head.
    pub header_read: Duration,
    /// For a request's body.
    pub body_read: Duration,
    /// For a peer to go on reading.
    pub write_stall: Duration,
    /// For a connection without a request.
    pub idle: Duration,
    /// For running requests when going down.
    pub grace: Duration,
}

impl Limits {
    pub fn new(config: &ServeConfig) -> Self {
        Self {
            connections_max: config.connections_max,
            header_read: Duration::from_secs(10),
            body_read: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            grace: config.grace,
        }
    }

    /// How often a connection looks whether one of its limits has passed.
    fn tick(&self) -> Duration {
        let shortest = self.header_read.min(self.write_stall).min(self.idle);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// Serves until `shutdown`, then refuses new work, lets running requests finish within the grace
/// time, ends the rest with an error event, and returns with every connection closed.
pub async fn serve<S: Service>(
    listeners: Vec<TcpListener>,
    api: Arc<Api<S>>,
    shutdown: impl Future<Output = ()>,
) {
    let lifecycle = api.lifecycle.clone();
    let connections = TaskTracker::new();
    let door = Door {
        router: api.router(),
        limits: Arc::new(api.limits.clone()),
        room: Arc::new(Semaphore::new(api.limits.connections_max)),
        lifecycle: lifecycle.clone(),
        cut: CancellationToken::new(),
        connections: connections.clone(),
    };
    let doors = TaskTracker::new();
    for listener in listeners {
        doors.spawn(door.clone().accept(listener));
    }
    tokio::select! {
        () = shutdown => {}
        () = upkeep(&api) => {}
    }
    lifecycle.draining.cancel();
    doors.close();
    doors.wait().await;
    connections.close();
    if timeout(api.limits.grace, connections.wait()).await.is_ok() {
        return;
    }
    lifecycle.ended.cancel();
    if timeout(FLUSH, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections cut");
    }
    door.cut.cancel();
    connections.wait().await;
}

async fn upkeep<S: Service>(api: &Api<S>) {
    loop {
        sleep(UPKEEP).await;
        api.telemetry.upkeep();
    }
}

/// What every accepted connection needs.
#[derive(Clone)]
struct Door {
    router: Router,
    limits: Arc<Limits>,
    room: Arc<Semaphore>,
    lifecycle: Lifecycle,
    /// Ends connections whatever they do.
    cut: CancellationToken,
    connections: TaskTracker,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        let accepting = async {
            loop {
                let room = self.room.clone().acquire_owned().await.expect("never closed");
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let held = self.clone().hold(stream, PeerAddress(peer), room);
                        drop(self.connections.spawn(held));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = self.lifecycle.draining.cancelled() => {}
        }
    }

    /// One connection from its first byte to its last.
    async fn hold(self, stream: TcpStream, peer: PeerAddress, _room: OwnedSemaphorePermit) {
        let Ok(local) = stream.local_addr() else { return };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let presence = Arc::new(Presence::new());
        let service = {
            let (router, presence) = (self.router.clone(), presence.clone());
            service_fn(move |request: hyper::Request<Incoming>| {
                let pulse = presence.begin(request.version());
                let request = request.map(Body::new);
                respond(router.clone(), request, (LocalAddress(local), peer), pulse)
            })
        };
        let builder = builder(&self.limits);
        let socket = Socket::new(stream, self.limits.write_stall, presence.clone());
        let io = TokioIo::new(socket);
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut tick = tokio::time::interval(self.limits.tick());
        let mut closing = false;
        loop {
            tokio::select! {
                done = connection.as_mut() => {
                    if let Err(error) = done {
                        tracing::debug!(error, "connection");
                    }
                    return;
                }
                () = self.lifecycle.draining.cancelled(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.cut.cancelled() => return,
                _ = tick.tick() => {
                    if presence.is_over(&self.limits) {
                        return;
                    }
                }
            }
        }
    }
}

async fn respond(
    router: Router,
    mut request: hyper::Request<Body>,
    (local, peer): (LocalAddress, PeerAddress),
    pulse: Arc<Pulse>,
) -> Result<hyper::Response<Watched>, Infallible> {
    request.extensions_mut().insert(local);
    request.extensions_mut().insert(peer);
    let response = router.oneshot(request).await?;
    Ok(response.map(|body| Watched { body, pulse }))
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper's timer runs from the end of the request before; that a head which has begun also
        // comes to its end is seen to by `Presence`.
        .header_read_timeout(limits.idle)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(BUFFER_BYTES_MAX as u32)
        .max_send_buf_size(BUFFER_BYTES_MAX)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}

/// What the requests of one connection are doing.
struct Presence {
    state: Mutex<State>,
}

struct State {
    pulses: Vec<Weak<Pulse>>,
    /// When a request was last under way.
    busy: Instant,
    /// Whether there ever was one.
    used: bool,
    /// Since when there are bytes of a request whose head is not whole. Only of HTTP/1: over HTTP/2
    /// a peer may well say something without asking for anything.
    begun: Option<Instant>,
    http1: bool,
}

/// One request: since when the peer has not taken what its body gave.
struct Pulse {
    born: Instant,
    /// Milliseconds after `born`, plus 1; 0 while it is not the peer we wait for.
    waiting: AtomicU64,
}

impl Presence {
    fn new() -> Self {
        let state = State {
            pulses: Vec::new(),
            busy: Instant::now(),
            used: false,
            begun: None,
            http1: false,
        };
        Self { state: Mutex::new(state) }
    }

    /// The peer has sent something.
    fn heard(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = state.pulses.iter().any(|pulse| pulse.strong_count() > 0);
        if state.http1 && !under_way && state.begun.is_none() {
            state.begun = Some(Instant::now());
        }
    }

    /// The head of a request is whole.
    fn begin(&self, version: Version) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse { born: Instant::now(), waiting: AtomicU64::new(0) });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.pulses.retain(|pulse| pulse.strong_count() > 0);
        state.pulses.push(Arc::downgrade(&pulse));
        state.used = true;
        state.begun = None;
        state.http1 = version <= Version::HTTP_11;
        pulse
    }

    /// Whether the peer has stopped reading, takes too long over a head, or has not asked for
    /// anything for too long.
    fn is_over(&self, limits: &Limits) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stalled = false;
        state.pulses.retain(|pulse| {
            let Some(pulse) = pulse.upgrade() else { return false };
            stalled |= pulse.stalled() > limits.write_stall;
            true
        });
        if !state.pulses.is_empty() {
            state.busy = Instant::now();
        }
        let silent = if state.used { limits.idle } else { limits.header_read };
        let lingers = state.begun.is_some_and(|begun| begun.elapsed() > limits.header_read);
        stalled || lingers || state.busy.elapsed() > silent
    }
}

impl Pulse {
    fn gave(&self) {
        let ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.waiting.store(ms + 1, Ordering::Relaxed);
    }

    fn asked(&self) {
        self.waiting.store(0, Ordering::Relaxed);
    }

    fn stalled(&self) -> Duration {
        match self.waiting.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            ms => self.born.elapsed().saturating_sub(Duration::from_millis(ms - 1)),
        }
    }
}

/// A response body that notes when it gives and when it is asked. Only hyper's next question
/// shows that the peer reads: over HTTP/2 the socket takes bytes even where a window is shut.
struct Watched {
    body: Body,
    pulse: Arc<Pulse>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.pulse.asked();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if frame.is_some() {
            this.pulse.gave();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A socket whose writes fail when the peer takes nothing for too long, and whose reads are heard of.
struct Socket {
    stream: TcpStream,
    presence: Arc<Presence>,
    limit: Duration,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    fn new(stream: TcpStream, limit: Duration, presence: Arc<Presence>) -> Self {
        Self { stream, presence, limit, deadline: None }
    }

    fn within_limit(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if wrote.is_ready() {
            self.deadline = None;
            return wrote;
        }
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if into.filled().len() > before {
            self.presence.heard();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.within_limit(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        all: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, all);
        self.within_limit(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
