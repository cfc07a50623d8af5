//! Something with an end, fetched anew before it ends: tokens and short-lived keys.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::completion::{Fault, Reason, Refusal};

/// It is renewed so long before its end, or at half its life where that is later.
const AHEAD: Duration = Duration::from_secs(5 * 60);
/// What has no end is asked for again this often: a file may have changed.
const ENDLESS: Duration = Duration::from_secs(15 * 60);
/// A fetch that failed is repeated after this, each time twice as long,
const RETRY_MIN: Duration = Duration::from_secs(1);
/// up to this.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// One fetch; it may ask two services in turn.
const FETCH_MAX: Duration = Duration::from_secs(20);
/// Two renewals that clouds asked for by rejecting are at least so far apart.
const REJECTED_EVERY: Duration = Duration::from_secs(10);

/// What was fetched, and until when it holds; None: it says no end.
#[derive(Debug)]
pub(in crate::cloud) struct Fetched<T> {
    pub(in crate::cloud) value: T,
    pub(in crate::cloud) until: Option<SystemTime>,
}

/// A sentence without anything secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cloud) struct CredentialError(pub(in crate::cloud) String);

/// Where it comes from.
pub(in crate::cloud) trait Source<T>: Send + Sync + 'static {
    fn fetch(&self) -> impl Future<Output = Result<Fetched<T>, CredentialError>> + Send;
}

/// Keeps one value fresh from a task of its own, one fetch at a time. The task ends with this.
pub(in crate::cloud) struct Renewed<T> {
    shared: Arc<Shared<T>>,
    _task: DropGuard,
}

struct Shared<T> {
    held: Mutex<Option<Held<T>>>,
    rejected: Notify,
}

struct Held<T> {
    value: Arc<T>,
    until: Option<SystemTime>,
}

impl<T: Send + Sync + 'static> Renewed<T> {
    /// Begins to fetch. `cloud` is for the log. Needs a runtime.
    pub(in crate::cloud) fn start(cloud: Arc<str>, source: impl Source<T>) -> Self {
        let shared = Arc::new(Shared { held: Mutex::default(), rejected: Notify::new() });
        let (end, keeper) = (CancellationToken::new(), shared.clone());
        let ended = end.clone();
        tokio::spawn(async move {
            ended.run_until_cancelled(keeper.keep_fresh(&cloud, source)).await;
        });
        Self { shared, _task: end.drop_guard() }
    }

    /// What holds at `now`; a refusal while there is none.
    pub(in crate::cloud) fn get(&self, now: SystemTime) -> Result<Arc<T>, Refusal> {
        match &*self.shared.held() {
            Some(held) if held.until.is_none_or(|until| now < until) => Ok(held.value.clone()),
            _ => Err(Refusal::new(
                Reason::Cloud(Fault::Credentials),
                "the cloud's credentials are not there yet",
            )
            .with_retry_after(RETRY_MIN)),
        }
    }

    /// The cloud did not accept it: it is fetched anew, soon.
    pub(in crate::cloud) fn rejected(&self) {
        self.shared.rejected.notify_one();
    }
}

impl<T> Shared<T> {
    fn held(&self) -> MutexGuard<'_, Option<Held<T>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_fresh(&self, cloud: &str, source: impl Source<T>) {
        let mut retry = RETRY_MIN;
        loop {
            let wait = match self.fetch(&source).await {
                Ok(until) => {
                    retry = RETRY_MIN;
                    until_renewal(until, SystemTime::now())
                }
                Err(error) => {
                    tracing::warn!(cloud, %error, "the credentials could not be fetched");
                    let wait = retry;
                    retry = (retry * 2).min(RETRY_MAX);
                    wait
                }
            };
            self.wait(wait).await;
        }
    }

    /// Until when the new value holds.
    async fn fetch(&self, source: &impl Source<T>) -> Result<Option<SystemTime>, CredentialError> {
        let late = |_| CredentialError(format!("no answer within {FETCH_MAX:?}"));
        let Fetched { value, until } = timeout(FETCH_MAX, source.fetch()).await.map_err(late)??;
        *self.held() = Some(Held { value: Arc::new(value), until });
        Ok(until)
    }

    /// Waits until the value is due, or was rejected.
    async fn wait(&self, wait: Duration) {
        // A cloud that rejects everything does not make us ask for tokens all the time.
        let soonest = REJECTED_EVERY.min(wait);
        sleep(soonest).await;
        tokio::select! {
            () = sleep(wait - soonest) => {}
            () = self.rejected.notified() => {}
        }
    }
}

/// How long a value is left alone.
fn until_renewal(until: Option<SystemTime>, now: SystemTime) -> Duration {
    let Some(until) = until else { return ENDLESS };
    let left = until.duration_since(now).unwrap_or_default();
    // Several weirs that started together do not all ask in the same second.
    let jitter = left.mul_f64(fastrand::f64() * 0.05);
    left.saturating_sub(AHEAD).max(left / 2).saturating_sub(jitter).max(RETRY_MIN)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Counts its fetches, each good for this long, and fails the first `failing`.
    struct Counting {
        fetches: Arc<AtomicU32>,
        life: Option<Duration>,
        failing: u32,
    }

    impl Source<u32> for Counting {
        async fn fetch(&self) -> Result<Fetched<u32>, CredentialError> {
            let fetch = self.fetches.fetch_add(1, Ordering::SeqCst);
            if fetch < self.failing {
                return Err(CredentialError("no".into()));
            }
            let until = self.life.map(|life| SystemTime::now() + life);
            Ok(Fetched { value: fetch, until })
        }
    }

    fn start(life: Option<u64>, failing: u32) -> (Renewed<u32>, Arc<AtomicU32>) {
        let fetches = Arc::new(AtomicU32::new(0));
        let life = life.map(Duration::from_secs);
        let source = Counting { fetches: fetches.clone(), life, failing };
        (Renewed::start("burst".into(), source), fetches)
    }

    async fn after(seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_renewed_before_its_end_and_one_at_a_time() {
        let (renewed, fetches) = start(Some(3600), 0);
        assert!(renewed.get(SystemTime::now()).is_err(), "nothing was fetched yet");
        after(1).await;
        assert_eq!(*renewed.get(SystemTime::now()).unwrap(), 0);
        after(3000).await;
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        after(400).await;
        assert_eq!(*renewed.get(SystemTime::now()).unwrap(), 1, "five minutes ahead");
        let late = SystemTime::now() + Duration::from_secs(3601);
        assert!(renewed.get(late).is_err(), "what has ended is not used");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_repeated_and_a_rejection_renews_once() {
        let (renewed, fetches) = start(None, 2);
        after(4).await;
        assert_eq!(*renewed.get(SystemTime::now()).unwrap(), 2, "after 1 s and 2 s");
        for _ in 0..100 {
            renewed.rejected();
        }
        after(20).await;
        assert_eq!(fetches.load(Ordering::SeqCst), 4, "however often it was rejected");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_its_holder() {
        let (renewed, fetches) = start(Some(10), 0);
        after(1).await;
        drop(renewed);
        after(3600).await;
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }
}
