//! The official OpenAI clients, as their users get them, against weir as its users run it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::Process;
use crate::support::scale::skip;

#[test]
fn python() {
    let python = folder().join("python/venv/bin/python");
    if !python.exists() {
        skip!("the Python client (tests/clients/install fetches it)");
    }
    passes(Command::new(python).arg(folder().join("check.py")));
}

#[test]
fn javascript() {
    let is_fetched = folder().join("node/node_modules/openai").exists();
    if !is_fetched || Command::new("node").arg("--version").output().is_err() {
        skip!("Node.js or the JavaScript client (tests/clients/install fetches it)");
    }
    passes(Command::new("node").arg(folder().join("check.mjs")));
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs a script against a weir of its own.
fn passes(script: &mut Command) {
    let weir = Process::serve("");
    let output = script.arg(format!("http://{}", weir.address)).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}{complained}", output.status);
    assert!(said.lines().all(|line| line.starts_with("ok ")), "{said}{complained}");
    assert!(said.lines().count() >= CHECKS_MIN, "checks are missing:\n{said}{complained}");
}

/// A script that ends early without a word checked nothing.
const CHECKS_MIN: usize = 10;
