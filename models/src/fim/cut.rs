//! Where a text around the cursor is cut when it does not fit.
//!
//! Cuts move in coarse steps: while someone types, the beginning of the prompt stays the same
//! for many keystrokes, and so does what is cached of it.

/// The suffix gets one of so many parts of the room, the prefix the others.
const SUFFIX_PART: usize = 4;
/// A step is one of so many parts of the room: at most that much is left unused, and the cut
/// moves once in that many tokens typed.
const STEPS: usize = 8;
/// Bytes that a token has at most, on average: code has three to four. A text beyond this many
/// for each token of the context is cut before it is tokenised.
pub const BYTES_PER_TOKEN_MAX: usize = 8;

/// How far a cut moves at once.
pub(super) fn step(room: usize) -> usize {
    (room / STEPS).max(1)
}

/// What is left of prefix and suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Dropped from the prefix's beginning.
    pub(super) prefix_dropped: usize,
    /// Kept of the suffix's beginning.
    pub(super) suffix_kept: usize,
}

/// Fits `prefix` and `suffix` tokens into `room`: three parts to one, what one does not need
/// given to the other.
pub(super) fn cut(prefix: usize, suffix: usize, room: usize) -> Cut {
    if prefix + suffix <= room {
        return Cut { prefix_dropped: 0, suffix_kept: suffix };
    }
    let step = step(room);
    let suffix_share = room / SUFFIX_PART;
    let prefix_share = room - suffix_share;
    let suffix_kept = if prefix <= prefix_share {
        // the room that the prefix leaves shrinks with every token typed: follow it in steps
        let left = room - prefix;
        (left / step * step).max(suffix_share).min(suffix)
    } else {
        suffix.min(suffix_share)
    };
    let excess = prefix.saturating_sub(room - suffix_kept);
    let prefix_dropped = (excess.div_ceil(step) * step).min(prefix);
    Cut { prefix_dropped, suffix_kept }
}

/// Cuts a text around the cursor by bytes, before anything is tokenised: at characters, in
/// coarse steps, far beyond what `context` tokens hold. Says whether anything was cut.
pub fn precut<'a>(prefix: &'a str, suffix: &'a str, context: usize) -> (&'a str, &'a str, bool) {
    let room = context.saturating_mul(BYTES_PER_TOKEN_MAX);
    let excess = prefix.len().saturating_sub(room);
    let step = step(room);
    let start = (excess.div_ceil(step) * step).min(prefix.len());
    let near_prefix = &prefix[prefix.ceil_char_boundary(start)..];
    let near_suffix = &suffix[..suffix.floor_char_boundary(room)];
    let truncated = near_prefix.len() < prefix.len() || near_suffix.len() < suffix.len();
    (near_prefix, near_suffix, truncated)
}
