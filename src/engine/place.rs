//! Places: every sequence has one from before it is tokenised until its end, and there are
//! `slots + queue_max`. So the inbox and the queue are bounded before anything is sent.
//!
//! Warm-ups have places of their own: they take nobody's, and are no work ahead of anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::saturation::Saturation;
use crate::completion::Priority;

/// Warm-ups on their way, waiting and running at one time.
pub(super) const WARM_UPS_MAX: usize = 8;

/// All places of an engine.
pub(super) struct Places {
    taken: AtomicUsize,
    max: usize,
    /// Of warm-ups.
    taken_idly: AtomicUsize,
    pub(super) saturation: Saturation,
    /// Told when the last place was given back.
    emptied: Notify,
}

/// One sequence's place; given back when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    warm_up: bool,
    /// Until the engine's thread counts the sequence itself. None for a warm-up.
    pub(super) arrival: Option<Arrival>,
}

/// A sequence on its way, counted in [`Saturation`] until dropped.
pub(super) struct Arrival {
    places: Arc<Places>,
    /// Prompt tokens, as far as is known by now.
    tokens: usize,
}

impl Places {
    pub(super) fn new(max: usize, saturation: Saturation) -> Self {
        let (taken, taken_idly) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { taken, max, taken_idly, saturation, emptied: Notify::new() }
    }

    /// Takes `wanted` places, or none: None when there are fewer.
    pub(super) fn reserve(self: &Arc<Self>, wanted: usize, class: Priority) -> Option<Vec<Place>> {
        let warm_up = class == Priority::WarmUp;
        let max = if warm_up { WARM_UPS_MAX } else { self.max };
        self.count(warm_up)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                taken.checked_add(wanted).filter(|&taken| taken <= max)
            })
            .ok()?;
        if !warm_up {
            self.saturation.arriving(wanted, 0);
        }
        let place = || Place {
            places: Arc::clone(self),
            warm_up,
            arrival: (!warm_up).then(|| Arrival { places: Arc::clone(self), tokens: 0 }),
        };
        Some(std::iter::repeat_with(place).take(wanted).collect())
    }

    fn count(&self, warm_up: bool) -> &AtomicUsize {
        if warm_up { &self.taken_idly } else { &self.taken }
    }

    /// By all, warm-ups included.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire) + self.taken_idly.load(Ordering::Acquire)
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Returns when no sequence is left.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.taken() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Place {
    /// How many prompt tokens are coming, as far as is known by now.
    pub(super) fn announce(&mut self, tokens: usize) {
        if let Some(arrival) = &mut self.arrival {
            let before = std::mem::replace(&mut arrival.tokens, tokens);
            self.places.saturation.arriving(0, tokens);
            self.places.saturation.arrived(0, before);
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.places.saturation.arrived(1, self.tokens);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.places.count(self.warm_up).fetch_sub(1, Ordering::AcqRel) == 1 {
            self.places.emptied.notify_waiters();
        }
    }
}
