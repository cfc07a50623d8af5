//! The one thread that writes: it gathers what came, commits it as one, and only then lets
//! reservations use what the commit granted.
//!
//! When the disk fails, rows wait in memory (there is room for every reservation that may be
//! out), no metered reservation is made, and the file is opened anew until a commit succeeds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::account::Account;
use super::books::{Books, BooksError, Page};
use super::calendar::Moment;
use super::entry::{Entry, Outcome, Row};
use super::fund::{Change, Fund};
use super::purse::Purse;
use super::{Rent, Shared};
use crate::money::Money;

/// How long the first row of a commit waits for others to share its sync.
const COMMIT_WINDOW: Duration = Duration::from_millis(5);
/// Most rows of a commit.
const COMMIT_ROWS_MAX: usize = 2048;
/// How often the writer looks at the clock when nothing comes.
const TICK: Duration = Duration::from_secs(1);
/// How long it waits before it tries a disk again that failed.
const RETRY: Duration = Duration::from_secs(1);
/// How long before its beginning a period gets its first grant.
const NEAR_MS: i64 = 60_000;
const MS_PER_HOUR: i64 = 3_600_000;

/// What reaches the writer.
pub(super) enum Message {
    Row(Box<Row>),
    /// A purse is low.
    Demand,
    /// Answers whether all that came before is on disk.
    Flush(SyncSender<bool>),
    /// Other budgets and rents hold from now on.
    Reconfigure {
        funds: Vec<(Arc<Purse>, Money)>,
        rents: Vec<Rent>,
    },
    Stop,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    receiver: Receiver<Message>,
    path: PathBuf,
    /// None: the last try failed, or there was none.
    books: Option<Books>,
    tried: Option<Instant>,
    /// The log has the failure already.
    complained: bool,
    pending: Vec<Row>,
    flushes: Vec<SyncSender<bool>>,
    funds: Vec<Fund>,
    rents: Vec<Hourly>,
}

struct Hourly {
    rent: Rent,
    /// The last hour, since 1970, that stands in the rows.
    booked: Option<i64>,
}

/// What a commit did, to be done in memory behind it.
#[derive(Default)]
struct Effects {
    /// By fund.
    changes: Vec<(usize, Change)>,
    /// By fund and period: what was spent and never reserved from it; the funds know already.
    beyond: Vec<(usize, i64, Money)>,
}

