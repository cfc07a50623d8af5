use proptest::prelude::*;

use super::cursor::Closable;
use super::*;

const NONE: CodeStops = CodeStops { single_line: false, block: false, indent_min: None };
const BLOCK: CodeStops = CodeStops { block: true, ..NONE };
const LINE: CodeStops = CodeStops { single_line: true, ..NONE };

/// What is given out of a text that comes in these pieces; checks that it is whole characters
/// each time.
fn fit<'a>(cursor: &Arc<Cursor>, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut fit = FitText::new(Arc::clone(cursor));
    let room = (fit.held.capacity(), fit.depths.capacity());
    let mut out = Vec::new();
    for piece in pieces {
        fit.push(piece, &mut out);
        std::str::from_utf8(&out).expect("cut at characters");
    }
    assert_eq!(room, (fit.held.capacity(), fit.depths.capacity()), "allocates nothing");
    fit.finish(&mut out);
    String::from_utf8(out).expect("cut at characters")
}

fn check(stops: CodeStops, around: &str, cases: &[(&str, &str)]) {
    let (prefix, suffix) = around.split_once('|').expect("a cursor");
    let cursor = Arc::new(Cursor::new(stops, prefix, suffix, None));
    for (text, expected) in cases {
        assert_eq!(fit(&cursor, [text.as_bytes()]), *expected, "{around:?} {text:?}");
    }
}

#[test]
fn a_line_ends_with_the_first_that_holds_anything() {
    check(
        LINE,
        "x = |",
        &[("1;\ny", "1;"), ("1", "1"), ("1; \r\ny", "1;"), ("\n\n  a\nb", "\n\n  a")],
    );
}

#[test]
fn an_answer_ends_where_its_quotes_are_misplaced() {
    // As a small model once wrote it: read as strings, its brackets are in the second.
    let text = "\"target_os = \"android\" } else { \"target_os = \"android\"";
    check(
        BLOCK,
        "fn f() {\n    if cfg!(unix) {|\n    } else {\n    }\n}",
        &[(text, "\"target_os = \"android"), ("g(\"a\", \"b\")", "g(\"a\", \"b\")")],
    );
}

#[test]
fn a_comment_that_the_suffix_leaves_open_hides_no_brackets() {
    let around = "void f(\n    /* the 'in' seen as |\n    int a);\n/* b */";
    check(
        BLOCK,
        around,
        &[
            ("1); x", "1"),
            ("(1) bit */", "(1) bit */"),
            ("bits */\n    g(1), ", "bits */\n    g(1), "),
        ],
    );
    check(BLOCK, "f(\n    /* seen as |, b */\n    a);", &[("1); x", "1); x")]);
    check(BLOCK, "f(\n    /* seen as |", &[("1); x", "1); x")]);
}

#[test]
fn a_block_ends_where_its_indentation_does() {
    let cases = [("y\n    z\nw", "y\n    z"), ("y\n\n        z\n\n  w", "y\n\n        z")];
    check(BLOCK, "def f():\n    x = |\n", &cases);
    // a line that opens a block
    let cases = [
        ("\n    x\n\ndef g():", "\n    x"),
        ("\n    x\n    y", "\n    x\n    y"),
        ("\nx\ny", "\nx\ny"),
    ];
    check(BLOCK, "def f():|", &cases);
    check(BLOCK, "def f(|", &[("a):\n    x\ndef g():", "a):\n    x")]);
    check(BLOCK, "fn f() {|", &[("\n    x\n}\n\nfn g() {", "\n    x\n}")]);
    // a blank line: as deep as the cursor, or as what comes first
    check(BLOCK, "{\n    |\n}", &[("x\n  y", "x"), ("    x\n    y", "    x")]);
    check(BLOCK, "{\n|\n}", &[("    x\n  y", "    x"), ("\n    x\n  y", "\n    x")]);
    // strings are as deep as they like
    check(
        BLOCK,
        "def f():\n    |",
        &[("\"\"\"a\nb\n\"\"\"\n    c\nd", "\"\"\"a\nb\n\"\"\"\n    c")],
    );
}

