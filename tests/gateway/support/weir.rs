//! The whole gateway inside the test's process, on a runtime of its own: what that runtime holds
//! is weir's and nobody else's.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use weir::app::{self, App, Loaded, ReloadError, Reloaded};
use weir::config::{Config, Overrides};
use weir::engine::Saturation;

use super::http;

/// Nothing a test waits for takes longer, unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Goes before what a test configures.
pub(crate) const ANY_PORT: &str = "serve.listen = [\"127.0.0.1:0\"]\n";

/// Between two looks at something that is about to change.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

pub(crate) struct Weir {
    pub(crate) address: SocketAddr,
    /// Both are there until the drop.
    app: Option<App>,
    runtime: Option<Runtime>,
}

impl Weir {
    /// Starts with what `toml` says, on a free port of the loopback.
    pub(crate) fn start(toml: &str) -> Self {
        let (config, _) = load(toml).unwrap_or_else(|complaints| panic!("{complaints:?}\n{toml}"));
        let runtime =
            Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let app = runtime.block_on(app::start(config)).expect("weir starts");
        let address = app.addresses()[0];
        Self { address, app: Some(app), runtime: Some(runtime) }
    }

    /// Gives it another configuration. Must not happen inside the test's own runtime.
    pub(crate) fn reload(&mut self, toml: &str) -> Result<Reloaded, ReloadError> {
        let (runtime, toml) = (self.runtime.as_ref().expect("runs"), toml.to_owned());
        runtime.block_on(self.app.as_mut().expect("runs").reload(move || load(&toml)))
    }

    pub(crate) fn saturation(&self) -> &Saturation {
        self.app.as_ref().expect("runs").engine().saturation()
    }

    /// Tasks that weir has spawned and that have not ended.
    pub(crate) fn tasks(&self) -> usize {
        self.runtime.as_ref().expect("runs").metrics().num_alive_tasks()
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::scrape(self.address).await
    }

    /// Whether nothing is left of any request but cached prefixes.
    pub(crate) fn is_at_rest(&self) -> bool {
        let saturation = self.saturation();
        saturation.running() == 0
            && saturation.waiting() == 0
            && saturation.waiting_prefill_tokens() == 0
            && saturation.blocks().referenced == 0
    }
}

/// As from a file.
fn load(toml: &str) -> Loaded {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(&file, format!("{ANY_PORT}{toml}")).expect("it can be written");
    Config::load(Some(file.path()), Overrides::default())
}

impl Drop for Weir {
    /// Must not happen inside the test's own runtime: weir's is blocked on here.
    fn drop(&mut self) {
        let (app, runtime) = (self.app.take(), self.runtime.take().expect("dropped once"));
        if !std::thread::panicking() {
            runtime.block_on(app.expect("dropped once").shutdown());
        }
        runtime.shutdown_timeout(Duration::from_secs(5));
    }
}

/// Where clients run: one thread, so that they take little from the weir beside them.
pub(crate) fn clients() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs a client that needs no weir to be started or stopped meanwhile.
pub(crate) fn drive<T>(client: impl Future<Output = T>) -> T {
    clients().block_on(client)
}

/// Waits until `is_so`; false when it is not within `limit`.
pub(crate) async fn comes_true(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    true
}

/// One scrape.
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) async fn scrape(address: SocketAddr) -> Self {
        let reply = http::get(address, "/metrics").await;
        assert_eq!(reply.status, 200);
        Self(reply.text().to_owned())
    }

    /// A metric without labels.
    pub(crate) fn value(&self, name: &str) -> f64 {
        self.sum(name, "")
    }

    /// The sum over all label sets in which `part` occurs, as in `route="local"`.
    pub(crate) fn sum(&self, name: &str, part: &str) -> f64 {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let values = lines.filter_map(|rest| {
            let (labels, value) = rest.rsplit_once(' ')?;
            let is_ours = labels.is_empty() || labels.starts_with('{');
            (is_ours && labels.contains(part)).then(|| value.parse::<f64>().expect("a number"))
        });
        values.sum()
    }
}
