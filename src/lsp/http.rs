//! A weir that is asked: HTTP/1.1 over TCP, one connection that is kept between two answers.
//!
//! An answer owns the connection that it comes over. Whoever drops it before its end closes that
//! connection, by which the other side knows that nobody waits any more: on HTTP/1.1 nothing else
//! tells it, and the slot is free as soon as it is told.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::Secret;

const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Until status and headers: a long prompt on a slow box, and whoever types has gone on by then.
const FIRST_TEXT_MAX: Duration = Duration::from_secs(60);
/// Between two parts of an answer.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Of one event.
const LINE_BYTES_MAX: usize = 64 << 10;
const ERROR_BYTES_MAX: usize = 16 << 10;

/// Where a weir is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Address {
    /// Host and port.
    authority: String,
    /// What its paths begin with, without a slash at the end.
    prefix: String,
}

impl Address {
    /// From `http://HOST[:PORT][/PREFIX]`, with or without the `/v1` that other clients want.
    pub(super) fn of_url(url: &Uri) -> Result<Self, String> {
        let wrong = || format!("{url} must be as in http://127.0.0.1:8012");
        if url.scheme_str() != Some("http") {
            return Err(format!("{}; TLS is a proxy's affair", wrong()));
        }
        let authority = url.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(format!("{} and hold no password", wrong()));
        }
        let port = authority.port_u16().unwrap_or(80);
        let prefix = url.path().trim_end_matches('/').trim_end_matches("/v1");
        Ok(Self {
            authority: format!("{}:{port}", authority.host()),
            prefix: prefix.trim_end_matches('/').to_owned(),
        })
    }

    pub(super) fn of_socket(address: std::net::SocketAddr) -> Self {
        Self { authority: address.to_string(), prefix: String::new() }
    }
}

/// Why there is no answer, or not all of it. Nothing in it comes from a document.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("nothing listens there: {0}")]
    Unreachable(#[source] io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[source] hyper::Error),
    #[error("the answer was broken off")]
    CutShort,
    #[error("no answer came in time")]
    Late,
    #[error("{status}, {code}")]
    Refused { status: StatusCode, code: String },
    #[error("what answers is no weir")]
    Garbage,
}

impl AskError {
    /// Whether whoever was asked may be gone.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, AskError::Unreachable(_) | AskError::Broken(_) | AskError::CutShort)
    }
}

/// A connection, and the task that moves its bytes.
struct Link {
    to: Address,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    /// The socket closes with the task.
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    async fn open(to: &Address) -> Result<Self, AskError> {
        let connecting = timeout(CONNECT_MAX, TcpStream::connect(to.authority.as_str())).await;
        let stream = connecting.map_err(|_| AskError::Late)?.map_err(AskError::Unreachable)?;
        stream.set_nodelay(true).map_err(AskError::Unreachable)?;
        let io = TokioIo::new(stream);
        let (sender, connection) = http1::handshake(io).await.map_err(AskError::Broken)?;
        let driver = tokio::spawn(async move {
            // What went wrong is told where an answer is waited for.
            let _ = connection.await;
        });
        Ok(Self { to: to.clone(), sender, driver })
    }
}

/// What goes to `/v1/completions`.
pub(super) struct Question {
    pub(super) session: String,
    pub(super) body: Bytes,
}

pub(super) struct Client {
    key: Option<Secret>,
    /// Between two answers.
    idle: Mutex<Option<Link>>,
}

impl Client {
    pub(super) fn new(key: Option<Secret>) -> Self {
        Self { key, idle: Mutex::new(None) }
    }

    /// Returns with the status; the text is still to come.
    pub(super) async fn ask(
        &self,
        to: &Address,
        question: &Question,
    ) -> Result<Answer<'_>, AskError> {
        let kept = self.take(to);
        let (link, response) = match kept {
            Some(link) => match self.send(link, question).await {
                // It was closed while nobody looked, and the question was not read.
                Err(error) if error.is_lost() => self.send(Link::open(to).await?, question).await?,
                done => done?,
            },
            None => self.send(Link::open(to).await?, question).await?,
        };
        let status = response.status();
        if status != StatusCode::OK {
            let code = code(response.into_body()).await;
            return Err(AskError::Refused { status, code });
        }
        let body = response.into_body();
        Ok(Answer { client: self, link: Some(link), body, unread: Vec::new(), ended: false })
    }

    async fn send(
        &self,
        mut link: Link,
        question: &Question,
    ) -> Result<(Link, Response<Incoming>), AskError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/v1/completions", link.to.prefix))
            .header(header::HOST, &link.to.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-weir-session", &question.session);
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", key.expose()));
        }
        let request = request.body(Full::new(question.body.clone())).map_err(|_| {
            // Host and path were taken from a URL, and key and session are visible ASCII.
            AskError::Garbage
        })?;
        let sender = &mut link.sender;
        let sending = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let sending = timeout(FIRST_TEXT_MAX, sending).await;
        let response = sending.map_err(|_| AskError::Late)?.map_err(AskError::Broken)?;
        Ok((link, response))
    }

    fn take(&self, to: &Address) -> Option<Link> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        (kept.to == *to && !kept.sender.is_closed()).then_some(kept)
    }

    fn keep(&self, link: Link) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
    }
}

