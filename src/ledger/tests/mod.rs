//! The room as a whole. `states` permutes what can happen; the others tell one story each.

mod budgets;
mod faults;
mod record;
mod states;

use std::path::PathBuf;
use std::sync::atomic::AtomicI64;

use tempfile::TempDir;

use super::*;
use crate::completion::Usage;

/// 2026-11-21 at 12:00 UTC.
const NOON: i64 = 1_795_262_400_000;
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// A clock that stands until it is moved.
#[derive(Clone, Default)]
struct FakeClock(Arc<AtomicI64>);

impl Clock for FakeClock {
    fn unix_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl FakeClock {
    fn at(unix_ms: i64) -> Self {
        let clock = Self::default();
        clock.set(unix_ms);
        clock
    }

    fn set(&self, unix_ms: i64) {
        self.0.store(unix_ms, Ordering::SeqCst);
    }

    fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

fn dollars(dollars: u64) -> Money {
    Money::from_dollars(dollars)
}

fn nano(nano: u64) -> Money {
    Money::from_nano(nano)
}

fn budget(tenant: Option<&str>, cloud: Option<&str>, period: Period, cap: Money) -> Budget {
    let scope = Scope { tenant: tenant.map(Arc::from), cloud: cloud.map(Arc::from), period };
    Budget { scope, cap }
}

fn terms(budgets: Vec<Budget>) -> Terms {
    let budgets = BudgetTable::new(budgets).unwrap();
    Terms { config: "0123456789abcdef".into(), budgets, rents: Vec::new() }
}

/// What a cloud reports in the tests.
fn answered(cost: Money) -> Entry {
    Entry {
        model: "coder".into(),
        region: Some("eu-west".into()),
        reason: "saturated".into(),
        rule: "cloud-allowed".into(),
        usage: Some(Usage { prompt_tokens: 100, cached_tokens: 20, completion_tokens: 7 }),
        cost: Some(cost),
        ..Entry::new(Outcome::Answered)
    }
}

/// A folder with a ledger in it, and a clock.
struct Scene {
    folder: TempDir,
    clock: FakeClock,
    utc_offset_s: i32,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, clock: FakeClock::at(NOON), utc_offset_s: 0 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state/ledger.db")
    }

    fn options(&self) -> Options {
        Options {
            path: self.path(),
            utc_offset_s: self.utc_offset_s,
            clock: Box::new(self.clock.clone()),
            telemetry: Telemetry::new(),
        }
    }

    fn open(&self, terms: Terms) -> Ledger {
        Ledger::open(self.options(), terms).unwrap()
    }

    /// A ledger whose writer does nothing until the test says so.
    fn by_hand(&self, terms: Terms) -> ByHand {
        let (sender, receiver) = sync_channel(ENTRIES_MAX + CONTROL_MAX);
        let shared = Shared::new(self.options(), sender);
        let writer = Writer::new(shared.clone(), receiver, self.path());
        let handle = Handle::new(shared, None);
        let mut by_hand = ByHand { ledger: Ledger(Arc::new(handle)), writer };
        by_hand.reconfigure(terms);
        by_hand
    }

    fn verdict(&self) -> audit::Verdict {
        audit::verify(&self.path(), None).unwrap()
    }

    /// Asserts that the chain and the sums of the budgets hold.
    fn verify(&self) -> u64 {
        let verdict = self.verdict();
        assert_eq!(verdict.wrong, None);
        verdict.rows
    }

    fn usage(&self) -> Vec<audit::UsageLine> {
        audit::usage(&self.path(), audit::Filter::default()).unwrap()
    }

    /// Spent and lost of each budget, as `team/* in 2026-11-21`.
    fn budgets(&self) -> Vec<(String, Money, Money)> {
        let name = |name: Option<String>| name.unwrap_or_else(|| "*".into());
        let lines = audit::budgets(&self.path()).unwrap().into_iter();
        let lines = lines.map(|line| {
            let scope = format!("{}/{} in {}", name(line.tenant), name(line.cloud), line.period);
            (scope, line.spent_usd, line.lost_usd)
        });
        lines.collect()
    }
}

/// A ledger without a thread.
struct ByHand {
    ledger: Ledger,
    writer: Writer,
}

impl ByHand {
    fn reconfigure(&mut self, terms: Terms) {
        let message = self.ledger.0.learn(terms);
        self.writer.take(message);
    }

    /// What the writer's thread does when something came; whether it is on disk now.
    fn write(&mut self) -> bool {
        self.writer.gather();
        self.writer.write()
    }

    /// The same at once, though a disk that failed would be left alone for a while.
    fn write_now(&mut self) -> bool {
        let (answer, _answered) = sync_channel(1);
        self.writer.take(Message::Flush(answer));
        self.write()
    }

    /// As [`Ledger::close`].
    fn close(mut self) {
        assert!(self.write());
        self.writer.end();
    }
}
