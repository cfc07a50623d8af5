//! A request on a connection of its own, and its answer as it comes. Dropping an answer closes its
//! connection: that is how an editor gives up.

use std::net::{SocketAddr, ToSocketAddrs};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cli::Failure;

/// Longest answer; a completion is a hundredth of it.
const ANSWER_BYTES_MAX: usize = 8 << 20;
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Wrong {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the answer is {0:?}")]
    Status(String),
    #[error("the answer is malformed")]
    Malformed,
    #[error("the answer is too long")]
    TooLong,
    #[error("the answer ended early")]
    Ended,
    #[error("the server says: {0}")]
    Said(String),
}

/// A server.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    address: SocketAddr,
    /// As the Host header says it.
    host: String,
    /// Before every path, without a slash at its end.
    base: String,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address, host: address.to_string(), base: String::new() }
    }
}

impl Endpoint {
    /// From `http://HOST:PORT` or one with a path.
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = || Failure::Other(format!("{url:?} is not http://HOST:PORT"));
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let address = host.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)?;
        Ok(Self { address, host: host.into(), base: base.trim_end_matches('/').into() })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, Wrong> {
        self.send("GET", path, "", b"").await
    }

    /// `headers`: whole lines.
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Answer, Wrong> {
        self.send("POST", path, headers, body).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Answer, Wrong> {
        let Self { address, host, base } = self;
        let head = format!(
            "{method} {base}{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // In one piece, so that nobody waits for the second.
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        Ok(Answer { stream, body: Body::default() })
    }
}

/// An answer being read.
pub(super) struct Answer {
    stream: TcpStream,
    body: Body,
}

impl Answer {
    /// What came of the body since the last call, at least one byte; None: all of it has come.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Wrong> {
        let mut part = [0; 16 << 10];
        loop {
            let came = std::mem::take(&mut self.body.decoded);
            if !came.is_empty() {
                return Ok(Some(came));
            }
            if self.body.is_over() {
                return Ok(None);
            }
            match self.stream.read(&mut part).await? {
                0 => self.body.end()?,
                read => self.body.push(&part[..read])?,
            }
        }
    }

    /// The rest of the body.
    pub(super) async fn whole(mut self) -> Result<Vec<u8>, Wrong> {
        let mut whole = Vec::new();
        while let Some(part) = self.next().await? {
            whole.extend(part);
        }
        Ok(whole)
    }
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    /// Nobody knows: the head has not come.
    #[default]
    Head,
    /// After so many more bytes.
    Length(usize),
    Chunked,
    /// With the connection.
    Connection,
    Over,
}

#[derive(Default)]
struct Body {
    /// As it came, without what was understood.
    raw: Vec<u8>,
    framing: Framing,
    /// An answer that is none: its status line, and its body to come.
    refused: Option<String>,
    decoded: Vec<u8>,
    /// Bytes of the body so far.
    bytes: usize,
}

impl Body {
    fn is_over(&self) -> bool {
        self.framing == Framing::Over
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        self.raw.extend_from_slice(bytes);
        if self.framing == Framing::Head && !self.head()? {
            return Ok(());
        }
        self.decode()?;
        if self.bytes > ANSWER_BYTES_MAX || self.raw.len() > ANSWER_BYTES_MAX {
            return Err(Wrong::TooLong);
        }
        match (&self.refused, self.is_over()) {
            (Some(_), true) => Err(self.refusal()),
            _ => Ok(()),
        }
    }

    /// The connection ended.
    fn end(&mut self) -> Result<(), Wrong> {
        match (self.framing, &self.refused) {
            (Framing::Over | Framing::Connection, None) => {
                self.framing = Framing::Over;
                Ok(())
            }
            (_, Some(_)) => Err(self.refusal()),
            (..) => Err(Wrong::Ended),
        }
    }

    fn refusal(&self) -> Wrong {
        let status = self.refused.as_deref().unwrap_or_default();
        let said = String::from_utf8_lossy(&self.decoded);
        Wrong::Status(format!("{status}: {}", said.trim()))
    }

