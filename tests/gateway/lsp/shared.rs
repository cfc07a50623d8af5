//! One engine for all editors of a user, whoever of them is killed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::editor::{Editor, SUGGEST, code, cursor};
use crate::support::process::Process;
use crate::support::weir::{Metrics, drive};

const URI: &str = "file:///w/a.py";
const PATIENCE: Duration = Duration::from_secs(30);

/// The folder of a user whose engine ends with the test.
struct User(TempDir);

impl User {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn editor(&self) -> Editor {
        let mut editor = Editor::of_user(self.0.path(), &[]);
        editor.initialize(&[], "file:///w");
        editor.open(URI, "def add(a, b):\n    return \n");
        editor
    }

    /// Where the engine listens, and its process.
    fn engine(&self) -> Option<(SocketAddr, u64)> {
        let note = std::fs::read(self.0.path().join("weir/engine.json")).ok()?;
        let note: Value = serde_json::from_slice(&note).expect("a whole note");
        let address = note["address"].as_str()?.parse().expect("an address");
        Some((address, note["process"].as_u64()?))
    }

    /// As nobody can prevent.
    fn kill_engine(&self) {
        if let Some((_, process)) = self.engine() {
            let kill = ["-c", "kill -KILL \"$0\"", &process.to_string()];
            Command::new("sh").args(kill).status().expect("there is a shell");
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.kill_engine();
    }
}

fn is_answered(editor: &mut Editor) {
    let items = editor.suggested(URI, (1, 11), json!({ "triggerKind": 1 }));
    assert!(items[0]["insertText"].is_string(), "{items}");
}

fn comes_true(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Requests that this engine has answered.
fn answered(address: SocketAddr) -> f64 {
    drive(Metrics::scrape(address)).value("weir_requests_total")
}

#[test]
fn editors_that_start_at_once_share_an_engine_that_may_be_killed() {
    let user = User::new();
    let mut editors = [user.editor(), user.editor(), user.editor()];
    editors.iter_mut().for_each(is_answered);
    let (first, process) = user.engine().expect("an engine");
    assert_eq!(answered(first), 3.0, "it is everybody's");

    // A note of an engine that is gone sends nobody anywhere.
    user.kill_engine();
    let asked: Vec<_> = editors.iter_mut().map(|editor| editor.ask_at(URI, (1, 11))).collect();
    for (editor, asked) in editors.iter_mut().zip(asked) {
        let answer = editor.answer(asked);
        assert!(answer["result"][0]["insertText"].is_string(), "{answer}");
    }
    let (second, other) = user.engine().expect("another engine");
    assert_ne!(process, other);
    assert_eq!(answered(second), 3.0);

    // One that comes later finds what runs, whoever has started it.
    let [one, two, three] = editors;
    drop((one, two));
    let mut late = user.editor();
    is_answered(&mut late);
    assert_eq!(user.engine(), Some((second, other)));
    late.leave();
    three.leave();
}

#[test]
fn an_engine_ends_after_its_last_editor() {
    let user = User::new();
    let mut engine = serve(user.0.path(), &["--while-used", "1"]);
    assert!(comes_true(|| user.engine().is_some()));
    let mut editors = [user.editor(), user.editor()];
    editors.iter_mut().for_each(is_answered);
    assert_eq!(user.engine().map(|(_, process)| process), Some(u64::from(engine.id())));
    let [one, two] = editors;
    one.leave();
    assert!(engine.ends_within(Duration::from_secs(3)).is_none(), "one is left");
    // Killed.
    drop(two);
    let status = engine.ends_within(PATIENCE).expect("nobody is left");
    assert!(status.success(), "{status}");
    assert_eq!(user.engine(), None);
    let mut next = user.editor();
    is_answered(&mut next);
    next.leave();
}

#[test]
fn a_weir_that_is_shared_stays() {
    let user = User::new();
    let mut weir = serve(user.0.path(), &["--share"]);
    assert!(comes_true(|| user.engine().is_some()));
    let second = command(user.0.path(), &["--share"]).output().expect("it starts");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another weir serves this user's editors"), "{said}");
    let mut editor = user.editor();
    is_answered(&mut editor);
    editor.leave();
    weir.terminate();
    assert!(weir.ends_within(PATIENCE).is_some_and(|status| status.success()));
    assert_eq!(user.engine(), None, "its note went with it");
}

#[test]
fn an_engine_that_does_not_start_is_told() {
    let user = User::new();
    let empty = user.0.path().join("no model").display().to_string();
    std::fs::create_dir(&empty).expect("a temporary folder");
    let mut editor = Editor::of_user(user.0.path(), &["--model", &empty]);
    editor.initialize(&[], "file:///w");
    editor.open(URI, "x = ");
    let context = json!({ "triggerKind": 1 });
    let asked = editor.ask(SUGGEST, cursor(URI, (0, 4), context));
    let answer = editor.answer(asked);
    assert_eq!(code(&answer), -32803, "{answer}");
    let said = answer["error"]["message"].as_str().expect("a sentence");
    let log = said.rsplit("see ").next().expect("where to look");
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(log.contains("no model"), "{log}");
    // Somebody who types is left alone, and no engine is tried with each key.
    let began = Instant::now();
    assert_eq!(editor.suggested(URI, (0, 4), json!({ "triggerKind": 2 })), json!([]));
    assert!(began.elapsed() < Duration::from_secs(5));
    editor.leave();
}

fn serve(runtime: &Path, arguments: &[&str]) -> Process {
    Process::launch("", |config| {
        let mut command = command(runtime, arguments);
        command.arg("--config").arg(config);
        command
    })
}

fn command(runtime: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("serve").args(arguments).env("XDG_RUNTIME_DIR", runtime);
    command
}
