//! Raw prompts that were written for another family of models: what they say, without its tokens.
//!
//! Clients that choose a template by the model's name often choose the wrong one. A raw prompt that
//! is one complete prompt of some family, each of its tokens once and in an order of that family, is
//! taken apart, so that it can be written again for the model that is loaded. Anything else is text.

use std::borrow::Cow;

use super::Piece::{self, Files, Header, Opening, Prefix, Text, Token};
use super::{EXTRA_FILES_MAX, ExtraText, FAMILIES, Family, PATH_BYTES_MAX};

/// How a prompt may begin before its first part.
const BEGINNINGS: &[&str] = &[
    "<s>",
    "<bos>",
    "<|begin_of_text|>",
    "<|endoftext|>",
    "<｜begin▁of▁sentence｜>",
    "<[begin▁of▁sentence]>",
];

/// What a raw prompt says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign<'a> {
    /// The first family that writes it so; others may as well.
    pub family: &'static Family,
    /// What precedes the family's tokens and is no header goes before it.
    pub prefix: Cow<'a, str>,
    pub suffix: &'a str,
    pub head: Head<'a>,
}

/// What a prompt says of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head<'a> {
    pub repository: Option<&'a str>,
    pub path: Option<&'a str>,
    /// Other files, in the order in which they stand there.
    pub extras: Vec<ExtraText<'a>>,
}

/// Takes a raw prompt apart that is one complete FIM prompt of any family. What stands before its
/// first token is a header where it reads as one; else it is text, if only the end of the prompt
/// asks for the middle.
pub fn recognise(raw: &str) -> Option<Foreign<'_>> {
    let text = BEGINNINGS.iter().find_map(|bos| raw.strip_prefix(bos)).unwrap_or(raw);
    let forms = || {
        let of =
            |family: &'static Family| [family.raw, family.psm, family.spm].map(|f| (family, f));
        FAMILIES.iter().flat_map(of).filter(|(_, form)| !form.is_empty())
    };
    let with_head = |(family, form): (&'static Family, &'static [Piece])| {
        let Parts { lead, prefix, suffix } = parts(form, text)?;
        let (head, prefix) = family.read_head(lead, prefix)?;
        Some(Foreign { family, prefix: prefix.into(), suffix, head })
    };
    let with_text = |(family, form): (&'static Family, &'static [Piece])| {
        let Parts { lead, prefix, suffix } = parts(form, text)?;
        let prefix = Cow::Owned(format!("{lead}{prefix}"));
        let asks = form.last() != Some(&Prefix);
        asks.then(|| Foreign { family, prefix, suffix, head: Head::default() })
    };
    forms().find_map(with_head).or_else(|| forms().find_map(with_text))
}

struct Parts<'a> {
    /// Before the first token.
    lead: &'a str,
    prefix: &'a str,
    suffix: &'a str,
}

/// Splits a text at the tokens of a form.
fn parts<'a>(form: &[Piece], text: &'a str) -> Option<Parts<'a>> {
    let mut parts = Parts { lead: "", prefix: "", suffix: "" };
    let mut rest = text;
    let mut before: Option<Piece> = None;
    for piece in form {
        match *piece {
            Token(mark) | Text(mark) => {
                if text.matches(mark.trim()).count() != 1 {
                    return None;
                }
                let (part, after) = rest.split_once(mark)?;
                rest = after;
                match before {
                    None => parts.lead = part,
                    Some(Prefix) => parts.prefix = part,
                    Some(Piece::Suffix) => parts.suffix = part,
                    // nothing stands between two tokens
                    Some(_) if part.is_empty() => {}
                    Some(_) => return None,
                }
                before = Some(*piece);
            }
            Files | Header | Opening => {}
            content => before = Some(content),
        }
    }
    match before {
        Some(Prefix) => parts.prefix = rest,
        // the answer begins right after the last token
        _ if rest.is_empty() => {}
        _ => return None,
    }
    Some(parts)
}

impl Family {
    /// Reads what precedes the first FIM token, and a path in the prefix; None: it is no header.
    fn read_head<'a>(&self, lead: &'a str, prefix: &'a str) -> Option<(Head<'a>, &'a str)> {
        if let [Text(mark), Piece::Path, ..] = self.header {
            return lead.is_empty().then(|| in_blocks(mark, prefix));
        }
        let mut head = Head::default();
        let mut rest = lead;
        if let Some(Token(mark)) = self.repository.first()
            && let Some(named) = rest.strip_prefix(mark)
        {
            let end = named.find('<').unwrap_or(named.len());
            head.repository = Some(named[..end].trim_end_matches('\n'));
            rest = &named[end..];
        }
        if rest.is_empty() {
            return Some((head, prefix));
        }
        let Some(Token(mark)) = self.extra.first().or(self.header.first()) else { return None };
        let mut files = rest.strip_prefix(mark)?.split(mark).peekable();
        while let Some(file) = files.next() {
            let is_last = files.peek().is_none();
            if is_last && file.is_empty() && !self.opening.is_empty() {
                // the path is inside of the prefix
                let (path, code) = prefix.split_once('\n')?;
                head.path = Some(named(path)?);
                return Some((head, code));
            }
            let (path, text) = file.split_once('\n')?;
            match is_last && text.is_empty() {
                true => head.path = Some(named(path)?),
                false => head.extras.push(ExtraText { path: named(path)?, text }),
            }
        }
        (head.extras.len() <= EXTRA_FILES_MAX).then_some((head, prefix))
    }
}