/// What rows of one account have spent on one day.
struct Spent {
    account: Account,
    moment: Moment,
    cost: Money,
    /// Of the cost, what was not reserved.
    beyond: Money,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, receiver: Receiver<Message>, path: PathBuf) -> Self {
        Self {
            shared,
            receiver,
            path,
            books: None,
            tried: None,
            complained: false,
            pending: Vec::new(),
            flushes: Vec::new(),
            funds: Vec::new(),
            rents: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        while self.receive() {
            self.write();
        }
        while self.write() && !self.pending.is_empty() {}
        self.end();
    }

    /// Waits for something to do. False: it was told to stop.
    fn receive(&mut self) -> bool {
        let more_waits = self.books.is_some() && !self.pending.is_empty();
        let mut deadline = Instant::now() + if more_waits { Duration::ZERO } else { TICK };
        let mut first = true;
        while self.pending.len() < COMMIT_ROWS_MAX || first {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => break,
                // Rows wait for company; whoever asks for something gets it with the next commit.
                Ok(Message::Row(row)) => {
                    self.pending.push(*row);
                    if std::mem::take(&mut first) {
                        deadline = Instant::now() + COMMIT_WINDOW;
                    }
                }
                Ok(asked) => {
                    self.take(asked);
                    (first, deadline) = (false, Instant::now());
                }
            }
        }
        true
    }

    /// All that has come, without waiting for more.
    #[cfg(test)]
    pub(super) fn gather(&mut self) {
        while let Ok(message) = self.receiver.try_recv() {
            self.take(message);
        }
    }

    #[cfg(test)]
    pub(super) fn books(&self) -> Option<&Books> {
        self.books.as_ref()
    }

    pub(super) fn take(&mut self, asked: Message) {
        match asked {
            Message::Flush(answer) => self.flushes.push(answer),
            Message::Reconfigure { funds, rents } => self.reconfigure(funds, rents),
            Message::Row(row) => self.pending.push(*row),
            // From here on a purse that is found low is said again.
            Message::Demand => self.shared.demanded.store(false, Ordering::SeqCst),
            Message::Stop => {}
        }
    }

    fn reconfigure(&mut self, wanted: Vec<(Arc<Purse>, Money)>, rents: Vec<Rent>) {
        for fund in &mut self.funds {
            fund.retired = true;
        }
        for (purse, cap) in wanted {
            match self.funds.iter_mut().find(|fund| Arc::ptr_eq(&fund.purse, &purse)) {
                Some(fund) => {
                    fund.retired = false;
                    fund.set_cap(cap);
                }
                None => self.funds.push(Fund::new(purse, cap)),
            }
        }
        let booked = |rent: &Rent| {
            let same = self.rents.iter().find(|hourly| hourly.rent.cloud == rent.cloud)?;
            same.booked
        };
        self.rents = rents.into_iter().map(|rent| Hourly { booked: booked(&rent), rent }).collect();
    }

    /// One commit, or one try to have a disk again; whether it is durable.
    pub(super) fn write(&mut self) -> bool {
        let rows = self.pending.len().min(COMMIT_ROWS_MAX);
        let done = match self.reopen() {
            None => false,
            Some(Ok(())) => self.commit(rows),
            Some(Err(error)) => self.failed(&error),
        };
        if done {
            self.pending.drain(..rows);
            self.shared.room.fetch_add(rows, Ordering::AcqRel);
            self.shared.telemetry.ledger_rows.increment(rows as u64);
            self.succeeded();
        }
        if !done || self.pending.is_empty() {
            for answer in self.flushes.drain(..) {
                // Whoever asked may have left.
                let _ = answer.try_send(done);
            }
        }
        done
    }

    /// None: it is too early to try again.
    fn reopen(&mut self) -> Option<Result<(), BooksError>> {
        if self.books.is_some() {
            return Some(Ok(()));
        }
        let early = self.tried.is_some_and(|tried| tried.elapsed() < RETRY);
        if early && self.flushes.is_empty() {
            return None;
        }
        self.tried = Some(Instant::now());
        Some(Books::open(&self.path).map(|books| self.books = Some(books)))
    }

    fn commit(&mut self, rows: usize) -> bool {
        let Some(mut books) = self.books.take() else { return false };
        let now_ms = self.shared.clock.unix_ms();
        let moment = |unix_ms| Moment::of(unix_ms, self.shared.utc_offset_s);
        let near = [moment(now_ms), moment(now_ms.saturating_add(NEAR_MS))];
        let mut effects = Effects::default();
        let written = books.commit(|page| {
            for row in &self.pending[..rows] {
                page.append(row)?;
            }
            for spent in sums(&self.pending[..rows]) {
                spent.book(page, &mut self.funds, &mut effects.beyond)?;
            }
            for hourly in &mut self.rents {
                hourly.book(page, near[0], now_ms)?;
            }
            tend(&mut self.funds, page, (&near, now_ms), &mut effects.changes)
        });
        match written {
            Ok(()) => {
                self.books = Some(books);
                self.apply(&effects, now_ms);
                true
            }
            Err(error) => {
                for (fund, change) in &effects.changes {
                    self.funds[*fund].undo(change);
                }
                for &(fund, period, beyond) in &effects.beyond {
                    self.funds[fund].came_back(period, beyond);
                }
                for hourly in &mut self.rents {
                    hourly.booked = None;
                }
                self.failed(&error)
            }
        }
    }

    fn apply(&mut self, effects: &Effects, now_ms: i64) {
        for (fund, change) in &effects.changes {
            self.funds[*fund].done(change);
        }
        for hourly in &mut self.rents {
            hourly.booked = Some(now_ms.div_euclid(MS_PER_HOUR));
        }
        self.funds.retain(|fund| !fund.retired);
    }

    fn succeeded(&mut self) {
        self.complained = false;
        self.shared.telemetry.gauges.ledger_writable.set(1.0);
        if !self.shared.writable.swap(true, Ordering::AcqRel) {
            tracing::info!(path = %self.path.display(), "the ledger is written");
        }
    }

    /// The file is left alone until it is opened anew; false, for its callers.
    fn failed(&mut self, error: &BooksError) -> bool {
        self.books = None;
        self.tried = Some(Instant::now());
        self.shared.writable.store(false, Ordering::Release);
        self.shared.telemetry.gauges.ledger_writable.set(0.0);
        if !std::mem::replace(&mut self.complained, true) {
            tracing::error!(%error, "the ledger cannot be written; metered clouds are not used");
        }
        false
    }

    /// Hands back what was granted and is not reserved, so that an orderly end costs nothing.
    pub(super) fn end(mut self) {
        self.shared.writable.store(false, Ordering::Release);
        if !self.pending.is_empty() {
            tracing::error!(rows = self.pending.len(), "rows of the ledger were lost");
        }
        let Some(mut books) = self.books.take() else { return };
        let closed =
            books.commit(|page| self.funds.iter_mut().try_for_each(|fund| fund.close(page)));
        if let Err(error) = closed {
            tracing::warn!(%error, "the ledger was not closed: open grants stay counted as spent");
        }
    }
}

