//! The ledger on disk: SQLite with a write-ahead log, synced at every commit, one writer.
//!
//! `rows` is the chain, `head` its last link, `budgets` what was granted of each budget in each
//! period and what its rows have spent. docs/ledger.md tells all of it to auditors.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, ToSql, TransactionBehavior, params};

use super::budget::Scope;
use super::calendar::{Moment, Period};
use super::chain::{self, GENESIS, Hash};
use super::entry::{COLUMNS, Field, OUTCOME, Outcome, Row};
use crate::money::Money;

/// `weir` in ASCII: tells the file from another program's.
const APPLICATION_ID: i32 = 0x7765_6972;
const SCHEMA_VERSION: i32 = 1;
/// How long a reader may hold up a commit. Readers of a write-ahead log hold up only its
/// checkpoint, so this is seldom used.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// A month and what lies before it: rows of a month that is near are no older, in days.
const MONTH_DAYS_MAX: i64 = 62;
/// Sums on disk stop here: beyond, SQLite would turn them into floating point.
const SUM_MAX: i64 = 9_000_000_000_000_000_000;

const SCHEMA: &str = "
    CREATE TABLE rows (
        seq INTEGER PRIMARY KEY,
        time_ms INTEGER NOT NULL,
        day INTEGER NOT NULL,
        month INTEGER NOT NULL,
        tenant TEXT NOT NULL,
        cloud TEXT NOT NULL,
        model TEXT NOT NULL,
        region TEXT,
        tier TEXT,
        reason TEXT NOT NULL,
        rule TEXT NOT NULL,
        attested_by TEXT,
        config TEXT NOT NULL,
        prompt_tokens INTEGER,
        cached_tokens INTEGER,
        completion_tokens INTEGER,
        ttft_predicted_us INTEGER,
        ttft_us INTEGER,
        worst_nusd INTEGER NOT NULL,
        cost_nusd INTEGER NOT NULL,
        estimated INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE INDEX rows_day ON rows (day);
    CREATE TABLE head (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        seq INTEGER NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE budgets (
        tenant TEXT NOT NULL,
        cloud TEXT NOT NULL,
        kind TEXT NOT NULL,
        period INTEGER NOT NULL,
        granted INTEGER NOT NULL,
        spent INTEGER NOT NULL,
        lost INTEGER NOT NULL,
        PRIMARY KEY (tenant, cloud, kind, period)
    ) STRICT, WITHOUT ROWID;
";

/// Why the ledger cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} belongs to another weir that runs; a budget binds one weir")]
    InUse(PathBuf),
    #[error("{0} is no ledger of this version of weir")]
    Foreign(PathBuf),
    #[error("the ledger was replaced while weir runs, so that weir has to be started anew")]
    Replaced,
    #[error("SQLite: {0}")]
    Sql(#[from] rusqlite::Error),
}

/// The end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: i64,
    pub(super) hash: Hash,
}

impl Head {
    pub(super) const NONE: Self = Self { seq: 0, hash: GENESIS };
}

/// The one connection that writes.
pub(super) struct Books {
    connection: Connection,
    head: Head,
    /// Held for as long as the connection: a second weir may not grant from the same budgets.
    _lock: File,
}

impl Books {
    /// Opens or creates the ledger, for this process alone, and writes to it once: a disk that is
    /// full or read-only is known now.
    pub(super) fn open(path: &Path) -> Result<Self, BooksError> {
        let lock = lock(path)?;
        let mut connection = connect(path)?;
        let head = prepare(&mut connection)?;
        Ok(Self { connection, head, _lock: lock })
    }

    /// Does all of `work` or nothing; what it returns is durable.
    pub(super) fn commit<T>(
        &mut self,
        work: impl FnOnce(&mut Page<'_>) -> Result<T, BooksError>,
    ) -> Result<T, BooksError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut page = Page { connection: &transaction, head: self.head };
        let done = work(&mut page)?;
        let head = page.head;
        if head != self.head {
            write_head(&transaction, &head)?;
        }
        transaction.commit()?;
        self.head = head;
        Ok(done)
    }

    /// Makes the disk full at so many pages, as far as this connection is concerned.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        self.connection.pragma_update(None, "max_page_count", pages).unwrap();
    }

    /// Makes every change fail from now on.
    #[cfg(test)]
    pub(super) fn refuse(&self) {
        self.connection.pragma_update(None, "query_only", "ON").unwrap();
    }

    /// Commits without waiting for the disk, for tests that end no process.
    #[cfg(test)]
    pub(super) fn hurry(&self) {
        self.connection.pragma_update(None, "synchronous", "OFF").unwrap();
    }
}