#[test]
fn a_client_s_indentation_holds_for_every_line_but_the_first() {
    let stops = CodeStops { indent_min: Some(4), ..NONE };
    check(stops, "|", &[("x\n    y\n\n     z\n  }", "x\n    y\n\n     z")]);
    check(stops, "|", &[("x\n\ty\n\t\t\t\tz", "x")]);
}

#[test]
fn what_the_suffix_closes_is_not_closed() {
    check(BLOCK, "foo(|);\n", &[("a, b(c));", "a, b(c)"), ("a\n)", "a"), ("a[0]]", "a[0]")]);
    check(BLOCK, "foo(|\n", &[("a, b(c));", "a, b(c));")]);
    check(BLOCK, "f() {\n  if (x) {|\n}\n", &[("\n    y\n  }\n}", "\n    y\n  }")]);
    // in a string or a comment it closes nothing
    check(BLOCK, "foo(|)", &[("\")\" /* ) */", "\")\" /* ) */")]);
}

#[test]
fn an_answer_ends_where_it_runs_into_the_suffix() {
    check(
        NONE,
        "x\n|\nnext(line)\n",
        &[("a\n next(line)\nb", "a"), ("next(line) ", ""), ("next(line)s", "next(line)s")],
    );
    check(NONE, "x\n|\nend\n", &[("a\nend\nb", "a\nend\nb")]);
    check(
        NONE,
        "foo(|);\n",
        &[("a);", "a"), ("a)", "a"), ("a);\nbar();\n", "a"), ("f(a)", "f(a)"), ("f(a))", "f(a)")],
    );
    check(NONE, "foo(g(|)\n", &[("a)", "a)"), ("a))", "a)")]);
    check(NONE, "x = |;\n", &[("1;", "1"), ("{\n  a;\n  b;\n};\nc", "{\n  a;\n  b;\n}")]);
    check(NONE, "|return x\n", &[("y()\nreturn ", "y()"), ("y\nret", "y\nret")]);
    check(NONE, "if |é {\n", &[("xé {", "x"), ("x é", "x é")]);
}

#[test]
fn an_answer_ends_where_it_goes_round_in_circles() {
    check(NONE, "|", &[("a\nb\nb\nb\nb", "a\nb\nb"), ("b\nb\nc", "b\nb\nc")]);
    check(NONE, "|", &[("x\na\n\nb\na\nb\na\nb\n", "x\na\n\nb\na\nb")]);
    let zeros = "0, ".repeat(100);
    check(NONE, "|", &[(zeros.as_str(), zeros[..51].trim_end())]);
    let ruler = format!("# {}\nx", "-".repeat(120));
    check(NONE, "|", &[(ruler.as_str(), ruler.as_str())]);
    check(NONE, "|", &[("a\n\n\n\n\n\n\nb", "a")]);
}

#[test]
fn a_blank_end_is_left_out_where_nothing_follows_on_the_line() {
    check(NONE, "|\n", &[("a\n    ", "a"), ("a ", "a "), ("    ", ""), ("\n\n", "")]);
    check(NONE, "|b\n", &[("a\n    ", "a\n    "), ("    ", "    ")]);
}

/// The definition, on the whole text: the first position at which anything ends it.
struct Naive<'a> {
    cursor: &'a Cursor,
    prefix: &'a str,
    text: &'a str,
}

