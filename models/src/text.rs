//! From token bytes to the text of an answer: UTF-8 assembly and stop strings, both on bytes.

use std::collections::VecDeque;
use std::sync::Arc;

/// Stop strings of one sequence: the 32 that a request may bring, as many as the OpenAI-shaped
/// servers with the highest limit accept, and room for those of a FIM family.
pub const STOP_STRINGS_MAX: usize = 40;
/// Bytes of one stop string: bounds what is held back, and is far beyond any in use.
pub const STOP_BYTES_MAX: usize = 1024;

/// Why a list of stop strings is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    #[error("at most {STOP_STRINGS_MAX} stop strings are allowed")]
    TooMany,
    #[error("a stop string must not be empty")]
    Empty,
    #[error("a stop string may be at most {STOP_BYTES_MAX} bytes long")]
    TooLong,
}

/// The stop strings of a request as one automaton, shared by its choices.
#[derive(Debug)]
pub struct StopStrings {
    states: Vec<State>,
    /// Length of the longest string in bytes.
    longest: usize,
}

/// A prefix of some stop string.
#[derive(Debug, Default)]
struct State {
    /// Next states by byte.
    next: Vec<(u8, u32)>,
    /// The longest proper suffix of this prefix that is a prefix of some string too.
    fallback: u32,
    /// Length of this prefix: how many bytes might still become a stop string.
    depth: u32,
    /// Length of the longest stop string that ends here; 0 if none does.
    matched: u32,
}

const ROOT: u32 = 0;

impl StopStrings {
    pub fn new<S: AsRef<str>>(strings: &[S]) -> Result<Self, StopError> {
        if strings.len() > STOP_STRINGS_MAX {
            return Err(StopError::TooMany);
        }
        let mut stops = Self { states: vec![State::default()], longest: 0 };
        for string in strings {
            stops.insert(string.as_ref().as_bytes())?;
        }
        stops.link();
        Ok(stops)
    }

    fn insert(&mut self, string: &[u8]) -> Result<(), StopError> {
        match string.len() {
            0 => return Err(StopError::Empty),
            length if length > STOP_BYTES_MAX => return Err(StopError::TooLong),
            length => self.longest = self.longest.max(length),
        }
        let mut at = ROOT;
        for (depth, &byte) in (1u32..).zip(string) {
            at = self.child(at, byte).unwrap_or_else(|| {
                let new = self.states.len() as u32;
                self.states.push(State { depth, ..State::default() });
                self.states[at as usize].next.push((byte, new));
                new
            });
        }
        self.states[at as usize].matched = string.len() as u32;
        Ok(())
    }

    /// Sets fallbacks breadth first, so that every fallback is final before it is followed.
    fn link(&mut self) {
        let mut queue = VecDeque::from([ROOT]);
        while let Some(at) = queue.pop_front() {
            for (byte, child) in self.states[at as usize].next.clone() {
                let fallback = if at == ROOT {
                    ROOT
                } else {
                    self.step(self.states[at as usize].fallback, byte)
                };
                let inherited = self.states[fallback as usize].matched;
                let state = &mut self.states[child as usize];
                state.fallback = fallback;
                // the string that ends here by itself is longer than any found in its suffix
                if state.matched == 0 {
                    state.matched = inherited;
                }
                queue.push_back(child);
            }
        }
    }

    fn child(&self, at: u32, byte: u8) -> Option<u32> {
        self.states[at as usize].next.iter().find(|(b, _)| *b == byte).map(|(_, next)| *next)
    }

    fn step(&self, mut at: u32, byte: u8) -> u32 {
        loop {
            if let Some(next) = self.child(at, byte) {
                return next;
            }
            if at == ROOT {
                return ROOT;
            }
            at = self.states[at as usize].fallback;
        }
    }
}

/// Whether a sequence goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Open,
    /// A stop string was completed; what came before it is out, nothing more will come.
    Stopped,
}

/// Assembles one sequence's text. Emits whole characters only; bytes that are not UTF-8 become
/// U+FFFD exactly as [`String::from_utf8_lossy`] would make them over the whole text; only what may
/// be the beginning of a character at its very end is left out.
///
/// The text ends before the stop string that is completed first; of several that are completed
/// by the same byte, before the longest. So the result does not depend on where tokens end.
#[derive(Debug)]
pub struct TextAssembler {
    stops: Arc<StopStrings>,
    state: u32,
    /// Bytes not emitted yet are `held[start..]`: an incomplete character, or the beginning of
    /// a stop string, or one and then the other.
    held: Vec<u8>,
    start: usize,
    progress: Progress,
}