/// The word for what is wrong, as an error object gives it.
async fn code(body: Incoming) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        error: Object,
    }
    #[derive(Deserialize)]
    struct Object {
        code: Option<String>,
        r#type: Option<String>,
    }
    let whole = timeout(SILENCE_MAX, Limited::new(body, ERROR_BYTES_MAX).collect()).await;
    let bytes = whole.ok().and_then(Result::ok).map(|whole| whole.to_bytes());
    let told = bytes.and_then(|bytes| serde_json::from_slice::<Envelope>(&bytes).ok());
    let code = told.and_then(|told| told.error.code.or(told.error.r#type));
    code.unwrap_or_else(|| "without a reason".into())
}

/// An answer that comes in parts.
pub(super) struct Answer<'a> {
    client: &'a Client,
    link: Option<Link>,
    body: Incoming,
    /// Of the event that has not come to its end.
    unread: Vec<u8>,
    ended: bool,
}

impl Answer<'_> {
    /// The next part of the text; None at its end.
    pub(super) async fn next(&mut self) -> Result<Option<String>, AskError> {
        loop {
            while let Some(line) = self.line() {
                match event(&line)? {
                    Event::Text(text) => return Ok(Some(text)),
                    Event::Nothing => {}
                    Event::End => self.ended = true,
                }
            }
            match timeout(SILENCE_MAX, self.body.frame()).await.map_err(|_| AskError::Late)? {
                Some(frame) => {
                    let frame = frame.map_err(AskError::Broken)?;
                    self.unread.extend(frame.data_ref().map_or(&[][..], |data| data));
                    if self.unread.len() > LINE_BYTES_MAX {
                        return Err(AskError::Garbage);
                    }
                }
                None if self.ended => {
                    // It was read to its end, so the next question may go the same way.
                    if let Some(link) = self.link.take() {
                        self.client.keep(link);
                    }
                    return Ok(None);
                }
                None => return Err(AskError::CutShort),
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.unread.iter().position(|&byte| byte == b'\n')?;
        Some(self.unread.drain(..=end).collect())
    }
}

enum Event {
    Text(String),
    Nothing,
    End,
}

/// One line of a stream of server-sent events.
fn event(line: &[u8]) -> Result<Event, AskError> {
    #[derive(Deserialize)]
    struct Chunk {
        #[serde(default)]
        choices: Vec<Choice>,
        error: Option<serde::de::IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Choice {
        text: String,
    }
    let Some(data) = line.trim_ascii_end().strip_prefix(b"data:") else {
        return Ok(Event::Nothing);
    };
    if data.trim_ascii() == b"[DONE]" {
        return Ok(Event::End);
    }
    let chunk: Chunk = serde_json::from_slice(data).map_err(|_| AskError::Garbage)?;
    if chunk.error.is_some() {
        return Err(AskError::CutShort);
    }
    Ok(chunk.choices.into_iter().next().map_or(Event::Nothing, |choice| Event::Text(choice.text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to_ask() {
        let address = |url: &str| {
            let url = Address::of_url(&url.parse().unwrap())?;
            Ok::<_, String>((url.authority, url.prefix))
        };
        let is = |authority: &str, prefix: &str| Ok((authority.to_owned(), prefix.to_owned()));
        assert_eq!(address("http://127.0.0.1:8012"), is("127.0.0.1:8012", ""));
        assert_eq!(address("http://box/v1/"), is("box:80", ""));
        assert_eq!(address("http://[::1]:1/team/weir/v1"), is("[::1]:1", "/team/weir"));
        for wrong in ["https://box", "box:80", "/v1", "http://ada:secret@box"] {
            let said = address(wrong).unwrap_err();
            assert!(said.contains("must be as in"), "{said}");
        }
    }

    #[test]
    fn events_are_told_apart() {
        let text = |line: &str| match event(line.as_bytes()) {
            Ok(Event::Text(text)) => Some(text),
            _ => None,
        };
        let chunk = r#"data: {"id":"1","choices":[{"index":0,"text":"a\nb","x":null}]}"#;
        assert_eq!(text(&format!("{chunk}\r\n")).as_deref(), Some("a\nb"));
        for nothing in ["", ": alive", "event: x", r#"data: {"choices":[],"usage":{}}"#] {
            assert!(matches!(event(nothing.as_bytes()), Ok(Event::Nothing)), "{nothing}");
        }
        assert!(matches!(event(b"data: [DONE]\n"), Ok(Event::End)));
        assert!(matches!(event(b"data: {\"error\":{}}"), Err(AskError::CutShort)));
        assert!(matches!(event(b"data: <html>"), Err(AskError::Garbage)));
    }
}
