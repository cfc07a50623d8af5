//! HTTP/1.1 by hand, so that a test can send what no client library would.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No reply takes this long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a UTF-8 body")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The `data:` of each event.
    pub(crate) fn events(&self) -> Vec<&str> {
        let text = self.text();
        assert!(text.ends_with("\n\n"), "a cut event: {text:?}");
        text.split_terminator("\n\n")
            .map(|event| event.strip_prefix("data: ").expect("only data events"))
            .collect()
    }

    /// The error object, checked to be whole.
    pub(crate) fn error(&self) -> Value {
        let mut body = self.json();
        let error = body["error"].take();
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        assert!(error["type"].is_string(), "{error}");
        let keys: Vec<_> = error.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        error
    }
}

pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    /// How long the peer may keep us waiting each time.
    pub(crate) patience: Duration,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("weir listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream: BufReader::new(stream), patience: PATIENCE }
    }

    /// Sends as much as the peer takes; a peer that hung up may still have replied.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes).await;
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        timeout(self.patience, self.read_reply()).await.expect("a reply in time").expect("a reply")
    }

    /// Status and headers; the body is still to come.
    pub(crate) async fn head(&mut self) -> Reply {
        timeout(self.patience, self.read_head()).await.expect("a head in time").expect("a head")
    }

    /// The next chunk of a chunked body; None at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        timeout(self.patience, self.read_chunk()).await.expect("a chunk in time").expect("a chunk")
    }

    /// Whether the peer closes within `limit` without sending anything.
    pub(crate) async fn closes_within(&mut self, limit: Duration) -> bool {
        let mut rest = Vec::new();
        match timeout(limit, self.stream.read_to_end(&mut rest)).await {
            Ok(Ok(_)) => rest.is_empty(),
            Ok(Err(_)) => true,
            Err(_) => false,
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.ok()?;
        line.strip_suffix("\r\n").map(str::to_owned)
    }

    async fn read_head(&mut self) -> Option<Reply> {
        let status = self.line().await?;
        let status = status.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(Reply { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(": ")?;
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    async fn read_chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let size = usize::from_str_radix(&self.line().await?, 16).ok()?;
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk).await.ok()?;
        self.line().await?;
        Some((size > 0).then_some(chunk))
    }

    async fn read_reply(&mut self) -> Option<Reply> {
        let mut reply = self.read_head().await?;
        while reply.status == 100 {
            reply = self.read_head().await?;
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.read_chunk().await? {
                reply.body.extend(chunk);
            }
        } else if let Some(length) = reply.header("content-length") {
            reply.body = vec![0; length.parse().ok()?];
            self.stream.read_exact(&mut reply.body).await.ok()?;
        }
        Some(reply)
    }
}

/// The bytes of a request with a Host and, where there is a body, its length.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += "host: localhost\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if method == "POST" {
        head += &format!("content-length: {}\r\n", body.len());
    }
    head += "\r\n";
    [head.as_bytes(), body].concat()
}

pub(crate) async fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut connection = Connection::open(to).await;
    connection.send(&request(method, path, headers, body)).await;
    connection.reply().await
}

pub(crate) async fn get(to: SocketAddr, path: &str) -> Reply {
    send(to, "GET", path, &[], b"").await
}

pub(crate) async fn post(to: SocketAddr, path: &str, body: &Value) -> Reply {
    let json = [("content-type", "application/json")];
    send(to, "POST", path, &json, body.to_string().as_bytes()).await
}