impl Naive<'_> {
    fn answer(&self) -> &str {
        let ends = |at: usize| self.end(&self.text[..at]);
        let places = (1..=self.text.len()).filter(|at| self.text.is_char_boundary(*at));
        if let Some(end) = places.clone().find_map(ends) {
            return &self.text[..end];
        }
        let text = self.text.trim_end();
        let line = self.line(self.text);
        let telling = |part: &str| {
            has_unmatched_closer(part.as_bytes())
                || part.chars().filter(char::is_ascii_alphanumeric).count() >= REST_LETTERS_MIN
        };
        let rest = |start: &usize| {
            let part = &text[(*start).min(text.len())..];
            !part.is_empty()
                && self.rest().starts_with(part)
                && telling(part)
                && self.is_rest(text, *start)
        };
        let start = self.text.len() - line.len();
        let partial = places.chain([0]).filter(|at| *at >= start).filter(rest).min();
        let partial = partial.map(|at| self.text[..at].trim_end().len());
        if let Some(end) = self.line_ends(self.text).into_iter().chain(partial).min() {
            return &self.text[..end];
        }
        let tail = &self.text[text.len()..];
        let is_blank = self.cursor.ends_line && (tail.contains('\n') || text.is_empty());
        if is_blank { text } else { self.text }
    }

    fn line<'t>(&self, text: &'t str) -> &'t str {
        text.rsplit('\n').next().expect("a line")
    }

    fn rest(&self) -> &str {
        std::str::from_utf8(&self.cursor.rest).expect("text")
    }

    /// Whether the last character ends the answer, and where.
    fn end(&self, text: &str) -> Option<usize> {
        let last = text.chars().last().expect("a character");
        let before = &text[..text.len() - last.len_utf8()];
        let bytes = text.as_bytes();
        let repeated = |round: usize| {
            (round..bytes.len()).rev().take_while(|at| bytes[*at] == bytes[*at - round]).count()
        };
        let longest = (1..=16).map(repeated).max().expect("rounds");
        let circle = (longest >= 160).then(|| {
            let from = bytes.len() - (longest - 48);
            text[..text.floor_char_boundary(from)].trim_end().len()
        });
        let trimmed = before.trim_end().len();
        if last == '\n' {
            let whole = self.cursor.stops.single_line && !self.line(before).trim().is_empty();
            return [self.line_ends(before), circle, whole.then_some(trimmed)]
                .into_iter()
                .flatten()
                .min();
        }
        if last.is_ascii_whitespace() {
            return circle
                .or((text.len() - text.trim_end().len() > SPACE_BYTES_MAX).then_some(trimmed));
        }
        let is_first = self.line(before).trim().is_empty();
        let outside = is_first && before.contains('\n') && self.is_outside(text, last);
        let closed = self.closed(text);
        let closes = self.cursor.stops.block && closed.len() > self.closed(before).len() && {
            let (at, bracket) = (closed.len() - 1, *closed.last().expect("one more"));
            !self.cursor.closable.allows(bracket, at)
        };
        if outside || closes { Some(trimmed) } else { circle }
    }

    /// Where the answer ends if the line that `text` ends with is over.
    fn line_ends(&self, text: &str) -> Option<usize> {
        let line = self.line(text);
        let start = text.len() - line.len();
        let gap = text[..start].trim_end().len();
        if line.trim().is_empty() {
            let blank = text.rsplit('\n').take_while(|line| line.trim().is_empty()).count();
            return (blank > BLANK_LINES_MAX).then_some(gap);
        }
        let is_next = !self.cursor.next.is_empty() && line.trim().as_bytes() == self.cursor.next;
        let trimmed = text.trim_end();
        let at = trimmed.len().saturating_sub(self.rest().len());
        let is_rest = !self.rest().is_empty()
            && at >= start
            && trimmed.ends_with(self.rest())
            && self.is_rest(trimmed, at);
        let lines: Vec<&str> =
            text.split('\n').map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let round = (1..=8usize).find(|round| {
            let tail = lines.len().checked_sub(3 * round).map(|from| &lines[from..]);
            tail.is_some_and(|tail| tail[..2 * round] == tail[*round..])
        });
        let round = round.map(|round| {
            let kept: usize = lines.len() - round;
            let mut filled = 0;
            let mut end = 0;
            for line in text.split_inclusive('\n') {
                filled += usize::from(!line.trim().is_empty());
                if filled > kept {
                    break;
                }
                end += line.len();
            }
            text[..end].trim_end().len()
        });
        [is_next.then_some(gap), is_rest.then(|| text[..at].trim_end().len()), round]
            .into_iter()
            .flatten()
            .min()
    }

    /// The brackets of the prefix that a text closes.
    fn closed(&self, text: &str) -> Vec<u8> {
        let mut open = Vec::new();
        let mut closed = Vec::new();
        for byte in text.bytes() {
            match byte {
                b'(' | b'{' => open.push(byte),
                b')' | b'}' => {
                    let opener = if byte == b')' { b'(' } else { b'{' };
                    match open.iter().rposition(|open| *open == opener) {
                        Some(at) => open.truncate(at),
                        None => closed.push(opener),
                    }
                }
                _ => {}
            }
        }
        closed
    }

    fn depth(&self, text: &str) -> usize {
        let mut open = Vec::new();
        for byte in text.bytes() {
            match byte {
                b'(' | b'{' => open.push(byte),
                b')' | b'}' => {
                    let opener = if byte == b')' { b'(' } else { b'{' };
                    if let Some(at) = open.iter().rposition(|open| *open == opener) {
                        open.truncate(at);
                    }
                }
                _ => {}
            }
        }
        open.len()
    }

    fn is_rest(&self, text: &str, start: usize) -> bool {
        let may_close = match &self.cursor.closable {
            Closable::Any => !self.closed(text).is_empty(),
            Closable::Only(brackets) => (1..=brackets.len()).contains(&self.closed(text).len()),
        };
        self.depth(&text[..start]) == 0
            && !(has_unmatched_closer(&text.as_bytes()[start..]) && may_close)
    }

    fn is_outside(&self, text: &str, first: char) -> bool {
        let columns = |line: &str| line.len() - line.trim_start().len();
        let here = columns(self.line(text));
        if self.cursor.stops.indent_min.is_some_and(|min| here < min as usize) {
            return true;
        }
        if !self.cursor.stops.block {
            return false;
        }
        let (first_line, others) = text.split_once('\n').expect("not the first line");
        let whole = format!("{}{first_line}", self.line(self.prefix));
        // of a line that closes what another opened, the other's
        let base = if self.cursor.is_blank { columns(&whole) } else { self.cursor.columns };
        let deep = others.split('\n').find(|line| !line.trim().is_empty()).map_or(here, columns);
        if whole.trim().is_empty() {
            return here < if base == 0 { deep } else { base };
        }
        match whole.trim_end().ends_with(['{', '(', '[', ':']) && deep > base {
            true => here < base || (here == base && !matches!(first, ')' | '}')),
            false => here < base,
        }
    }
}

