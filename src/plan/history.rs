//! What a ledger tells of the past: arrivals, and how fast the clouds answered.

use std::collections::BTreeMap;

use super::speed::CloudSpeed;
use super::trace::{Arrival, Trace, TraceError};
use crate::completion::{Priority, Usage};
use crate::ledger::Outcome;
use crate::ledger::audit::Traffic;

/// Answers of a cloud that say how fast it is.
const ANSWERS_MIN: usize = 20;

/// The requests of a ledger, which are those that left or wanted to. What a cloud did not report
/// is taken to be as large as the middle one of what was reported. Attempts that failed are left
/// out: the request that made them has another row.
pub fn trace_of(traffic: &[Traffic]) -> Result<Trace, TraceError> {
    let nothing = [Outcome::Failed, Outcome::Hour].map(Outcome::name);
    let requests = traffic.iter().filter(|row| !nothing.contains(&row.outcome.as_str()));
    let known: Vec<&Usage> = traffic.iter().filter_map(|row| row.usage.as_ref()).collect();
    let middle = |pick: fn(&Usage) -> u64| {
        let mut counts: Vec<u64> = known.iter().map(|usage| pick(usage)).collect();
        counts.sort_unstable();
        counts.get(counts.len() / 2).copied()
    };
    let typical = middle(|usage| usage.prompt_tokens).zip(middle(|usage| usage.completion_tokens));
    let Some((prompt_tokens, completion_tokens)) = typical else {
        return Err(TraceError::Whole("no row of the ledger says how many tokens it had"));
    };
    let typical = Usage { prompt_tokens, cached_tokens: 0, completion_tokens };
    let first_ms = traffic.iter().map(|row| row.unix_ms).min().unwrap_or(0);
    let arrivals = requests.map(|row| {
        let at_ms = u64::try_from(row.unix_ms - first_ms).unwrap_or(0);
        arrival(at_ms, row.usage.unwrap_or(typical))
    });
    Trace { arrivals: arrivals.collect(), sessions: 0 }.settle()
}

fn arrival(at_ms: u64, usage: Usage) -> Arrival {
    let count = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX / 2).max(1);
    let prompt_tokens = count(usage.prompt_tokens);
    Arrival {
        at_ns: at_ms * 1_000_000,
        prompt_tokens,
        cached_tokens: u32::try_from(usage.cached_tokens).unwrap_or(0).min(prompt_tokens - 1),
        session: None,
        output_tokens: count(usage.completion_tokens),
        max_tokens: count(usage.completion_tokens),
        priority: Priority::Completion,
    }
}

/// How fast the clouds answered that have answered often enough, by their names.
pub fn speeds_of(traffic: &[Traffic]) -> BTreeMap<String, CloudSpeed> {
    let mut times = BTreeMap::<&str, Vec<f64>>::new();
    for row in traffic {
        if let Some(ttft) = row.ttft {
            times.entry(&row.cloud).or_default().push(ttft.as_secs_f64() * 1e3);
        }
    }
    times.retain(|_, times| times.len() >= ANSWERS_MIN);
    let speed = |(name, mut times): (&str, Vec<f64>)| {
        times.sort_by(f64::total_cmp);
        let at =
            |part: f64| times[((times.len() - 1) as f64 * part) as usize].max(f64::MIN_POSITIVE);
        let speed =
            CloudSpeed { ttft_ms: at(0.5), ttft_p90_ms: Some(at(0.9)), ..CloudSpeed::UNKNOWN };
        (name.to_owned(), speed)
    };
    times.into_iter().map(speed).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn row(unix_ms: i64, outcome: Outcome, tokens: Option<(u64, u64)>) -> Traffic {
        Traffic {
            unix_ms,
            cloud: "c".into(),
            outcome: outcome.name().into(),
            usage: tokens.map(|(prompt_tokens, completion_tokens)| Usage {
                prompt_tokens,
                cached_tokens: 0,
                completion_tokens,
            }),
            ttft: tokens.map(|(tokens, _)| Duration::from_millis(tokens)),
        }
    }

    #[test]
    fn rows_become_arrivals() {
        let rows = [
            row(2000, Outcome::Kept, None),
            row(1000, Outcome::Answered, Some((100, 9))),
            row(1500, Outcome::Failed, None),
            row(1600, Outcome::Answered, Some((300, 5))),
            row(1700, Outcome::Answered, Some((200, 7))),
            row(9000, Outcome::Hour, None),
        ];
        let trace = trace_of(&rows).unwrap();
        let told: Vec<_> = trace
            .arrivals
            .iter()
            .map(|a| (a.at_ns / 1_000_000, a.prompt_tokens, a.output_tokens))
            .collect();
        assert_eq!(told, [(0, 100, 9), (600, 300, 5), (700, 200, 7), (1000, 200, 7)]);
        assert!(trace_of(&rows[..1]).is_err(), "nobody said how large anything is");
        assert!(trace_of(&[]).is_err());
    }

    #[test]
    fn a_cloud_is_as_fast_as_it_was() {
        let rows: Vec<_> = (1..=101).map(|ms| row(0, Outcome::Answered, Some((ms, 1)))).collect();
        let speed = speeds_of(&rows)["c"];
        assert_eq!((speed.ttft_ms, speed.ttft_p90_ms), (51.0, Some(91.0)));
        assert!(speeds_of(&rows[..ANSWERS_MIN - 1]).is_empty());
    }
}
