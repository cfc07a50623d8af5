//! Which budgets there are, and which of them a request draws on.

use std::fmt;
use std::sync::Arc;

use super::calendar::Period;
use crate::money::Money;

/// Most budgets of one weir: every tenant with a day and a month, in all and on a cloud or two.
pub const BUDGETS_MAX: usize = 4096;
/// The largest cap: what a purse's word can count (see [`super::purse`]) with room to spare.
pub const CAP_MAX: Money = Money::from_dollars(50_000_000);

/// What a budget is about. Everything it names must match; what it leaves open matches all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// None: all tenants together.
    pub tenant: Option<Arc<str>>,
    /// None: all clouds together.
    pub cloud: Option<Arc<str>>,
    pub period: Period,
}

impl Scope {
    pub(super) fn covers(&self, tenant: &str, cloud: &str) -> bool {
        self.tenant.as_deref().is_none_or(|name| name == tenant)
            && self.cloud.as_deref().is_none_or(|name| name == cloud)
    }
}

/// As in `team/azure per day`, `*/* per month`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |part: &Option<Arc<str>>| part.as_deref().unwrap_or("*").to_owned();
        let (tenant, cloud) = (name(&self.tenant), name(&self.cloud));
        write!(f, "{tenant}/{cloud} per {}", self.period.name())
    }
}

/// The most that may be spent in a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub scope: Scope,
    pub cap: Money,
}

/// Every budget of this weir; a request must fit into all that cover it.
#[derive(Clone, Debug, Default)]
pub struct BudgetTable(Vec<Budget>);

/// Why a list of budgets makes no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    #[error("there may be {BUDGETS_MAX} budgets at most, there are {0}")]
    TooMany(usize),
    #[error("two budgets are about {0}")]
    Twice(Scope),
    #[error("the budget of {0} must be at most {CAP_MAX} USD")]
    TooLarge(Scope),
}

impl BudgetTable {
    pub fn new(budgets: Vec<Budget>) -> Result<Self, BudgetError> {
        if budgets.len() > BUDGETS_MAX {
            return Err(BudgetError::TooMany(budgets.len()));
        }
        let mut scopes: Vec<&Scope> = budgets.iter().map(|budget| &budget.scope).collect();
        scopes.sort_unstable();
        if let Some(twice) = scopes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BudgetError::Twice(twice[0].clone()));
        }
        if let Some(large) = budgets.iter().find(|budget| budget.cap > CAP_MAX) {
            return Err(BudgetError::TooLarge(large.scope.clone()));
        }
        Ok(Self(budgets))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Budget> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(tenant: Option<&str>, cloud: Option<&str>, dollars: u64) -> Budget {
        let scope = Scope {
            tenant: tenant.map(Arc::from),
            cloud: cloud.map(Arc::from),
            period: Period::Day,
        };
        Budget { scope, cap: Money::from_dollars(dollars) }
    }

    #[test]
    fn a_scope_covers_what_it_does_not_exclude() {
        let covers = |tenant, cloud| budget(tenant, cloud, 1).scope.covers("team", "azure");
        assert!(covers(None, None));
        assert!(covers(Some("team"), None));
        assert!(covers(None, Some("azure")));
        assert!(covers(Some("team"), Some("azure")));
        assert!(!covers(Some("other"), None));
        assert!(!covers(Some("team"), Some("aws")));
    }

    #[test]
    fn a_table_has_each_scope_once_and_no_cap_past_the_largest() {
        let twice = vec![budget(None, None, 1), budget(Some("a"), None, 1), budget(None, None, 2)];
        let error = BudgetTable::new(twice).unwrap_err();
        assert_eq!(error.to_string(), "two budgets are about */* per day");
        let large = vec![budget(Some("a"), Some("b"), 50_000_001)];
        let error = BudgetTable::new(large).unwrap_err();
        assert_eq!(error.to_string(), "the budget of a/b per day must be at most 50000000.00 USD");
        let many = vec![budget(None, None, 1); BUDGETS_MAX + 1];
        assert_eq!(BudgetTable::new(many).unwrap_err(), BudgetError::TooMany(BUDGETS_MAX + 1));
    }
}