fn code(most: usize) -> impl Strategy<Value = String> {
    let words =
        ["a", "word1", "é", "(", ")", "{", "}", ";", ":", " ", "    ", "\n", "\n", "\n    "];
    let piece =
        (prop::sample::select(words.to_vec()), prop_oneof![9 => Just(1usize), 1 => 2usize..90]);
    prop::collection::vec(piece, 0..most)
        .prop_map(|words| words.iter().map(|(word, times)| word.repeat(*times)).collect())
}

fn rounds() -> impl Strategy<Value = String> {
    (code(4), code(6), 1usize..5, code(6)).prop_map(|(before, round, times, after)| {
        format!("{before}{}{after}", format!("{round}\n").repeat(times))
    })
}

fn stops() -> impl Strategy<Value = CodeStops> {
    (any::<bool>(), any::<bool>(), prop::option::of(0u32..6))
        .prop_map(|(single_line, block, indent_min)| CodeStops { single_line, block, indent_min })
}

/// Text that goes on as the suffix does, now and then.
fn answer(suffix: &str) -> impl Strategy<Value = String> + use<> {
    let parts: Vec<String> = suffix.split('\n').map(str::to_owned).collect();
    let part = prop::sample::select(parts);
    prop_oneof![
        2 => code(14),
        1 => rounds(),
        2 => (code(6), part, code(4)).prop_map(|(a, b, c)| format!("{a}{b}{c}")),
    ]
}

