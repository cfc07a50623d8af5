//! A cloud on loopback that keeps time: each answer's first text comes so long after its request,
//! and the others so long after one another.
//!
//! A thread for each connection, because a thread sleeps to some 50 microseconds and an async
//! runtime's timer to a millisecond, and what is measured beside it is a third of one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::{Failure, complain, say};

/// Longest request; what the benchmark sends is a hundredth of it.
const REQUEST_BYTES_MAX: usize = 1 << 20;
const CONNECTIONS_MAX: usize = 2048;

#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct UpstreamArgs {
    /// Address to listen on; port 0 takes a free one, and the first line on standard output says it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    at: SocketAddr,
    #[command(flatten)]
    pub(super) pace: Pace,
}

/// When what of an answer comes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Pace {
    /// Milliseconds from a request to its first text
    #[arg(long, value_name = "MS", default_value_t = 20.0)]
    pub(super) ttft_ms: f64,
    // Not a divisor or a multiple of the time between two arrivals: all streams would say
    // something in the same moment, and wait for one another.
    /// Milliseconds between two texts
    #[arg(long, value_name = "MS", default_value_t = 5.3)]
    pub(super) gap_ms: f64,
    /// Texts of an answer
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(super) deltas: usize,
}

impl Pace {
    /// The whole text of an answer.
    pub(super) fn text(&self) -> String {
        (0..self.deltas).map(delta).collect()
    }
}

fn delta(index: usize) -> String {
    format!(" word{index}")
}

/// Answers until the process ends.
pub(super) fn run(args: &UpstreamArgs) -> Result<(), Failure> {
    let listener = TcpListener::bind(args.at)?;
    say(&format!("{}\n", listener.local_addr()?))?;
    let answer = Arc::new(Answer::new(&args.pace));
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = listener.accept()?;
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            complain(&format!("more than {CONNECTIONS_MAX} connections"));
            continue;
        }
        let (answer, open) = (answer.clone(), open.clone());
        thread::spawn(move || {
            // A client that leaves ends its connection; nobody needs to know.
            let _left = serve(stream, &answer);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// What is written, and how long after the request.
struct Answer(Vec<(Duration, Vec<u8>)>);

impl Answer {
    fn new(pace: &Pace) -> Self {
        let choice = |text: &str, reason: &str| {
            event(&format!(
                "\"choices\":[{{\"index\":0,\"text\":\"{text}\",\"logprobs\":null,\
                 \"finish_reason\":{reason}}}]"
            ))
        };
        let mut parts: Vec<Vec<u8>> =
            (0..pace.deltas).map(|index| chunk(&choice(&delta(index), "null"))).collect();
        let usage = format!(
            "\"choices\":[],\"usage\":{{\"prompt_tokens\":1000,\"completion_tokens\":{0},\
             \"total_tokens\":{1}}}",
            pace.deltas,
            pace.deltas + 1000
        );
        let end = choice("", "\"stop\"") + &event(&usage) + "data: [DONE]\n\n";
        parts.push([chunk(&end), chunk("")].concat());
        parts[0].splice(
            0..0,
            *b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
            transfer-encoding: chunked\r\n\r\n",
        );
        let at = |index: usize| (pace.ttft_ms + index as f64 * pace.gap_ms) / 1e3;
        let timed = parts.into_iter().enumerate();
        Self(timed.map(|(index, part)| (Duration::from_secs_f64(at(index)), part)).collect())
    }
}

fn event(fields: &str) -> String {
    format!(
        "data: {{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1,\
         \"model\":\"upstream\",{fields}}}\n\n"
    )
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

fn serve(mut stream: TcpStream, answer: &Answer) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while receive(&mut stream, &mut buffer)? {
        let began = Instant::now();
        for (at, part) in &answer.0 {
            thread::sleep((began + *at).saturating_duration_since(Instant::now()));
            stream.write_all(part)?;
        }
    }
    Ok(())
}

/// Reads one request and forgets it; false: the client is gone.
fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut part = [0; 16 << 10];
    loop {
        if let Some(length) = request_length(buffer).filter(|length| buffer.len() >= *length) {
            buffer.drain(..length);
            return Ok(true);
        }
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Ok(false);
        }
        buffer.extend_from_slice(&part[..read]);
        if buffer.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// Bytes of the request at the beginning; None: its head is not whole.
fn request_length(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    Some(head + length.and_then(|length| length.trim().parse::<usize>().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_ends_where_its_head_says() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST";
        assert_eq!(request_length(request), Some(request.len() - 4));
        assert_eq!(request_length(b"GET / HTTP/1.1\r\n\r\n"), Some(18));
        assert_eq!(request_length(b"POST / HTTP/1.1\r\ncontent-length: 3\r\n"), None);
    }

    #[test]
    fn an_answer_is_spread_over_its_time() {
        let answer = Answer::new(&Pace { ttft_ms: 20.0, gap_ms: 5.5, deltas: 2 });
        let times: Vec<u128> = answer.0.iter().map(|(at, _)| at.as_micros()).collect();
        assert_eq!(times, [20_000, 25_500, 31_000]);
        assert!(answer.0[0].1.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(answer.0[2].1.ends_with(b"\r\n0\r\n\r\n"));
    }
}
