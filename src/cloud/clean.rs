//! What a chat model adds around a completion, taken off while it streams: a Markdown fence, an
//! echo of the lines before the cursor, a repetition of what follows it.
//!
//! Text is held back only while it may still turn out to be one of these, and every buffer is
//! bounded. What comes out does not depend on how the text was split.

/// White space and language name before the code of a fence; longer ones are text.
const FENCE_HEAD_MAX: usize = 64;
/// Bytes before the cursor in which an echo is looked for: some 40 lines.
const ECHO_WINDOW: usize = 2048;
/// Visible characters from which a repeated line is an echo and no coincidence.
const ECHO_MIN: usize = 3;
/// Bytes after the cursor in which a repetition is looked for. A model that copied so much is
/// done with its own text.
const SUFFIX_WINDOW: usize = 512;
const FENCE: &str = "```";
const CLOSING: &str = "\n```";

/// Cleans one choice.
#[derive(Debug)]
pub(super) struct Cleaner {
    stage: Stage,
    /// Text not given out yet.
    held: String,
    /// A fence was opened, so a closing one ends the completion.
    fenced: bool,
    /// Something was given out.
    begun: bool,
    /// What an echo would begin the text with, longest first.
    echoes: Vec<String>,
    /// Head of the text after the cursor.
    suffix: String,
    /// Closing brackets given out beyond the opening ones.
    unopened: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// May begin with a fence.
    Fence,
    /// May begin with an echo of the prefix.
    Echo,
    Body,
    Ended,
}

impl Cleaner {
    pub(super) fn new(prefix: &str, suffix: &str) -> Self {
        Self {
            stage: Stage::Fence,
            held: String::new(),
            fenced: false,
            begun: false,
            echoes: echoes(prefix),
            suffix: suffix[..suffix.floor_char_boundary(SUFFIX_WINDOW)].to_owned(),
            unopened: 0,
        }
    }

    /// Takes the next text and appends to `out` what is certain. True when the completion is over,
    /// whatever the model goes on to say; [`Cleaner::finish`] then has nothing left.
    pub(super) fn push(&mut self, text: &str, out: &mut String) -> bool {
        self.held.push_str(text);
        if self.stage == Stage::Fence {
            self.open(false);
        }
        if self.stage == Stage::Echo {
            self.skip_echo(false);
        }
        if self.stage == Stage::Body {
            self.body(out);
        }
        self.stage == Stage::Ended
    }

    /// The model ended: gives out what is left, without the repetition of the suffix.
    pub(super) fn finish(&mut self, out: &mut String) {
        if self.stage == Stage::Fence {
            self.open(true);
        }
        if self.stage == Stage::Echo {
            self.skip_echo(true);
        }
        if self.stage == Stage::Body {
            self.body(out);
        }
        if self.stage == Stage::Body {
            if self.fenced {
                // A last line of one or two back-ticks is the fence that was cut off.
                let partial = self.closing_part();
                if partial > 1 {
                    self.held.truncate(self.held.len() - partial);
                }
            }
            self.close(out);
        }
    }

    /// Drops an opening fence with its line; moves on once there is or can be none.
    fn open(&mut self, last: bool) {
        let code = self.held.trim_start();
        let begins = code.starts_with(FENCE);
        let may_begin = FENCE.starts_with(code);
        let line_end = self.held.len() - code.len() + code.find('\n').unwrap_or(code.len());
        if line_end > FENCE_HEAD_MAX || !(begins || may_begin) {
            self.stage = Stage::Echo;
        } else if begins && (line_end < self.held.len() || last) {
            self.held.drain(..(line_end + 1).min(self.held.len()));
            self.fenced = true;
            self.stage = Stage::Echo;
        } else if last {
            self.stage = Stage::Echo;
        }
    }

    /// Drops the longest echo once no longer one can come.
    fn skip_echo(&mut self, last: bool) {
        let held = self.held.as_str();
        let growing = self.echoes.iter().any(|e| e.len() > held.len() && e.starts_with(held));
        if growing && !last {
            return;
        }
        let echo = self.echoes.iter().find(|e| held.starts_with(e.as_str())).map_or(0, String::len);
        self.held.drain(..echo);
        self.echoes = Vec::new();
        self.stage = Stage::Body;
    }

