//! The ledger of a running server, as its configuration wants it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Config, LedgerConfig};
use crate::ledger::audit::{self, AuditError, Filter, UsageLine};
use crate::ledger::{BudgetTable, Ledger, Options, SystemClock, Terms};
use crate::money::Price;
use crate::telemetry::Telemetry;

/// Days that `/v1/usage` goes back when it is not told.
const USAGE_DAYS: i64 = 31;

/// None: the configuration wants none. Waits for the ledger's first commit, and for nothing that
/// is wrong with it: such a ledger is tried again while weir runs.
pub(super) async fn open(config: &Config, telemetry: Arc<Telemetry>) -> io::Result<Option<Ledger>> {
    let Some(LedgerConfig { path, utc_offset_s }) = config.ledger.clone() else {
        return Ok(None);
    };
    let options = Options { path, utc_offset_s, clock: Box::new(SystemClock), telemetry };
    let terms = terms(config);
    let opening = tokio::task::spawn_blocking(move || Ledger::open(options, terms));
    let opened =
        opening.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    opened.map(Some)
}

fn terms(config: &Config) -> Terms {
    let rents = config.clouds.iter().filter_map(|cloud| match &cloud.price {
        Some(Price::Hourly(per_hour)) => Some((cloud.name.clone(), *per_hour)),
        _ => None,
    });
    Terms { config: config.fingerprint(), budgets: BudgetTable::default(), rents: rents.collect() }
}

/// What the ledger at `path` says was used since a day.
pub(super) async fn usage(path: PathBuf, since: Option<i64>) -> Result<Vec<UsageLine>, AuditError> {
    let reading = tokio::task::spawn_blocking(move || {
        let since = since.unwrap_or_else(|| audit::today() - USAGE_DAYS + 1);
        audit::usage(&path, Filter { since: Some(since), tenant: None })
    });
    reading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