    /// Whether the head is whole; it is cut off then.
    fn head(&mut self) -> Result<bool, Wrong> {
        let Some(end) = self.raw.windows(4).position(|end| end == b"\r\n\r\n") else {
            return if self.raw.len() > HEAD_BYTES_MAX { Err(Wrong::TooLong) } else { Ok(false) };
        };
        let head = String::from_utf8_lossy(&self.raw[..end]).to_ascii_lowercase();
        let mut lines = head.lines();
        let status = lines.next().unwrap_or_default();
        if !status.starts_with("http/1.1 200") {
            self.refused = Some(status.to_owned());
        }
        let mut framing = Framing::Connection;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match (name, value.trim()) {
                ("content-length", length) => {
                    framing = Framing::Length(length.parse().map_err(|_| Wrong::Malformed)?);
                }
                ("transfer-encoding", "chunked") => framing = Framing::Chunked,
                _ => {}
            }
        }
        self.framing = framing;
        self.raw.drain(..end + 4);
        Ok(true)
    }

    fn decode(&mut self) -> Result<(), Wrong> {
        match self.framing {
            Framing::Chunked => while self.chunk()? {},
            Framing::Length(missing) => {
                let take = missing.min(self.raw.len());
                self.take(take);
                self.framing = match missing - take {
                    0 => Framing::Over,
                    missing => Framing::Length(missing),
                };
            }
            Framing::Connection => self.take(self.raw.len()),
            Framing::Head | Framing::Over => {}
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) {
        self.decoded.extend(self.raw.drain(..bytes));
        self.bytes += bytes;
    }

    /// Whether a chunk was whole and was not the last.
    fn chunk(&mut self) -> Result<bool, Wrong> {
        let Some(line) = self.raw.windows(2).position(|end| end == b"\r\n") else {
            return Ok(false);
        };
        let size = std::str::from_utf8(&self.raw[..line]).map_err(|_| Wrong::Malformed)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| Wrong::Malformed)?;
        let end = (line + 2).saturating_add(size).saturating_add(2);
        if self.raw.len() < end {
            return Ok(false);
        }
        self.raw.drain(..line + 2);
        self.take(size);
        self.raw.drain(..2);
        if size == 0 {
            self.framing = Framing::Over;
        }
        Ok(size > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of an answer that comes in two parts, cut anywhere.
    fn check(answer: &str, closed: bool, expected: &str) {
        for cut in 0..=answer.len() {
            let mut body = Body::default();
            let (before, after) = answer.as_bytes().split_at(cut);
            body.push(before).unwrap();
            body.push(after).unwrap();
            if closed {
                body.end().unwrap();
            }
            assert!(body.is_over(), "cut at {cut}");
            assert_eq!(String::from_utf8_lossy(&body.decoded), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_body_is_read_however_it_is_framed_and_cut() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
        check(&format!("{head}Content-Length: 5\r\n\r\nab\r\nc"), false, "ab\r\nc");
        let chunks = "3\r\nab\r\r\n2\r\n\nc\r\n0\r\n\r\n";
        check(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}"), false, "ab\r\nc");
        check(&format!("{head}\r\nab\r\nc"), true, "ab\r\nc");
    }

    #[test]
    fn what_is_no_answer_is_told_with_what_it_says() {
        let refusal = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nfull";
        let said = Body::default().push(refusal).unwrap_err().to_string();
        assert_eq!(said, "the answer is \"http/1.1 503 busy: full\"");
        let mut half = Body::default();
        half.push(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfu").unwrap();
        assert!(matches!(half.end(), Err(Wrong::Ended)));
        let bad = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxx\r\n";
        assert!(matches!(Body::default().push(bad), Err(Wrong::Malformed)));
    }

    #[test]
    fn a_server_is_named_by_its_url() {
        let endpoint = Endpoint::parse("http://127.0.0.1:8012/base/").unwrap();
        assert_eq!((&*endpoint.host, &*endpoint.base), ("127.0.0.1:8012", "/base"));
        assert!(Endpoint::parse("127.0.0.1:8012").is_err());
        assert!(Endpoint::parse("http://127.0.0.1").is_err());
    }
}
