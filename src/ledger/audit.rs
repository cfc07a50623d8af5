//! Reading the ledger: who spent what, whether it was tampered with, all of it as CSV.
//!
//! Works beside a weir that writes: each answer is that of one moment.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde::Serialize;

use super::books::{self, ALL, BooksError, Head, money, open_to_read, read_head};
use super::calendar::{self, Clock, Date, Moment, Period, SystemClock};
use super::chain;
use super::entry::{COLUMNS, Field, OUTCOME, Outcome};
use crate::completion::Usage;
use crate::money::Money;

/// Why the ledger could not be read, or what was read could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl From<rusqlite::Error> for AuditError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Books(error.into())
    }
}

/// What the rows of a day, a tenant and a cloud come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UsageLine {
    /// As in `2026-11-21`.
    pub day: String,
    /// Empty: an hour's rent, which is nobody's.
    pub tenant: String,
    /// Empty: no cloud was found.
    pub cloud: String,
    pub requests: u64,
    /// Of the requests, those that left.
    pub sent: u64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub completion_tokens: u64,
    #[serde(serialize_with = "dollars")]
    pub cost_usd: Money,
    /// Of the cost, what is a worst case because nobody knows better.
    #[serde(serialize_with = "dollars")]
    pub estimated_usd: Money,
}

/// What a budget has spent in a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BudgetLine {
    /// None: all tenants together.
    pub tenant: Option<String>,
    /// None: all clouds together.
    pub cloud: Option<String>,
    /// As in `2026-11-21` or `2026-11`.
    pub period: String,
    #[serde(serialize_with = "dollars")]
    pub spent_usd: Money,
    /// What crashes have cost: granted then, in no row, and counted as spent.
    #[serde(serialize_with = "dollars")]
    pub lost_usd: Money,
}

/// A decimal string: what is exact here would not be as a JSON number.
pub(crate) fn dollars<S: serde::Serializer>(
    money: &Money,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(money)
}

/// Which rows are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Days since 1970-01-01; see [`day`].
    pub since: Option<i64>,
    pub tenant: Option<&'a str>,
}

/// The number of a day written as in `2026-11-21`; None: there is no such day.
pub fn day(text: &str) -> Option<i64> {
    Date::parse(text)
}

/// The number of the day that runs, in UTC.
pub fn today() -> i64 {
    Moment::of(SystemClock.unix_ms(), 0).day
}

/// What was used, per day, tenant and cloud.
pub fn usage(path: &Path, filter: Filter<'_>) -> Result<Vec<UsageLine>, AuditError> {
    let connection = open_to_read(path)?;
    let mut statement = connection.prepare(
        "SELECT day, tenant, cloud, worst_nusd, cost_nusd, estimated, outcome,
             prompt_tokens, cached_tokens, completion_tokens
         FROM rows WHERE day >= ?1 AND (?2 IS NULL OR tenant = ?2)",
    )?;
    let mut rows = statement.query((filter.since.unwrap_or(i64::MIN), filter.tenant))?;
    let mut lines = BTreeMap::<(i64, String, String), UsageLine>::new();
    while let Some(row) = rows.next()? {
        let key = (row.get(0)?, row.get(1)?, row.get(2)?);
        lines.entry(key).or_default().add(row)?;
    }
    let named = |((day, tenant, cloud), line): (_, UsageLine)| {
        let day = calendar::label(Period::Day, day);
        UsageLine { day, tenant, cloud, ..line }
    };
    Ok(lines.into_iter().map(named).collect())
}