/// Reads files that stand in a prefix, each after a line with its path; the last is the one at hand.
fn in_blocks<'a>(mark: &str, prefix: &'a str) -> (Head<'a>, &'a str) {
    let mut head = Head::default();
    let Some(blocks) = prefix.strip_prefix(mark) else { return (head, prefix) };
    let mut code = prefix;
    let between = format!("\n{mark}");
    let mut blocks = blocks.split(between.as_str()).peekable();
    while let Some(block) = blocks.next() {
        let Some((path, text)) = block.split_once('\n') else { return (Head::default(), prefix) };
        match blocks.peek() {
            Some(_) => {
                let text = text.strip_suffix('\n').unwrap_or(text);
                head.extras.push(ExtraText { path, text });
            }
            None => (head.path, code) = (Some(path), text),
        }
    }
    (head, code)
}

/// A path, if it may be one.
fn named(path: &str) -> Option<&str> {
    let is_path = !path.is_empty() && path.len() <= PATH_BYTES_MAX && !path.contains('<');
    is_path.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::super::FimText;
    use super::*;
    use crate::FimOrder;

    const EXTRAS: &[ExtraText<'_>] = &[
        ExtraText { path: "a.rs", text: "fn a() {}\n" },
        ExtraText { path: "b.rs", text: "fn b() {\n}\n" },
    ];
    const ALONE: FimText<'_> = FimText {
        prefix: "fn main() {\n    ",
        suffix: "\n}\n",
        path: None,
        repository: None,
        extras: &[],
    };

    fn orders(family: &Family) -> impl Iterator<Item = FimOrder> {
        [FimOrder::Psm, FimOrder::Spm].into_iter().filter(|order| family.order(*order).is_ok())
    }

    #[test]
    fn every_family_s_prompt_is_read_in_every_order() {
        for family in FAMILIES {
            for order in orders(family) {
                for bos in ["", "<s>", "<｜begin▁of▁sentence｜>"] {
                    let prompt = family.render_text(order, &ALONE).expect("it has the order");
                    let prompt = format!("{bos}{prompt}");
                    let read = recognise(&prompt).unwrap_or_else(|| panic!("{prompt}"));
                    assert_eq!((&*read.prefix, read.suffix), (ALONE.prefix, ALONE.suffix));
                    assert_eq!(read.head, Head::default(), "{prompt}");
                    let again = read.family.render_text(order, &ALONE);
                    assert_eq!(
                        again.ok().as_ref(),
                        prompt.strip_prefix(bos).map(str::to_owned).as_ref()
                    );
                }
            }
        }
    }

    #[test]
    fn headers_become_what_they_name() {
        let text = FimText {
            path: Some("src/main.rs"),
            repository: Some("weir"),
            extras: EXTRAS,
            ..ALONE
        };
        for name in ["qwen", "starcoder2", "starcoder", "mellum", "granite4", "codeqwen1.5"] {
            let family = Family::by_name(name).expect("in the table");
            for order in orders(family) {
                let prompt = family.render_text(order, &text).expect("it has the order");
                let read = recognise(&prompt).expect("complete");
                assert_eq!((&*read.prefix, read.suffix), (text.prefix, text.suffix), "{prompt}");
                let head =
                    Head { repository: text.repository, path: text.path, extras: EXTRAS.into() };
                assert_eq!(read.head, head, "{prompt}");
            }
        }
        let codestral = Family::by_name("codestral").expect("in the table");
        let prompt = codestral.render_text(FimOrder::Auto, &text).expect("its order");
        let read = recognise(&prompt).expect("complete");
        let head = Head { repository: None, path: text.path, extras: EXTRAS.into() };
        assert_eq!((&*read.prefix, read.head), (text.prefix, head));
    }

    #[test]
    fn what_is_no_header_stays_text() {
        let read = recognise("#a.py\nimport b\n<｜fim▁begin｜>x = <｜fim▁hole｜>\n<｜fim▁end｜>");
        let read = read.expect("complete");
        assert_eq!((&*read.prefix, read.suffix), ("#a.py\nimport b\nx = ", "\n"));
        let read = recognise("// hint\n<fim_prefix>a<fim_suffix>b<fim_middle>").expect("complete");
        assert_eq!((&*read.prefix, read.suffix), ("// hint\na", "b"));
    }

    #[test]
    fn anything_else_is_plain_text() {
        for text in [
            "",
            "fn main() {}",
            // missing
            "<fim_prefix>a<fim_suffix>b",
            "<fim_prefix>a<fim_middle>",
            "<｜fim▁begin｜>a<｜fim▁hole｜>b",
            "[SUFFIX]a",
            // wrong order
            "<fim_suffix>b<fim_middle>a<fim_prefix>",
            "[PREFIX]a[SUFFIX]b",
            "<PRE> a <MID>b <SUF>",
            // twice
            "<fim_prefix>a<fim_suffix>b<fim_suffix>c<fim_middle>",
            "<fim_prefix>a<fim_prefix>b<fim_suffix>c<fim_middle>",
            "<fim_prefix>a<fim_suffix>b<fim_middle>c<fim_middle>",
            "[SUFFIX]a[SUFFIX]b[PREFIX]c",
            // of two families
            "<fim_prefix>a<|fim_suffix|>b<fim_middle>",
            // inside of code, where the end does not ask for the middle
            "PREFIX = \"<fim_prefix>\"\nSUFFIX = \"<fim_suffix>\"\nMIDDLE = \"<fim_middle>\"\n",
            "x = f\"[SUFFIX]{s}[PREFIX]{p}\"",
            "<fim_prefix>a<fim_suffix>b<fim_middle>\n",
        ] {
            assert_eq!(recognise(text), None, "{text}");
        }
    }
}
