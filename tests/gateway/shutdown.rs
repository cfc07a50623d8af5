//! The process from its first breath to its last, as an operator sees it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::http::{Connection, get, request};
use crate::support::process::{Process, curl_line};
use crate::support::scale::{self, skip};
use crate::support::weir::{Metrics, PATIENCE, drive};

/// What is promised of a release build; a development build runs the same model with bounds
/// checked and calls not inlined.
const READY_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3000 } else { 1000 });
/// From a signal to the end where nothing has to be waited for.
const EXIT_MAX: Duration = Duration::from_secs(3);
const SLOTS: usize = 4;
/// Slow enough that a long completion takes seconds on any machine.
const SLOW: &str = "model.isa = \"scalar\"\nmodel.threads = 1\nmodel.slots = 4\n";

#[test]
fn ready_within_a_second_and_the_curl_line_works() {
    let weir = Process::serve("");
    drive(async {
        while get(weir.address, "/ready").await.status != 200 {
            assert!(weir.started.elapsed() < PATIENCE, "never ready");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let took = weir.started.elapsed();
    scale::measured("ready after", &format!("{took:?}"));
    // Beside other tests the machine is not ours; what a start takes is measured alone.
    let limit = if scale::is_full() { READY_MAX } else { READY_MAX * 3 };
    assert!(took < limit, "ready after {took:?}");
    if Command::new("curl").arg("--version").output().is_err() {
        skip!("curl");
    }
    let curl = curl_line(&weir.banner);
    let output = Command::new("sh").args(["-c", curl]).output().expect("there is a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    let events = text.lines().filter(|line| line.starts_with("data: {")).count();
    assert!(output.status.success() && events >= 2, "{curl}\n{text}");
    assert!(text.trim_end().ends_with("data: [DONE]"), "{curl}\n{text}");
}

#[test]
fn an_idle_weir_ends_at_once() {
    let mut weir = Process::serve("");
    drive(async {
        // An idle connection is nobody's work.
        let _idle = TcpStream::connect(weir.address).await.expect("weir listens");
        assert_eq!(get(weir.address, "/health").await.status, 200);
        weir.terminate();
        let status = weir.ends_within(EXIT_MAX).expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", weir.log());
    });
}

#[test]
fn running_streams_finish_within_the_grace_time() {
    let mut weir = Process::serve(&format!("{SLOW}serve.grace_ms = 60000\n"));
    drive(async {
        let mut streams = Vec::new();
        for _ in 0..SLOTS {
            let mut stream = open_stream(weir.address, 40).await;
            begin(&mut stream).await;
            streams.push(stream);
        }
        weir.terminate();
        refuses_new_work(weir.address).await;
        for mut stream in streams {
            let events = rest(&mut stream).await;
            assert!(events.ends_with("data: [DONE]\n\n"), "cut: {events:?}");
        }
    });
    let status = weir.ends_within(EXIT_MAX).expect("it ends with its last stream");
    assert_eq!(status.code(), Some(0), "{}", weir.log());
}

#[test]
fn what_waits_when_the_end_begins_has_an_end_too() {
    let mut weir = Process::serve(&format!("{SLOW}serve.grace_ms = 60000\n"));
    drive(async {
        let mut streams = Vec::new();
        for _ in 0..SLOTS + 4 {
            streams.push(open_stream(weir.address, 40).await);
        }
        let waiting =
            async || Metrics::scrape(weir.address).await.value("weir_sequences_waiting") as usize;
        while waiting().await < 4 {
            assert!(weir.started.elapsed() < PATIENCE, "the queue never filled");
        }
        weir.terminate();
        for mut stream in streams {
            match stream.head().await.status {
                200 => assert!(rest(&mut stream).await.ends_with("data: [DONE]\n\n")),
                status => assert_eq!(status, 503),
            }
        }
    });
    let status = weir.ends_within(EXIT_MAX).expect("it ends with its last stream");
    assert_eq!(status.code(), Some(0), "{}", weir.log());
}

#[test]
fn what_outlasts_the_grace_time_is_told_so() {
    let mut weir = Process::serve(&format!("{SLOW}serve.grace_ms = 300\n"));
    drive(async {
        let mut stream = open_stream(weir.address, 900).await;
        begin(&mut stream).await;
        weir.terminate();
        let events = rest(&mut stream).await;
        let last = events.trim_end().rsplit("\n\n").next().expect("an event");
        assert!(last.starts_with("data: {\"error\""), "no word of the end: {last:?}");
        assert!(events.ends_with("\n\n"), "half an event: {events:?}");
    });
    let status = weir.ends_within(EXIT_MAX).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", weir.log());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut weir = Process::serve(&format!("{SLOW}serve.grace_ms = 60000\n"));
    drive(async {
        let mut stream = open_stream(weir.address, 900).await;
        begin(&mut stream).await;
        weir.terminate();
        refuses_new_work(weir.address).await;
        assert!(weir.ends_within(Duration::ZERO).is_none(), "a stream still runs");
        weir.terminate();
        assert!(weir.ends_within(EXIT_MAX).is_some(), "the second signal was not heard");
    });
}

async fn open_stream(to: SocketAddr, tokens: u32) -> Connection {
    let body = json!({
        "prompt": "fn main() {", "max_tokens": tokens, "stream": true, "ignore_eos": true,
    });
    let mut connection = Connection::open(to).await;
    connection.patience = PATIENCE;
    let json = [("content-type", "application/json")];
    let bytes = request("POST", "/v1/completions", &json, body.to_string().as_bytes());
    connection.send(&bytes).await;
    connection
}

/// Waits for the first text.
async fn begin(stream: &mut Connection) {
    assert_eq!(stream.head().await.status, 200);
    stream.chunk().await.expect("a first event");
}

/// The rest of a stream, which must come to its proper end.
async fn rest(stream: &mut Connection) -> String {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.chunk().await {
        bytes.extend(chunk);
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// The signal is on its way for a moment; then nobody is let in any more.
async fn refuses_new_work(to: SocketAddr) {
    let deadline = Instant::now() + EXIT_MAX;
    loop {
        let Ok(stream) = TcpStream::connect(to).await else { return };
        drop(stream);
        assert!(Instant::now() < deadline, "it still lets work in");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
