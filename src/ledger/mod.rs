//! What leaves the box costs money: budgets that are never passed, and a record of it all.
//!
//! A request reserves its worst case before it leaves ([`Ledger::reserve`]), one compare-and-swap
//! per budget and no disk, and settles when it is over ([`Reservation::settle`]). What may be
//! reserved was granted by the [`writer`] beforehand: [`fund`] decides how much, [`purse`] holds
//! it, [`books`] make it durable, together with a row per request in a [`chain`] of hashes.
//! [`audit`] reads them, also beside a weir that runs. docs/ledger.md is for operators.

mod account;
pub mod audit;
mod books;
mod budget;
mod calendar;
mod chain;
mod entry;
mod fund;
mod purse;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

pub use account::Account;
pub use books::BooksError;
pub use budget::{BUDGETS_MAX, Budget, BudgetError, BudgetTable, CAP_MAX, Scope};
pub(crate) use calendar::Moment;
pub(crate) use calendar::timestamp;
pub use calendar::{Clock, Period, SystemClock};
use entry::Row;
pub use entry::{Entry, Outcome};
use purse::{Drawn, Empty, Purse};
use writer::{Message, Writer};

use crate::money::Money;
use crate::telemetry::Telemetry;

/// Reservations that are out and rows that wait for the disk, together. At 1,000 requests a
/// second that leave it is eight seconds of a disk that does not answer.
pub const ENTRIES_MAX: usize = 8192;
/// Messages to the writer beside rows: a demand, a stop, and two of whoever holds `Handle::asking`.
const CONTROL_MAX: usize = 4;

/// Where a ledger is and what tells its time.
pub struct Options {
    pub path: PathBuf,
    /// How far the midnight at which budgets begin anew is ahead of UTC's.
    pub utc_offset_s: i32,
    pub clock: Box<dyn Clock>,
    pub telemetry: Arc<Telemetry>,
}

/// What may change while weir runs.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Fingerprint of the configuration, for the rows.
    pub config: Arc<str>,
    pub budgets: BudgetTable,
    /// Clouds that are paid by the hour.
    pub rents: Vec<(Arc<str>, Money)>,
}

/// A cloud whose hours the clock books.
pub(crate) struct Rent {
    cloud: Arc<str>,
    per_hour: Money,
    config: Arc<str>,
}

/// The handle; the last clone that is dropped ends the writer.
#[derive(Clone)]
pub struct Ledger(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    terms: Mutex<Known>,
    /// Who waits for the writer's answer; one at a time, so that the channel keeps room for rows.
    asking: Mutex<()>,
}

/// What accounts are made of.
#[derive(Default)]
struct Known {
    config: Arc<str>,
    purses: Vec<Arc<Purse>>,
}

/// What reservations, the writer and the handle have in common.
struct Shared {
    sender: SyncSender<Message>,
    clock: Box<dyn Clock>,
    utc_offset_s: i32,
    telemetry: Arc<Telemetry>,
    /// The last commit succeeded.
    writable: AtomicBool,
    /// Rows that may still be made; see [`ENTRIES_MAX`].
    room: AtomicUsize,
    /// The writer was told that a purse is low.
    demanded: AtomicBool,
}

/// Why nothing was reserved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the budget of {0} has no room for it")]
    OverBudget(Scope),
    /// The budget has room, but so much of it was not granted yet: a moment later it will be.
    #[error("the budget of {0} is being granted")]
    Granting(Scope),
    #[error("the ledger cannot be written")]
    Unwritable,
    #[error("{ENTRIES_MAX} requests are out or wait for the ledger")]
    Backlog,
}

impl Refused {
    fn by(scope: &Scope, empty: Empty) -> Self {
        match empty {
            Empty::Spent => Refused::OverBudget(scope.clone()),
            Empty::Ungranted => Refused::Granting(scope.clone()),
        }
    }

    /// Stable and lower case, for headers, metrics and the ledger.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::OverBudget(_) => "budget_spent",
            Refused::Granting(_) => "budget_granting",
            Refused::Unwritable => "ledger_unwritable",
            Refused::Backlog => "ledger_backlog",
        }
    }
}

/// All that came before was to be on disk, and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger could not be written")]
pub struct Unwritten;