    fn body(&mut self, out: &mut String) {
        let closing = self.fenced.then(|| self.closing()).flatten();
        if let Some(at) = closing {
            self.held.truncate(at);
        }
        // A copy of the whole window can be followed by nothing of the model's own.
        let copied = (self.suffix.len() + 4 > SUFFIX_WINDOW)
            .then(|| self.held.find(self.suffix.as_str()))
            .flatten();
        if let Some(at) = copied {
            self.held.truncate(at);
            self.give(at, out);
            self.stage = Stage::Ended;
        } else if closing.is_some() {
            self.close(out);
        } else {
            let fence = if self.fenced { self.closing_part() } else { 0 };
            let before_fence = &self.held[..self.held.len() - fence];
            let keep = fence + overlap(before_fence, &self.suffix);
            self.give(self.held.len() - keep, out);
        }
    }

    /// Where the closing fence's line begins: after a line's end, or right away.
    fn closing(&self) -> Option<usize> {
        if !self.begun && self.held.starts_with(FENCE) { Some(0) } else { self.held.find(CLOSING) }
    }

    /// How much at the end of what is held may become the closing fence.
    fn closing_part(&self) -> usize {
        let first_line = !self.begun && FENCE.starts_with(&self.held);
        if first_line { self.held.len() } else { overlap(&self.held, CLOSING) }
    }

    /// Gives out all that is held but a repetition of the suffix.
    fn close(&mut self, out: &mut String) {
        let tail = overlap(&self.held, &self.suffix);
        self.give(self.held.len() - tail, out);
        let visible = self.held.chars().filter(|c| !c.is_whitespace()).count();
        let repeated =
            visible >= ECHO_MIN || visible == 0 || self.unopened + unopened(&self.held) > 0;
        if repeated {
            self.held.clear();
        }
        self.give(self.held.len(), out);
        self.stage = Stage::Ended;
    }

    fn give(&mut self, len: usize, out: &mut String) {
        self.begun |= len > 0;
        self.unopened += unopened(&self.held[..len]);
        out.push_str(&self.held[..len]);
        self.held.drain(..len);
    }
}

/// Length in bytes of the longest tail of `text` that is a head of `next`.
fn overlap(text: &str, next: &str) -> usize {
    let longest = text.len().min(next.len());
    (1..=longest)
        .rev()
        .find(|&len| text.as_bytes()[text.len() - len..] == next.as_bytes()[..len])
        .unwrap_or(0)
}

/// Closing less opening brackets.
fn unopened(text: &str) -> i64 {
    text.bytes().fold(0, |sum, byte| match byte {
        b')' | b']' | b'}' => sum + 1,
        b'(' | b'[' | b'{' => sum - 1,
        _ => sum,
    })
}