impl TextAssembler {
    pub fn new(stops: Arc<StopStrings>) -> Self {
        // room for what can be held back, a token and the part that compaction leaves in front
        let held = Vec::with_capacity(2 * (stops.longest + 64));
        Self { stops, state: ROOT, held, start: 0, progress: Progress::Open }
    }

    /// Takes one token's bytes and appends the text that is now certain to `out`. After
    /// [`Progress::Stopped`] everything is ignored.
    pub fn push(&mut self, token: &[u8], out: &mut impl Extend<u8>) -> Progress {
        if self.progress == Progress::Stopped {
            return Progress::Stopped;
        }
        for &byte in token {
            self.held.push(byte);
            self.state = self.stops.step(self.state, byte);
            let matched = self.stops.states[self.state as usize].matched as usize;
            if matched > 0 {
                self.held.truncate(self.held.len() - matched);
                self.progress = Progress::Stopped;
                self.flush(out);
                return Progress::Stopped;
            }
        }
        let maybe_stop = self.stops.states[self.state as usize].depth as usize;
        self.emit(self.held.len() - maybe_stop, out);
        Progress::Open
    }

    /// Like [`TextAssembler::push`] where stop strings do not count yet: one that ends or begins
    /// in this token is text.
    pub fn push_through(&mut self, token: &[u8], out: &mut impl Extend<u8>) -> Progress {
        if self.progress == Progress::Open {
            self.held.extend_from_slice(token);
            self.state = ROOT;
            self.emit(self.held.len(), out);
        }
        self.progress
    }

    /// The sequence ended: emits what was held back. Of a character whose end has not come it
    /// emits nothing: the next token would have ended it.
    pub fn finish(&mut self, out: &mut impl Extend<u8>) {
        self.emit(self.held.len(), out);
        self.held.clear();
        self.start = 0;
        self.progress = Progress::Stopped;
    }

    /// Emits whole characters of `held[start..end]`.
    fn emit(&mut self, end: usize, out: &mut impl Extend<u8>) {
        // a stop string begins at a character, so a held character never reaches into it
        while self.start < end {
            match std::str::from_utf8(&self.held[self.start..end]) {
                Ok(text) => {
                    out.extend(text.bytes());
                    self.start = end;
                }
                Err(error) => {
                    let valid = self.start + error.valid_up_to();
                    out.extend(self.held[self.start..valid].iter().copied());
                    self.start = valid;
                    let Some(invalid) = error.error_len() else { break };
                    out.extend(REPLACEMENT);
                    self.start += invalid;
                }
            }
        }
        self.compact();
    }

    fn flush(&mut self, out: &mut impl Extend<u8>) {
        self.emit(self.held.len(), out);
        if self.start < self.held.len() {
            out.extend(REPLACEMENT);
        }
        self.held.clear();
        self.start = 0;
    }

    /// Moves what is held to the front once the emitted part is the larger one, so that the
    /// bytes moved never outnumber the bytes emitted.
    fn compact(&mut self) {
        let kept = self.held.len() - self.start;
        if self.start >= kept {
            self.held.copy_within(self.start.., 0);
            self.held.truncate(kept);
            self.start = 0;
        }
    }
}