impl UsageLine {
    fn add(&mut self, row: &rusqlite::Row<'_>) -> Result<(), rusqlite::Error> {
        let outcome = row.get_ref(6)?.as_str()?.to_owned();
        let named = |outcome: Outcome| outcome.name();
        if outcome != named(Outcome::Hour) {
            self.requests += 1;
            let stayed = [Outcome::Kept, Outcome::Shed].map(named);
            self.sent += u64::from(!stayed.contains(&outcome.as_str()));
        }
        let tokens = |column| -> Result<u64, rusqlite::Error> {
            Ok(u64::try_from(row.get::<_, Option<i64>>(column)?.unwrap_or(0)).unwrap_or(0))
        };
        self.prompt_tokens = self.prompt_tokens.saturating_add(tokens(7)?);
        self.cached_tokens = self.cached_tokens.saturating_add(tokens(8)?);
        self.completion_tokens = self.completion_tokens.saturating_add(tokens(9)?);
        let cost = money(row.get(4)?);
        self.cost_usd = self.cost_usd.saturating_add(cost);
        if row.get::<_, i64>(5)? != 0 {
            self.estimated_usd = self.estimated_usd.saturating_add(cost);
        }
        Ok(())
    }
}

/// One attempt, or one request that stayed, as far as traffic is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// When it was asked for.
    pub unix_ms: i64,
    /// Empty: it was kept, or found none.
    pub cloud: String,
    /// One of [`Outcome::name`]'s.
    pub outcome: String,
    /// As far as a cloud has said; None: it has not, or was not asked.
    pub usage: Option<Usage>,
    pub ttft: Option<Duration>,
}

/// What came, in the order in which it was written; at most `most` rows.
pub fn traffic(path: &Path, filter: Filter<'_>, most: usize) -> Result<Vec<Traffic>, AuditError> {
    let connection = open_to_read(path)?;
    let mut statement = connection.prepare(
        "SELECT time_ms, cloud, outcome, prompt_tokens, cached_tokens, completion_tokens, ttft_us
         FROM rows WHERE day >= ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY seq LIMIT ?3",
    )?;
    let since = filter.since.unwrap_or(i64::MIN);
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let read = |row: &rusqlite::Row<'_>| {
        let count = |column| -> Result<Option<u64>, rusqlite::Error> {
            Ok(row.get::<_, Option<i64>>(column)?.and_then(|count| u64::try_from(count).ok()))
        };
        let usage = count(3)?.zip(count(5)?).map(|(prompt_tokens, completion_tokens)| Usage {
            prompt_tokens,
            cached_tokens: 0,
            completion_tokens,
        });
        let cached_tokens = count(4)?.unwrap_or(0);
        Ok(Traffic {
            unix_ms: row.get(0)?,
            cloud: row.get(1)?,
            outcome: row.get(2)?,
            usage: usage.map(|usage| Usage { cached_tokens, ..usage }),
            ttft: count(6)?.map(Duration::from_micros),
        })
    };
    let rows = statement.query_map((since, filter.tenant, most), read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What every budget has spent, the latest periods first.
pub fn budgets(path: &Path) -> Result<Vec<BudgetLine>, AuditError> {
    let connection = open_to_read(path)?;
    let mut lines = stored(&connection)?;
    lines.sort_by_key(|line| std::cmp::Reverse((line.kind, line.period)));
    Ok(lines.into_iter().map(Stored::into_line).collect())
}

/// A row of the table `budgets`.
struct Stored {
    tenant: String,
    cloud: String,
    kind: Period,
    period: i64,
    granted: Money,
    spent: Money,
    lost: Money,
}

impl Stored {
    fn into_line(self) -> BudgetLine {
        let named = |name: String| (name != ALL).then_some(name);
        BudgetLine {
            tenant: named(self.tenant),
            cloud: named(self.cloud),
            period: calendar::label(self.kind, self.period),
            spent_usd: self.spent,
            lost_usd: self.lost.min(self.granted.saturating_sub(self.spent)),
        }
    }

    fn name(&self) -> String {
        let name = |name: &str| if name == ALL { "*".to_owned() } else { name.to_owned() };
        let period = calendar::label(self.kind, self.period);
        format!("{}/{} in {period}", name(&self.tenant), name(&self.cloud))
    }
}

fn stored(connection: &Connection) -> Result<Vec<Stored>, rusqlite::Error> {
    let sql = "SELECT tenant, cloud, kind, period, granted, spent, lost FROM budgets
               ORDER BY tenant, cloud";
    let mut statement = connection.prepare(sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        let kind = row.get_ref(2)?.as_str()?;
        let kind = if kind == Period::Day.name() { Period::Day } else { Period::Month };
        Ok(Stored {
            tenant: row.get(0)?,
            cloud: row.get(1)?,
            kind,
            period: row.get(3)?,
            granted: money(row.get(4)?),
            spent: money(row.get(5)?),
            lost: money(row.get(6)?),
        })
    };
    statement.query_map([], read)?.collect()
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Rows whose hashes are right, from the first on.
    pub rows: u64,
    /// The hash of the last of them, in hexadecimal. Kept elsewhere, it proves later that nothing
    /// before it was changed or cut off.
    pub head: String,
    /// The first thing that is wrong.
    pub wrong: Option<Wrong>,
}

/// What is wrong with a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("row {0} is not what was written")]
    Row(i64),
    #[error("row {0} is missing")]
    Missing(i64),
    #[error("the rows end at {is}, the ledger at {should}")]
    End { is: i64, should: i64 },
    #[error("the budget of {0} is not what its rows have spent")]
    Budget(String),
    #[error("row {0} does not have the hash that was kept")]
    Kept(i64),
}

