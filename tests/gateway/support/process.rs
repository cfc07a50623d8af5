//! The real binary as a child of the test.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::weir::ANY_PORT;

/// A start takes well under a second; a machine under load takes longer.
const START_MAX: Duration = Duration::from_secs(20);
/// Lines that wait to be looked at: more than a banner has.
const LINES_MAX: usize = 256;
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
const FILE: &str = "weir.toml";

/// A weir in a process of its own, killed with the test.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    pub(crate) started: Instant,
    /// All that it said on standard output before it listened, and the `curl` line after that.
    pub(crate) banner: String,
    child: Child,
    log: Arc<Mutex<String>>,
    config: TempDir,
}

impl Process {
    /// `weir serve` with what `toml` says, on a free port.
    pub(crate) fn serve(toml: &str) -> Self {
        Self::launch(toml, |path| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
            command.arg("serve").arg("--config").arg(path);
            command
        })
    }

    /// Whatever serves with the configuration file it is given.
    pub(crate) fn launch(toml: &str, command: impl FnOnce(&Path) -> Command) -> Self {
        let config = tempfile::tempdir().expect("a temporary folder");
        let mut command = command(&write_config(config.path(), toml));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().expect("the binary starts");
        let log = collect(child.stderr.take().expect("piped"));
        let lines = lines(child.stdout.take().expect("piped"));
        let (banner, address) = read_banner(&lines)
            .unwrap_or_else(|banner| panic!("no banner: {banner}\n{}", log.lock().expect("log")));
        Self { address, started, banner, child, log, config }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Gives it another configuration file, and says so.
    pub(crate) fn reload(&self, toml: &str) {
        write_config(self.config.path(), toml);
        self.signal("HUP");
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.config.path().join(FILE)
    }

    /// The shell's own `kill` is on every machine.
    fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .args(["-c", "kill -\"$0\" \"$1\"", name, &self.id().to_string()])
            .status()
            .expect("there is a shell");
        assert!(status.success(), "the process was there");
    }

    /// How it ended, or None when it still runs after `limit`.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// What it said on standard error.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("weir said:\n{}{}", self.banner, self.log());
        }
    }
}

/// In one step: whoever reads it meanwhile sees the one or the other.
fn write_config(folder: &Path, toml: &str) -> PathBuf {
    let (path, beside) = (folder.join(FILE), folder.join("next.toml"));
    std::fs::write(&beside, format!("{ANY_PORT}{toml}")).expect("a writable temporary folder");
    std::fs::rename(&beside, &path).expect("a writable temporary folder");
    path
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // Nobody listens once the banner was read; the pipe is drained all the same.
            let _ = sender.try_send(line);
        }
    });
    receiver
}

/// What is said there, as it comes.
pub(crate) fn collect(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let ours = text.clone();
    thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut part) {
            let part = String::from_utf8_lossy(&part[..length]);
            ours.lock().expect("not poisoned").push_str(&part);
        }
    });
    text
}

/// Reads up to the end of the `curl` line, which is the last thing that the banner says.
fn read_banner(lines: &Receiver<String>) -> Result<(String, SocketAddr), String> {
    let deadline = Instant::now() + START_MAX;
    let mut banner = String::new();
    let mut in_curl = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(line) = lines.recv_timeout(left) else { return Err(banner) };
        in_curl |= line.contains("curl ");
        banner += &line;
        banner.push('\n');
        if in_curl && !line.ends_with('\\') {
            return address(&banner).map(|address| (banner.clone(), address)).ok_or(banner);
        }
    }
}

fn address(banner: &str) -> Option<SocketAddr> {
    let rest = banner.split_once("http://127.0.0.1:")?.1;
    let port = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    format!("127.0.0.1:{port}").parse().ok()
}

/// The command that the banner offers, as one would paste it.
pub(crate) fn curl_line(banner: &str) -> &str {
    let at = banner.find("curl ").expect("a curl line");
    banner[at..].trim_end()
}
