//! How fast the box and the clouds are: what a replay takes for granted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is known, or assumed, of all that may answer. The file that `--speeds` reads is this, in
/// TOML.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speeds {
    /// None: this box, to be measured.
    pub local: Option<BoxSpeed>,
    /// By the names of the rows.
    #[serde(default)]
    pub cloud: BTreeMap<String, CloudSpeed>,
}

/// How long the passes of an engine take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxSpeed {
    /// Milliseconds of a pass in which so many sequences decode; ascending.
    pub decode_ms: Vec<(u32, f64)>,
    /// Milliseconds of a pass of so many prompt rows; ascending.
    pub prefill_ms: Vec<(u32, f64)>,
    /// Tokens that a sequence generates in a pass; more than 1 where drafts are right.
    #[serde(default = "one")]
    pub draft_gain: f64,
    /// Milliseconds from a request's arrival to the engine, and from there to the client.
    #[serde(default)]
    pub overhead_ms: f64,
}

/// How a cloud answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudSpeed {
    /// Time to first token that half of its answers keep to,
    pub ttft_ms: f64,
    /// and that nine of ten keep to.
    #[serde(default)]
    pub ttft_p90_ms: Option<f64>,
    /// Of one answer.
    #[serde(default = "tokens_per_second")]
    pub tokens_per_second: f64,
    /// Beyond which it answers 429; None: no limit is known.
    #[serde(default)]
    pub requests_per_minute: Option<u32>,
    /// Of prompt and `max_tokens`, which is how limits are counted up front.
    #[serde(default)]
    pub tokens_per_minute: Option<u32>,
}

fn one() -> f64 {
    1.0
}

fn tokens_per_second() -> f64 {
    60.0
}

impl CloudSpeed {
    /// A cloud of which nothing is known: as far away as most, and slower than the objective of
    /// many.
    pub const UNKNOWN: Self = Self {
        ttft_ms: 250.0,
        ttft_p90_ms: Some(400.0),
        tokens_per_second: 60.0,
        requests_per_minute: None,
        tokens_per_minute: None,
    };
}

impl Speeds {
    pub fn parse(text: &str) -> Result<Self, String> {
        let speeds: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        speeds.check()?;
        Ok(speeds)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(local) = &self.local {
            local.check().map_err(|wrong| format!("[local] {wrong}"))?;
        }
        for (name, cloud) in &self.cloud {
            let times = [cloud.ttft_ms, cloud.ttft_p90_ms.unwrap_or(cloud.ttft_ms)];
            if !times.is_sorted() || !times.iter().all(|&ms| is_time(ms)) {
                return Err(format!("[cloud.{name}] needs 0 < ttft_ms <= ttft_p90_ms"));
            }
            if !is_time(cloud.tokens_per_second) {
                return Err(format!("[cloud.{name}] tokens_per_second must be above 0"));
            }
        }
        Ok(())
    }
}

impl BoxSpeed {
    pub fn check(&self) -> Result<(), String> {
        for (name, table) in [("decode_ms", &self.decode_ms), ("prefill_ms", &self.prefill_ms)] {
            let ascends = table.windows(2).all(|pair| pair[0].0 < pair[1].0);
            let sound = table.iter().all(|&(rows, ms)| rows > 0 && is_time(ms));
            if table.is_empty() || !ascends || !sound {
                return Err(format!("{name} must be pairs of rows and milliseconds, ascending"));
            }
        }
        if !(1.0..=64.0).contains(&self.draft_gain) {
            return Err("draft_gain must be from 1 to 64".into());
        }
        if !(0.0..=1e6).contains(&self.overhead_ms) {
            return Err("overhead_ms must be at least 0".into());
        }
        Ok(())
    }

    /// With passes that take so many times as long.
    #[must_use]
    pub fn slower(&self, decode: f64, prefill: f64) -> Self {
        let times = |table: &[(u32, f64)], by: f64| {
            table.iter().map(|&(rows, ms)| (rows, ms * by)).collect()
        };
        Self {
            decode_ms: times(&self.decode_ms, decode),
            prefill_ms: times(&self.prefill_ms, prefill),
            ..self.clone()
        }
    }
}

fn is_time(ms: f64) -> bool {
    ms > 0.0 && ms <= 1e9
}