/// Walks the chain from its first row. `kept`: a row's number and hash from an earlier verdict,
/// which must stand there still.
pub fn verify(path: &Path, kept: Option<(i64, &str)>) -> Result<Verdict, AuditError> {
    let connection = open_to_read(path)?;
    // One moment for all that is compared, while another process writes on.
    let snapshot = connection.unchecked_transaction()?;
    let mut walk = Walk { head: Head::NONE, kept, sums: BTreeMap::new() };
    let columns = COLUMNS.join(", ");
    let sql = format!("SELECT seq, hash, {columns}, {OUTCOME} FROM rows ORDER BY seq");
    let mut statement = snapshot.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut wrong = None;
    while let Some(row) = rows.next()? {
        if let Err(found) = walk.step(row)? {
            wrong = Some(found);
            break;
        }
    }
    let wrong = match wrong {
        Some(wrong) => Some(wrong),
        None => walk.end(&read_head(&snapshot)?).or(walk.budgets(&stored(&snapshot)?)),
    };
    let rows = u64::try_from(walk.head.seq).unwrap_or(0);
    Ok(Verdict { rows, head: chain::hex(&walk.head.hash), wrong })
}

struct Walk<'a> {
    /// The last row that is right.
    head: Head,
    kept: Option<(i64, &'a str)>,
    /// By tenant, cloud, kind and period.
    sums: BTreeMap<(String, String, Period, i64), Money>,
}

impl Walk<'_> {
    fn step(&mut self, row: &rusqlite::Row<'_>) -> Result<Result<(), Wrong>, rusqlite::Error> {
        let seq: i64 = row.get(0)?;
        let expected = self.head.seq + 1;
        if seq != expected {
            return Ok(Err(if seq < expected {
                Wrong::Row(seq)
            } else {
                Wrong::Missing(expected)
            }));
        }
        let mut fields = [Field::Null; COLUMNS.len() + 1];
        for (index, field) in fields.iter_mut().enumerate() {
            match read_field(row.get_ref(index + 2)?) {
                Some(read) => *field = read,
                None => return Ok(Err(Wrong::Row(seq))),
            }
        }
        let hash = chain::next(&self.head.hash, seq, fields);
        if row.get_ref(1)?.as_blob().ok() != Some(hash.as_slice()) {
            return Ok(Err(Wrong::Row(seq)));
        }
        if self.kept.is_some_and(|(kept, text)| kept == seq && text != chain::hex(&hash)) {
            return Ok(Err(Wrong::Kept(seq)));
        }
        self.head = Head { seq, hash };
        self.count(&fields);
        Ok(Ok(()))
    }

    fn count(&mut self, fields: &[Field<'_>]) {
        let [_, Field::Int(day), Field::Int(month), Field::Text(tenant), Field::Text(cloud), ..] =
            *fields
        else {
            return;
        };
        let [.., Field::Int(cost), _, Field::Text(outcome)] = *fields else { return };
        if outcome == Outcome::Hour.name() || cost == 0 {
            return;
        }
        for (kind, period) in [(Period::Day, day), (Period::Month, month)] {
            let key = (tenant.to_owned(), cloud.to_owned(), kind, period);
            let sum = self.sums.entry(key).or_default();
            *sum = sum.saturating_add(money(cost));
        }
    }

    fn end(&self, head: &Head) -> Option<Wrong> {
        if let Some((kept, _)) = self.kept
            && kept > self.head.seq
        {
            return Some(Wrong::Missing(kept));
        }
        (*head != self.head).then_some(Wrong::End { is: self.head.seq, should: head.seq })
    }

    fn budgets(&self, budgets: &[Stored]) -> Option<Wrong> {
        let sum = |budget: &Stored| {
            let covered = self.sums.iter().filter(|((tenant, cloud, kind, period), _)| {
                (budget.tenant == ALL || budget.tenant == *tenant)
                    && (budget.cloud == ALL || budget.cloud == *cloud)
                    && (budget.kind, budget.period) == (*kind, *period)
            });
            covered.fold(Money::ZERO, |sum, (_, cost)| sum.saturating_add(*cost))
        };
        let wrong = |budget: &&Stored| budget.spent > budget.granted || sum(budget) != budget.spent;
        budgets.iter().find(wrong).map(|budget| Wrong::Budget(budget.name()))
    }
}