fn cases() -> impl Strategy<Value = (String, String, String)> {
    let suffix = prop_oneof![3 => code(8), 1 => Just(");\n    word1(a)\n}".to_owned())];
    suffix.prop_flat_map(|suffix| (code(8), answer(&suffix), Just(suffix)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_split_gives_what_the_definition_gives(
        (prefix, text, suffix) in cases(),
        stops in stops(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        // The oracle knows no strings and no comments, and neither does the alphabet.
        let cursor = Arc::new(Cursor::new(stops, &prefix, &suffix, None));
        let expected = Naive { cursor: &cursor, prefix: &prefix, text: &text }.answer().to_owned();
        prop_assert!(text.starts_with(&expected));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]);
        prop_assert_eq!(fit(&cursor, pieces), expected.as_str());
        prop_assert_eq!(fit(&cursor, text.as_bytes().chunks(1)), expected);
    }
}

/// Lines of well-formed, indented code, their brackets nested this deep.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec!["a;\n", "f(a, b);\n", "\n", "x = \"(\"; // )\n"]);
    let leaf = leaf.prop_map(str::to_owned);
    leaf.prop_recursive(4, 40, 5, |inner| {
        let body = prop::collection::vec(inner, 0..5);
        let heads = vec![
            ("if (a(b)) {\n", "}\n"),
            ("call({\n", "});\n"),
            ("call(a, (b) => {\n", "}, [c]);\n"),
            ("x = [\n", "];\n"),
            ("f(a,\n        b) {\n", "}\n"),
        ];
        (prop::sample::select(heads), body).prop_map(|((head, tail), body)| {
            let indented =
                |line: &str| if line == "\n" { line.into() } else { format!("  {line}") };
            let body: String =
                body.iter().flat_map(|part| part.split_inclusive('\n')).map(indented).collect();
            format!("{head}{body}{tail}")
        })
    })
}

/// How many brackets that are open after `before` characters are closed before `after`.
fn truly_closed(document: &str, before: usize, after: usize) -> usize {
    let mut open = Vec::new();
    let mut closed = 0;
    let mut in_string = false;
    let mut in_comment = false;
    for (at, byte) in document.bytes().enumerate() {
        in_string ^= byte == b'"';
        in_comment = (in_comment || byte == b'/') && byte != b'\n';
        match byte {
            _ if in_string || in_comment => {}
            b'(' | b'[' | b'{' => open.push(at),
            b')' | b']' | b'}' => {
                let opened = open.pop().expect("well-formed");
                closed += usize::from(opened < before && (before..after).contains(&at));
            }
            _ => {}
        }
    }
    closed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn no_bracket_is_for_the_answer_that_the_suffix_closes(
        documents in prop::collection::vec(document(), 1..4),
        cuts in any::<[prop::sample::Index; 2]>(),
    ) {
        let document = documents.concat();
        let mut cuts = cuts.map(|cut| cut.index(document.len() + 1));
        cuts.sort_unstable();
        let [before, mut after] = cuts;
        // what follows on the cursor's line belongs to the cursor's line
        if document[before..after].contains('\n') {
            after += document[after..].find('\n').unwrap_or(document.len() - after);
        }
        let lexed = &document[..before];
        // where a cut is inside of a string or a comment, what follows reads otherwise
        let is_code = |end: usize| {
            let line = document[..end].rsplit('\n').next().expect("a line");
            !line.contains(['"', '/'])
        };
        if !is_code(before) || !is_code(after) {
            return Ok(());
        }
        let in_middle = &document[before..after];
        let cursor = Cursor::new(BLOCK, lexed, &document[after..], Some("a.js"));
        let closed = truly_closed(&document, before, after);
        match &cursor.closable {
            Closable::Any => {}
            Closable::Only(brackets) => prop_assert!(
                brackets.len() <= closed,
                "{brackets:?} {closed} {lexed}|{in_middle}|{}", &document[after..]
            ),
        }
    }
}
