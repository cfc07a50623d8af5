//! A trace: when requests arrive and how much work they are, one line of JSON each.
//!
//! docs/plan.md documents the format.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::completion::Priority;

/// Longest line in bytes; far above any that this format needs.
const LINE_BYTES_MAX: usize = 4096;
/// Most requests of a trace: a day of a large site, and some 400 MB.
pub const REQUESTS_MAX: usize = 10_000_000;
/// Most tokens of a prompt or an answer.
const TOKENS_MAX: u32 = 10_000_000;
/// Latest arrival: ten years, which nanoseconds in 64 bits have room for.
const SECONDS_MAX: f64 = 10.0 * 366.0 * 86_400.0;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Nanoseconds since the trace began.
    pub at_ns: u64,
    pub prompt_tokens: u32,
    /// Of the prompt's first tokens, how many the box's prefix cache may have; less than all.
    pub cached_tokens: u32,
    /// Whose earlier requests put them there, from 0 on; None: they are there whatever happens.
    pub session: Option<u32>,
    /// Generated tokens.
    pub output_tokens: u32,
    /// As asked for, which is what a cloud's worst case is made of.
    pub max_tokens: u32,
    pub priority: Priority,
}

/// Requests in the order of their arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub arrivals: Vec<Arrival>,
    /// Sessions are numbered below this.
    pub sessions: u32,
}

/// What is wrong with a trace, and in which line.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("line {line}: {what}")]
    Line { line: usize, what: String },
    #[error("the trace cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Whole(&'static str),
}

/// A line as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Seconds since any time, never before the line above by more than the trace's own order.
    at: f64,
    prompt_tokens: u32,
    #[serde(default)]
    cached_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    output_tokens: u32,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    class: Class,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Class {
    #[default]
    Completion,
    Chat,
    Batch,
}

impl From<Class> for Priority {
    fn from(class: Class) -> Self {
        match class {
            Class::Completion => Priority::Completion,
            Class::Chat => Priority::Chat,
            Class::Batch => Priority::Batch,
        }
    }
}

impl From<Priority> for Class {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Completion => Class::Completion,
            Priority::Chat => Class::Chat,
            Priority::Batch | Priority::WarmUp => Class::Batch,
        }
    }
}

impl Trace {
    /// Reads lines of JSON; blank ones are skipped. Arrivals are put in order and begin at 0.
    pub fn read(mut lines: impl BufRead) -> Result<Self, TraceError> {
        let mut trace = Self::default();
        let mut names = HashMap::new();
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            let read = io::Read::take(&mut lines, LINE_BYTES_MAX as u64).read_line(&mut text)?;
            let wrong = |what: String| TraceError::Line { line, what };
            if read == 0 {
                break;
            }
            if read == LINE_BYTES_MAX {
                return Err(wrong(format!("is longer than {LINE_BYTES_MAX} bytes")));
            }
            if text.trim().is_empty() {
                continue;
            }
            if trace.arrivals.len() == REQUESTS_MAX {
                return Err(wrong(format!("a trace has at most {REQUESTS_MAX} requests")));
            }
            let said: Line =
                serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            trace.arrivals.push(said.arrival(&mut names).map_err(wrong)?);
        }
        trace.sessions = names.len() as u32;
        trace.settle()
    }

    /// In order, from 0 on.
    pub(super) fn settle(mut self) -> Result<Self, TraceError> {
        self.arrivals.sort_by_key(|arrival| arrival.at_ns);
        let Some(first) = self.arrivals.first().map(|first| first.at_ns) else {
            return Err(TraceError::Whole("the trace has no request"));
        };
        for arrival in &mut self.arrivals {
            arrival.at_ns -= first;
        }
        Ok(self)
    }

    /// Writes what [`Trace::read`] reads.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        for arrival in &self.arrivals {
            let line = Line {
                at: (arrival.at_ns / 1_000) as f64 / 1e6,
                prompt_tokens: arrival.prompt_tokens,
                cached_tokens: Some(arrival.cached_tokens),
                session: arrival.session.map(|session| format!("s{session}")),
                output_tokens: arrival.output_tokens,
                max_tokens: Some(arrival.max_tokens),
                class: arrival.priority.into(),
            };
            serde_json::to_writer(&mut out, &line).map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Mean tokens of a prompt, and of those the mean that may be cached.
    pub fn typical(&self) -> (usize, usize) {
        let mean = |tokens: fn(&Arrival) -> u32| {
            let sum: usize = self.arrivals.iter().map(|arrival| tokens(arrival) as usize).sum();
            sum / self.arrivals.len().max(1)
        };
        (mean(|arrival| arrival.prompt_tokens), mean(|arrival| arrival.cached_tokens))
    }

    /// Nanoseconds from the first arrival to the last.
    pub fn span_ns(&self) -> u64 {
        self.arrivals.last().map_or(0, |last| last.at_ns)
    }
}

