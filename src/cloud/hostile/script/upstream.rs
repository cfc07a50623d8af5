//! The upstream itself: reads requests and does to each what the script says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// One thing done with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Send(Vec<u8>),
    /// One byte at a time, with this wait after each.
    Drip(Vec<u8>, Duration),
    /// Again and again, for as long as the client listens.
    Repeat(Vec<u8>, Duration),
    Wait(Duration),
    /// Says nothing more, and hears nothing.
    Hang,
    /// Ends in good order, so far as TCP knows.
    Close,
    Reset,
}

/// How much of a request is read before anything is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// What comes first, whatever it is.
    Anything,
    Head,
    /// A little at a time, with this wait after each.
    Slowly(Duration),
    Whole,
}

/// Everything that an upstream does.
#[derive(Clone, Debug)]
pub(crate) struct Conduct {
    pub(crate) reading: Reading,
    /// To the first so many requests.
    pub(crate) times: usize,
    pub(crate) acts: Vec<Act>,
    /// To all others.
    pub(crate) honest: Vec<Act>,
    /// To another weir that asks who this is.
    pub(crate) status: Vec<u8>,
}

/// What is done with a connection at the end of its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S>(stream: &mut S, conduct: &Conduct, asked: &AtomicUsize) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let hostile = asked.load(Ordering::SeqCst) < conduct.times;
        let reading = if hostile { conduct.reading } else { Reading::Whole };
        let Some(request) = receive(stream, reading).await else { return End::Closed };
        let end = if request.starts_with(b"GET ") {
            let acts = [Act::Send(conduct.status.clone()), Act::Close];
            play(stream, &acts).await
        } else {
            asked.fetch_add(1, Ordering::SeqCst);
            play(stream, if hostile { &conduct.acts } else { &conduct.honest }).await
        };
        if let Some(end) = end {
            return end;
        }
    }
}

/// None: the connection may serve another request.
async fn play<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, acts: &[Act]) -> Option<End> {
    for act in acts {
        let heard = match act {
            Act::Send(bytes) => stream.write_all(bytes).await.is_ok(),
            Act::Drip(bytes, pace) => drip(stream, bytes, *pace).await,
            Act::Repeat(bytes, pace) => {
                while stream.write_all(bytes).await.is_ok() && listens(stream, *pace).await {}
                false
            }
            Act::Wait(time) => listens(stream, *time).await,
            // Not even the end of the client is read.
            Act::Hang => std::future::pending().await,
            Act::Close => false,
            Act::Reset => return Some(End::Reset),
        };
        if !heard {
            return Some(End::Closed);
        }
    }
    None
}

async fn drip<S>(stream: &mut S, bytes: &[u8], pace: Duration) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for byte in bytes {
        if stream.write_all(&[*byte]).await.is_err() || !listens(stream, pace).await {
            return false;
        }
    }
    true
}

/// Waits; false as soon as the client is gone.
async fn listens<S: AsyncRead + Unpin>(stream: &mut S, time: Duration) -> bool {
    // No wait at all would look at no client.
    time.is_zero() || tokio::time::timeout(time, stream.read(&mut [0])).await.is_err()
}

/// A request, so far as it is to be read; None: the client is gone.
async fn receive<S: AsyncRead + Unpin>(stream: &mut S, reading: Reading) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if read_some(stream, &mut bytes).await? == 0 || reading == Reading::Anything {
            return (!bytes.is_empty()).then_some(bytes);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
    while reading != Reading::Head && bytes.len() < head + length {
        if read_some(stream, &mut bytes).await? == 0 {
            return None;
        }
        if let Reading::Slowly(pace) = reading {
            tokio::time::sleep(pace).await;
        }
    }
    Some(bytes)
}

/// At most a kibibyte; None: the connection broke.
async fn read_some<S: AsyncRead + Unpin>(stream: &mut S, into: &mut Vec<u8>) -> Option<usize> {
    let mut part = [0; 1024];
    let read = stream.read(&mut part).await.ok()?;
    into.extend_from_slice(&part[..read]);
    Some(read)
}
