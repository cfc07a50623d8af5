//! Clouds on loopback that answer after a known time, for a known price.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Longest body; what the benchmark sends is a hundredth of it.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of a token, by this cloud's own count.
pub(super) const BYTES_PER_TOKEN: usize = 3;

/// Starts a cloud whose answers come whole, `latency` after they were asked for. It ends with the
/// runtime.
pub(super) async fn start(latency: Duration) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _delay = stream.set_nodelay(true);
            let answering = service_fn(move |request| answer(request, latency));
            let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answering);
            tokio::spawn(async move {
                // A client that leaves ends its connection; nobody needs to know.
                let _ended = serving.await;
            });
        }
    });
    Ok(address)
}

async fn answer(
    request: Request<Incoming>,
    latency: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let due = tokio::time::Instant::now() + latency;
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let asked = body.ok().and_then(|body| serde_json::from_slice::<Value>(&body.to_bytes()).ok());
    let Some(asked) = asked else {
        let mut refused = Response::new(Full::default());
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refused);
    };
    tokio::time::sleep_until(due).await;
    let mut response = Response::new(Full::from(events(&asked)));
    response.headers_mut().insert(CONTENT_TYPE, "text/event-stream".parse().expect("a constant"));
    Ok(response)
}

/// As many tokens as were asked for, in one event, and what they cost.
fn events(asked: &Value) -> String {
    let prompt = asked["prompt"].as_str().map_or(0, str::len);
    let tokens = asked["max_tokens"].as_u64().unwrap_or(1);
    let choice = |text: &str, reason: Option<&str>| json!({"choices": [{"index": 0, "text": text, "finish_reason": reason}]});
    let usage = json!({
        "choices": [],
        "usage": {"prompt_tokens": prompt / BYTES_PER_TOKEN, "completion_tokens": tokens},
    });
    let said = [choice("x", None), choice("", Some("length")), usage];
    let lines: String = said.iter().map(|event| format!("data: {event}\n\n")).collect();
    lines + "data: [DONE]\n\n"
}
