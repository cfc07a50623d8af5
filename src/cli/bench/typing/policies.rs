//! What the completion clients do between a key and a request, as data. Read in their sources;
//! where a client counts in tokens, a token is taken for four characters.

use std::time::Duration;

/// One client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) name: &'static str,
    /// From the last key until it asks.
    pub(super) debounce: Duration,
    /// Between two requests, at least.
    pub(super) throttle: Duration,
    /// How much before and behind the cursor it sends.
    pub(super) prefix: Window,
    pub(super) suffix: Window,
    /// Pieces of places visited before, where the dialect has room for them.
    pub(super) chunks: usize,
    pub(super) max_tokens: u32,
    /// `t_max_predict_ms`, where the dialect has it: of what is shown, and of what follows.
    pub(super) predict_ms: Option<(u32, u32)>,
    pub(super) stream: bool,
    /// Asks for one line.
    pub(super) single_line: bool,
    /// Closes the connection once it has read a line.
    pub(super) closes_after_line: bool,
    pub(super) in_flight: InFlight,
    /// Requests that are alike, sent at once for alternatives.
    pub(super) copies: usize,
    /// Asks what would follow a suggestion as soon as that is shown.
    pub(super) follows_up: bool,
    /// Has its pieces read ahead while nobody types.
    pub(super) warm_up: Option<WarmUp>,
    /// Gives up after so long and shows what it has.
    pub(super) patience: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    Lines(usize),
    Characters(usize),
}

/// What becomes of a request that is under way when a key makes another text of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InFlight {
    /// It goes on, and the next one waits for its end.
    Wait,
    /// Its connection is closed unless what came of it is being typed.
    Abort,
    /// It goes on while it may still be what is typed; at most so many do.
    Parallel(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WarmUp {
    /// After the last key.
    pub(super) idle: Duration,
    pub(super) every: Duration,
}

/// What a row leaves out.
const PLAIN: Policy = Policy {
    name: "",
    debounce: Duration::ZERO,
    throttle: Duration::ZERO,
    prefix: Window::Characters(4096),
    suffix: Window::Characters(1024),
    chunks: 0,
    max_tokens: 64,
    predict_ms: None,
    stream: true,
    single_line: false,
    closes_after_line: false,
    in_flight: InFlight::Abort,
    copies: 1,
    follows_up: false,
    warm_up: None,
    patience: None,
};

pub(super) static POLICIES: [Policy; 6] = [
    Policy {
        name: "llama.vim",
        prefix: Window::Lines(256),
        suffix: Window::Lines(64),
        chunks: 16,
        max_tokens: 128,
        predict_ms: Some((250, 1000)),
        stream: false,
        in_flight: InFlight::Wait,
        follows_up: true,
        warm_up: Some(WarmUp { idle: Duration::from_secs(3), every: Duration::from_secs(1) }),
        ..PLAIN
    },
    // 1,024 tokens, three tenths before and two behind the cursor; the rest is for snippets.
    Policy {
        name: "continue",
        debounce: Duration::from_millis(350),
        prefix: Window::Characters(1229),
        suffix: Window::Characters(819),
        max_tokens: 4096,
        closes_after_line: true,
        ..PLAIN
    },
    // 7,692 tokens, 35 % before and 15 % behind; the rest is for other files.
    Policy {
        name: "copilot",
        prefix: Window::Characters(10_768),
        suffix: Window::Characters(4_615),
        max_tokens: 500,
        single_line: true,
        in_flight: InFlight::Parallel(4),
        follows_up: true,
        closes_after_line: true,
        ..PLAIN
    },
    // Its debounce adapts to the typist from 100 ms to a second; at these keys it is about this.
    Policy {
        name: "tabby",
        debounce: Duration::from_millis(250),
        prefix: Window::Lines(20),
        suffix: Window::Lines(20),
        max_tokens: 64,
        stream: false,
        ..PLAIN
    },
    Policy {
        name: "zed",
        throttle: Duration::from_millis(300),
        prefix: Window::Characters(1365),
        suffix: Window::Characters(683),
        max_tokens: 64,
        stream: false,
        in_flight: InFlight::Parallel(2),
        ..PLAIN
    },
    // 16,000 characters, three quarters of them before the cursor.
    Policy {
        name: "minuet",
        debounce: Duration::from_millis(400),
        throttle: Duration::from_secs(1),
        prefix: Window::Characters(12_000),
        suffix: Window::Characters(4_000),
        max_tokens: 256,
        copies: 3,
        patience: Some(Duration::from_secs(3)),
        ..PLAIN
    },
];

impl Policy {
    pub(super) fn by_name(name: &str) -> Option<&'static Policy> {
        POLICIES.iter().find(|policy| policy.name == name)
    }
}

impl Window {
    /// The end of a text.
    pub(super) fn before(self, text: &str) -> &str {
        let from = match self {
            // One more, because the line that the cursor is in is not counted.
            Window::Lines(lines) => {
                text.rmatch_indices('\n').nth(lines).map_or(0, |(newline, _)| newline + 1)
            }
            Window::Characters(count) => {
                text.char_indices().rev().nth(count.saturating_sub(1)).map_or(0, |(at, _)| at)
            }
        };
        &text[from..]
    }

    /// The beginning of a text.
    pub(super) fn behind(self, text: &str) -> &str {
        let to = match self {
            Window::Lines(lines) => {
                text.match_indices('\n').nth(lines).map_or(text.len(), |(newline, _)| newline + 1)
            }
            Window::Characters(count) => {
                text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)
            }
        };
        &text[..to]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_shows_what_is_near_the_cursor() {
        let text = "one\ntwo\nthrée\nfo";
        assert_eq!(Window::Lines(1).before(text), "thrée\nfo");
        assert_eq!(Window::Lines(9).before(text), text);
        assert_eq!(Window::Characters(4).before(text), "e\nfo");
        assert_eq!(Window::Characters(99).before(text), text);
        assert_eq!(Window::Lines(1).behind(text), "one\ntwo\n");
        assert_eq!(Window::Lines(9).behind(text), text);
        assert_eq!(Window::Characters(11).behind(text), "one\ntwo\nthr");
        assert_eq!(Window::Characters(99).behind(text), text);
    }

    #[test]
    fn every_policy_has_a_name_of_its_own() {
        for policy in &POLICIES {
            assert_eq!(Policy::by_name(policy.name), Some(policy));
            assert!(policy.copies > 0 && policy.max_tokens > 0);
        }
        assert_eq!(Policy::by_name("emacs"), None);
    }
}
