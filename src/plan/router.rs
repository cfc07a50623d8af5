//! Who says where a request goes: weir's own decision, or another that it is compared with.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::cloud::{CloudRow, Purse, QuotedCloud};
use super::trace::Arrival;
use crate::completion::compliance::Declared;
use crate::completion::{CompletionRequest, Input, Refusal};
use crate::config::OverflowConfig;
use crate::dispatch::{Load, Placed, Simulated, Target, Terms};
use crate::engine::Saturation;
use crate::policy::secrets::Scanner;

/// What a router may know when it decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) now: Instant,
    /// Sequences that wait for a slot of the box.
    pub(super) queue_depth: usize,
    /// The time to first token on the box, as the engine would predict it.
    pub(super) predicted: Duration,
}

/// Places requests, and is told what becomes of them.
pub(super) trait Router {
    fn place(&mut self, arrival: &Arrival, sight: Sight) -> Placed;
    /// The rows for a request that the box has refused.
    fn instead(&mut self, arrival: &Arrival, sight: Sight) -> Vec<usize>;
    fn admit(&mut self, _row: usize, _arrival: &Arrival, _now: Instant) -> bool {
        true
    }
    fn answered(&mut self, _row: usize, _ttft: Duration, _now: Instant) {}
    fn refused(&mut self, _row: usize, _refusal: &Refusal, _now: Instant) {}
    fn ended_well(&mut self, _row: usize, _now: Instant) {}
    /// The box gave a first token after so long.
    fn local_first(&mut self, _ttft: Duration, _now: Instant) {}
    /// Whether requests leave, by the router's own state.
    fn is_active(&mut self, now: Instant) -> bool;
    /// For each row, how many requests that should have left it was not to have, by reason.
    fn kept(&self) -> Vec<BTreeMap<String, u64>> {
        Vec::new()
    }
}

/// What the box publishes, as the dispatcher reads it.
struct Published(Rc<Saturation>);

impl Load for Published {
    fn work_ahead_ms(&self) -> f64 {
        self.0.work_ahead_ms()
    }
}

/// The decision of [`crate::dispatch`].
pub(super) struct Weir {
    dispatcher: Simulated<Published, QuotedCloud>,
    purses: Vec<Rc<Purse>>,
    /// What each request is, but for its numbers.
    request: CompletionRequest,
}

impl Weir {
    pub(super) fn new(
        saturation: Rc<Saturation>,
        clouds: impl Iterator<Item = (CloudRow, Rc<Purse>)>,
        overflow: &OverflowConfig,
        scanner: &Scanner,
    ) -> Self {
        let (mut targets, mut purses) = (Vec::new(), Vec::new());
        for (row, purse) in clouds {
            let model = row.name.clone();
            targets.push(Target {
                name: row.name,
                declared: Declared::default(),
                terms: Terms { price: row.price, model, attested_by: None, region: None },
                bounds: row.bounds,
                backend: QuotedCloud(Rc::clone(&purse)),
            });
            purses.push(purse);
        }
        let dispatcher = Simulated::new(Published(saturation), targets, overflow, scanner.clone());
        let request = CompletionRequest::greedy("", Input::Text(String::new()), 1);
        Self { dispatcher, purses, request }
    }

    fn hold(&mut self, arrival: &Arrival, now_ns: u64) {
        self.request.max_tokens = Some(arrival.max_tokens);
        self.request.priority = arrival.priority;
        for purse in &self.purses {
            purse.hold(arrival, now_ns);
        }
    }
}

impl Router for Weir {
    fn place(&mut self, arrival: &Arrival, sight: Sight) -> Placed {
        self.hold(arrival, arrival.at_ns);
        self.dispatcher.place(&self.request, sight.predicted, sight.now)
    }

    fn instead(&mut self, arrival: &Arrival, sight: Sight) -> Vec<usize> {
        self.hold(arrival, arrival.at_ns);
        self.dispatcher.rows_instead(&self.request, sight.now)
    }

    fn admit(&mut self, row: usize, arrival: &Arrival, now: Instant) -> bool {
        self.hold(arrival, arrival.at_ns);
        self.dispatcher.admit(row, &self.request, now)
    }

    fn answered(&mut self, row: usize, ttft: Duration, now: Instant) {
        self.dispatcher.answered(row, ttft, now);
    }

    fn refused(&mut self, row: usize, refusal: &Refusal, now: Instant) {
        self.dispatcher.refused(row, refusal, now);
    }

    fn ended_well(&mut self, row: usize, now: Instant) {
        self.dispatcher.ended_well(row, now);
    }

    fn kept(&self) -> Vec<BTreeMap<String, u64>> {
        self.dispatcher.kept().to_vec()
    }

    fn is_active(&mut self, now: Instant) -> bool {
        self.dispatcher.is_active(now)
    }
}
