//! The ledger of a running server, as its configuration wants it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::blocking;
use crate::config::{self, Config, LedgerConfig};
use crate::ledger::audit::{self, AuditError, Filter, UsageLine};
use crate::ledger::{
    Budget, BudgetError, BudgetTable, Ledger, Options, Period, Scope, SystemClock, Terms,
};
use crate::money::{Money, Price};
use crate::telemetry::Telemetry;

/// Days that `/v1/usage` goes back when it is not told.
const USAGE_DAYS: i64 = 31;

/// None: the configuration wants none. Waits for the ledger's first commit, and for nothing that
/// is wrong with it: such a ledger is tried again while weir runs.
pub(super) async fn open(
    config: &Config,
    terms: Terms,
    telemetry: Arc<Telemetry>,
) -> io::Result<Option<Ledger>> {
    let Some(LedgerConfig { path, utc_offset_s }) = config.ledger.clone() else {
        return Ok(None);
    };
    let options = Options { path, utc_offset_s, clock: Box::new(SystemClock), telemetry };
    blocking(move || Ledger::open(options, terms)).await.map(Some)
}

/// What the configuration says of money.
pub(super) fn terms(config: &Config) -> Result<Terms, BudgetError> {
    let rents = config.clouds_in_use().iter().filter_map(|cloud| match &cloud.price {
        Some(Price::Hourly(per_hour)) => Some((cloud.name.clone(), *per_hour)),
        _ => None,
    });
    let (rents, budgets) = (rents.collect(), budgets(config)?);
    Ok(Terms { config: config.fingerprint(), budgets, rents })
}

/// A budget for each tenant, each cloud, and each tenant on a cloud that has one.
fn budgets(config: &Config) -> Result<BudgetTable, BudgetError> {
    let mut all = Vec::new();
    for tenant in &config.policy.tenants {
        let name = Some(&tenant.name);
        add(&mut all, name, None, tenant.budget);
        for (cloud, budget) in &tenant.cloud_budgets {
            add(&mut all, name, Some(cloud), *budget);
        }
    }
    for cloud in config.clouds_in_use() {
        add(&mut all, None, Some(&cloud.name), cloud.budget);
    }
    BudgetTable::new(all)
}

fn add(
    all: &mut Vec<Budget>,
    tenant: Option<&Arc<str>>,
    cloud: Option<&Arc<str>>,
    budget: config::Budget,
) {
    for (period, cap) in [(Period::Day, budget.per_day), (Period::Month, budget.per_month)] {
        let scope = Scope { tenant: tenant.cloned(), cloud: cloud.cloned(), period };
        all.extend(cap.map(|cap| Budget { scope, cap: Money::from_micro(cap.0) }));
    }
}

/// What the ledger at `path` says that a tenant, or everybody, used since a day.
pub(super) async fn usage(
    path: PathBuf,
    tenant: Option<Arc<str>>,
    since: Option<i64>,
) -> Result<Vec<UsageLine>, AuditError> {
    blocking(move || {
        let since = since.unwrap_or_else(|| audit::today() - USAGE_DAYS + 1);
        audit::usage(&path, Filter { since: Some(since), tenant: tenant.as_deref() })
    })
    .await
}