impl Ledger {
    /// Starts the writer and waits for its first commit. A ledger that cannot be opened or
    /// written is no error here: it is tried again while weir runs, and until then every metered
    /// reservation is refused. Blocks; an error is that of a thread that could not be started.
    pub fn open(options: Options, terms: Terms) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(ENTRIES_MAX + CONTROL_MAX);
        let path = options.path.clone();
        let shared = Shared::new(options, sender);
        let thread = writer::start(Writer::new(shared.clone(), receiver, path))?;
        let ledger = Self(Arc::new(Handle::new(shared, Some(thread))));
        // The writer has told the log if it could not.
        let _written = ledger.reconfigure(terms);
        Ok(ledger)
    }

    /// Other budgets and rents from now on; a budget of the same scope keeps what it has spent.
    /// Accounts made before stay with the old budgets, so make them anew. Blocks for a commit.
    pub fn reconfigure(&self, terms: Terms) -> Result<(), Unwritten> {
        let message = self.0.learn(terms);
        self.ask(Some(message))
    }

    /// The account of a tenant on a cloud, with the budgets that hold now. For when a
    /// configuration is loaded: a request takes the account that is there.
    pub fn account(&self, tenant: &Arc<str>, cloud: &Arc<str>) -> Account {
        let known = lock(&self.0.terms);
        let covering = known.purses.iter().filter(|purse| purse.scope.covers(tenant, cloud));
        let purses = covering.cloned().collect();
        Account::new(tenant.clone(), cloud.clone(), known.config.clone(), purses)
    }

    /// Sets aside the most that a request may cost, in every budget that covers the account.
    /// Never blocks, never waits, allocates nothing.
    pub fn reserve(&self, account: &Account, worst: Money) -> Result<Reservation, Refused> {
        let shared = &self.0.shared;
        if !worst.is_zero() && !shared.writable.load(Ordering::Acquire) {
            return Err(Refused::Unwritable);
        }
        shared.take_room()?;
        let unix_ms = shared.clock.unix_ms();
        let moment = Moment::of(unix_ms, shared.utc_offset_s);
        if let Err(refused) = shared.draw(account.purses(), moment, worst) {
            shared.room.fetch_add(1, Ordering::AcqRel);
            return Err(refused);
        }
        let (shared, account) = (shared.clone(), account.clone());
        Ok(Reservation { shared, account, worst, unix_ms, moment, settled: false })
    }

    /// The day and the month of now, for as many checks as one decision takes.
    pub(crate) fn moment(&self) -> Moment {
        let shared = &self.0.shared;
        Moment::of(shared.clock.unix_ms(), shared.utc_offset_s)
    }

    /// What [`Ledger::reserve`] would say at `moment`, without setting anything aside.
    pub(crate) fn check(
        &self,
        account: &Account,
        worst: Money,
        moment: Moment,
    ) -> Result<(), Refused> {
        let shared = &self.0.shared;
        if !worst.is_zero() && !self.is_writable() {
            return Err(Refused::Unwritable);
        }
        if shared.room.load(Ordering::Acquire) == 0 {
            return Err(Refused::Backlog);
        }
        let purses = account.purses().iter().filter(|_| !worst.is_zero());
        purses.map(|purse| (purse, purse.peek(moment, worst))).try_for_each(|(purse, peeked)| {
            peeked.map_err(|empty| Refused::by(&purse.scope, empty))
        })
    }

    /// Puts on record a request that costs nothing: one that wanted to leave and did not. Its
    /// `cost` is not looked at. While the ledger cannot be written and has no room for more to
    /// wait, the row is only counted (`weir_ledger_unwritten_total`).
    pub fn note(&self, account: &Account, entry: Entry) {
        let shared = &self.0.shared;
        if shared.take_room().is_err() {
            shared.telemetry.ledger_unwritten.increment(1);
            return;
        }
        let unix_ms = shared.clock.unix_ms();
        shared.send(Row {
            account: account.clone(),
            unix_ms,
            moment: Moment::of(unix_ms, shared.utc_offset_s),
            worst: Money::ZERO,
            cost: Money::ZERO,
            estimated: false,
            entry,
        });
    }

    /// Whether metered reservations can be made as far as the disk is concerned.
    pub fn is_writable(&self) -> bool {
        self.0.shared.writable.load(Ordering::Acquire)
    }

    /// Waits until all that was settled or noted before is on disk. Blocks.
    pub fn flush(&self) -> Result<(), Unwritten> {
        self.ask(None)
    }

    /// Writes what is left, hands back what was granted ahead, and ends the writer. Blocks.
    /// Reservations that are still out stay counted as spent.
    pub fn close(&self) {
        let Some(thread) = lock(&self.0.thread).take() else { return };
        // A writer that is gone needs no word.
        let _gone = self.0.shared.sender.send(Message::Stop);
        if thread.join().is_err() {
            tracing::error!("the ledger's writer ended badly");
        }
    }

    /// Tells the writer something, and waits until what came before it is on disk.
    fn ask(&self, message: Option<Message>) -> Result<(), Unwritten> {
        let _one_at_a_time = lock(&self.0.asking);
        let (answer, answered) = sync_channel(1);
        for message in message.into_iter().chain([Message::Flush(answer)]) {
            self.0.shared.sender.send(message).map_err(|_| Unwritten)?;
        }
        if answered.recv() == Ok(true) { Ok(()) } else { Err(Unwritten) }
    }
}

