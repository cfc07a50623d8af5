//! How much of an answer is suggested. Somebody who types on sees at most a few lines, and no blank
//! one; who asked for a suggestion gets a block; and before other code on the same line there is no
//! room for a second line.

use lsp_types::InlineCompletionTriggerKind;

/// Lines with something on them.
const LINES_TYPING_MAX: usize = 4;
const LINES_ASKED_MAX: usize = 24;
const TOKENS_TYPING_MAX: u32 = 64;
const TOKENS_ASKED_MAX: u32 = 128;
/// Only differences count, and files indent by one or the other.
const TAB_COLUMNS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// Up to the line's end: other code follows on the line.
    Line { asked: bool },
    /// Up to a line that is indented less than the cursor's.
    Block { asked: bool, indent: usize },
}

impl Shape {
    /// `before`: the cursor's line up to it, at least its blanks; `is_end`: nothing else follows.
    pub(super) fn new(kind: InlineCompletionTriggerKind, before: &str, is_end: bool) -> Self {
        let asked = kind == InlineCompletionTriggerKind::Invoked;
        if is_end { Shape::Block { asked, indent: indent(before) } } else { Shape::Line { asked } }
    }

    pub(super) fn max_tokens(self) -> u32 {
        let (Shape::Line { asked } | Shape::Block { asked, .. }) = self;
        if asked { TOKENS_ASKED_MAX } else { TOKENS_TYPING_MAX }
    }

    /// What ends it already in the engine.
    pub(super) fn stop(self) -> &'static [&'static str] {
        match self {
            Shape::Line { .. } => &["\n"],
            Shape::Block { asked: false, .. } => &["\n\n"],
            Shape::Block { asked: true, .. } => &[],
        }
    }

    /// Where an answer ends that has come so far; None: it may go on.
    pub(super) fn end(self, text: &str) -> Option<usize> {
        let Shape::Block { asked, indent: least } = self else { return text.find('\n') };
        let lines_max = if asked { LINES_ASKED_MAX } else { LINES_TYPING_MAX };
        let (mut filled, mut at) = (0, 0);
        for line in text.split_inclusive('\n') {
            let (is_whole, is_blank) = (line.ends_with('\n'), line.trim().is_empty());
            // The first is what is left of the cursor's own.
            let is_new = at > 0;
            let leaves = is_new && !is_blank && indent(line) < least;
            let rests = !asked && is_new && is_blank && is_whole && filled > 0;
            if leaves || rests {
                return Some(at);
            }
            filled += usize::from(!is_blank);
            at += line.len();
            if is_whole && filled == lines_max {
                return Some(at);
            }
        }
        None
    }

    /// What is suggested of a whole answer; None: nothing.
    pub(super) fn suggestion(self, text: &str) -> Option<&str> {
        let text = &text[..self.end(text).unwrap_or(text.len())];
        let text = match self {
            Shape::Line { .. } => text,
            Shape::Block { .. } => text.trim_end(),
        };
        (!text.trim().is_empty()).then_some(text)
    }
}

/// Columns before the first character that is no blank.
fn indent(line: &str) -> usize {
    let blanks = line.chars().take_while(|char| matches!(char, ' ' | '\t'));
    blanks.map(|blank| if blank == '\t' { TAB_COLUMNS } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(asked: bool, before: &str) -> Shape {
        let kind = match asked {
            true => InlineCompletionTriggerKind::Invoked,
            false => InlineCompletionTriggerKind::Automatic,
        };
        Shape::new(kind, before, true)
    }

    #[test]
    fn code_behind_the_cursor_leaves_one_line() {
        let kind = InlineCompletionTriggerKind::Invoked;
        let line = Shape::new(kind, "f(", false);
        assert_eq!(line, Shape::Line { asked: true });
        assert_eq!(line.suggestion("a, b \nc"), Some("a, b "));
        assert_eq!(line.suggestion("\nc"), None);
        assert_eq!(line.stop(), ["\n"]);
    }

    #[test]
    fn typing_shows_a_few_lines() {
        let typing = block(false, "    if x:");
        let many = "\n        a\n        b\n        c\n        d\n        e";
        assert_eq!(typing.suggestion(many), Some("\n        a\n        b\n        c\n        d"));
        assert_eq!(typing.suggestion(" y\n  \n    z"), Some(" y"));
        assert_eq!(typing.suggestion("\n\n    z\n"), Some("\n\n    z"));
        assert_eq!(typing.suggestion(" \n\t "), None);
    }

    #[test]
    fn a_block_ends_where_the_indentation_does() {
        for asked in [false, true] {
            let shape = block(asked, "\treturn");
            assert_eq!(shape.suggestion(" 1;\n    }\n}\n"), Some(" 1;\n    }"));
            assert_eq!(shape.end(" 1;\n\t"), None, "it is not known yet");
            assert_eq!(shape.end(" 1;\n}"), Some(4));
        }
        let asked = block(true, "fn a() {");
        let body = "\n    b();\n\n    c();\n}";
        assert_eq!(asked.suggestion(body), Some(body));
        let endless = "\nx".repeat(100);
        assert_eq!(asked.suggestion(&endless).map(str::len), Some(2 * LINES_ASKED_MAX));
    }
}
