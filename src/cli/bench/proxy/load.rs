//! Arrivals at a constant rate, whether or not those before them have been answered. What a
//! request takes counts from when it was due, so that nobody's delay hides another's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::answer::{Answer, Wrong};
use crate::cli::Failure;

/// Seconds of requests that may be under way at once: ten times what an answer takes.
const UNDER_WAY_S: f64 = 1.5;
const UNDER_WAY_MIN: usize = 16;
const UNDER_WAY_MAX: usize = 512;
/// Each of them is a thread that only reads.
const STACK_BYTES: usize = 128 << 10;
/// Arrivals before those that count: they open the connections.
const WARM_UP_S: f64 = 1.0;
/// From now to the first arrival, so that every thread is there by then.
const START: Duration = Duration::from_millis(200);
/// Silence for so long is no answer.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Code, as an editor sends it: before the cursor, and after.
const PREFIX_BYTES: usize = 3 << 10;
const SUFFIX_BYTES: usize = 1 << 10;

/// Where requests go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) address: SocketAddr,
}

pub(super) struct Load {
    /// A second.
    pub(super) rate: f64,
    pub(super) seconds: f64,
    /// What every answer has to say.
    pub(super) expected: String,
    pub(super) key: String,
}

/// What a run came to, in milliseconds from when a request was due.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub(super) requests: usize,
    pub(super) failed: usize,
    pub(super) ttft_ms: Spread,
    pub(super) total_ms: Spread,
    /// Why the first one failed.
    #[serde(skip)]
    pub(super) complaint: Option<String>,
}

/// Of all that were answered.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

/// To the first text, and to the end.
type Took = (Duration, Duration);

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wrong(#[from] Wrong),
    #[error("the connection ended")]
    Ended,
    #[error("the answer says {0:?}")]
    Text(String),
}

impl Load {
    fn request(&self, host: SocketAddr) -> Vec<u8> {
        let code = include_str!("upstream.rs");
        let (prefix, rest) = code.split_at(code.floor_char_boundary(PREFIX_BYTES));
        let suffix = &rest[..rest.floor_char_boundary(SUFFIX_BYTES)];
        let body = json!({
            "model": "upstream", "prompt": prefix, "suffix": suffix, "path": "src/main.rs",
            "max_tokens": 64, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true},
        });
        let body = body.to_string();
        format!(
            "POST /v1/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        )
        .into_bytes()
    }

    /// Asks everything at its time and waits for the last answer.
    pub(super) fn run(&self, target: &Target) -> Result<Run, Failure> {
        let warm_up = (self.rate * WARM_UP_S) as usize;
        let all = warm_up + (self.rate * self.seconds).max(1.0) as usize;
        let workers = ((self.rate * UNDER_WAY_S) as usize).clamp(UNDER_WAY_MIN, UNDER_WAY_MAX);
        let line = Line {
            request: self.request(target.address),
            address: target.address,
            expected: &self.expected,
            idle: Mutex::default(),
        };
        let (next, zero) = (AtomicUsize::new(0), Instant::now() + START);
        let work = || {
            let mut answers = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= all {
                    return answers;
                }
                let due = zero + Duration::from_secs_f64(index as f64 / self.rate);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let answer = line.ask(due);
                answers.extend((index >= warm_up).then_some(answer));
            }
        };
        let answers = thread::scope(|scope| {
            let spawn =
                |_| thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
            let workers: Vec<_> = (0..workers).map(spawn).collect::<io::Result<_>>()?;
            let done = |worker: thread::ScopedJoinHandle<'_, Vec<_>>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            Ok::<_, io::Error>(workers.into_iter().flat_map(done).collect::<Vec<_>>())
        })?;
        Ok(Run::of(&answers))
    }
}

/// One target's connections.
struct Line<'a> {
    request: Vec<u8>,
    address: SocketAddr,
    expected: &'a str,
    /// The one used last comes first, so that no more are open than are needed.
    idle: Mutex<Vec<TcpStream>>,
}

impl Line<'_> {
    fn ask(&self, due: Instant) -> Result<Took, Failed> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(stream) = kept {
            match self.exchange(stream, due) {
                // A server may close an idle connection while it is being used again.
                Err(Failed::Io(_) | Failed::Ended) => {}
                done => return done,
            }
        }
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        self.exchange(stream, due)
    }

    fn exchange(&self, mut stream: TcpStream, due: Instant) -> Result<Took, Failed> {
        stream.write_all(&self.request)?;
        let (mut answer, mut first) = (Answer::default(), None);
        let mut part = [0; 16 << 10];
        loop {
            let read = stream.read(&mut part)?;
            let now = Instant::now();
            if read == 0 {
                return Err(Failed::Ended);
            }
            answer.push(&part[..read])?;
            if first.is_none() && !answer.text.is_empty() {
                first = Some(now - due);
            }
            if answer.over {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
                return match first {
                    Some(first) if answer.text == self.expected => Ok((first, now - due)),
                    _ => Err(Failed::Text(answer.text)),
                };
            }
        }
    }
}

impl Run {
    fn of(answers: &[Result<Took, Failed>]) -> Self {
        let good = || answers.iter().filter_map(|answer| answer.as_ref().ok());
        Self {
            requests: answers.len(),
            failed: answers.len() - good().count(),
            ttft_ms: Spread::of(good().map(|took| took.0)),
            total_ms: Spread::of(good().map(|took| took.1)),
            complaint: answers.iter().find_map(|a| a.as_ref().err()).map(Failed::to_string),
        }
    }
}

impl Spread {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut ms: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (ms.len() as f64 * share) as usize;
            ms.get(place.min(ms.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
        };
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_told_by_order() {
        let spread = Spread::of((1..=1000).rev().map(Duration::from_millis));
        assert_eq!((spread.p50, spread.p99, spread.p999), (501.0, 991.0, 1000.0));
        assert!(Spread::of(std::iter::empty()).p50.is_nan());
    }
}