fn lock(path: &Path) -> Result<File, BooksError> {
    let io = |path: &Path, source| BooksError::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_folder(folder).map_err(|source| io(folder, source))?;
    }
    create_file(path).map_err(|source| io(path, source))?;
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let beside = PathBuf::from(name);
    let file = create_file(&beside).map_err(|source| io(&beside, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BooksError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(&beside, source)),
    }
}

/// Names of tenants and what they spend are nobody else's business.
fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn create_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn connect(path: &Path) -> Result<Connection, BooksError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Before anything is written: the file may be somebody's.
    if !is_empty(&connection)? {
        check_kind(&connection, path)?;
    }
    // Everything but FULL may lose rows that were said to be safe when the power fails.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(BooksError::Foreign(path.to_owned()));
    }
    Ok(connection)
}

/// Creates what is missing, and writes in any case.
fn prepare(connection: &mut Connection) -> Result<Head, BooksError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if is_empty(&transaction)? {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        transaction.execute_batch(SCHEMA)?;
    }
    let head = read_head(&transaction)?;
    write_head(&transaction, &head)?;
    transaction.commit()?;
    Ok(head)
}

fn is_empty(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}

/// A connection that only reads, beside the one that writes.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, BooksError> {
    if let Err(source) = fs::metadata(path) {
        return Err(BooksError::Io { path: path.to_owned(), source });
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    check_kind(&connection, path)?;
    Ok(connection)
}

fn check_kind(connection: &Connection, path: &Path) -> Result<(), BooksError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    if (pragma("application_id")?, pragma("user_version")?) == (APPLICATION_ID, SCHEMA_VERSION) {
        Ok(())
    } else {
        Err(BooksError::Foreign(path.to_owned()))
    }
}

pub(super) fn read_head(connection: &Connection) -> Result<Head, rusqlite::Error> {
    let read = |row: &rusqlite::Row<'_>| Ok(Head { seq: row.get(0)?, hash: row.get(1)? });
    let head = connection.query_row("SELECT seq, hash FROM head", [], read).optional()?;
    Ok(head.unwrap_or(Head::NONE))
}

fn write_head(connection: &Connection, head: &Head) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO head (one, seq, hash) VALUES (1, ?1, ?2)")?
        .execute(params![head.seq, head.hash])?;
    Ok(())
}

/// What stands in `budgets` of one budget in one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) period: i64,
    /// Of the cap, what reservations of this or an earlier run may have used.
    pub(super) granted: Money,
}

/// A transaction that is being written.
pub(super) struct Page<'a> {
    connection: &'a Connection,
    head: Head,
}

