//! What is counted while people type.

use std::time::Duration;

use serde::Serialize;

use super::flight::{Flight, Role};

/// Of one developer, or of several together.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) keys: u64,
    /// Times that a client wanted a suggestion.
    pub(super) asked: u64,
    /// Requests by what they were for.
    pub(super) requests: u64,
    pub(super) follow_ups: u64,
    pub(super) warm_ups: u64,
    /// Suggestions shown, and those of them before the next key.
    pub(super) shown: u64,
    pub(super) in_time: u64,
    /// Keys that typed what was shown.
    pub(super) typed_through: u64,
    pub(super) taken: u64,
    /// Connections that a client closed because a key made them useless, those of them before any
    /// text, and those it closed because it had read enough.
    pub(super) cancelled: u64,
    pub(super) cancelled_unread: u64,
    pub(super) cut: u64,
    /// Answers without text.
    pub(super) empty: u64,
    pub(super) failed: u64,
    pub(super) complaint: Option<String>,
    /// Of answers that came to their end.
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    /// That came, of whatever; and of what was shown.
    pub(super) tokens_received: u64,
    pub(super) tokens_shown: u64,
    /// Milliseconds from when a request was due.
    pub(super) ttft_ms: Vec<f64>,
    pub(super) line_ms: Vec<f64>,
}

impl Counts {
    pub(super) fn sent(&mut self, role: Role) {
        match role {
            Role::Ask | Role::Copy => self.requests += 1,
            Role::FollowUp => self.follow_ups += 1,
            Role::WarmUp => self.warm_ups += 1,
        }
    }

    /// For the first time.
    pub(super) fn shown(&mut self, flight: &Flight) {
        self.shown += 1;
        self.in_time += u64::from(flight.before_next_key());
    }

    /// What was wanted had been asked ahead.
    pub(super) fn known(&mut self) {
        self.asked += 1;
        self.shown += 1;
        self.in_time += 1;
    }

    /// Its connection is closed before its end.
    pub(super) fn cancelled(&mut self, flight: &Flight) {
        self.cancelled += 1;
        self.cancelled_unread += u64::from(flight.first_text().is_none());
        self.received(flight);
    }

    /// It ended, or broke, or the client had read enough.
    pub(super) fn ended(&mut self, flight: &Flight) {
        match (flight.failed(), flight.told()) {
            (Some(why), _) => {
                self.failed += 1;
                self.complaint.get_or_insert_with(|| why.to_string());
            }
            (None, None) => self.cut += 1,
            (None, Some(told)) if flight.role != Role::WarmUp => {
                self.empty += u64::from(flight.first_text().is_none());
                if let (Some(prompt), Some(cached)) = (told.prompt, told.cached) {
                    self.prompt_tokens += prompt;
                    self.cached_tokens += cached;
                }
            }
            (None, Some(_)) => {}
        }
        self.received(flight);
    }

    fn received(&mut self, flight: &Flight) {
        let tokens = flight.tokens();
        self.tokens_received += tokens;
        if flight.was_shown() {
            self.tokens_shown += tokens;
        }
        // What is asked ahead is not waited for.
        if matches!(flight.role, Role::Ask | Role::Copy) {
            self.ttft_ms.extend(flight.first_text().map(ms));
            self.line_ms.extend(flight.first_line().map(ms));
        }
    }

    /// Adds another developer's.
    pub(super) fn add(&mut self, other: &Counts) {
        let sums = [
            (&mut self.keys, other.keys),
            (&mut self.asked, other.asked),
            (&mut self.requests, other.requests),
            (&mut self.follow_ups, other.follow_ups),
            (&mut self.warm_ups, other.warm_ups),
            (&mut self.shown, other.shown),
            (&mut self.in_time, other.in_time),
            (&mut self.typed_through, other.typed_through),
            (&mut self.taken, other.taken),
            (&mut self.cancelled, other.cancelled),
            (&mut self.cancelled_unread, other.cancelled_unread),
            (&mut self.cut, other.cut),
            (&mut self.empty, other.empty),
            (&mut self.failed, other.failed),
            (&mut self.prompt_tokens, other.prompt_tokens),
            (&mut self.cached_tokens, other.cached_tokens),
            (&mut self.tokens_received, other.tokens_received),
            (&mut self.tokens_shown, other.tokens_shown),
        ];
        for (sum, part) in sums {
            *sum += part;
        }
        if self.complaint.is_none() {
            self.complaint.clone_from(&other.complaint);
        }
        self.ttft_ms.extend(&other.ttft_ms);
        self.line_ms.extend(&other.line_ms);
    }
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Percentiles; nothing where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) p99: Option<f64>,
}

impl Spread {
    pub(super) fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = (sorted.len() as f64 * part).ceil() as usize;
            sorted.get(place.saturating_sub(1)).copied()
        };
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_order() {
        let figures: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let spread = Spread::of(&figures);
        assert_eq!((spread.p50, spread.p95, spread.p99), (Some(50.0), Some(95.0), Some(99.0)));
        assert_eq!(Spread::of(&[]), Spread::default());
    }
}
