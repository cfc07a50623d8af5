//! How long a step may be that has prompts in it.
//!
//! The longer the step, the fewer times the weights are read for the same prompt, and the longer
//! everybody else waits for its end: who decodes for the next token, who arrives for being looked
//! at. (The prompt's own reader need not wait: a step that he leaves is given up between its
//! layers.)

use crate::completion::Priority;

/// How many prompt rows a step is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// Several steps' worth.
    Long,
    /// What `step_ms_max` has room for.
    Step,
    /// A part of that.
    Short,
}

/// Who is there beside the one whose prompt is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Company {
    /// Somebody runs, waits or is on his way.
    pub(crate) others: bool,
    /// Somebody, others or not, waits for a completion at a cursor.
    pub(crate) completes: bool,
}

impl Company {
    /// The span of a step for the prompts of this class. A long prompt of a chat may not make a
    /// completion wait that comes meanwhile, and least of all one that is there.
    pub(crate) fn span(self, class: Priority) -> Span {
        match class {
            Priority::Chat | Priority::Batch if self.completes => Span::Short,
            Priority::Completion | Priority::WarmUp if !self.others => Span::Long,
            _ => Span::Step,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_long_for_who_is_alone_and_short_beside_a_completion() {
        let table = [
            (false, false, Priority::Chat, Span::Step),
            (false, false, Priority::WarmUp, Span::Long),
            (false, true, Priority::Completion, Span::Long),
            (true, false, Priority::Chat, Span::Step),
            (true, true, Priority::Completion, Span::Step),
            (true, true, Priority::Chat, Span::Short),
            (true, true, Priority::Batch, Span::Short),
        ];
        for (others, completes, class, span) in table {
            assert_eq!(Company { others, completes }.span(class), span, "{class:?} {others}");
        }
    }
}
