//! Stop strings on a stream of text: what may still become one is held back.

/// Watches the text of one choice.
#[derive(Debug, Default)]
pub(super) struct StopMatcher {
    /// Text that may be the beginning of a stop string: shorter than the longest of them.
    held: String,
}

impl StopMatcher {
    /// Takes the next text and appends to `out` what no stop string can reach any more. True when
    /// a stop string was met: `out` ends right before the first one, and the rest is gone.
    pub(super) fn push(&mut self, text: &str, stops: &[String], out: &mut String) -> bool {
        self.held.push_str(text);
        // The first to be complete; of those that end together the longest. Anything else would
        // depend on how the text was split.
        let ends = stops.iter().filter_map(|stop| {
            let at = self.held.find(stop.as_str())?;
            Some((at + stop.len(), at))
        });
        if let Some((_, at)) = ends.min() {
            out.push_str(&self.held[..at]);
            self.held.clear();
            return true;
        }
        let keep = stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let free = self.held.len() - keep;
        out.push_str(&self.held[..free]);
        self.held.drain(..free);
        false
    }

    /// The text ended: what was held back is text after all.
    pub(super) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}

/// Length in bytes of the longest tail of `text` that is a head of `next`.
pub(super) fn overlap(text: &str, next: &str) -> usize {
    let longest = text.len().min(next.len());
    (1..=longest)
        .rev()
        .find(|&len| text.as_bytes()[text.len() - len..] == next.as_bytes()[..len])
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run<'a>(parts: impl IntoIterator<Item = &'a str>, stops: &[String]) -> (String, bool) {
        let mut matcher = StopMatcher::default();
        let mut out = String::new();
        for part in parts {
            if matcher.push(part, stops, &mut out) {
                return (out, true);
            }
        }
        matcher.finish(&mut out);
        (out, false)
    }

    /// The oracle: cut the whole text at the first stop string to be complete; of two that end
    /// together, at the one that begins first.
    fn naive(text: &str, stops: &[String]) -> (String, bool) {
        for end in 1..=text.len() {
            let met = stops.iter().filter(|s| text.as_bytes()[..end].ends_with(s.as_bytes()));
            if let Some(longest) = met.map(String::len).max() {
                return (text[..end - longest].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    proptest! {
        #[test]
        fn characters_one_by_one_agree_with_the_oracle(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
        ) {
            let singles: Vec<String> = text.chars().map(String::from).collect();
            let streamed = run(singles.iter().map(String::as_str), &stops);
            prop_assert_eq!(streamed, naive(&text, &stops));
        }
    }
}
