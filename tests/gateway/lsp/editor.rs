//! The editor's end of a language server's standard input and output.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// An engine that is started on a busy machine included.
const PATIENCE: Duration = Duration::from_secs(60);
/// Answers that nobody has asked for yet.
const ANSWERS_MAX: usize = 4096;
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// An editor, and its `weir lsp`, which is killed with it.
pub(crate) struct Editor {
    child: Child,
    to: Option<ChildStdin>,
    answers: Receiver<Value>,
    /// Answers to others than were waited for.
    early: Vec<Value>,
    asked: i64,
}

impl Editor {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::launch(Command::new(env!("CARGO_BIN_EXE_weir")).arg("lsp").args(arguments))
    }

    /// One that finds its engine in this folder, or starts it.
    pub(crate) fn of_user(runtime: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        Self::launch(command.arg("lsp").args(arguments).env("XDG_RUNTIME_DIR", runtime))
    }

    fn launch(command: &mut Command) -> Self {
        let command = command.env_remove("WEIR_API_KEY").stderr(Stdio::inherit());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let (sender, answers) = mpsc::sync_channel(ANSWERS_MAX);
        let mut from = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || {
            while let Some(message) = read(&mut from) {
                sender.send(message).expect("the test waits");
            }
        });
        let to = child.stdin.take();
        Self { child, to, answers, early: Vec::new(), asked: 0 }
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        // It may have gone already, which the test then sees by what it answers.
        let _ = self.to.as_mut().expect("open").write_all(bytes);
    }

    fn write(&mut self, message: &Value) {
        let text = message.to_string();
        self.raw(format!("Content-Length: {}\r\n\r\n{text}", text.len()).as_bytes());
    }

    pub(crate) fn tell(&mut self, method: &str, params: Value) {
        self.write(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Sends a request; its number.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> i64 {
        self.asked += 1;
        let id = self.asked;
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    /// The next message, whatever it answers.
    pub(crate) fn next(&mut self) -> Value {
        self.answers.recv_timeout(PATIENCE).expect("an answer")
    }

    /// The whole answer to this request.
    pub(crate) fn answer(&mut self, id: i64) -> Value {
        let is_it = |answer: &Value| answer["id"] == id;
        if let Some(at) = self.early.iter().position(is_it) {
            return self.early.remove(at);
        }
        loop {
            let answer = self.next();
            if is_it(&answer) {
                return answer;
            }
            self.early.push(answer);
        }
    }

    /// What a request comes to.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        let mut answer = self.answer(id);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    /// The code of the error that a request comes to.
    pub(crate) fn refused(&mut self, method: &str, params: Value) -> i64 {
        let id = self.ask(method, params);
        code(&self.answer(id))
    }

    /// Begins the session; what weir can do.
    pub(crate) fn initialize(&mut self, encodings: &[&str], root: &str) -> Value {
        let mut params = json!({ "processId": null, "rootUri": root, "capabilities": {} });
        if !encodings.is_empty() {
            params["capabilities"] = json!({ "general": { "positionEncodings": encodings } });
        }
        let mut result = self.call("initialize", params);
        self.tell("initialized", json!({}));
        result["capabilities"].take()
    }

    pub(crate) fn open(&mut self, uri: &str, text: &str) {
        let document = json!({ "uri": uri, "languageId": "rust", "version": 1, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": document }));
    }

    /// Replaces what is between two places.
    pub(crate) fn edit(&mut self, uri: &str, [from, to]: [(usize, usize); 2], text: &str) {
        let change = json!({ "range": { "start": at(from), "end": at(to) }, "text": text });
        let document = json!({ "uri": uri, "version": 2 });
        let params = json!({ "textDocument": document, "contentChanges": [change] });
        self.tell("textDocument/didChange", params);
    }

    /// Asks for a suggestion, as after a key.
    pub(crate) fn ask_at(&mut self, uri: &str, place: (usize, usize)) -> i64 {
        self.ask(SUGGEST, cursor(uri, place, json!({ "triggerKind": 2 })))
    }

    /// The items that are suggested there.
    pub(crate) fn suggested(&mut self, uri: &str, place: (usize, usize), context: Value) -> Value {
        self.call(SUGGEST, cursor(uri, place, context))
    }

    /// Ends the session as it should be ended.
    pub(crate) fn leave(mut self) {
        assert!(self.call("shutdown", Value::Null).is_null());
        self.tell("exit", Value::Null);
        assert_eq!(self.ended().code(), Some(0));
    }

    pub(crate) fn close_input(&mut self) {
        self.to = None;
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(LOOK_INTERVAL);
        }
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        // It may be gone already, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const SUGGEST: &str = "textDocument/inlineCompletion";

pub(crate) fn cursor(uri: &str, place: (usize, usize), context: Value) -> Value {
    json!({ "textDocument": { "uri": uri }, "position": at(place), "context": context })
}

pub(crate) fn at((line, character): (usize, usize)) -> Value {
    json!({ "line": line, "character": character })
}

pub(crate) fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {answer}"))
}

fn read(from: &mut impl BufRead) -> Option<Value> {
    let mut line = String::new();
    from.read_line(&mut line).ok()?;
    let length = line.strip_prefix("Content-Length: ")?.trim_end().parse().expect("a length");
    line.clear();
    from.read_line(&mut line).ok()?;
    assert_eq!(line, "\r\n");
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).expect("JSON"))
}
