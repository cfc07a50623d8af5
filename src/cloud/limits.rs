//! What a provider says is left of a row's quota: on every answer, good or refused.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::header::HeaderMap;
use tokio::time::Instant;

use super::fault::retry_after;

/// What was told without saying until when holds for so long: most quotas are by the minute.
const UNTOLD: Duration = Duration::from_secs(60);
/// A later reset is not waited for: by then an answer says more.
const RESET_MAX: Duration = Duration::from_secs(3600);

/// The headers of one kind, in the order in which they count: OpenAI's and Azure's, Mistral's,
/// OpenRouter's.
struct Names {
    left: &'static [&'static str],
    reset: &'static [&'static str],
}

const REQUESTS: Names = Names {
    left: &[
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-req-minute",
        "x-ratelimit-remaining",
    ],
    reset: &["x-ratelimit-reset-requests", "x-ratelimit-reset"],
};
const TOKENS: Names = Names {
    left: &[
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-remaining-tokens-minute",
        "x-ratelimitbysize-remaining-minute",
    ],
    reset: &["x-ratelimit-reset-tokens"],
};

/// What is left, as last told; None: nobody said, or what was said holds no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub requests_left: Option<u64>,
    pub tokens_left: Option<u64>,
    /// When what is used up is there again; where nothing is, when the next of the two is full.
    pub reset_at: Option<Instant>,
}

/// Keeps what was told last.
#[derive(Debug, Default)]
pub(super) struct Meter(Mutex<Told>);

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    requests: Option<Left>,
    tokens: Option<Left>,
}

#[derive(Clone, Copy, Debug)]
struct Left {
    count: u64,
    until: Instant,
}

impl Meter {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the head of an answer tells. `good`: the request was not refused.
    pub(super) fn read(&self, headers: &HeaderMap, good: bool) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut requests = left(headers, &REQUESTS, now, wall);
        if let Some(after) = retry_after(headers, wall) {
            requests = Some(Left { count: 0, until: now + after });
        }
        let told = &mut *self.told();
        merge(&mut told.requests, requests, good);
        merge(&mut told.tokens, left(headers, &TOKENS, now, wall), good);
    }

    pub(super) fn limits(&self, now: Instant) -> Limits {
        let told = *self.told();
        let [requests, tokens] =
            [told.requests, told.tokens].map(|left| left.filter(|left| now < left.until));
        let both = || [requests, tokens].into_iter().flatten();
        let spent = both().filter(|left| left.count == 0).map(|left| left.until).max();
        Limits {
            requests_left: requests.map(|left| left.count),
            tokens_left: tokens.map(|left| left.count),
            reset_at: spent.or_else(|| both().map(|left| left.until).min()),
        }
    }
}

/// Something new counts. A good answer that tells nothing shows that not all is used up.
fn merge(to: &mut Option<Left>, new: Option<Left>, good: bool) {
    match new {
        Some(_) => *to = new,
        None if good && to.is_some_and(|left| left.count == 0) => *to = None,
        None => {}
    }
}

fn left(headers: &HeaderMap, names: &Names, now: Instant, wall: SystemTime) -> Option<Left> {
    let first = |names: &[&str]| {
        let mut values = names.iter().filter_map(|name| headers.get(*name)?.to_str().ok());
        values.next().map(str::trim)
    };
    // Some count in fractions, and below nothing where more was let through.
    let count = first(names.left)?.parse::<f64>().ok().filter(|count| count.is_finite())?;
    let wait = first(names.reset).and_then(|text| reset(text, wall)).unwrap_or(UNTOLD);
    // Casting a negative number gives nothing left, which is what it says.
    Some(Left { count: count as u64, until: now + wait.min(RESET_MAX) })
}

