//! Where in a text a request stands, as far as two requests must be told apart or together.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::completion::{CompletionRequest, Input};

/// Bytes before the cursor that are compared: more than any line, and enough of what is above it.
const BEFORE_BYTES: usize = 2048;
/// Bytes behind the cursor that are compared.
const BEHIND_BYTES: usize = 1024;

/// The surroundings of a cursor.
#[derive(Debug)]
pub(super) struct Cursor {
    path: Option<Arc<str>>,
    /// The last bytes before it.
    before: String,
    /// Whether all of the text before it is in `before`.
    whole: bool,
    /// The first bytes behind it.
    behind: String,
    /// Of everything that decides what an answer looks like.
    asks: u64,
}

/// How a cursor came from one place to another on the same line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Stayed,
    Typed,
    Erased,
}

impl Cursor {
    pub(super) fn of(request: &CompletionRequest) -> Option<Self> {
        let (before, behind, path) = match &request.input {
            Input::Fim(fim) => (&*fim.prefix, &*fim.suffix, fim.path.as_deref()),
            Input::Text(text) => (&**text, "", None),
            Input::Tokens(_) | Input::Chat(_) => return None,
        };
        let from = before.ceil_char_boundary(before.len().saturating_sub(BEFORE_BYTES));
        let to = behind.floor_char_boundary(BEHIND_BYTES.min(behind.len()));
        Some(Self {
            path: path.map(Arc::from),
            before: before[from..].to_owned(),
            whole: from == 0,
            behind: behind[..to].to_owned(),
            asks: asks(request),
        })
    }

    /// Whether the other wants the same kind of answer.
    pub(super) fn asks_like(&self, other: &Self) -> bool {
        self.asks == other.asks
    }

    /// How the cursor moved to `next`; None: it is on another line, or in another text.
    pub(super) fn to(&self, next: &Self) -> Option<Move> {
        let ((above, line), (next_above, next_line)) = (self.lines(), next.lines());
        if !self.same_surroundings(next) || !self.agree(above, next, next_above) {
            return None;
        }
        match (next_line.starts_with(line), line.starts_with(next_line)) {
            (true, true) => Some(Move::Stayed),
            (true, false) => Some(Move::Typed),
            (false, true) => Some(Move::Erased),
            (false, false) => None,
        }
    }

    /// How many bytes of `text`, which was suggested here, lie between here and `next`; None:
    /// something else does.
    pub(super) fn typed_along(&self, text: &str, next: &Self) -> Option<usize> {
        if !self.same_surroundings(next) {
            return None;
        }
        let all = format!("{}{text}", self.before);
        let ends = self.before.len()..=all.len();
        let end = ends
            .filter(|end| all.is_char_boundary(*end))
            .find(|end| self.agree(&all[..*end], next, &next.before))?;
        Some(end - self.before.len())
    }

    fn same_surroundings(&self, other: &Self) -> bool {
        self.path == other.path && self.behind == other.behind
    }

    /// Whether two texts up to one place, as far back as they are known, are the same.
    fn agree(&self, own: &str, other: &Self, others: &str) -> bool {
        match self.whole && other.whole {
            true => own == others,
            false => own.ends_with(others) || others.ends_with(own),
        }
    }

    /// What is above the cursor's line, and the line up to the cursor.
    fn lines(&self) -> (&str, &str) {
        self.before.rfind('\n').map_or(("", &*self.before), |at| self.before.split_at(at + 1))
    }
}

fn asks(request: &CompletionRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Floats have no hash; what they are written like has.
    format!("{:?}{:?}{:?}", request.sampling, request.stop, request.fit).hash(&mut hasher);
    request.max_tokens.hash(&mut hasher);
    hasher.finish()
}
