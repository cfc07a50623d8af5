//! What a cloud lets us ask in a minute, counted here before it would answer 429.
//!
//! Two buckets, of requests and of tokens, each holding ten seconds' worth: providers measure their
//! minutes in slices of 1 to 10 seconds. (governor's cells can be asked only by taking, and an
//! explanation takes nothing.)

use std::time::Duration;

use tokio::time::Instant;

use crate::money::Asked;

/// Part of a minute's worth that may go at once.
const BURST: f64 = 1.0 / 6.0;

/// A row's declared rates; None: not declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    pub requests_per_min: Option<u64>,
    pub tokens_per_min: Option<u64>,
}

/// What a cloud itself says is left.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Left {
    pub requests: Option<u64>,
    pub tokens: Option<u64>,
    /// When that is no longer so.
    pub until: Option<Instant>,
}

pub(super) struct Quota {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

impl Quota {
    pub(super) fn new(rates: Rates) -> Self {
        Self {
            requests: rates.requests_per_min.map(Bucket::new),
            tokens: rates.tokens_per_min.map(Bucket::new),
        }
    }

    /// What was declared may have changed; what was taken of it stays taken.
    pub(super) fn bound(&mut self, rates: Rates) {
        let bound = |bucket: &mut Option<Bucket>, rate: Option<u64>| match (bucket.as_mut(), rate) {
            (Some(bucket), Some(rate)) => bucket.bound(rate),
            _ => *bucket = rate.map(Bucket::new),
        };
        bound(&mut self.requests, rates.requests_per_min);
        bound(&mut self.tokens, rates.tokens_per_min);
    }

    /// Whether there is room for a request now, by our count and by what the cloud says.
    pub(super) fn allows(&self, asked: &Asked, left: Left, now: Instant) -> bool {
        let tokens = tokens(asked);
        let left =
            if left.until.is_some_and(|until| until <= now) { Left::default() } else { left };
        self.requests.as_ref().is_none_or(|bucket| bucket.has(1.0, now))
            && self.tokens.as_ref().is_none_or(|bucket| bucket.has(tokens as f64, now))
            && left.requests.is_none_or(|left| left > 0)
            && left.tokens.is_none_or(|left| left >= tokens)
    }

    pub(super) fn take(&mut self, asked: &Asked, now: Instant) {
        if let Some(bucket) = &mut self.requests {
            bucket.take(1.0, now);
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.take(tokens(asked) as f64, now);
        }
    }
}

/// As clouds count before they answer: the prompt and all that may be generated.
fn tokens(asked: &Asked) -> u64 {
    asked.prompt_tokens().saturating_add(asked.max_tokens.saturating_mul(asked.n))
}

struct Bucket {
    /// A second's worth.
    rate: f64,
    size: f64,
    level: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn new(per_minute: u64) -> Self {
        let size = (per_minute as f64 * BURST).max(1.0);
        Self { rate: per_minute as f64 / 60.0, size, level: size, at: None }
    }

    fn bound(&mut self, per_minute: u64) {
        let new = Self::new(per_minute);
        self.level = self.level.min(new.size);
        (self.rate, self.size) = (new.rate, new.size);
    }

    fn level(&self, now: Instant) -> f64 {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (self.level + passed.as_secs_f64() * self.rate).min(self.size)
    }

    /// What is larger than the bucket needs a full one.
    fn has(&self, wanted: f64, now: Instant) -> bool {
        self.level(now) >= wanted.min(self.size)
    }

    fn take(&mut self, amount: f64, now: Instant) {
        self.level = self.level(now) - amount;
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(bytes: u64, max_tokens: u64) -> Asked {
        Asked { bytes, messages: 0, max_tokens, n: 1 }
    }

    #[test]
    fn a_minute_s_requests_are_spread_over_it() {
        let start = Instant::now();
        let mut quota = Quota::new(Rates { requests_per_min: Some(60), tokens_per_min: None });
        let mut sent = 0;
        for ms in 0..60_000 {
            let now = start + Duration::from_millis(ms);
            if quota.allows(&asked(10, 10), Left::default(), now) {
                quota.take(&asked(10, 10), now);
                sent += 1;
            }
        }
        assert!((68..=70).contains(&sent), "ten at once and one a second: {sent}");
    }

    #[test]
    fn tokens_count_the_prompt_and_all_that_may_come() {
        let now = Instant::now();
        let mut quota = Quota::new(Rates { requests_per_min: None, tokens_per_min: Some(6000) });
        quota.take(&asked(1500, 400), now);
        assert!(quota.allows(&asked(150, 50), Left::default(), now));
        assert!(!quota.allows(&asked(150, 51), Left::default(), now));
        let later = now + Duration::from_secs(10);
        assert!(quota.allows(&asked(30_000, 400), Left::default(), later), "more than it ever has");
        quota.take(&asked(30_000, 400), later);
        let soon = later + Duration::from_secs(90);
        assert!(!quota.allows(&asked(3, 10), Left::default(), soon), "and then it pays for it");
    }

    #[test]
    fn what_the_cloud_says_corrects_us_while_it_holds() {
        let now = Instant::now();
        let quota = Quota::new(Rates::default());
        let until = Some(now + Duration::from_secs(2));
        let none = Left { requests: Some(0), tokens: None, until };
        assert!(!quota.allows(&asked(3, 1), none, now));
        assert!(quota.allows(&asked(3, 1), none, now + Duration::from_secs(2)));
        let few = Left { requests: Some(5), tokens: Some(100), until };
        assert!(quota.allows(&asked(30, 90), few, now) && !quota.allows(&asked(30, 91), few, now));
    }
}