/// `6m0s`, `20ms` or `1.5`, as a wait; or a time since 1970, in seconds or milliseconds.
fn reset(text: &str, wall: SystemTime) -> Option<Duration> {
    const IN_SECONDS: f64 = 1e9;
    const IN_MILLISECONDS: f64 = 1e12;
    let Ok(number) = text.parse::<f64>() else { return spelled(text) };
    let since_1970 = |seconds: f64| {
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        Some(at.duration_since(wall).unwrap_or_default())
    };
    if number >= IN_MILLISECONDS {
        since_1970(number / 1000.0)
    } else if number >= IN_SECONDS {
        since_1970(number)
    } else {
        Duration::try_from_secs_f64(number).ok()
    }
}

/// Numbers, each with its unit.
fn spelled(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 6] =
        [("ms", 1e-3), ("us", 1e-6), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let (unit, size) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        seconds += number.parse::<f64>().ok()? * size;
        rest = &after[unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn resets_are_read_in_every_spelling() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_762_300_000);
        let cases = [
            ("1s", Some(1.0)),
            ("6m0s", Some(360.0)),
            ("20ms", Some(0.02)),
            ("2m59.56s", Some(179.56)),
            ("1h2m3s", Some(3723.0)),
            ("59", Some(59.0)),
            ("0.5", Some(0.5)),
            ("1762300060", Some(60.0)),
            ("1762300060000", Some(60.0)),
            ("1000000000", Some(0.0)),
            ("", Some(0.0)),
            ("soon", None),
            ("s", None),
            ("5 s", None),
            ("-1", None),
            ("NaN", None),
            ("1e300", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(reset(text, wall), seconds.map(Duration::from_secs_f64), "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_holds_until_it_is_full_again() {
        let (meter, now) = (Meter::default(), Instant::now());
        assert_eq!(meter.limits(now), Limits::default());
        let openai = [
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ];
        meter.read(&headers(&openai), true);
        let after = |seconds| now + Duration::from_secs(seconds);
        let told = meter.limits(now);
        assert_eq!((told.requests_left, told.tokens_left), (Some(59), Some(0)));
        assert_eq!(told.reset_at, Some(after(360)), "what is used up is waited for");
        let later = meter.limits(after(2));
        assert_eq!((later.requests_left, later.tokens_left), (None, Some(0)));
        assert_eq!(meter.limits(after(361)), Limits::default());
    }

    #[tokio::test(start_paused = true)]
    async fn each_providers_names_are_known_and_nonsense_is_not() {
        let now = Instant::now();
        let read = |all: &[(&'static str, &'static str)]| {
            let meter = Meter::default();
            meter.read(&headers(all), true);
            meter.limits(now)
        };
        let in_a_minute = Some(now + UNTOLD);
        let mistral = read(&[
            ("x-ratelimit-remaining-req-minute", "3"),
            ("x-ratelimit-remaining-tokens-minute", "4999"),
        ]);
        let expected =
            Limits { requests_left: Some(3), tokens_left: Some(4999), reset_at: in_a_minute };
        assert_eq!(mistral, expected);
        let azure = read(&[("x-ratelimit-remaining-tokens", "-12")]);
        assert_eq!((azure.tokens_left, azure.reset_at), (Some(0), in_a_minute));
        let far = read(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "9999999999")]);
        assert_eq!((far.requests_left, far.reset_at), (Some(0), Some(now + RESET_MAX)));
        assert_eq!(read(&[("x-ratelimit-remaining-requests", "many")]), Limits::default());
        assert_eq!(read(&[("x-ratelimit-reset-requests", "1s")]), Limits::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_empties_and_a_good_answer_shows_there_is_some() {
        let (meter, now) = (Meter::default(), Instant::now());
        meter.read(&headers(&[("retry-after-ms", "250"), ("retry-after", "1")]), false);
        let told = meter.limits(now);
        assert_eq!(told.requests_left, Some(0));
        assert_eq!(told.reset_at, Some(now + Duration::from_millis(250)));
        meter.read(&HeaderMap::new(), false);
        assert_eq!(meter.limits(now), told, "another refusal says nothing new");
        meter.read(&HeaderMap::new(), true);
        assert_eq!(meter.limits(now), Limits::default());
    }
}
