//! What may be done a second time: a share of all requests, so that trying again never becomes the
//! load that keeps a cloud down.

use std::sync::{Mutex, PoisonError};

/// Each request pays in a share, each second attempt takes out a whole.
pub(super) struct Allowance {
    share: f64,
    /// What quiet times may save up.
    most: f64,
    saved: Mutex<f64>,
}

impl Allowance {
    /// Begins full, so that a quiet server has it from the first request on.
    pub(super) fn new(share: f64, most: f64) -> Self {
        Self { share, most, saved: Mutex::new(most) }
    }

    pub(super) fn pay_in(&self) {
        self.with(|saved| *saved = (*saved + self.share).min(self.most));
    }

    pub(super) fn take(&self) -> bool {
        self.with(|saved| {
            let enough = *saved >= 1.0;
            *saved -= if enough { 1.0 } else { 0.0 };
            enough
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut f64) -> T) -> T {
        change(&mut self.saved.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_share_of_all_and_what_was_saved() {
        let allowance = Allowance::new(0.1, 10.0);
        let taken = (0..1000).filter(|_| {
            allowance.pay_in();
            allowance.take()
        });
        assert_eq!(taken.count(), 109, "a tenth, and ten saved, less what was paid in while full");
    }
}
