//! Another weir: what it is told beside a request, what it must say back, and how busy it is.
//!
//! No text goes to a peer before it has said, on a route that takes no text, that it holds to what
//! is required and sends nothing on; and every answer must say so of its own request again, or it
//! is dropped unread and the row is not used any more. The same route tells how busy it is, which
//! is asked once a second while the row is used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Door;
use super::auth::Auth;
use super::wires::openai::under;
use crate::completion::compliance::Requires;
use crate::completion::{Reason, Refusal};
use crate::config::CloudConfig;
use crate::policy::asked::Asked;
use crate::policy::peer::{
    ACKNOWLEDGED, HOPS, Instance, OVERFLOW, REQUIRE, Status, acknowledgement, required,
};

/// How often a peer is asked while its row is used,
const EVERY: Duration = Duration::from_secs(1);
/// and while it is not, so that the first request finds it proven.
const EVERY_IDLE: Duration = Duration::from_secs(30);
/// A row is in use for so long after somebody last looked at it.
const IN_USE: Duration = Duration::from_secs(5);
/// What a peer said of its load is believed for so long,
const STALE: Duration = Duration::from_secs(2);
/// and what it said of what it holds to: another server may answer there by then.
const PROVEN: Duration = Duration::from_secs(90);
/// One question, connecting included.
const ASK_MAX: Duration = Duration::from_secs(1);
const BODY_MAX: usize = 16 * 1024;

/// How busy a peer is, as it said itself at most two seconds ago.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reported {
    /// Whether its model answers.
    pub ready: bool,
    pub work_ahead: Duration,
    /// 0: not measured yet.
    pub prefill_tokens_per_second: f64,
    /// What it took to ask.
    pub round_trip: Duration,
}

impl Reported {
    /// The time to first token that a request with so many prompt tokens would meet there, none of
    /// them cached.
    pub fn ttft(&self, prompt_tokens: u64) -> Duration {
        let prefill = match self.prefill_tokens_per_second {
            rate if rate > 0.0 => prompt_tokens as f64 / rate,
            _ => 0.0,
        };
        let prefill = Duration::try_from_secs_f64(prefill).unwrap_or(Duration::MAX);
        self.round_trip.saturating_add(self.work_ahead).saturating_add(prefill)
    }
}

/// What goes beside one request, and what must come back.
pub(super) struct Marks {
    headers: HeaderMap,
    expected: String,
}

impl Marks {
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        headers.extend(self.headers.clone());
    }
}

/// The peer of one row. Its task ends with it.
pub(super) struct Peer {
    shared: Arc<Shared>,
    _task: DropGuard,
}

struct Shared {
    name: Arc<str>,
    own: Instance,
    uri: Uri,
    door: Door,
    auth: Box<dyn Auth>,
    state: Mutex<State>,
    used: Notify,
}

#[derive(Default)]
struct State {
    standing: Standing,
    used_at: Option<Instant>,
    report: Option<(Reported, Instant)>,
    /// That it is not proven was logged, which is enough until it is.
    doubted: bool,
}

#[derive(Clone, Copy, Default)]
enum Standing {
    /// It has not said yet that it holds to anything.
    #[default]
    Unproven,
    /// It said so at this time.
    Proven(Instant),
    /// It did not keep to it, or it is this weir itself: not asked again before a restart.
    Lost,
}

impl Peer {
    /// Begins to ask. Needs a runtime.
    pub(super) fn start(
        row: &CloudConfig,
        own: Instance,
        door: Door,
        auth: Box<dyn Auth>,
    ) -> Option<Self> {
        let shared = Arc::new(Shared {
            name: row.name.clone(),
            own,
            uri: under(&row.base_url, "peer")?,
            door,
            auth,
            state: Mutex::default(),
            used: Notify::new(),
        });
        let (end, asking) = (CancellationToken::new(), shared.clone());
        let ended = end.clone();
        tokio::spawn(async move {
            ended.run_until_cancelled(asking.keep_asking()).await;
        });
        Some(Self { shared, _task: end.drop_guard() })
    }

    /// Whether text may be sent there now.
    pub(super) fn is_proven(&self) -> Result<(), Refusal> {
        match self.shared.state().standing {
            Standing::Proven(at) if at.elapsed() < PROVEN => Ok(()),
            _ => Err(not_proven("the peer has not said that it holds to what is required")),
        }
    }

    /// How busy it is; None: it has not said lately. Looking keeps the peer being asked.
    pub(super) fn reported(&self) -> Option<Reported> {
        self.shared.look();
        let (reported, at) = self.shared.state().report?;
        (at.elapsed() < STALE).then_some(reported)
    }

    /// What a request is marked with. The peer runs it or refuses it, and sends it nowhere.
    pub(super) fn marks(&self, requires: &Requires) -> Result<Marks, Refusal> {
        self.shared.look();
        let unsayable = || not_proven("what the request requires cannot be told to a peer");
        let asked = Asked { require: requires.clone(), stays_here: true };
        let expected = acknowledgement(&asked).ok_or_else(unsayable)?;
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &str| {
            let value = HeaderValue::from_str(value).map_err(|_| unsayable())?;
            headers.insert(HeaderName::from_static(name), value);
            Ok::<_, Refusal>(())
        };
        put(OVERFLOW, "never")?;
        put(HOPS, self.shared.own.as_str())?;
        let require = required(requires).ok_or_else(unsayable)?;
        if !require.is_empty() {
            put(REQUIRE, &require)?;
        }
        Ok(Marks { headers, expected })
    }

