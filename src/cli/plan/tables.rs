//! A plan as tables.

use crate::cli::ledger::table;
use crate::plan::{BreakEven, Grown, Report, Swept};

pub(super) fn tables(report: &Report) -> String {
    let Report { requests, hours, ttft_objective_ms, .. } = report;
    let mut text = format!(
        "{requests} requests in {hours:.2} hours; the objective is {ttft_objective_ms:.0} ms\n\n"
    );
    text.push_str(&thresholds(&report.thresholds));
    if let Some(break_even) = &report.break_even {
        text.push_str(&rents(break_even));
    }
    if !report.growth.is_empty() {
        text.push('\n');
        text.push_str(&growth(&report.growth));
    }
    text
}

const COLUMNS: [&str; 9] =
    ["in time", "p50 ms", "p99 ms", "to clouds", "shed", "usd", "rent usd", "changes", "clouds"];

fn thresholds(swept: &[Swept]) -> String {
    let mut rows = vec![head("enter")];
    rows.extend(swept.iter().map(|swept| {
        let enter = swept.enter.map_or_else(|| "never".to_owned(), |enter| enter.to_string());
        let mark = if swept.configured { "*" } else { "" };
        columns(format!("{enter}{mark}"), swept)
    }));
    let has_mark = swept.iter().any(|swept| swept.configured);
    table(&rows, 1) + if has_mark { "* as configured\n" } else { "" }
}

fn growth(grown: &[Grown]) -> String {
    let mut rows = vec![head("traffic")];
    rows[0].push("run out".into());
    rows.extend(grown.iter().map(|grown| {
        let mut row = columns(format!("x {}", grown.factor), &grown.swept);
        row.push(if grown.run_out.is_empty() { "-".into() } else { grown.run_out.join(", ") });
        row
    }));
    table(&rows, 1)
}

fn head(first: &str) -> Vec<String> {
    [first].into_iter().chain(COLUMNS).map(str::to_owned).collect()
}

fn columns(first: String, swept: &Swept) -> Vec<String> {
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let answered = |line: &crate::plan::CloudLine| format!("{} {}", line.cloud, line.answered);
    let clouds: Vec<String> = swept.clouds.iter().map(answered).collect();
    vec![
        first,
        percent(swept.attainment),
        format!("{:.0}", swept.ttft_p50_ms),
        late(swept.ttft_p99_ms),
        percent(swept.overflow),
        percent(swept.shed),
        swept.spent_usd.to_string(),
        swept.rent_usd.to_string(),
        swept.changes.to_string(),
        if clouds.is_empty() { "-".into() } else { clouds.join(", ") },
    ]
}

/// More than a client waits for is what was shed.
fn late(ms: f64) -> String {
    const HOUR_MS: f64 = 3.6e6;
    if ms > HOUR_MS { "never".into() } else { format!("{ms:.0}") }
}

fn rents(break_even: &BreakEven) -> String {
    let BreakEven { mean_usd_per_hour, most_usd_per_hour, usd_per_request, rents } = break_even;
    let mut text = format!(
        "\nby the token what leaves costs {mean_usd_per_hour} $ an hour on average, \
         {most_usd_per_hour} $ in the dearest hour, {usd_per_request} $ a request\n"
    );
    for rent in rents {
        let even = rent.requests_per_hour.map_or_else(
            || "never pays".to_owned(),
            |requests| format!("pays from {requests:.0} requests an hour that leave"),
        );
        text.push_str(&format!(
            "{} at {} $ an hour {even}: in {} hours of the trace\n",
            rent.name, rent.usd_per_hour, rent.hours_that_pay
        ));
    }
    text
}
