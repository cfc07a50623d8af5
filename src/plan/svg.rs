//! A report as a drawing: no library, no font of its own, no script.

use std::fmt::Write;

use super::sweep::{Report, Swept};

const WIDTH: f64 = 760.0;
/// Of one chart, its axes and labels included.
const HEIGHT: f64 = 300.0;
/// Room for labels: left and right, above, and below a chart.
const SIDE: f64 = 70.0;
const ABOVE: f64 = 40.0;
const BELOW: f64 = 50.0;
const GRID_LINES: u32 = 4;

/// One chart: values over settings that stand side by side.
struct Chart<'a> {
    title: &'a str,
    below: &'a str,
    labels: Vec<String>,
    /// Shares of 1, drawn against the left axis.
    shares: Vec<(&'a str, &'a str, Vec<f64>)>,
    /// Dollars, drawn against the right axis.
    dollars: Vec<f64>,
    /// The setting that is marked.
    marked: Option<usize>,
}

/// Draws a report: attainment, overflow and spend over thresholds, and over growth where there
/// is any.
pub fn svg(report: &Report) -> String {
    let usd =
        |swept: &Swept| (swept.spent_usd.nano().saturating_add(swept.rent_usd.nano())) as f64 / 1e9;
    let by_threshold: Vec<&Swept> = report.thresholds.iter().collect();
    let mut charts = vec![Chart {
        title: "Where overflow begins",
        below: "saturation at which overflow begins (work ahead over the objective)",
        labels: by_threshold.iter().map(|swept| threshold(swept)).collect(),
        shares: shares(&by_threshold),
        dollars: by_threshold.iter().map(|swept| usd(swept)).collect(),
        marked: by_threshold.iter().position(|swept| swept.configured),
    }];
    if !report.growth.is_empty() {
        let grown: Vec<&Swept> = report.growth.iter().map(|grown| &grown.swept).collect();
        charts.push(Chart {
            title: "Growth",
            below: "times the traffic of the trace, at the configured threshold",
            labels: report.growth.iter().map(|grown| format!("{}", grown.factor)).collect(),
            shares: shares(&grown),
            dollars: grown.iter().map(|swept| usd(swept)).collect(),
            marked: None,
        });
    }
    let height = HEIGHT * charts.len() as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (place, chart) in charts.iter().enumerate() {
        chart.draw(&mut text, HEIGHT * place as f64);
    }
    text.push_str("</svg>\n");
    text
}

fn threshold(swept: &Swept) -> String {
    swept.enter.map_or_else(|| "never".into(), |enter| enter.to_string())
}

fn shares<'a>(swept: &[&Swept]) -> Vec<(&'a str, &'a str, Vec<f64>)> {
    let of = |pick: fn(&Swept) -> f64| swept.iter().map(|swept| pick(swept)).collect();
    vec![
        ("within the objective", "#1b7837", of(|swept| swept.attainment)),
        ("to clouds", "#2166ac", of(|swept| swept.overflow)),
        ("shed", "#b2182b", of(|swept| swept.shed)),
    ]
}

impl Chart<'_> {
    fn draw(&self, text: &mut String, top: f64) {
        let (floor, ceiling) = (top + HEIGHT - BELOW, top + ABOVE);
        let y = |part: f64| floor - part.clamp(0.0, 1.0) * (floor - ceiling);
        let step = (WIDTH - 2.0 * SIDE) / (self.labels.len().max(2) - 1) as f64;
        let x = |place: usize| SIDE + step * place as f64;
        let most = self.dollars.iter().copied().fold(0.0, f64::max);

        label(text, (SIDE, top + 18.0), "start", "black", self.title);
        for line in 0..=GRID_LINES {
            let part = f64::from(line) / f64::from(GRID_LINES);
            let (left, right) = (SIDE, WIDTH - SIDE);
            path(text, &[(left, y(part)), (right, y(part))], "#dddddd", 1.0);
            let percent = format!("{:.0} %", part * 100.0);
            label(text, (left - 6.0, y(part) + 4.0), "end", "black", &percent);
            let dollars = format!("{} $", short(part * most));
            label(text, (right + 6.0, y(part) + 4.0), "start", "#762a83", &dollars);
        }
        for (place, name) in self.labels.iter().enumerate() {
            let marked = self.marked == Some(place);
            let color = if marked { "#b2182b" } else { "black" };
            label(text, (x(place), floor + 16.0), "middle", color, name);
            if marked {
                path(text, &[(x(place), floor), (x(place), ceiling)], "#b2182b", 1.0);
            }
        }
        label(text, (WIDTH / 2.0, floor + 34.0), "middle", "black", self.below);

        let mut at = SIDE + 180.0;
        let mut legend = |text: &mut String, name: &str, color: &str| {
            label(text, (at, top + 18.0), "start", color, name);
            at += 130.0;
        };
        for (name, color, values) in &self.shares {
            let points: Vec<_> =
                values.iter().enumerate().map(|(place, &share)| (x(place), y(share))).collect();
            path(text, &points, color, 2.0);
            legend(text, name, color);
        }
        let spent = |(place, &usd): (usize, &f64)| (x(place), y(usd / most.max(f64::MIN_POSITIVE)));
        let points: Vec<_> = self.dollars.iter().enumerate().map(spent).collect();
        path(text, &points, "#762a83", 2.0);
        legend(text, "dollars", "#762a83");
    }
}

fn path(text: &mut String, points: &[(f64, f64)], color: &str, width: f64) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _infallible = writeln!(
        text,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"/>",
        points.join(" ")
    );
}

/// What is written is this file's own and numbers: nothing in it needs to be escaped.
fn label(text: &mut String, (x, y): (f64, f64), anchor: &str, color: &str, what: &str) {
    let _infallible = writeln!(
        text,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{what}</text>"
    );
}

/// Three digits are enough for an axis.
fn short(usd: f64) -> String {
    match usd {
        _ if usd >= 100.0 => format!("{usd:.0}"),
        _ if usd >= 1.0 => format!("{usd:.2}"),
        _ => format!("{usd:.4}"),
    }
}
