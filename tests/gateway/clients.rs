//! Clients as their users get them, against weir as its users run it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::Process;
use crate::support::scale::skip;
use crate::support::weir::{Metrics, drive};

/// From the broken connection to the free slot.
const FREED_WITHIN: Duration = Duration::from_secs(1);
/// Lines of a stream that `curl` prints before it is ended.
const HEARD: usize = 4;

#[test]
fn openai_in_python() {
    passes(python("check_openai.py"));
}

#[test]
fn openai_in_javascript() {
    passes(node("openai", "check_openai.mjs"));
}

#[test]
fn ollama_in_python() {
    passes(python("check_ollama.py"));
}

#[test]
fn ollama_in_javascript() {
    passes(node("ollama", "check_ollama.mjs"));
}

#[test]
fn continues_packages() {
    passes(node("@continuedev/fetch", "check_continue.mjs"));
}

#[test]
fn tabbys_agent() {
    passes(node("tabby-agent", "check_tabby.mjs"));
}

#[test]
fn copilots_language_server() {
    let script = node("@github/copilot-language-server-linux-x64", "check_copilot.mjs");
    passes_with("serve.copilot_token = true", script, 5);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// A script of Python's clients; None: they are not there.
fn python(script: &str) -> Option<Command> {
    let python = folder().join("python/venv/bin/python");
    if !python.exists() {
        return None;
    }
    let mut command = Command::new(python);
    command.arg(folder().join(script));
    Some(command)
}

/// A script of one of JavaScript's packages; None: it is not there, or nothing that runs it.
fn node(package: &str, script: &str) -> Option<Command> {
    let is_fetched = folder().join("node/node_modules").join(package).exists();
    if !is_fetched || Command::new("node").arg("--version").output().is_err() {
        return None;
    }
    let mut command = Command::new("node");
    command.arg(folder().join(script));
    Some(command)
}

/// Runs a script against a weir of its own.
fn passes(script: Option<Command>) {
    passes_with("", script, CHECKS_MIN);
}

/// The same with a configuration, for a script of at least so many checks.
fn passes_with(toml: &str, script: Option<Command>, checks_min: usize) {
    let Some(mut script) = script else { skip!("a client (tests/clients/install fetches it)") };
    let weir = Process::serve(toml);
    let output = script.arg(format!("http://{}", weir.address)).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}{complained}", output.status);
    assert!(said.lines().all(|line| line.starts_with("ok ")), "{said}{complained}");
    assert!(said.lines().count() >= checks_min, "checks are missing:\n{said}{complained}");
}

/// A script that ends early without a word checked nothing.
const CHECKS_MIN: usize = 10;

#[test]
fn curl_over_both_versions_of_http() {
    if Command::new("curl").arg("--version").output().is_err() {
        skip!("curl");
    }
    let weir = Process::serve("");
    for (flag, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let body = json!({"prompt": "def add(a, b):", "max_tokens": 4});
        let output = curl(&weir, flag, &body).args(["-w", "\n%{http_version}"]).output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        let (reply, spoken) = said.rsplit_once('\n').expect("a reply and a version");
        let reply: Value = serde_json::from_str(reply).expect("JSON");
        assert_eq!((&reply["object"], spoken), (&json!("text_completion"), version));
        let body = json!({
            "prompt": "def ", "max_tokens": 900, "stream": true, "ignore_eos": true,
        });
        let mut stream = curl(&weir, flag, &body).stdout(Stdio::piped()).spawn().expect("a child");
        let mut lines = BufReader::new(stream.stdout.take().expect("piped")).lines();
        for _ in 0..HEARD {
            lines.next().expect("a line").expect("UTF-8");
        }
        assert_eq!(slots_used(&weir), 1.0, "{flag}: the stream ended by itself");
        ends(&mut stream);
        let ended = std::time::Instant::now();
        while slots_used(&weir) > 0.0 {
            assert!(ended.elapsed() < FREED_WITHIN, "{flag}: the slot is not free");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn curl(weir: &Process, flag: &str, body: &Value) -> Command {
    let mut command = Command::new("curl");
    let url = format!("http://{}/v1/completions", weir.address);
    let json = "content-type: application/json";
    command.args(["-sS", "-N", "--max-time", "30", flag, &url, "-H", json, "-d"]);
    command.arg(body.to_string());
    command
}

/// As editors end the `curl` that they have started: SIGTERM.
fn ends(child: &mut Child) {
    let id = child.id().to_string();
    let status = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id]).status();
    assert!(status.expect("there is a shell").success(), "it still ran");
    assert!(!child.wait().expect("our own child").success(), "it was ended");
}

fn slots_used(weir: &Process) -> f64 {
    drive(async { Metrics::scrape(weir.address).await.value("weir_slots_used") })
}
