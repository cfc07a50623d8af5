//! A program under a trace of every call that opens a way out, or a file.
//!
//! Two processes are this test binary in another role. One becomes the program: it waits until it
//! is traced, puts a filter on that stops it at the calls of interest, and executes the program,
//! so that the program is a child of the test like any other. The other is the tracer, a process
//! of its own because it collects every status of what it traces.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use tempfile::TempDir;

use crate::support::process::Process;
use crate::support::scale;

/// Where the two roles find each other and leave what they saw.
const FOLDER: &str = "WEIR_TEST_TRACE_FOLDER";
/// The program and its arguments, one to a line.
const PROGRAM: &str = "WEIR_TEST_TRACE_PROGRAM";
const WAIT_MAX: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// Longest path that is read out of the program.
const PATH_MAX: usize = 4096;

/// What the program did.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Calls of `socket`.
    pub(super) sockets: usize,
    /// Calls that connect or send to an address, or could do so unseen.
    pub(super) ways_out: Vec<String>,
    /// Every file it opened or tried to.
    pub(super) opened: Vec<String>,
}

pub(super) struct Traced {
    pub(super) program: Process,
    tracer: Child,
    folder: TempDir,
}

impl Traced {
    /// `weir serve` of this binary with what `toml` says, further arguments and variables.
    pub(super) fn serve(
        binary: &Path,
        toml: &str,
        arguments: &[&str],
        variables: &[(&str, String)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // What the harness says of that role is no result of a test.
        let tracer = role("watches_the_program", folder.path()).stdout(Stdio::null()).spawn();
        let tracer = tracer.expect("it starts");
        let program = Process::launch(toml, |config| {
            let binary = binary.display().to_string();
            let config = config.display().to_string();
            let mut words = vec![&*binary, "serve", "--config", &config];
            words.extend(arguments);
            let mut command = role("becomes_the_program", folder.path());
            command.env(PROGRAM, words.join("\n")).envs(variables.iter().cloned());
            command
        });
        Self { program, tracer, folder }
    }

    /// Waits until the program has ended, however it does.
    pub(super) fn seen(mut self) -> Seen {
        let status = self.program.ends_within(WAIT_MAX).expect("it ends");
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.program.log());
        let traced = self.tracer.wait().expect("our own child");
        assert!(traced.success(), "the tracer: {traced}");
        let report = fs::read_to_string(self.folder.path().join("report")).expect("its report");
        let mut seen = Seen::default();
        for line in report.lines() {
            match line.split_once(' ') {
                Some(("open", path)) => seen.opened.push(path.to_owned()),
                Some(("socket", _)) => seen.sockets += 1,
                _ => seen.ways_out.push(line.to_owned()),
            }
        }
        seen
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It ends with what it traces; where that never came, it waits for nothing.
        let _ = self.tracer.kill();
        let _ = self.tracer.wait();
    }
}

fn role(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    let test = format!("offline::trace::{name}");
    command.args([&test, "--exact", "--nocapture"]).env(FOLDER, folder);
    command
}

/// Not a test by itself.
#[test]
fn becomes_the_program() {
    let (Some(folder), Some(program)) = (scale::variable(FOLDER), scale::variable(PROGRAM)) else {
        return;
    };
    // SAFETY: the call takes two numbers and touches no memory. Where it is unknown, anybody of
    // this user may trace us anyway.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
    // `PID/task/TID`: the thread that executes a program becomes its first.
    let task = fs::read_link("/proc/thread-self").expect("Linux");
    let task = task.file_name().expect("a number").to_string_lossy().into_owned();
    let (draft, published) = (Path::new(&folder).join("draft"), Path::new(&folder).join("task"));
    fs::write(&draft, task).expect("writable");
    fs::rename(draft, published).expect("one folder");
    wait_for("a tracer", || {
        let status = fs::read_to_string("/proc/thread-self/status").expect("Linux");
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.filter(|tracer| tracer.trim() != "0").map(|_| ())
    });
    apply_filter(&watched_calls()).expect("this kernel filters system calls");
    let mut words = program.lines();
    let error = Command::new(words.next().expect("a program"))
        .args(words)
        .env_remove(PROGRAM)
        .env_remove(FOLDER)
        .exec();
    panic!("{error}");
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} came");
        thread::sleep(LOOK_INTERVAL);
    }
}

