//! What a run came to, held against the bars and against other routers.

use std::fmt;

use serde::Serialize;

/// Share of all arrivals with a first token within the objective, at least.
pub(super) const ATTAINMENT_MIN: f64 = 0.99;
pub(super) const CHANGES_MAX: usize = 4;
/// Seconds from the peak's end to the end of overflow.
pub(super) const LOCAL_AGAIN_MAX_S: f64 = 3.0;
/// Spend in parts of the least.
pub(super) const SPEND_MAX: f64 = 1.15;

/// Attainment and spend of one setting of one router.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) setting: String,
    pub(super) attainment: f64,
    pub(super) spend_usd: f64,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Judged {
    pub(super) seed: u64,
    /// C, in requests a second.
    pub(super) capacity: f64,
    pub(super) requests: u64,
    pub(super) weir: Point,
    pub(super) changes: usize,
    pub(super) local_again_s: f64,
    /// What a router that knows everything would have sent, and spent.
    pub(super) least_requests: usize,
    pub(super) least_usd: f64,
    pub(super) queue_depth: Vec<Point>,
    /// The same by a router that would know the queue at every moment, for the record.
    pub(super) queue_depth_at_once: Vec<Point>,
    pub(super) cooldown: Vec<Point>,
    /// What is not as it should be; empty: everything is.
    pub(super) missed: Vec<String>,
}

impl Judged {
    /// Fills in what was missed.
    pub(super) fn judge(mut self) -> Self {
        let mut missed = Vec::new();
        let mut hold = |holds: bool, what: String| {
            if !holds {
                missed.push(what);
            }
        };
        let Point { attainment, .. } = self.weir;
        hold(attainment >= ATTAINMENT_MIN, format!("attainment {attainment:.4}"));
        hold(self.changes <= CHANGES_MAX, format!("{} changes of state", self.changes));
        let again = self.local_again_s;
        hold(again <= LOCAL_AGAIN_MAX_S, format!("local again after {again:.1} s"));
        let ratio = self.spend_ratio();
        hold(ratio <= SPEND_MAX, format!("{ratio:.3} times the least spend"));
        for (curve, points) in [("queue depth", &self.queue_depth), ("cooldown", &self.cooldown)] {
            let there = reached(points, self.weir.spend_usd);
            let above = there.is_none_or(|there| attainment > there);
            hold(above, format!("not above {curve}: {:.4}", there.unwrap_or_default()));
        }
        self.missed = missed;
        self
    }

    /// Spend in parts of the least.
    pub(super) fn spend_ratio(&self) -> f64 {
        self.weir.spend_usd / self.least_usd
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, capacity, requests, weir, changes, local_again_s, .. } = self;
        let ratio = self.spend_ratio();
        writeln!(
            f,
            "seed {seed}: C {capacity:.1}/s, {requests} requests; {:.2} % in time, {changes} \
             changes, local again after {local_again_s:.1} s, {ratio:.3} times the least spend",
            weir.attainment * 100.0,
        )?;
        self.curve(f, "queue depth", &self.queue_depth)?;
        self.curve(f, "at once", &self.queue_depth_at_once)?;
        self.curve(f, "cooldown", &self.cooldown)?;
        for missed in &self.missed {
            writeln!(f, "  MISSED       {missed}")?;
        }
        Ok(())
    }
}

impl Judged {
    fn curve(&self, f: &mut fmt::Formatter<'_>, name: &str, points: &[Point]) -> fmt::Result {
        if points.is_empty() {
            return Ok(());
        }
        write!(f, "  {name:<12}")?;
        for Point { setting, attainment, spend_usd } in points {
            let (percent, ratio) = (attainment * 100.0, spend_usd / self.least_usd);
            write!(f, " {setting}: {percent:.1} % at {ratio:.2};")?;
        }
        writeln!(f)
    }
}

/// The attainment that a curve reaches for so much money: on the line between the best settings
/// for less and for more. None: even its cheapest setting spends more.
fn reached(points: &[Point], spend_usd: f64) -> Option<f64> {
    let cheaper = points.iter().filter(|point| point.spend_usd <= spend_usd);
    let dearer = points.iter().filter(|point| point.spend_usd > spend_usd);
    let below = cheaper.max_by(|a, b| a.attainment.total_cmp(&b.attainment))?;
    let between = |above: &Point| {
        let part = (spend_usd - below.spend_usd) / (above.spend_usd - below.spend_usd);
        below.attainment + part * (above.attainment - below.attainment)
    };
    // A setting that costs more and reaches less is on no curve worth being above.
    Some(dearer.map(between).fold(below.attainment, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_the_line_between_its_best_settings() {
        let point = |spend_usd, attainment| Point { setting: String::new(), attainment, spend_usd };
        let points = [point(1.0, 0.5), point(3.0, 0.9), point(2.0, 0.4), point(4.0, 0.6)];
        assert_eq!(reached(&points, 0.5), None);
        assert_eq!(reached(&points, 1.0), Some(0.5));
        assert_eq!(reached(&points, 2.0), Some(0.7));
        assert_eq!(reached(&points, 5.0), Some(0.9));
    }
}
