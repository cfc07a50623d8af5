//! The weir that is asked: one that was named, or the one that all of this user's editors share,
//! which is started where there is none.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::http::Address;
use crate::share::{self, Editor, Folder, ShareError};

/// Reading a large model from a slow disk takes minutes.
const START_MAX: Duration = Duration::from_secs(600);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Processes started for one search: the first may give way to another that ends in that moment.
const STARTS_MAX: u32 = 2;
/// After a search that found nothing, until the next one.
const PAUSE: Duration = Duration::from_secs(10);

/// Why there is nobody to ask.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("no engine could be started: {0}")]
    NotStarted(String),
    #[error("the engine takes too long to start")]
    Slow,
}

/// Which weir is asked.
pub(super) enum Engine {
    Named(Address),
    Shared(Shared),
}

impl Engine {
    /// Where it listens now. What was begun for that goes on where nobody waits for it any more.
    pub(super) async fn address(&self) -> Result<Address, EngineError> {
        match self {
            Engine::Named(address) => Ok(address.clone()),
            Engine::Shared(shared) => shared.address().await,
        }
    }

    /// Nobody answers there.
    pub(super) fn lost(&self, address: &Address) {
        if let Engine::Shared(shared) = self {
            shared.state.send_if_modified(|state| {
                let is_gone = matches!(state, State::At(known) if known == address);
                if is_gone {
                    *state = State::Unknown;
                }
                is_gone
            });
        }
    }

    /// Starts it, so that it is ready when it is asked.
    pub(super) fn wake(&self) {
        if let Engine::Shared(shared) = self {
            shared.wanted.notify_one();
        }
    }
}

#[derive(Clone, Debug)]
enum State {
    Unknown,
    At(Address),
    Failed(EngineError),
}

/// The user's own engine. A task looks for it when it is wanted.
pub(super) struct Shared {
    wanted: std::sync::Arc<Notify>,
    state: watch::Sender<State>,
    keeper: JoinHandle<Infallible>,
}

impl Shared {
    /// `arguments`: what `weir serve` is told beside where to listen.
    pub(super) fn new(arguments: Vec<OsString>) -> Result<Self, ShareError> {
        let folder = Folder::of_user()?;
        let editor = folder.editor()?;
        let (state, _) = watch::channel(State::Unknown);
        let wanted = std::sync::Arc::new(Notify::new());
        let mut search = Search { folder, editor, arguments, child: None };
        let (publish, calls) = (state.clone(), wanted.clone());
        let keeper = tokio::spawn(async move {
            loop {
                calls.notified().await;
                if !matches!(*publish.borrow(), State::Unknown) {
                    continue;
                }
                match search.find().await {
                    Ok(address) => drop(publish.send_replace(State::At(address))),
                    Err(error) => {
                        tracing::error!("{error}");
                        publish.send_replace(State::Failed(error));
                        sleep(PAUSE).await;
                        publish.send_replace(State::Unknown);
                    }
                }
            }
        });
        Ok(Self { wanted, state, keeper })
    }

    async fn address(&self) -> Result<Address, EngineError> {
        let mut state = self.state.subscribe();
        if matches!(*state.borrow(), State::Unknown) {
            self.wanted.notify_one();
        }
        match state.wait_for(|state| !matches!(state, State::Unknown)).await.as_deref() {
            Ok(State::At(address)) => Ok(address.clone()),
            Ok(State::Failed(error)) => Err(error.clone()),
            // The sender is ours, and what is unknown is waited for.
            Ok(State::Unknown) | Err(_) => Err(EngineError::Slow),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Search {
    folder: Folder,
    editor: Editor,
    arguments: Vec<OsString>,
    /// Kept to be asked how it ended, without which it would stay in the table of processes.
    child: Option<Child>,
}

impl Search {
    async fn find(&mut self) -> Result<Address, EngineError> {
        let not_started =
            |error: &dyn std::fmt::Display| EngineError::NotStarted(error.to_string());
        let (deadline, mut starts) = (Instant::now() + START_MAX, 0);
        while Instant::now() < deadline {
            match self.folder.engine(&self.editor).map_err(|error| not_started(&error))? {
                share::Engine::At(address) => return Ok(Address::of_socket(address)),
                share::Engine::Starting => {}
                share::Engine::Nowhere if self.child_runs() => {}
                share::Engine::Nowhere if starts < STARTS_MAX => {
                    starts += 1;
                    self.child = Some(self.start().map_err(|error| not_started(&error))?);
                }
                share::Engine::Nowhere => {
                    let log = self.folder.log();
                    return Err(not_started(&format!("see {}", log.display())));
                }
            }
            sleep(LOOK_INTERVAL).await;
        }
        Err(EngineError::Slow)
    }

    fn child_runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// It outlives this process, and what is typed at this one's terminal is not meant for it.
    fn start(&self) -> std::io::Result<Child> {
        let mut log = OpenOptions::new();
        let log = log.create(true).write(true).truncate(true).mode(0o600);
        tracing::info!("starting the engine of this user's editors");
        Command::new(std::env::current_exe()?)
            .args(["serve", "--while-used", "--listen", "127.0.0.1:0"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.open(self.folder.log())?)
            .process_group(0)
            .spawn()
    }
}