/// Stops at what opens a socket, connects, sends to an address or opens a file. io_uring would do
/// each without a call to be seen, so asking for it is one too.
fn watched_calls() -> BpfProgram {
    let to_an_address =
        SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0).expect("argument 4");
    let rules = BTreeMap::from([
        (libc::SYS_socket, Vec::new()),
        (libc::SYS_connect, Vec::new()),
        (libc::SYS_sendmsg, Vec::new()),
        (libc::SYS_sendmmsg, Vec::new()),
        (libc::SYS_io_uring_setup, Vec::new()),
        (libc::SYS_openat, Vec::new()),
        (libc::SYS_openat2, Vec::new()),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, Vec::new()),
        (libc::SYS_sendto, vec![SeccompRule::new(vec![to_an_address]).expect("one condition")]),
    ]);
    let machine = std::env::consts::ARCH.try_into().expect("a machine that weir runs on");
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trace(0), machine)
        .expect("a filter")
        .try_into()
        .expect("a program")
}

/// Not a test by itself.
#[test]
fn watches_the_program() {
    let Some(folder) = scale::variable(FOLDER) else { return };
    let folder = Path::new(&folder);
    let task = wait_for("program", || fs::read_to_string(folder.join("task")).ok());
    let options = libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_EXITKILL;
    let task = task.parse().expect("a number");
    ptrace(libc::PTRACE_SEIZE, task, options).expect("this kernel traces processes");
    let mut report = File::create(folder.join("report")).expect("writable");
    while let Some((task, status)) = next_status() {
        if !libc::WIFSTOPPED(status) {
            continue;
        }
        // With an event the signal is the tracer's own and not the program's to have.
        let event = status >> 16;
        let signal = if event == 0 { libc::WSTOPSIG(status) } else { 0 };
        if event == libc::PTRACE_EVENT_SECCOMP {
            writeln!(report, "{}", call(task)).expect("writable");
        }
        let went_on = ptrace(libc::PTRACE_CONT, task, signal);
        // A thread may have gone meanwhile, with the others, and then needs no leave to go on.
        let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ESRCH);
        assert!(went_on.as_ref().err().is_none_or(gone), "{went_on:?}");
    }
}

/// A request without an address, whose data is a number.
fn ptrace(request: libc::c_uint, task: libc::pid_t, data: libc::c_int) -> io::Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: neither request that is made here reads or writes memory of ours: SEIZE and CONT
    // take their data, options or a signal, by value.
    let done = unsafe { libc::ptrace(request, task, nothing, data as libc::c_long) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The next change of state of anything traced; None: there is nothing left.
fn next_status() -> Option<(libc::pid_t, libc::c_int)> {
    let mut status = 0;
    // SAFETY: `status` is a place for one number, and outlives the call.
    let task = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
    if task > 0 {
        return Some((task, status));
    }
    let error = io::Error::last_os_error();
    assert_eq!(error.raw_os_error(), Some(libc::ECHILD), "{error}");
    None
}

/// The call at which a task is stopped.
fn call(task: libc::pid_t) -> String {
    let line = fs::read_to_string(format!("/proc/{task}/syscall")).expect("it is stopped");
    let mut words = line.split_whitespace();
    let number: i64 = words.next().and_then(|word| word.parse().ok()).expect("in a call");
    let arguments: Vec<u64> = words
        .map_while(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok())
        .collect();
    match number {
        libc::SYS_openat | libc::SYS_openat2 => format!("open {}", path(task, arguments[1])),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => format!("open {}", path(task, arguments[0])),
        libc::SYS_socket => format!("socket {}", arguments[0]),
        libc::SYS_connect => "connect".into(),
        libc::SYS_io_uring_setup => "io_uring_setup".into(),
        _ => "send".into(),
    }
}

/// A string in a task's memory. It may end at the last byte that there is, so it is read by bytes.
fn path(task: libc::pid_t, address: u64) -> String {
    let memory = File::open(format!("/proc/{task}/mem")).expect("it is traced");
    let mut bytes = Vec::new();
    let mut byte = [0];
    while bytes.len() < PATH_MAX {
        match memory.read_at(&mut byte, address + bytes.len() as u64) {
            Ok(1) if byte[0] != 0 => bytes.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
