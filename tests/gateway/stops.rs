//! Answers at cursors in this repository's own files end with the code that they stand in.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::weir::{PATIENCE, Weir, drive};
use crate::support::{http, scale};

const CURSORS: usize = 51;
/// What a developer waits for: two in each file.
const CURSORS_FEW: usize = 18;
/// A cursor's place decides whether the model has a chance, so they are the same each time.
const SEED: u64 = 7;
const BLOCKS: &str = "[model]\nfim_lines = \"block\"\n";
const FILES: [(&str, &str, &str); 9] = [
    ("rate.rs", "//", include_str!("../../src/engine/rates.rs")),
    ("step.rs", "//", include_str!("../../models/src/step.rs")),
    ("kv.rs", "//", include_str!("../../models/src/kv.rs")),
    ("saturation.rs", "//", include_str!("../../src/engine/saturation.rs")),
    ("record.py", "#", include_str!("../../benches/peers/record.py")),
    ("shapes.py", "#", include_str!("../../benches/peers/shapes.py")),
    ("stats.py", "#", include_str!("../../benches/peers/stats.py")),
    ("engines.py", "#", include_str!("../../benches/peers/engines.py")),
    ("checks.mjs", "//", include_str!("../clients/checks.mjs")),
];

struct Cursor {
    path: &'static str,
    comment: &'static str,
    prefix: &'static str,
    middle: &'static str,
    suffix: &'static str,
}

#[test]
fn answers_end_with_the_code_around_them() {
    let mut random = Rng::with_seed(SEED);
    let count = if scale::is_full() { CURSORS } else { CURSORS_FEW };
    let cursors: Vec<Cursor> =
        (0..count).map(|number| cursor(number % FILES.len(), number, &mut random)).collect();
    let weir = Weir::start(BLOCKS);
    drive(async {
        let mut told = 0;
        for (number, cursor) in cursors.iter().enumerate() {
            let mut body = body(cursor);
            // with log-probabilities no word is taken back
            body["logprobs"] = if number % 3 == 0 { json!(0) } else { Value::Null };
            let reply = post(&weir, &body).await;
            let choice = &reply["choices"][0];
            let answer = choice["text"].as_str().expect("a text");
            told += usize::from(choice["finish_reason"] == "stop");
            check(cursor, answer);
        }
        assert!(told > count / 4, "only {told} answers ended before their tokens did");
    });
}

#[test]
fn the_embedded_model_answers_a_line_and_blocks_where_they_are_wanted() {
    let answers = |toml| {
        let weir = Weir::start(toml);
        let cursor = Cursor {
            path: "point.rs",
            comment: "//",
            prefix: "use std::fmt;\n\nimpl fmt::Display for Point {\n    ",
            middle: "",
            suffix: "\n}\n",
        };
        drive(async {
            let mut body = body(&cursor);
            let fitted = post(&weir, &body).await;
            body["code_stops"] = json!(false);
            let free = post(&weir, &body).await;
            [fitted, free]
                .map(|reply| reply["choices"][0]["text"].as_str().expect("text").to_owned())
        })
    };
    let ([line, free], [block, _]) = (answers(""), answers(BLOCKS));
    assert!(!line.trim().is_empty() && !line.contains('\n'), "{line:?}");
    assert!(block.starts_with(&line) && block.contains('\n'), "{block:?}");
    assert!(free.contains('\n'), "who wants the model's own words gets them: {free:?}");
}

#[test]
fn a_word_that_was_begun_is_gone_on_with() {
    let weir = Weir::start("");
    let cursor = Cursor {
        path: "add.py",
        comment: "#",
        prefix: "def add(a, b):\n    retu",
        middle: "",
        suffix: "\n\n\ndef sub(a, b):\n    return a - b\n",
    };
    drive(async {
        let mut body = body(&cursor);
        let reply = post(&weir, &body).await;
        let text = reply["choices"][0]["text"].as_str().expect("a text").to_owned();
        assert!(text.starts_with("rn"), "{text:?}");
        // what is said again is none of what was asked for
        for most in [1, 2] {
            body["max_tokens"] = json!(most);
            let reply = post(&weir, &body).await;
            assert_eq!(reply["usage"]["completion_tokens"], most);
            let short = reply["choices"][0]["text"].as_str().expect("a text");
            assert!(!short.is_empty() && text.starts_with(short), "{short:?} of {text:?}");
        }
    });
}

fn body(cursor: &Cursor) -> Value {
    json!({
        "prompt": cursor.prefix,
        "suffix": cursor.suffix,
        "path": cursor.path,
        "max_tokens": 40,
        "temperature": 0,
    })
}