/// The ways a model repeats the text before the cursor: from any line's start, with that line's
/// indentation or without; longest first.
fn echoes(prefix: &str) -> Vec<String> {
    let window = &prefix[prefix.ceil_char_boundary(prefix.len().saturating_sub(ECHO_WINDOW))..];
    let whole = (window.len() == prefix.len()).then_some(0);
    let starts = whole.into_iter().chain(window.match_indices('\n').map(|(at, _)| at + 1));
    let mut echoes = Vec::new();
    for start in starts {
        let tail = &window[start..];
        if tail.chars().filter(|c| !c.is_whitespace()).count() < ECHO_MIN {
            continue;
        }
        let bare = tail.trim_start_matches([' ', '\t']);
        if bare.len() < tail.len() {
            echoes.push(bare.to_owned());
        }
        echoes.push(tail.to_owned());
    }
    echoes.sort_by_key(|echo| std::cmp::Reverse(echo.len()));
    echoes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clean<'a>(parts: impl IntoIterator<Item = &'a str>, prefix: &str, suffix: &str) -> String {
        let mut cleaner = Cleaner::new(prefix, suffix);
        let mut out = String::new();
        for part in parts {
            if cleaner.push(part, &mut out) {
                break;
            }
        }
        cleaner.finish(&mut out);
        out
    }

    #[test]
    fn takes_off_what_was_added_and_nothing_else() {
        let cases: &[(&str, &str, &str, &str)] = &[
            // prefix, suffix, what the model said, what is left
            ("", "", "a + b", "a + b"),
            ("", "", "    indented\n", "    indented\n"),
            ("", "", "```python\na + b\n```", "a + b"),
            ("", "", "\n```\na\n```\nThis adds.", "a"),
            ("", "", "```", ""),
            ("", "", "```\n```", ""),
            ("", "", "```\ncut off\n``", "cut off"),
            ("", "", "```\ncut off\n", "cut off\n"),
            ("", "", "a ``` b", "a ``` b"),
            ("", "", "# Title\n```\ncode\n```\n", "# Title\n```\ncode\n```\n"),
            ("def f(a):\n    return ", "\n", "    return a", "a"),
            ("def f(a):\n    return ", "\n", "return a", "a"),
            ("def f(a):\n    return ", "\n", "def f(a):\n    return a", "a"),
            ("def f(a):\n    return ", "\n", "```py\ndef f(a):\n    return a\n```", "a"),
            ("x", "", "xx", "xx"),
            ("f(", ")\n    return 1\n", "a, b)\n    return 1\n", "a, b"),
            ("f(", ")\n", "a, b)", "a, b"),
            ("f(", ")", "g()", "g()"),
            ("x = ", "\n\ny = 2", "1\n", "1"),
            ("", "}", "{}", "{}"),
            ("return ", "", "return", "return"),
        ];
        for (prefix, suffix, said, left) in cases {
            assert_eq!(clean([*said], prefix, suffix), *left, "{said:?} at {prefix:?}|{suffix:?}");
        }
    }

    #[test]
    fn a_copied_file_ends_the_completion() {
        let suffix = "line of code\n".repeat(100);
        let mut cleaner = Cleaner::new("", &suffix);
        let mut out = String::new();
        assert!(cleaner.push(&format!("mine\n{suffix}"), &mut out));
        assert_eq!(out, "mine\n");
    }

    #[test]
    fn what_is_held_is_bounded() {
        let prefix = "some line of code\n".repeat(1000);
        let mut cleaner = Cleaner::new(&prefix, &prefix);
        let mut out = String::new();
        for _ in 0..20_000 {
            cleaner.push("some line of code\n", &mut out);
            assert!(cleaner.held.len() <= ECHO_WINDOW + SUFFIX_WINDOW + 64);
            cleaner.push("`", &mut out);
        }
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(
            prefix in "[ab (\n]{0,12}",
            suffix in "[ab )\n]{0,12}",
            said in prop::collection::vec(prop::sample::select(vec![
                "a", "b", "ab", "é", " ", "\n", "`", "```", "```py\n", "\n```", "(", ")", "aab", "b a",
            ]), 0..24),
            repeat in any::<bool>(),
        ) {
            let said = if repeat { format!("{prefix}{}{suffix}", said.concat()) } else { said.concat() };
            let whole = clean([said.as_str()], &prefix, &suffix);
            let singles: Vec<String> = said.chars().map(String::from).collect();
            prop_assert_eq!(&clean(singles.iter().map(String::as_str), &prefix, &suffix), &whole);
            let pairs: Vec<String> =
                singles.chunks(2).map(|pair| pair.concat()).collect();
            prop_assert_eq!(&clean(pairs.iter().map(String::as_str), &prefix, &suffix), &whole);
        }

        #[test]
        fn splits_do_not_matter_at_a_copied_window(
            period in "[ab\n]{1,5}",
            own in "[ab]{0,6}",
            copied in 0usize..700,
            after in "[ab]{0,6}",
            step in 1usize..40,
        ) {
            let suffix = period.repeat(700 / period.len() + 1);
            let said = format!("{own}{}{after}", &suffix[..copied]);
            let whole = clean([said.as_str()], "", &suffix);
            let parts = said.as_bytes().chunks(step).map(|part| std::str::from_utf8(part).unwrap());
            prop_assert_eq!(clean(parts, "", &suffix), whole);
        }
    }
}