fn tend(
    funds: &mut [Fund],
    page: &mut Page<'_>,
    when: (&[Moment], i64),
    changes: &mut Vec<(usize, Change)>,
) -> Result<(), BooksError> {
    let mut of_one = Vec::new();
    for (index, fund) in funds.iter_mut().enumerate() {
        let tended = fund.tend(page, when, &mut of_one);
        changes.extend(of_one.drain(..).map(|change| (index, change)));
        tended?;
    }
    Ok(())
}

fn sums(rows: &[Row]) -> impl Iterator<Item = Spent> {
    let mut sums = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.cost.is_zero()) {
        let sum = sums.entry((row.account.id(), row.moment.day)).or_insert_with(|| Spent {
            account: row.account.clone(),
            moment: row.moment,
            cost: Money::ZERO,
            beyond: Money::ZERO,
        });
        sum.cost = sum.cost.saturating_add(row.cost);
        sum.beyond = sum.beyond.saturating_add(row.cost.saturating_sub(row.worst));
    }
    sums.into_values()
}

impl Spent {
    fn book(
        &self,
        page: &mut Page<'_>,
        funds: &mut [Fund],
        unreserved: &mut Vec<(usize, i64, Money)>,
    ) -> Result<(), BooksError> {
        let (tenant, cloud) = (self.account.tenant(), self.account.cloud());
        for (index, fund) in funds.iter_mut().enumerate() {
            let purse = fund.purse.clone();
            let scope = &purse.scope;
            if !scope.covers(tenant, cloud) {
                continue;
            }
            // A budget that came after the reservation was never drawn on, and counts all of it.
            let drawn = self.account.draws_on(&purse);
            let beyond = if drawn { self.beyond } else { self.cost };
            let period = self.moment.number(scope.period);
            if page.grant(scope, period, beyond, Money::ZERO)? {
                // Now, so that the purse is trimmed for it in the same commit.
                fund.went_beyond(period, beyond);
                unreserved.push((index, period, beyond));
            }
        }
        page.spend((tenant, cloud), self.moment, self.cost)
    }
}

impl Hourly {
    /// Adds the rent of the hour that runs, unless it stands there.
    fn book(&mut self, page: &mut Page<'_>, moment: Moment, now_ms: i64) -> Result<(), BooksError> {
        let hour = now_ms.div_euclid(MS_PER_HOUR);
        let began_ms = hour.saturating_mul(MS_PER_HOUR);
        let cloud = &self.rent.cloud;
        if self.booked == Some(hour) || page.has_hour(cloud, moment.day, began_ms)? {
            return Ok(());
        }
        let account =
            Account::new("".into(), cloud.clone(), self.rent.config.clone(), Box::default());
        page.append(&Row {
            account,
            unix_ms: now_ms,
            moment,
            worst: self.rent.per_hour,
            cost: self.rent.per_hour,
            estimated: false,
            entry: Entry::new(Outcome::Hour),
        })
    }
}

/// Starts the thread. It ends at [`Message::Stop`].
pub(super) fn start(writer: Writer) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("weir-ledger".into()).spawn(move || writer.run())
}