async fn post(weir: &Weir, body: &Value) -> Value {
    let mut connection = http::Connection::open(weir.address).await;
    connection.patience = PATIENCE;
    let json = [("content-type", "application/json")];
    let body = body.to_string();
    let request = http::request("POST", "/v1/completions", &json, body.as_bytes());
    connection.send(&request).await;
    let reply = connection.reply().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn check(cursor: &Cursor, answer: &str) {
    let Cursor { comment, prefix, middle, suffix, .. } = *cursor;
    let around = format!("{}|{middle}|{}", last(prefix, 200), first(suffix, 120));
    assert!(!answer.contains('\u{FFFD}'), "{answer:?} ends inside of a character: {around}");
    let next = suffix.lines().skip(1).map(str::trim).find(|line| !line.is_empty());
    if let Some(next) = next.filter(|next| next.chars().filter(|c| c.is_alphanumeric()).count() > 3)
    {
        let holds = |text: &str| text.lines().any(|line| line.trim() == next);
        assert!(holds(middle) || !holds(answer), "{answer:?} repeats what follows: {around}");
    }
    let document = format!("{prefix}{middle}{suffix}");
    let (before, after) = (prefix.len(), prefix.len() + middle.len());
    let pairs = pairs(&document, comment).expect("only such files are used");
    let across = |pair: &&(usize, usize)| pair.0 < before && pair.1 >= before;
    let own = pairs.iter().filter(across).filter(|pair| pair.1 < after).count();
    let of_suffix = pairs.iter().filter(across).count() - own;
    let closed = unmatched(&format!("{prefix}{answer}"), before, comment);
    assert!(of_suffix == 0 || closed <= own, "{answer:?} closes what the suffix closes: {around}");
}

/// A cursor at which the rest of a line is missing, or some lines are.
fn cursor(file: usize, number: usize, random: &mut Rng) -> Cursor {
    let (path, comment, text) = FILES[file];
    assert!(pairs(text, comment).is_some(), "{path} is read as its language reads it");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let starts: Vec<usize> =
        lines.iter().scan(0, |at, line| Some(std::mem::replace(at, *at + line.len()))).collect();
    let deep = |line: &str| line.len() - line.trim_start().len();
    loop {
        let at = random.usize(1..lines.len() - 1);
        let line = lines[at].trim_end();
        if line.trim().len() < 6 || !line.is_ascii() {
            continue;
        }
        let begin = if number.is_multiple_of(2) {
            random.usize(deep(line)..line.len() - 2)
        } else {
            deep(line)
        };
        let last = match number % 2 {
            0 => at,
            _ => (at..lines.len())
                .take(random.usize(1..5))
                .take_while(|&next| {
                    deep(lines[next]) >= deep(line) || lines[next].trim().is_empty()
                })
                .filter(|&next| !lines[next].trim().is_empty())
                .last()
                .expect("the first"),
        };
        let (before, after) = (starts[at] + begin, starts[last] + lines[last].trim_end().len());
        return Cursor {
            path,
            comment,
            prefix: &text[..before],
            middle: &text[before..after],
            suffix: &text[after..],
        };
    }
}

/// The brackets of a text and where they stand, those in strings and comments left out.
fn brackets(text: &str, comment: &str) -> Vec<(usize, u8)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text.as_bytes()[at..];
        let to = |end: &[u8]| rest.windows(end.len()).skip(end.len()).position(|w| w == end);
        at += match rest[0] {
            _ if rest.starts_with(comment.as_bytes()) => {
                rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
            }
            b'"' if rest.starts_with(b"\"\"\"") => to(b"\"\"\"").map_or(rest.len(), |end| end + 6),
            b'`' => to(b"`").map_or(rest.len(), |end| end + 2),
            // a lifetime, unless a quote follows its letter
            b'\''
                if comment == "//"
                    && rest.get(2) != Some(&b'\'')
                    && rest.get(1) != Some(&b'\\')
                    && is_rust(text) =>
            {
                1
            }
            quote @ (b'"' | b'\'') => string(rest, quote),
            byte => {
                if b"()[]{}".contains(&byte) {
                    found.push((at, byte));
                }
                1
            }
        };
    }
    found
}

fn is_rust(text: &str) -> bool {
    text.contains("fn ") && text.contains("//!")
}

/// The length of a string that its line ends at the latest.
fn string(rest: &[u8], quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.iter().enumerate().skip(1) {
        if *byte == b'\n' && !escaped {
            return at;
        }
        if *byte == quote && !escaped {
            return at + 1;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    rest.len()
}

fn opener(closer: u8) -> u8 {
    match closer {
        b')' => b'(',
        b']' => b'[',
        _ => b'{',
    }
}

/// Where brackets open and close; None: they do not match.
fn pairs(text: &str, comment: &str) -> Option<Vec<(usize, usize)>> {
    let mut open = Vec::new();
    let mut pairs = Vec::new();
    for (at, byte) in brackets(text, comment) {
        if b"([{".contains(&byte) {
            open.push((at, byte));
            continue;
        }
        let (opened, bracket) = open.pop()?;
        if bracket != opener(byte) {
            return None;
        }
        pairs.push((opened, at));
    }
    open.is_empty().then_some(pairs)
}

/// How many brackets are closed from `begin` on that are not opened there.
fn unmatched(text: &str, begin: usize, comment: &str) -> usize {
    let mut open = Vec::new();
    let mut count = 0;
    for (_, byte) in brackets(text, comment).into_iter().filter(|(at, _)| *at >= begin) {
        if b"([{".contains(&byte) {
            open.push(byte);
            continue;
        }
        match open.iter().rposition(|open| *open == opener(byte)) {
            Some(at) => open.truncate(at),
            None => count += 1,
        }
    }
    count
}

fn first(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

fn last(text: &str, most: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(most))..]
}
