//! Load that costs the machine little: one connection and one buffer for each request, and no
//! more parsing than it takes to see where an answer ran and how it ended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cloud::{Cloud, Step, done, finish, head, text, usage};
use super::http;

/// Most of an answer's head, and more than one event.
const READ_BYTES: usize = 4 << 10;

/// One answer, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
    /// Where the body begins; 0 until the head is whole.
    body: usize,
}

impl Answer {
    pub(crate) fn has_head(&self) -> bool {
        self.body > 0
    }

    pub(crate) fn status(&self) -> u16 {
        let head = self.head();
        head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head().lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn route(&self) -> &str {
        self.header("x-weir-route").unwrap_or("none")
    }

    /// The body with its chunk sizes.
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[self.body..]
    }

    /// 200, and the stream came to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.status() == 200
            && self.body().ends_with(b"\r\n0\r\n\r\n")
            && find(self.body(), b"data: [DONE]\n\n").is_some()
    }

    /// 503 that says when to come again.
    pub(crate) fn is_shed(&self) -> bool {
        let seconds = self.header("retry-after").and_then(|value| value.parse::<u64>().ok());
        self.status() == 503
            && self.route() == "shed"
            && self.header("x-should-retry") == Some("false")
            && seconds.is_some_and(|seconds| seconds > 0)
            && find(self.body(), b"\"error\"").is_some()
    }

    fn head(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.body]).unwrap_or("")
    }

    /// Takes in what came after `seen` bytes.
    fn look(&mut self, seen: usize) {
        if self.has_head() {
            return;
        }
        let from = seen.saturating_sub(3);
        if let Some(end) = find(&self.bytes[from..], b"\r\n\r\n") {
            self.body = from + end + 4;
        }
    }
}

/// The bytes of a completion request; its connection closes behind the answer.
pub(crate) fn completion(body: &Value) -> Arc<[u8]> {
    let headers = [("content-type", "application/json"), ("connection", "close")];
    http::request("POST", "/v1/completions", &headers, body.to_string().as_bytes()).into()
}

/// Sends a request and reads to the end of its answer; `heard` sees the answer each time that
/// more of its body came, and that part.
pub(crate) async fn exchange(
    to: SocketAddr,
    request: &[u8],
    mut heard: impl FnMut(&Answer, &[u8]),
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request).await?;
    let mut answer = Answer { bytes: Vec::with_capacity(READ_BYTES), body: 0 };
    loop {
        answer.bytes.reserve(READ_BYTES);
        let seen = answer.bytes.len();
        if stream.read_buf(&mut answer.bytes).await? == 0 {
            return Ok(answer);
        }
        answer.look(seen);
        if answer.has_head() {
            heard(&answer, &answer.bytes[seen.max(answer.body)..]);
        }
    }
}

/// Events of local answers, counted as they come.
#[derive(Debug, Default)]
pub(crate) struct LocalEvents(AtomicU64);

impl LocalEvents {
    pub(crate) fn heard(&self, answer: &Answer, part: &[u8]) {
        if answer.route() == "local" {
            let lines = part.split(|byte| *byte == b'\n');
            let events = lines.filter(|line| line.starts_with(b"data: ")).count();
            self.0.fetch_add(events as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A cloud that gives as many tokens as it is asked for, one in each `pace`, and closes the
/// connection behind each answer: none is kept open for later.
pub(crate) async fn steady_cloud(pace: Duration) -> Cloud {
    Cloud::start(move |seen| {
        let tokens = seen.body["max_tokens"].as_u64().unwrap_or(1);
        let token = [Step::Send(text("word ")), Step::Wait(pace)];
        let mut steps = vec![Step::Send(head())];
        for _ in 0..tokens {
            steps.extend(token.iter().cloned());
        }
        let end = [finish("length"), usage(1, tokens), done()].concat();
        steps.extend([Step::Send(end), Step::Close]);
        steps
    })
    .await
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
