//! Each request is counted once, whatever its end; a request whose account is dropped unsettled
//! is one whose client left, or whose handler panicked.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::StatusCode;
use tokio::time::{Duration, Instant};

use crate::completion::{Reason, Route};
use crate::telemetry::Telemetry;

/// nginx's status for a client that closed the connection; only a metric label, never sent.
const CLIENT_LEFT: u16 = 499;

pub(super) struct Account {
    telemetry: Arc<Telemetry>,
    pub arrival: Instant,
    route: Route,
    reason: Cow<'static, str>,
    /// When each choice last had text.
    texts: Vec<Option<Instant>>,
    /// From arrival to the first text.
    first_text: Option<Duration>,
    settled: bool,
}

impl Account {
    pub(super) fn open(telemetry: Arc<Telemetry>) -> Self {
        Self {
            telemetry,
            arrival: Instant::now(),
            route: Route::Shed,
            reason: "unplaced".into(),
            texts: Vec::new(),
            first_text: None,
            settled: false,
        }
    }

    pub(super) fn placed(&mut self, route: Route, reason: Cow<'static, str>, choices: usize) {
        (self.route, self.reason) = (route, reason);
        self.texts = vec![None; choices];
    }

    /// Text of a choice has come.
    pub(super) fn text(&mut self, choice: u32) {
        let now = Instant::now();
        if self.first_text.is_none() {
            self.first_text = Some(now - self.arrival);
            self.telemetry.ttft_seconds.record(now - self.arrival);
        }
        if let Some(last) = self.texts[choice as usize].replace(now) {
            self.telemetry.itl_seconds.record(now - last);
        }
    }

    /// From arrival to the first text, and to now.
    pub(super) fn times(&self) -> (Option<Duration>, Duration) {
        (self.first_text, self.arrival.elapsed())
    }

    /// A newer request made it worthless.
    pub(super) fn superseded(&mut self, reason: &'static str) {
        self.reason = reason.into();
    }

    /// The answer broke after it had begun.
    pub(super) fn broke(&mut self, reason: &Reason) {
        self.reason = reason.code().into();
    }

    pub(super) fn settle(&mut self, status: StatusCode) {
        if !std::mem::replace(&mut self.settled, true) {
            self.telemetry.request_seconds.record(self.arrival.elapsed());
            self.telemetry.request(&self.route, &self.reason, status.as_u16());
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.reason = "internal".into();
            self.settle(StatusCode::INTERNAL_SERVER_ERROR);
        }
        if !self.settled {
            self.telemetry.cancelled.increment(1);
            self.telemetry.request(&self.route, &self.reason, CLIENT_LEFT);
        }
    }
}