impl Page<'_> {
    /// Adds a row to the chain.
    pub(super) fn append(&mut self, row: &Row) -> Result<(), BooksError> {
        let (seq, fields) = (self.head.seq + 1, row.fields());
        let hash = chain::next(&self.head.hash, seq, fields);
        let mut statement = self.connection.prepare_cached(insert_sql())?;
        statement.raw_bind_parameter(1, seq)?;
        for (index, field) in fields.iter().enumerate() {
            statement.raw_bind_parameter(index + 2, field)?;
        }
        statement.raw_bind_parameter(fields.len() + 2, hash)?;
        statement.raw_execute()?;
        self.head = Head { seq, hash };
        Ok(())
    }

    /// Books what rows of a tenant on a cloud have spent, in every budget that covers the two,
    /// also one that no configuration names any more: it may come back within its period.
    pub(super) fn spend(
        &mut self,
        (tenant, cloud): (&str, &str),
        moment: Moment,
        cost: Money,
    ) -> Result<(), BooksError> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE budgets
             SET spent = min(?5, spent + ?6), granted = min(?5, max(granted, spent + ?6))
             WHERE tenant = ?1 AND cloud = ?2 AND kind = ?3 AND period = ?4",
        )?;
        for period in [Period::Day, Period::Month] {
            let number = moment.number(period);
            for (tenant, cloud) in [(tenant, cloud), (tenant, ALL), (ALL, cloud), (ALL, ALL)] {
                let key = params![tenant, cloud, period.name(), number, SUM_MAX, signed(cost)];
                statement.execute(key)?;
            }
        }
        Ok(())
    }

    /// Raises or lowers what is granted; false: that period of the budget was never begun.
    pub(super) fn grant(
        &mut self,
        scope: &Scope,
        period: i64,
        more: Money,
        less: Money,
    ) -> Result<bool, BooksError> {
        let changed = self
            .connection
            .prepare_cached(
                "UPDATE budgets SET granted = max(spent, min(?5, granted + ?6 - ?7))
                 WHERE tenant = ?1 AND cloud = ?2 AND kind = ?3 AND period = ?4",
            )?
            .execute(params![
                name(scope.tenant.as_deref()),
                name(scope.cloud.as_deref()),
                scope.period.name(),
                period,
                SUM_MAX,
                signed(more),
                signed(less),
            ])?;
        Ok(changed == 1)
    }

    /// Begins a period of a budget for this run. What an earlier run was granted and no row
    /// accounts for may have left with requests that the crash cut off: it stays counted, as lost.
    /// A budget that is new has spent what the rows of the period say. `today` is near `period`.
    pub(super) fn begin(
        &mut self,
        scope: &Scope,
        period: i64,
        today: i64,
    ) -> Result<Standing, BooksError> {
        let key = params![
            name(scope.tenant.as_deref()),
            name(scope.cloud.as_deref()),
            scope.period.name(),
            period,
        ];
        let granted = self
            .connection
            .prepare_cached(
                "UPDATE budgets SET granted = max(granted, spent), lost = max(0, granted - spent)
                 WHERE tenant = ?1 AND cloud = ?2 AND kind = ?3 AND period = ?4
                 RETURNING granted",
            )?
            .query_row(key, |row| row.get(0))
            .optional()?;
        let granted = match granted {
            Some(granted) => granted,
            None => {
                let spent = self.spent_before(scope, period, today)?;
                self.connection
                    .prepare_cached(
                        "INSERT INTO budgets (tenant, cloud, kind, period, granted, spent, lost)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?5, 0)",
                    )?
                    .execute(params![
                        name(scope.tenant.as_deref()),
                        name(scope.cloud.as_deref()),
                        scope.period.name(),
                        period,
                        spent,
                    ])?;
                spent
            }
        };
        Ok(Standing { period, granted: money(granted) })
    }

    /// What the rows of `period` say a scope has spent.
    fn spent_before(&self, scope: &Scope, period: i64, today: i64) -> Result<i64, BooksError> {
        let column = match scope.period {
            Period::Day => "day",
            Period::Month => "month",
        };
        let sql = format!(
            "SELECT tenant, cloud, cost_nusd FROM rows
             WHERE day >= ?1 AND {column} = ?2 AND outcome <> ?3"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let hour = Outcome::Hour.name();
        let mut rows = statement.query(params![today - MONTH_DAYS_MAX, period, hour])?;
        let mut spent = 0_i64;
        while let Some(row) = rows.next()? {
            if scope.covers(text(row, 0)?, text(row, 1)?) {
                spent = spent.saturating_add(row.get(2)?).min(SUM_MAX);
            }
        }
        Ok(spent)
    }

    /// Whether an hour's rent of `cloud` stands in the rows since `from_ms`.
    pub(super) fn has_hour(&self, cloud: &str, day: i64, from_ms: i64) -> Result<bool, BooksError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM rows
                   WHERE day >= ?1 AND time_ms >= ?2 AND cloud = ?3 AND outcome = ?4)";
        let hour = Outcome::Hour.name();
        let mut statement = self.connection.prepare_cached(sql)?;
        // An hour may have begun on the day before.
        Ok(statement.query_row(params![day - 1, from_ms, cloud, hour], |row| row.get(0))?)
    }
}

fn text<'r>(row: &'r rusqlite::Row<'_>, column: usize) -> Result<&'r str, rusqlite::Error> {
    Ok(row.get_ref(column)?.as_str()?)
}

fn insert_sql() -> &'static str {
    static SQL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let places: Vec<_> = (1..=COLUMNS.len() + 3).map(|place| format!("?{place}")).collect();
        let (columns, places) = (COLUMNS.join(", "), places.join(", "));
        format!("INSERT INTO rows (seq, {columns}, {OUTCOME}, hash) VALUES ({places})")
    });
    &SQL
}

/// How a scope's open part is stored.
pub(super) const ALL: &str = "";

fn name(part: Option<&str>) -> &str {
    part.unwrap_or(ALL)
}

fn signed(money: Money) -> i64 {
    i64::try_from(money.nano()).unwrap_or(i64::MAX).min(SUM_MAX)
}

pub(super) fn money(nano: i64) -> Money {
    Money::from_nano(u64::try_from(nano).unwrap_or(0))
}

impl ToSql for Field<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match *self {
            Field::Null => ToSqlOutput::Owned(Value::Null),
            Field::Int(value) => ToSqlOutput::Owned(Value::Integer(value)),
            Field::Text(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
        })
    }
}
