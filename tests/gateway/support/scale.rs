//! How much a test does, and from which seed.

use std::env;
use std::io::Write;

/// Whether counts are those of a release: `WEIR_TEST_FULL=1`. Otherwise they are those that a
/// developer waits for.
pub(crate) fn is_full() -> bool {
    variable("WEIR_TEST_FULL").is_some_and(|value| value == "1")
}

/// `full` for a release, a twentieth of it for a developer.
pub(crate) fn count(full: usize) -> usize {
    if is_full() { full } else { full.div_ceil(20) }
}

/// Whether what is measured here means anything: an optimised build, alone on the machine.
pub(crate) fn is_measured() -> bool {
    is_full() && !cfg!(debug_assertions)
}

/// Random numbers for the test called `name`; `WEIR_TEST_SEED` repeats a run.
pub(crate) fn random(name: &str) -> fastrand::Rng {
    let seed = match variable("WEIR_TEST_SEED") {
        Some(text) => text.parse().expect("WEIR_TEST_SEED is a number"),
        None => fastrand::u64(..),
    };
    eprintln!("{name}: WEIR_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// A variable of the test's environment: tests have no configuration file.
#[allow(clippy::disallowed_methods)]
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

const WORDS: [&str; 24] = [
    "fn", "let", "mut", "self", "return", "match", "count", "index", "value", "buffer", "state",
    "(x, y)", "=", "+ 1", "{", "}", ";\n", "->", "if", "else", "for", "in", "&items", "None",
];

/// Something like source: about two tokens a word for the embedded model.
pub(crate) fn source(random: &mut fastrand::Rng, words: usize) -> String {
    let mut text = String::new();
    for _ in 0..words {
        text += WORDS[random.usize(..WORDS.len())];
        text.push(' ');
    }
    text
}

/// Ends a test whose tool is missing, and says so past the capture of output. Where all must run
/// (`WEIR_TEST_ALL=1`) it fails instead.
macro_rules! skip {
    ($missing:expr) => {{
        $crate::support::scale::skipped($missing);
        return;
    }};
}
pub(crate) use skip;

pub(crate) fn skipped(missing: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(variable("WEIR_TEST_ALL").is_none(), "{missing} is missing");
    past_the_capture(&format!("SKIPPED {test}: {missing} is missing"));
}

/// Puts on record what a test measured, whether it passes or not.
pub(crate) fn measured(what: &str, result: &str) {
    past_the_capture(&format!("--- {what}: {result}"));
}

/// A line of its own on standard error: the harness may have begun one.
fn past_the_capture(line: &str) {
    // Nobody is left to hear of a closed standard error.
    let _ = writeln!(std::io::stderr(), "\n{line}");
}
