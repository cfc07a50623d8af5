//! `weir ledger`

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use super::{Failure, say};
use crate::config::LedgerConfig;
use crate::ledger::audit::{self, AuditError, BudgetLine, Filter, UsageLine};

/// Budgets are shown for so many periods back; `--csv` tells everything.
const BUDGETS_SHOWN_MAX: usize = 64;

#[derive(Debug, clap::Args)]
pub(super) struct LedgerArgs {
    #[command(subcommand)]
    command: Option<Command>,
    /// The ledger, instead of the configuration's
    #[arg(long, global = true, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print every row instead of a summary
    #[arg(long)]
    csv: bool,
    /// Only this day and later, as in 2026-11-21
    #[arg(long, value_name = "DAY", value_parser = day)]
    since: Option<i64>,
    /// Only this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Say whether any row was changed, added or taken away since it was written
    Verify {
        /// A row and its hash from an earlier run, as in 120:9f86d0...; it must be there still
        #[arg(long, value_name = "ROW:HASH", value_parser = kept)]
        kept: Option<Kept>,
    },
}

/// The head of the chain at an earlier time.
#[derive(Clone, Debug)]
struct Kept {
    seq: i64,
    hash: String,
}

fn day(text: &str) -> Result<i64, &'static str> {
    audit::day(text).ok_or("must be a day as in 2026-11-21")
}

fn kept(text: &str) -> Result<Kept, &'static str> {
    let parsed = text.split_once(':').and_then(|(seq, hash)| {
        let whole = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let seq = seq.parse().ok().filter(|seq| *seq > 0)?;
        whole.then(|| Kept { seq, hash: hash.to_ascii_lowercase() })
    });
    parsed.ok_or("must be a row's number, a colon and 64 hexadecimal digits")
}

pub(super) fn run(args: LedgerArgs, config: Option<&LedgerConfig>) -> Result<(), Failure> {
    let configured = config.map(|ledger| ledger.path.as_path());
    let Some(path) = args.file.as_deref().or(configured) else {
        say("no ledger: no [[cloud]] has a price, and there is no [ledger] path\n")?;
        return Ok(());
    };
    let filter = Filter { since: args.since, tenant: args.tenant.as_deref() };
    match args.command {
        Some(Command::Verify { kept }) => verify(path, kept.as_ref()),
        None if args.csv => {
            let mut out = io::BufWriter::new(io::stdout().lock());
            audit::csv(path, filter, &mut out).map_err(failure)
        }
        None => {
            let usage = audit::usage(path, filter).map_err(failure)?;
            let budgets = audit::budgets(path).map_err(failure)?;
            say(&summary(&usage, &budgets)).map_err(Into::into)
        }
    }
}

fn verify(path: &Path, kept: Option<&Kept>) -> Result<(), Failure> {
    let kept = kept.map(|kept| (kept.seq, &*kept.hash));
    let verdict = audit::verify(path, kept).map_err(failure)?;
    let (rows, head) = (verdict.rows, verdict.head);
    match verdict.wrong {
        None => {
            say(&format!("{rows} rows, all as they were written; keep {rows}:{head}\n"))?;
            Ok(())
        }
        Some(wrong) => Err(Failure::Other(format!("{wrong}; the {rows} rows before are right"))),
    }
}

fn failure(error: AuditError) -> Failure {
    match error {
        AuditError::Output(error) => Failure::Output(error),
        AuditError::Books(error) => Failure::Other(error.to_string()),
    }
}

fn summary(usage: &[UsageLine], budgets: &[BudgetLine]) -> String {
    let mut rows = vec![
        ["day", "tenant", "cloud", "requests", "sent", "prompt", "cached", "completion", "usd"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows[0].push("estimated".into());
    rows.extend(usage.iter().map(|line| {
        let counts = [
            line.requests,
            line.sent,
            line.prompt_tokens,
            line.cached_tokens,
            line.completion_tokens,
        ];
        let names = [&line.day, &line.tenant, &line.cloud].map(|name| or_dash(name));
        let money = [line.cost_usd, line.estimated_usd].map(|money| money.to_string());
        names.into_iter().chain(counts.map(|count| count.to_string())).chain(money).collect()
    }));
    let mut text = table(&rows, 3);
    if !budgets.is_empty() {
        let head = ["budget", "tenant", "cloud", "spent", "lost"].map(str::to_owned).to_vec();
        let lines = budgets.iter().take(BUDGETS_SHOWN_MAX).map(|line| {
            let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "*".into());
            let money = [line.spent_usd, line.lost_usd].map(|money| money.to_string());
            let names = [line.period.clone(), name(&line.tenant), name(&line.cloud)];
            names.into_iter().chain(money).collect()
        });
        let rows: Vec<_> = [head].into_iter().chain(lines).collect();
        text.push('\n');
        text.push_str(&table(&rows, 3));
    }
    text
}

fn or_dash(name: &str) -> String {
    if name.is_empty() { "-".into() } else { name.to_owned() }
}

/// Columns as wide as their widest value: `names` of them to the left, numbers to the right.
pub(super) fn table(rows: &[Vec<String>], names: usize) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (value, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let _infallible = match column < names {
                true => write!(line, "{gap}{value:<width$}"),
                false => write!(line, "{gap}{value:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Money;

    #[test]
    fn the_summary_is_a_table() {
        let usage = UsageLine {
            day: "2026-11-21".into(),
            tenant: "team".into(),
            cloud: String::new(),
            requests: 12,
            cost_usd: Money::from_nano(1_500_000),
            ..UsageLine::default()
        };
        let budget = BudgetLine {
            tenant: Some("team".into()),
            cloud: None,
            period: "2026-11".into(),
            spent_usd: Money::from_dollars(1),
            lost_usd: Money::ZERO,
        };
        let expected = "\
day         tenant  cloud  requests  sent  prompt  cached  completion     usd  estimated
2026-11-21  team    -            12     0       0       0           0  0.0015       0.00

budget   tenant  cloud  spent  lost
2026-11  team    *       1.00  0.00
";
        assert_eq!(summary(&[usage], &[budget]), expected);
    }

    #[test]
    fn a_kept_hash_is_a_row_and_64_digits() {
        let hash = "0F".repeat(32);
        let parsed = kept(&format!("12:{hash}")).unwrap();
        assert_eq!((parsed.seq, parsed.hash), (12, hash.to_ascii_lowercase()));
        for wrong in ["", "12", "12:ab", &format!("0:{hash}"), &format!("x:{hash}")] {
            assert!(kept(wrong).is_err(), "{wrong}");
        }
    }
}