fn read_field(value: ValueRef<'_>) -> Option<Field<'_>> {
    match value {
        ValueRef::Null => Some(Field::Null),
        ValueRef::Integer(value) => Some(Field::Int(value)),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().map(Field::Text),
        ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

/// Writes every row that is asked for, as CSV with a line of names first. Money is in dollars,
/// time in RFC 3339.
pub fn csv(path: &Path, filter: Filter<'_>, out: &mut dyn Write) -> Result<(), AuditError> {
    let connection = open_to_read(path)?;
    let (columns, names) = (COLUMNS.join(", "), COLUMNS.map(csv_name).join(","));
    let sql = format!(
        "SELECT seq, {columns}, {OUTCOME}, hash FROM rows
         WHERE day >= ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY seq"
    );
    writeln!(out, "seq,{names},{OUTCOME},hash")?;
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query((filter.since.unwrap_or(i64::MIN), filter.tenant))?;
    while let Some(row) = rows.next()? {
        write!(out, "{}", row.get::<_, i64>(0)?)?;
        for (index, column) in COLUMNS.into_iter().chain([OUTCOME]).enumerate() {
            write!(out, ",{}", csv_value(column, row.get_ref(index + 1)?))?;
        }
        writeln!(out, ",{}", chain::hex(row.get_ref(COLUMNS.len() + 2)?.as_blob().unwrap_or(&[])))?;
    }
    out.flush()?;
    Ok(())
}

fn csv_name(column: &'static str) -> &'static str {
    match column {
        "time_ms" => "time",
        "worst_nusd" => "worst_usd",
        "cost_nusd" => "cost_usd",
        other => other,
    }
}

fn csv_value(column: &str, value: ValueRef<'_>) -> String {
    match (column, value) {
        ("time_ms", ValueRef::Integer(ms)) => calendar::timestamp(ms),
        ("day", ValueRef::Integer(day)) => calendar::label(Period::Day, day),
        ("month", ValueRef::Integer(month)) => calendar::label(Period::Month, month),
        ("worst_nusd" | "cost_nusd", ValueRef::Integer(nano)) => books::money(nano).to_string(),
        (_, ValueRef::Integer(value)) => value.to_string(),
        (_, ValueRef::Text(text)) => quoted(&String::from_utf8_lossy(text)),
        (_, ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_)) => String::new(),
    }
}

/// As RFC 4180 has it; and a text that a spreadsheet would take for a formula is kept a text.
fn quoted(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@']);
    if formula || text.contains([',', '"', '\n', '\r']) {
        let guard = if formula { "'" } else { "" };
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_field_stays_one_field() {
        assert_eq!(quoted("team"), "team");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"x\""), "\"say \"\"x\"\"\"");
        assert_eq!(quoted("=1+1"), "\"'=1+1\"");
    }
}
