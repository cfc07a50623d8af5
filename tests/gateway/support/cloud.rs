//! A cloud on loopback that does exactly what its script says, well or badly: raw TCP, so that
//! it can also say what no HTTP library would.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// One thing the cloud does with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Sends these bytes one at a time, with this wait after each.
    Drip(Vec<u8>, Duration),
    /// Repeats these bytes at this pace for as long as the client listens.
    Repeat(Vec<u8>, Duration),
    Wait(Duration),
    /// Says nothing more until the client leaves.
    Hang,
    /// Ends with FIN; later steps are not run.
    Close,
    /// Ends with RST.
    Reset,
}

/// What a client sent.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Request line and headers as they came.
    pub(crate) head: String,
    pub(crate) body: Value,
    /// The body as it came: what a signature is about.
    pub(crate) raw: Vec<u8>,
}

impl Seen {
    /// The body where it is text, as a form is.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.raw).unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a header; `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

type Script = dyn Fn(&Seen) -> Vec<Step> + Send + Sync;

/// The cloud; gone with all its connections when dropped.
pub(crate) struct Cloud {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    /// Exchanges that the client has not ended and the script has not either.
    running: AtomicUsize,
    /// Exchanges the client left before their script was over.
    aborted: AtomicUsize,
}

impl Cloud {
    /// A cloud that plays `script`'s steps for every request.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State::default());
        let script: Arc<Script> = Arc::new(script);
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream, script.clone(), shared.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, state, accepting }
    }

    /// A cloud that always does the same.
    pub(crate) async fn always(steps: Vec<Step>) -> Self {
        Self::start(move |_| steps.clone()).await
    }

    /// A cloud that answers every request with these texts, one at a time at this pace, in the
    /// shape of the route that was asked.
    pub(crate) async fn healthy(texts: &[&str], pace: Duration) -> Self {
        let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
        Self::start(move |seen| answer(seen, &texts, pace)).await
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("no panic under it").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn running(&self) -> usize {
        self.state.running.load(Ordering::SeqCst)
    }

    pub(crate) fn aborted(&self) -> usize {
        self.state.aborted.load(Ordering::SeqCst)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The head of a good answer; its body ends with the connection.
pub(crate) fn head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_vec()
}

/// The head of a good answer whose body comes in [`chunk`]s.
pub(crate) fn chunked_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        .to_vec()
}

/// `bytes` as one chunk of a chunked body; empty: the last.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A whole answer with a status, extra header lines and a body.
pub(crate) fn status(code: u16, headers: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {code} Status\r\ncontent-length: {}\r\n", body.len());
    for line in headers {
        text += line;
        text += "\r\n";
    }
    (text + "\r\n" + body).into_bytes()
}

/// One event with these data.
pub(crate) fn data(body: &Value) -> Vec<u8> {
    format!("data: {body}\n\n").into_bytes()
}

/// A delta of `/completions`.
pub(crate) fn text(text: &str) -> Vec<u8> {
    data(&json!({"choices": [{"index": 0, "text": text, "finish_reason": null}]}))
}

/// The end of choice 0 on `/completions`.
pub(crate) fn finish(reason: &str) -> Vec<u8> {
    data(&json!({"choices": [{"index": 0, "text": "", "finish_reason": reason}]}))
}

pub(crate) fn usage(prompt: u64, completion: u64) -> Vec<u8> {
    data(&json!({
        "choices": [],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion},
    }))
}

pub(crate) fn done() -> Vec<u8> {
    b"data: [DONE]\n\n".to_vec()
}

fn answer(seen: &Seen, texts: &[String], pace: Duration) -> Vec<Step> {
    let chat = seen.path().ends_with("/chat/completions");
    let n = seen.body["n"].as_u64().unwrap_or(1);
    let part = |index: u64, text: &str, reason: Option<&str>| {
        let mut part = json!({"index": index, "finish_reason": reason});
        if chat {
            part["delta"] = json!({"content": text});
        } else {
            part["text"] = json!(text);
        }
        chunk(&data(&json!({"choices": [part]})))
    };
    let mut steps = vec![Step::Send(chunked_head())];
    for text in texts {
        for index in 0..n {
            steps.push(Step::Send(part(index, text, None)));
        }
        if !pace.is_zero() {
            steps.push(Step::Wait(pace));
        }
    }
    let mut end: Vec<u8> = (0..n).flat_map(|index| part(index, "", Some("stop"))).collect();
    end.extend(chunk(&usage(7, texts.len() as u64 * n)));
    end.extend(chunk(&done()));
    end.extend(chunk(b""));
    steps.push(Step::Send(end));
    steps
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    while let Some(seen) = receive(&mut stream).await {
        let steps = script(&seen);
        state.seen.lock().expect("no panic under it").push(seen);
        state.running.fetch_add(1, Ordering::SeqCst);
        let outcome = play(&mut stream, steps).await;
        state.running.fetch_sub(1, Ordering::SeqCst);
        match outcome {
            Outcome::KeepOpen => {}
            Outcome::Closed => return,
            Outcome::Aborted => {
                state.aborted.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
}

enum Outcome {
    KeepOpen,
    Closed,
    Aborted,
}

async fn play(stream: &mut TcpStream, steps: Vec<Step>) -> Outcome {
    for step in steps {
        let heard = match step {
            Step::Send(bytes) => stream.write_all(&bytes).await.is_ok(),
            Step::Drip(bytes, pace) => {
                let mut heard = true;
                for byte in bytes {
                    heard = heard
                        && stream.write_all(&[byte]).await.is_ok()
                        && listened(stream, Some(pace)).await;
                }
                heard
            }
            Step::Repeat(bytes, pace) => {
                while stream.write_all(&bytes).await.is_ok() && listened(stream, Some(pace)).await {
                }
                false
            }
            Step::Wait(time) => listened(stream, Some(time)).await,
            Step::Hang => listened(stream, None).await,
            Step::Close => return Outcome::Closed,
            Step::Reset => {
                let _ = stream.set_zero_linger();
                return Outcome::Closed;
            }
        };
        if !heard {
            return Outcome::Aborted;
        }
    }
    Outcome::KeepOpen
}

/// Waits; false as soon as the client is gone.
async fn listened(stream: &mut TcpStream, time: Option<Duration>) -> bool {
    let mut byte = [0];
    let gone = stream.read(&mut byte);
    match time {
        Some(time) => tokio::time::timeout(time, gone).await.is_err(),
        None => {
            let _ = gone.await;
            false
        }
    }
}

/// Reads one request with its JSON body; None when the client is gone.
async fn receive(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut seen = Seen { head, body: Value::Null, raw: Vec::new() };
    let length: usize = seen.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    seen.raw = bytes[end..end + length].to_vec();
    seen.body = serde_json::from_slice(&seen.raw).unwrap_or(Value::Null);
    Some(seen)
}