    /// Whether the head of a good answer acknowledges the marks of its request. If not, the row is
    /// lost, and the answer must not be read.
    pub(super) fn acknowledged(&self, head: &HeaderMap, marks: &Marks) -> Result<(), Refusal> {
        let said = head.get(ACKNOWLEDGED).and_then(|value| value.to_str().ok());
        if said == Some(&*marks.expected) {
            self.shared.prove();
            return Ok(());
        }
        self.shared.lose("it answered without acknowledging what was required of it");
        Err(not_proven("the peer did not acknowledge what was required"))
    }
}

fn not_proven(message: &str) -> Refusal {
    Refusal::new(Reason::CloudUnproven, message)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody looks at the row.
    fn look(&self) {
        self.state().used_at = Some(Instant::now());
        self.used.notify_one();
    }

    fn is_used(&self) -> bool {
        self.state().used_at.is_some_and(|at| at.elapsed() < IN_USE)
    }

    fn prove(&self) {
        let mut state = self.state();
        if !matches!(state.standing, Standing::Lost) {
            state.standing = Standing::Proven(Instant::now());
            state.doubted = false;
        }
    }

    fn lose(&self, why: &str) {
        let before = std::mem::replace(&mut self.state().standing, Standing::Lost);
        if !matches!(before, Standing::Lost) {
            let cloud = &*self.name;
            tracing::error!(cloud, why, "the peer is not used any more; restart to try it again");
        }
    }

    async fn keep_asking(&self) {
        while !matches!(self.state().standing, Standing::Lost) {
            let next = Instant::now() + EVERY;
            self.ask_once().await;
            sleep_until(next).await;
            if !self.is_used() {
                tokio::select! {
                    () = sleep(EVERY_IDLE - EVERY) => {}
                    () = self.used.notified() => {}
                }
            }
        }
    }

    /// Asks once, and takes what is said.
    async fn ask_once(&self) {
        let asked = Instant::now();
        let Ok(answer) = timeout(ASK_MAX, self.ask()).await else { return };
        match answer {
            Some(Ok(status)) => self.take(&status, asked),
            Some(Err(said)) => self.doubt(&said),
            // Who cannot be reached has said nothing, and is asked again.
            None => {}
        }
    }

    fn take(&self, status: &Status, asked: Instant) {
        if status.instance == self.own.as_str() {
            return self.lose("the row leads back to this weir");
        }
        let knows = |header: &str| status.acknowledges.iter().any(|known| known == header);
        if !Status::ACKNOWLEDGES.into_iter().all(knows) || status.instance.is_empty() {
            return self.doubt("it does not acknowledge what would be required of it");
        }
        self.prove();
        let work_ahead = Duration::try_from_secs_f64(status.work_ahead_ms / 1000.0);
        let (Ok(work_ahead), true) = (work_ahead, status.prefill_tokens_per_second.is_finite())
        else {
            return;
        };
        let reported = Reported {
            ready: status.ready,
            work_ahead,
            prefill_tokens_per_second: status.prefill_tokens_per_second,
            round_trip: asked.elapsed(),
        };
        self.state().report = Some((reported, Instant::now()));
    }

    /// It answered, and not as a peer does: it may be another server by now.
    fn doubt(&self, said: &str) {
        let mut state = self.state();
        state.report = None;
        if matches!(state.standing, Standing::Lost) {
            return;
        }
        state.standing = Standing::Unproven;
        if !std::mem::replace(&mut state.doubted, true) {
            drop(state);
            tracing::error!(cloud = &*self.name, said, "the peer is not proven, and gets nothing");
        }
    }

    /// None: there was no answer. An error: what it was instead of a status.
    async fn ask(&self) -> Option<Result<Status, String>> {
        let mut head = Request::get(self.uri.clone())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
            .body(())
            .expect("constant headers are valid")
            .into_parts()
            .0;
        self.auth.sign(&mut head, &Bytes::new(), SystemTime::now()).ok()?;
        let request = Request::from_parts(head, Full::default());
        let response = self.door.send(request).await.ok()?;
        let status = response.status();
        if status.is_server_error() {
            return None;
        }
        if status != StatusCode::OK {
            return Some(Err(format!("it answered with status {}", status.as_u16())));
        }
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await.ok()?.to_bytes();
        Some(serde_json::from_slice(&body).map_err(|_| "it answered with no status".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_time_to_first_token() {
        let reported = |rate| Reported {
            ready: true,
            work_ahead: Duration::from_millis(200),
            prefill_tokens_per_second: rate,
            round_trip: Duration::from_millis(5),
        };
        assert_eq!(reported(1000.0).ttft(500), Duration::from_millis(705));
        assert_eq!(reported(0.0).ttft(500), Duration::from_millis(205), "not measured yet");
        assert_eq!(reported(1e-300).ttft(u64::MAX), Duration::MAX);
    }
}