impl Line {
    fn arrival(self, names: &mut HashMap<String, u32>) -> Result<Arrival, String> {
        if !(0.0..=SECONDS_MAX).contains(&self.at) {
            return Err(format!("at must be from 0 to {SECONDS_MAX} seconds"));
        }
        let max_tokens = self.max_tokens.unwrap_or(self.output_tokens);
        let counts = [self.prompt_tokens, self.output_tokens, max_tokens];
        if counts.iter().any(|count| !(1..=TOKENS_MAX).contains(count)) {
            return Err(format!("tokens must be from 1 to {TOKENS_MAX}"));
        }
        if self.output_tokens > max_tokens {
            return Err("output_tokens must be at most max_tokens".into());
        }
        // A prompt's last token is always computed: what follows it is the answer.
        let most = self.prompt_tokens - 1;
        let default = if self.session.is_some() { most } else { 0 };
        let next = names.len() as u32;
        Ok(Arrival {
            at_ns: (self.at * 1e9).round() as u64,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens.unwrap_or(default).min(most),
            session: self.session.map(|name| *names.entry(name).or_insert(next)),
            output_tokens: self.output_tokens,
            max_tokens,
            priority: self.class.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Trace, String> {
        Trace::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_become_arrivals_in_order() {
        let trace = read(
            "{\"at\": 8.5, \"prompt_tokens\": 100, \"output_tokens\": 7, \"session\": \"b\"}\n\n\
             {\"at\": 7, \"prompt_tokens\": 9, \"cached_tokens\": 9, \"output_tokens\": 1,\
               \"max_tokens\": 4, \"class\": \"batch\"}\n\
             {\"at\": 9, \"prompt_tokens\": 9, \"cached_tokens\": 5, \"output_tokens\": 1,\
               \"session\": \"a\"}",
        );
        let trace = trace.unwrap();
        let [first, second, third] = trace.arrivals[..] else { panic!("three lines") };
        assert_eq!((first.at_ns, second.at_ns, third.at_ns), (0, 1_500_000_000, 2_000_000_000));
        assert_eq!((first.cached_tokens, first.session), (8, None), "the last token always runs");
        assert_eq!((first.max_tokens, first.priority), (4, Priority::Batch));
        assert_eq!((second.cached_tokens, second.max_tokens), (99, 7), "a session's whole prompt");
        assert_eq!((second.session, third.session, trace.sessions), (Some(0), Some(1), 2));
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = "{\"at\":0.0,\"prompt_tokens\":9,\"cached_tokens\":3,\"session\":\"s0\",\
                    \"output_tokens\":2,\"max_tokens\":4,\"class\":\"chat\"}\n";
        let mut written = Vec::new();
        read(text).unwrap().write(&mut written).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), text);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let line = "{\"at\": 1, \"prompt_tokens\": 9, \"output_tokens\": 2}\n";
        for (text, why) in [
            ("", "no request"),
            ("{}", "line 1: missing field"),
            (&format!("{line}{{\"at\": 1, \"prompt\": 1}}"), "line 2: unknown field"),
            ("{\"at\": -1, \"prompt_tokens\": 9, \"output_tokens\": 2}", "at must be"),
            ("{\"at\": 1e300, \"prompt_tokens\": 9, \"output_tokens\": 2}", "at must be"),
            ("{\"at\": 1, \"prompt_tokens\": 0, \"output_tokens\": 2}", "tokens must be"),
            (
                "{\"at\": 1, \"prompt_tokens\": 9, \"output_tokens\": 2, \"max_tokens\": 1}",
                "at most",
            ),
            (&format!("{}{line}", " ".repeat(LINE_BYTES_MAX)), "longer than 4096"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(why), "{said} instead of {why}");
        }
    }
}