/// U+FFFD in UTF-8.
const REPLACEMENT: [u8; 3] = [0xEF, 0xBF, 0xBD];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: try every end, then every stop string, on the whole text.
    fn naive(text: &[u8], stops: &[String]) -> (String, bool) {
        for end in 1..=text.len() {
            let longest =
                stops.iter().filter(|s| text[..end].ends_with(s.as_bytes())).map(String::len).max();
            if let Some(length) = longest {
                return (String::from_utf8_lossy(&text[..end - length]).into_owned(), true);
            }
        }
        (String::from_utf8_lossy(without_beginning(text)).into_owned(), false)
    }

    /// A text without the beginning of a character at its end.
    fn without_beginning(text: &[u8]) -> &[u8] {
        let begins = |tail: &[u8]| {
            std::str::from_utf8(tail)
                .is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
        };
        let tails = (text.len().saturating_sub(3)..text.len()).rev();
        &text[..tails.into_iter().find(|&at| begins(&text[at..])).unwrap_or(text.len())]
    }

    fn assemble<'a>(
        tokens: impl IntoIterator<Item = &'a [u8]>,
        stops: &[String],
    ) -> (String, bool) {
        let stops = Arc::new(StopStrings::new(stops).expect("few and short"));
        let mut text = TextAssembler::new(stops);
        let mut out = Vec::new();
        let mut stopped = false;
        for token in tokens {
            let before = out.len();
            stopped |= text.push(token, &mut out) == Progress::Stopped;
            assert!(std::str::from_utf8(&out[before..]).is_ok(), "cut inside a character");
        }
        text.finish(&mut out);
        (String::from_utf8(out).expect("checked above"), stopped)
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn stop_strings_do_not_count_before_their_time() {
        let stops = StopStrings::new(&["ab"]).unwrap();
        let mut text = TextAssembler::new(Arc::new(stops));
        let mut out = Vec::new();
        assert_eq!(text.push_through(b"xaba", &mut out), Progress::Open);
        assert_eq!(out, b"xaba", "the last byte begins none either");
        assert_eq!(text.push(b"bya", &mut out), Progress::Open);
        assert_eq!(out, b"xababy");
        assert_eq!(text.push(b"bz", &mut out), Progress::Stopped);
        assert_eq!(out, b"xababy");
    }

    #[test]
    fn the_stop_completed_first_wins_and_is_not_emitted() {
        let stops = strings(&["\n\n", "} else", "}"]);
        assert_eq!(assemble([b"a\n".as_slice(), b"\nb"], &stops), ("a".into(), true));
        assert_eq!(assemble([b"x } else".as_slice()], &stops), ("x ".into(), true));
        assert_eq!(
            assemble([b"abc".as_slice()], &strings(&["bc", "abc", "c"])),
            (String::new(), true)
        );
    }

    #[test]
    fn a_partial_match_is_held_back_and_released() {
        let stops = Arc::new(StopStrings::new(&["END."]).expect("valid"));
        let mut text = TextAssembler::new(stops);
        let mut out = Vec::new();
        text.push(b"the EN", &mut out);
        assert_eq!(out, b"the ");
        text.push(b"D of", &mut out);
        assert_eq!(out, b"the END of");
        text.push(b" E", &mut out);
        text.finish(&mut out);
        assert_eq!(out, b"the END of E");
    }

    #[test]
    fn a_character_split_over_tokens_comes_out_whole() {
        let crab = "🦀".as_bytes();
        assert_eq!(assemble(crab.chunks(1), &[]), ("🦀".into(), false));
        assert_eq!(assemble([&crab[..3], b"!"], &[]), ("\u{FFFD}!".into(), false));
        assert_eq!(assemble([&crab[..3]], &[]), (String::new(), false));
        assert_eq!(assemble([b"a".as_slice(), &crab[..2]], &[]), ("a".into(), false));
    }

    #[test]
    fn lists_out_of_bounds_are_refused() {
        assert_eq!(StopStrings::new(&[""]).err(), Some(StopError::Empty));
        assert_eq!(StopStrings::new(&["x"; STOP_STRINGS_MAX + 1]).err(), Some(StopError::TooMany));
        assert_eq!(StopStrings::new(&["x".repeat(1025)]).err(), Some(StopError::TooLong));
        assert!(StopStrings::new(&["x"; STOP_STRINGS_MAX]).is_ok());
    }

    #[test]
    fn steady_state_allocates_nothing() {
        let stops = Arc::new(StopStrings::new(&["aaaaaaaaab"]).expect("valid"));
        let mut text = TextAssembler::new(stops);
        let mut out = Vec::new();
        let room = text.held.capacity();
        for _ in 0..10_000 {
            text.push(b"aaa", &mut out);
        }
        assert_eq!(text.held.capacity(), room);
    }

    fn stop() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!['a', 'b', '\n', 'é', '🦀']), 1..4)
            .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn any_split_gives_what_a_search_over_the_whole_text_gives(
            tokens in prop::collection::vec(
                prop::collection::vec(
                    prop::sample::select(b"aab\n\xC3\xA9\xF0\x9F\xA6\x80\xFF".to_vec()), 0..6),
                0..12),
            stops in prop::collection::vec(stop(), 0..5),
        ) {
            let whole = tokens.concat();
            prop_assert_eq!(assemble(tokens.iter().map(Vec::as_slice), &stops), naive(&whole, &stops));
        }
    }
}