/// Nanoseconds of passes by their rows, looked up instead of interpolated.
#[derive(Clone, Debug)]
pub(super) struct PassTimes {
    /// `[decodes]`
    decode: Vec<f64>,
    /// `[rows]`
    prefill: Vec<f64>,
}

impl PassTimes {
    /// For passes of at most so many decoding sequences and rows in all.
    pub(super) fn new(speed: &BoxSpeed, slots: usize, rows_max: usize) -> Self {
        let all = |table: &[(u32, f64)], most: usize| {
            (0..=most).map(|rows| interpolated(table, rows) * 1e6).collect()
        };
        Self { decode: all(&speed.decode_ms, slots), prefill: all(&speed.prefill_ms, rows_max) }
    }

    /// One pass reads the weights once, whatever its rows are for; choosing a token, and a longer
    /// context, is what a decode costs more than a prompt's row.
    pub(super) fn ns(&self, decodes: usize, prefills: usize) -> u64 {
        let ns = match prefills {
            0 => self.decode[decodes],
            _ => {
                let more = (self.decode[decodes] - self.prefill[decodes]).max(0.0);
                let choosing = if decodes == 0 { 0.0 } else { more };
                self.prefill[decodes + prefills] + choosing
            }
        };
        (ns as u64).max(1)
    }
}

/// Between two measured numbers of rows on a line; beyond the last one by the last two's, and
/// below the first one as long as that.
fn interpolated(table: &[(u32, f64)], rows: usize) -> f64 {
    let rows = rows as f64;
    let above = table.iter().position(|&(measured, _)| f64::from(measured) >= rows);
    let (low, high) = match above {
        Some(0) => return table[0].1,
        Some(above) => (table[above - 1], table[above]),
        None => match table {
            [.., low, high] => (*low, *high),
            [only] => return only.1 * rows / f64::from(only.0),
            [] => unreachable!("checked when it was read"),
        },
    };
    let slope = (high.1 - low.1) / f64::from(high.0 - low.0);
    high.1 + slope * (rows - f64::from(high.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_what_was_measured_lies_a_line() {
        let table = [(2, 4.0), (4, 8.0), (10, 14.0)];
        let at = |rows| interpolated(&table, rows);
        assert_eq!([at(0), at(2), at(3), at(7), at(10), at(12)], [4.0, 4.0, 6.0, 11.0, 14.0, 16.0]);
        assert_eq!(interpolated(&[(2, 4.0)], 4), 8.0);
    }

    #[test]
    fn a_mixed_pass_is_its_rows_and_the_choosing() {
        let speed = BoxSpeed {
            decode_ms: vec![(1, 2.0), (3, 4.0)],
            prefill_ms: vec![(1, 1.0), (11, 11.0)],
            draft_gain: 1.0,
            overhead_ms: 0.0,
        };
        let times = PassTimes::new(&speed, 3, 16);
        assert_eq!(times.ns(2, 0), 3_000_000);
        assert_eq!(times.ns(0, 8), 8_000_000);
        assert_eq!(times.ns(2, 8), 11_000_000, "ten rows and 1 ms to choose two tokens");
    }

    #[test]
    fn a_file_is_read_and_checked() {
        let text = "[local]\ndecode_ms = [[1, 2.5]]\nprefill_ms = [[16, 3]]\n\
                    [cloud.a]\nttft_ms = 90\nrequests_per_minute = 60\n";
        let speeds = Speeds::parse(text).unwrap();
        assert_eq!(speeds.local.as_ref().map(|local| local.draft_gain), Some(1.0));
        assert_eq!(speeds.cloud["a"].requests_per_minute, Some(60));
        assert_eq!(Speeds::parse(&toml::to_string(&speeds).unwrap()), Ok(speeds));
        for wrong in [
            "x = 1",
            "[local]\ndecode_ms = []\nprefill_ms = [[16, 3]]",
            "[local]\ndecode_ms = [[2, 1], [1, 2]]\nprefill_ms = [[16, 3]]",
            "[local]\ndecode_ms = [[1, 0]]\nprefill_ms = [[16, 3]]",
            "[cloud.a]\nttft_ms = 90\nttft_p90_ms = 80",
            "[cloud.a]\nttft_ms = nan",
        ] {
            assert!(Speeds::parse(wrong).is_err(), "{wrong}");
        }
    }
}
