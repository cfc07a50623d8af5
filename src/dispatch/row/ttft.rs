//! How long a cloud takes to its first token, as far as its answers have told.
//!
//! A cloud of which nothing is known is asked once; until it has answered, others come first. So
//! one that turns out to be too slow has kept one request waiting, and not all that came in the
//! time that it takes to find out.

use std::time::Duration;

use tokio::time::Instant;

/// Answers that are remembered,
const SAMPLES: usize = 32;
/// and how many say enough to leave a cloud out. Fewer only put it behind others: a first answer
/// may have waited for its connection.
const SAMPLES_MIN: usize = 4;
/// How long what they say is believed. A cloud that was too slow gets another try then.
const STALE: Duration = Duration::from_secs(10);

/// The times to first token of a cloud's latest answers.
#[derive(Default)]
pub(super) struct Ttft {
    /// The oldest is overwritten.
    latest: [Duration; SAMPLES],
    count: usize,
    /// The time that nine of ten of them kept to: read by every decision, so found once for each
    /// answer.
    p90: Duration,
    /// When the last one came.
    at: Option<Instant>,
    /// When the cloud was last asked.
    asked: Option<Instant>,
}

/// What is known of a cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) enum Known {
    /// Nothing, or nothing recent: it is worth a try.
    Nothing,
    /// Nothing, and it was asked at this time.
    Awaited(Instant),
    /// The time that nine of ten answers kept to; enough of them, or few.
    Answers { ttft: Duration, enough: bool },
}

impl Known {
    /// None: nothing is.
    pub(in crate::dispatch) fn ttft(self) -> Option<Duration> {
        match self {
            Known::Answers { ttft, .. } => Some(ttft),
            Known::Nothing | Known::Awaited(_) => None,
        }
    }
}

impl Ttft {
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// It will not answer: nobody waits any more.
    pub(super) fn refused(&mut self) {
        self.asked = None;
    }

    pub(super) fn push(&mut self, ttft: Duration, now: Instant) {
        if !is_recent(self.at, now) {
            self.count = 0;
        }
        self.latest[self.count % SAMPLES] = ttft;
        self.count += 1;
        self.p90 = self.nine_of_ten();
        self.at = Some(now);
    }

    pub(super) fn known(&self, now: Instant) -> Known {
        let awaited = self.asked.filter(|_| is_recent(self.asked, now));
        match (self.count, awaited) {
            (0, None) => Known::Nothing,
            (0, Some(asked)) => Known::Awaited(asked),
            // What is old is believed on while somebody looks again.
            (_, None) if !is_recent(self.at, now) => Known::Nothing,
            _ => Known::Answers { ttft: self.p90, enough: self.count >= SAMPLES_MIN },
        }
    }

    /// Of at least one. Of few, the best ones count.
    fn nine_of_ten(&self) -> Duration {
        let mut latest = self.latest;
        let latest = &mut latest[..self.count.min(SAMPLES)];
        let place = (latest.len() - 1) * 9 / 10;
        *latest.select_nth_unstable(place).1
    }
}

fn is_recent(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now.duration_since(at) < STALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_try_at_a_time_and_another_when_it_is_old() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        let mut ttft = Ttft::default();
        assert_eq!(ttft.known(at(0)), Known::Nothing);
        ttft.asked(at(0));
        assert_eq!(ttft.known(at(100)), Known::Awaited(at(0)));
        assert_eq!(ttft.known(at(10_000)), Known::Nothing, "whoever asked has left");
        ttft.push(ms(900), at(900));
        assert_eq!(ttft.known(at(901)), Known::Answers { ttft: ms(900), enough: false });
        for _ in 0..3 {
            ttft.push(ms(900), at(1000));
        }
        assert_eq!(ttft.known(at(10_999)), Known::Answers { ttft: ms(900), enough: true });
        assert_eq!(ttft.known(at(11_000)), Known::Nothing, "another try is due");
        ttft.asked(at(11_000));
        assert_eq!(ttft.known(at(11_500)), Known::Answers { ttft: ms(900), enough: true });
        ttft.push(ms(200), at(11_900));
        assert_eq!(ttft.known(at(12_000)), Known::Answers { ttft: ms(200), enough: false });
    }

    #[test]
    fn of_ten_the_last_one_does_not_count() {
        let zero = Instant::now();
        let mut ttft = Ttft::default();
        for ms in [5, 3, 900, 1, 4, 2, 7, 8, 6, 9] {
            ttft.push(Duration::from_millis(ms), zero);
        }
        let kept_to = Duration::from_millis(9);
        assert_eq!(ttft.known(zero), Known::Answers { ttft: kept_to, enough: true });
    }
}
