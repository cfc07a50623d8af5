//! What it costs to look for secrets in a request that would leave: `cargo bench --bench policy`.
//!
//! Percentiles over many different requests and not the mean of one, since what a pattern costs
//! depends on the text. All are scanned in turn, as in service, and so three times over; of each
//! the median counts, which is its own cost and not that of a neighbour on the same core.

use std::fs;
use std::hint::black_box;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use weir::completion::compliance::{OnSecret, RequestPolicy};
use weir::completion::{CompletionRequest, ExtraFile, FimInput, Input};
use weir::policy::secrets::Scanner;

const REQUESTS: usize = 4_000;
/// Times that each is measured.
const ROUNDS: usize = 3;
/// Text of one request.
const WINDOW_BYTES: usize = 16 << 10;
/// What a decision may add.
const P99_MAX: Duration = Duration::from_millis(1);

fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "record" {
            sources(&path, all);
        } else if path.is_file() {
            all.push(path);
        }
    }
}

/// The beginning of `text` from some place on, at most so long.
fn part<'a>(text: &'a str, bytes: usize, random: &mut Rng) -> &'a str {
    let last = text.len().saturating_sub(bytes);
    let start = text.floor_char_boundary(random.usize(..=last));
    &text[start..text.floor_char_boundary((start + bytes).min(text.len()))]
}

/// A cursor somewhere in a file, and parts of other files until the window is full.
fn request(texts: &[String], random: &mut Rng) -> CompletionRequest {
    let own = part(random.choice(texts).expect("there are files"), WINDOW_BYTES / 2, random);
    let (prefix, suffix) = own.split_at(own.floor_char_boundary(random.usize(..=own.len())));
    let (prefix, suffix) = (prefix.to_owned(), suffix.to_owned());
    let (mut extra, mut left) = (Vec::new(), WINDOW_BYTES - own.len());
    while left > 3 {
        let text = part(random.choice(texts).expect("there are files"), left, random).to_owned();
        left -= text.len();
        extra.push(ExtraFile { path: "src/other.rs".into(), text });
    }
    let path = Some("src/own.rs".into());
    let fim = FimInput { prefix, suffix, path, extra, repository: None };
    let policy = RequestPolicy { on_secret: OnSecret::Redact, ..RequestPolicy::open() };
    CompletionRequest { policy, ..CompletionRequest::greedy("bench", Input::Fim(fim), 1) }
}

fn measure(name: &str, requests: &[CompletionRequest], run: impl Fn(&CompletionRequest) -> bool) {
    let mut hits = 0;
    let mut runs = vec![[Duration::ZERO; ROUNDS]; requests.len()];
    for round in 0..ROUNDS {
        hits = 0;
        for (request, runs) in requests.iter().zip(&mut runs) {
            let began = Instant::now();
            hits += usize::from(black_box(run(request)));
            runs[round] = began.elapsed();
        }
    }
    let median = |runs: &mut [Duration; ROUNDS]| *runs.select_nth_unstable(ROUNDS / 2).1;
    let mut times: Vec<Duration> = runs.iter_mut().map(median).collect();
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 1000).min(times.len() - 1)];
    let (p50, p99) = (at(500), at(990));
    let verdict = if p99 < P99_MAX { "within 1 ms" } else { "TOO SLOW" };
    writeln!(
        stdout(),
        "{name:8} n {} p50 {p50:?} p99 {p99:?} max {:?} found {hits}: {verdict}",
        times.len(),
        at(1000),
    )
    .expect("standard output is open");
}

fn main() {
    let mut files = Vec::new();
    // Folders of real code beside this one, if any were named.
    let named = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let folders: Vec<String> = named.chain([env!("CARGO_MANIFEST_DIR").to_owned()]).collect();
    folders.iter().for_each(|folder| sources(Path::new(folder), &mut files));
    let texts: Vec<String> = files
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .filter(|t| !t.is_empty())
        .collect();
    let scanner = Scanner::new(&[]).expect("the table compiles");
    let mut random = Rng::with_seed(1);
    let mut requests: Vec<CompletionRequest> =
        (0..REQUESTS).map(|_| request(&texts, &mut random)).collect();
    measure("scan", &requests, |request| scanner.scan(request).is_some());
    measure("clear", &requests, |request| scanner.clear(request).is_err());
    let key = ["ghp", "_0123456789abcdefghijABCDEFGHIJ012345"].concat();
    for request in &mut requests {
        if let Input::Fim(fim) = &mut request.input {
            fim.prefix.insert_str(0, &format!("let key = \"{key}\";\n"));
        }
    }
    measure("redact", &requests, |request| {
        scanner.clear(request).is_ok_and(|cleared| cleared.redaction.is_some())
    });
}
