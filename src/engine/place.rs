//! Places: every sequence has one from before it is tokenised until its end, and there are
//! `slots + queue_max`. So the inbox and the queue are bounded before anything is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::saturation::Saturation;

/// All places of an engine.
pub(super) struct Places {
    taken: AtomicUsize,
    max: usize,
    pub(super) saturation: Saturation,
    /// Told when the last place was given back.
    emptied: Notify,
}

/// One sequence's place; given back when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    /// Until the engine's thread counts the sequence itself.
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
        Self { taken: AtomicUsize::new(0), max, saturation, emptied: Notify::new() }
    }

    /// Takes `wanted` places, or none: None when there are fewer.
    pub(super) fn reserve(self: &Arc<Self>, wanted: usize) -> Option<Vec<Place>> {
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                taken.checked_add(wanted).filter(|&taken| taken <= self.max)
            })
            .ok()?;
        self.saturation.arriving(wanted, 0);
        let place = || Place {
            places: Arc::clone(self),
            arrival: Some(Arrival { places: Arc::clone(self), tokens: 0 }),
        };
        Some(std::iter::repeat_with(place).take(wanted).collect())
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
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
        if self.places.taken.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.places.emptied.notify_waiters();
        }
    }
}