impl Handle {
    fn new(shared: Arc<Shared>, thread: Option<JoinHandle<()>>) -> Self {
        let (terms, asking) = (Mutex::default(), Mutex::default());
        Self { shared, thread: Mutex::new(thread), terms, asking }
    }

    /// Takes the terms for the accounts to come; the message is for the writer.
    fn learn(&self, terms: Terms) -> Message {
        let (mut known, mut funds) = (lock(&self.terms), Vec::new());
        for Budget { scope, cap } in terms.budgets.iter() {
            let before = known.purses.iter().find(|purse| purse.scope == *scope);
            let purse = before.cloned().unwrap_or_else(|| Arc::new(Purse::new(scope.clone())));
            funds.push((purse, *cap));
        }
        let config = terms.config;
        let rent = |(cloud, per_hour)| Rent { cloud, per_hour, config: config.clone() };
        let rents = terms.rents.into_iter().map(rent).collect();
        let purses = funds.iter().map(|(purse, _)| purse.clone()).collect();
        *known = Known { config, purses };
        Message::Reconfigure { funds, rents }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && self.shared.sender.send(Message::Stop).is_ok()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's writer ended badly");
        }
    }
}

impl Shared {
    fn new(options: Options, sender: SyncSender<Message>) -> Arc<Self> {
        Arc::new(Self {
            sender,
            clock: options.clock,
            utc_offset_s: options.utc_offset_s,
            telemetry: options.telemetry,
            writable: AtomicBool::new(false),
            room: AtomicUsize::new(ENTRIES_MAX),
            demanded: AtomicBool::new(false),
        })
    }

    fn take_room(&self) -> Result<(), Refused> {
        let less = |room: usize| room.checked_sub(1);
        match self.room.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refused::Backlog),
        }
    }

    /// Draws `worst` from all of `purses` or from none.
    fn draw(&self, purses: &[Arc<Purse>], moment: Moment, worst: Money) -> Result<(), Refused> {
        if worst.is_zero() {
            return Ok(());
        }
        for (index, purse) in purses.iter().enumerate() {
            match purse.draw(moment, worst) {
                Ok(Drawn::Enough) => {}
                Ok(Drawn::Low) => self.demand(),
                Err(empty) => {
                    give_back(&purses[..index], moment, worst);
                    // Those behind it hear of the size now, not one refusal after the other.
                    purses[index + 1..].iter().for_each(|purse| purse.learn(worst));
                    if empty == Empty::Ungranted {
                        self.demand();
                    }
                    return Err(Refused::by(&purse.scope, empty));
                }
            }
        }
        Ok(())
    }

    /// Wakes the writer, once for all who find a purse low.
    fn demand(&self) {
        if !self.demanded.swap(true, Ordering::SeqCst) {
            // The channel has room for it; a writer that is gone grants nothing.
            let _gone = self.sender.try_send(Message::Demand);
        }
    }

    /// Hands a row to the writer; room for it was taken before.
    fn send(&self, row: Row) {
        if self.sender.try_send(Message::Row(Box::new(row))).is_err() {
            self.telemetry.ledger_unwritten.increment(1);
        }
    }
}

fn give_back(purses: &[Arc<Purse>], moment: Moment, amount: Money) {
    for purse in purses {
        purse.put(moment.number(purse.scope.period), amount);
    }
}

/// A thread that panicked with a lock in its hand left nothing half-done behind these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Money set aside for one attempt of one request. Dropped without [`Reservation::settle`], it
/// books its worst case, marked as an estimate: whatever may have left is counted.
#[must_use = "dropping it books the worst case"]
pub struct Reservation {
    shared: Arc<Shared>,
    account: Account,
    worst: Money,
    unix_ms: i64,
    moment: Moment,
    settled: bool,
}

impl Reservation {
    /// What was set aside.
    pub fn worst(&self) -> Money {
        self.worst
    }

    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Books what it cost, or the worst case where `entry.cost` is None, and gives back the rest.
    /// A bill above the worst case is booked as it is, at most [`CAP_MAX`].
    pub fn settle(mut self, entry: Entry) {
        self.book(entry);
    }

    fn book(&mut self, entry: Entry) {
        self.settled = true;
        let cost = entry.cost.unwrap_or(self.worst).min(CAP_MAX);
        let rest = self.worst.saturating_sub(cost);
        if !rest.is_zero() {
            give_back(self.account.purses(), self.moment, rest);
        }
        self.shared.send(Row {
            account: self.account.clone(),
            unix_ms: self.unix_ms,
            moment: self.moment,
            worst: self.worst,
            cost,
            estimated: entry.cost.is_none() && !self.worst.is_zero(),
            entry,
        });
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.settled {
            self.book(Entry::new(Outcome::Dropped));
        }
    }
}
