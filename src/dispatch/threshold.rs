//! When requests leave: hysteresis between two saturations, and a time of calm.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::OverflowConfig;

/// What the threshold says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    Stay,
    Leave,
}

/// During overflow each request is placed by itself, so that the engine stays full and only the
/// excess leaves; the state says which of two thresholds a request is held against.
#[derive(Debug)]
pub(super) struct Threshold {
    enter: f64,
    leave: f64,
    dwell: Duration,
    /// When a request last had to leave; None outside overflow.
    last_left: Option<Instant>,
    /// Begins and ends not counted yet.
    changes: u64,
}

impl Threshold {
    pub(super) fn new(config: &OverflowConfig) -> Self {
        Self {
            enter: config.enter,
            leave: config.leave,
            dwell: config.dwell,
            last_left: None,
            changes: 0,
        }
    }

    /// Whether a request that meets `saturation` would not begin overflow.
    pub(super) fn is_below(&self, saturation: f64) -> bool {
        saturation <= self.enter
    }

    /// What [`Threshold::place`] would say, changing nothing.
    pub(super) fn would(&self, saturation: f64, now: Instant) -> Placement {
        let active = self.last_left.is_some_and(|left| now.duration_since(left) < self.dwell);
        if saturation <= if active { self.leave } else { self.enter } {
            Placement::Stay
        } else {
            Placement::Leave
        }
    }

    /// Places a request that meets `saturation`.
    pub(super) fn place(&mut self, saturation: f64, now: Instant) -> Placement {
        let would = self.would(saturation, now);
        self.active(now);
        if would == Placement::Stay {
            return would;
        }
        if self.last_left.replace(now).is_none() {
            self.changes += 1;
        }
        Placement::Leave
    }

    /// Whether overflow goes on at `now`; ends it when nothing had to leave for the dwell time.
    pub(super) fn active(&mut self, now: Instant) -> bool {
        if self.last_left.is_some_and(|left| now.duration_since(left) >= self.dwell) {
            self.last_left = None;
            self.changes += 1;
        }
        self.last_left.is_some()
    }

    /// Goes on with the state of another, under its own limits.
    pub(super) fn succeed(&mut self, before: &Self) {
        self.last_left = before.last_left;
    }

    /// Changes of state since the last call.
    pub(super) fn take_changes(&mut self) -> u64 {
        std::mem::take(&mut self.changes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn threshold() -> Threshold {
        Threshold::new(&OverflowConfig {
            ttft_objective: Duration::from_millis(300),
            enter: 1.0,
            leave: 0.6,
            dwell: Duration::from_secs(2),
            ..OverflowConfig::default()
        })
    }

    #[test]
    fn begins_above_enter_and_ends_after_calm() {
        let mut t = threshold();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(t.place(1.0, at(0)), Placement::Stay);
        assert!(!t.active(at(0)));
        assert_eq!(t.place(1.01, at(10)), Placement::Leave);
        assert_eq!(t.place(0.61, at(20)), Placement::Leave);
        assert_eq!(t.place(0.6, at(1000)), Placement::Stay);
        assert!(t.active(at(2019)), "stays do not prolong it, leaves do");
        assert!(!t.active(at(2020)));
        assert_eq!(t.place(0.9, at(2030)), Placement::Stay);
        assert_eq!(t.take_changes(), 2);
        assert_eq!(t.take_changes(), 0);
    }

    proptest! {
        /// However saturation moves, a change of state needs either a crossing of `enter` or a
        /// dwell time of calm: two full turns are at least a dwell time apart.
        #[test]
        fn changes_are_rare(steps in prop::collection::vec((0u64..3000, 0.0f64..2.0), 1..200)) {
            let mut t = threshold();
            let mut now = Instant::now();
            let start = now;
            let mut changes = 0;
            for (wait, saturation) in steps {
                now += Duration::from_millis(wait);
                let was = t.active(now);
                let placed = t.place(saturation, now);
                let limit = if was { 0.6 } else { 1.0 };
                prop_assert_eq!(placed == Placement::Leave, saturation > limit);
                prop_assert!(placed == Placement::Stay || t.active(now));
                changes += t.take_changes();
            }
            let dwells = (now - start).as_millis() as u64 / 2000;
            prop_assert!(changes <= 2 * dwells + 1, "{} changes in {} dwells", changes, dwells);
        }
    }
}
