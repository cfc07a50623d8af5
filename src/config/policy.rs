//! Tenants, path rules and budgets, validated.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::completion::Priority;
use crate::completion::compliance::{KeptHere, OnSecret, Requires};
use crate::policy::keys::{KeyDigest, Keyring};
use crate::policy::paths::{PathRule, PathRules};
use crate::policy::secrets::{Scanner, SecretRule};
use crate::policy::{Asks, Roster, RosterFull, Rules, TenantRules};

/// Who may send what where.
#[derive(Clone, Debug)]
pub struct PolicyConfig {
    /// In the order of the rows. Empty: nobody is asked for a key.
    pub tenants: Vec<TenantConfig>,
    /// Tenants in them are places among `tenants`.
    pub paths: Vec<PathRule>,
    /// Patterns of the operator's own, beside the known formats.
    pub secrets: Vec<SecretRule>,
    /// Without tenants: whether requests may leave.
    pub anonymous_cloud: bool,
    /// Where there are path rules: whether a part without a path may leave.
    pub unknown_path_leaves: bool,
    /// Where there are path rules: whether a path that none is about may leave.
    pub unmatched_path_leaves: bool,
    /// What becomes of a request with a secret that would leave, where its tenant does not say.
    pub on_secret: OnSecret,
}

/// One `[[tenant]]` row.
#[derive(Clone, Debug)]
pub struct TenantConfig {
    pub name: Arc<str>,
    /// At least one.
    pub keys: Vec<KeyDigest>,
    /// Whether its requests may leave.
    pub leaves: bool,
    pub require: Requires,
    /// Never looser than [`PolicyConfig::on_secret`].
    pub on_secret: OnSecret,
    /// Lowest first; never empty.
    pub classes: Vec<Priority>,
    /// Whether it may hold clouds and see how they are.
    pub admin: bool,
    /// What it may spend in all clouds together.
    pub budget: Budget,
    /// What it may spend in one cloud, by the cloud's name.
    pub cloud_budgets: BTreeMap<Arc<str>, Budget>,
}

/// Most that may be spent; None: no bound of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    pub per_day: Option<Micros>,
    pub per_month: Option<Micros>,
}

/// Millionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl PolicyConfig {
    /// Whether anybody's request may leave at all.
    pub(super) fn anybody_leaves(&self) -> bool {
        match &self.tenants[..] {
            [] => self.anonymous_cloud,
            tenants => tenants.iter().any(|tenant| tenant.leaves),
        }
    }

    /// The rules of a process that has known no others: tenants are numbered in the order of the
    /// rows.
    pub fn rules(&self) -> Rules {
        self.rules_in(&mut Roster::default()).expect("there may be fewer rows than names")
    }

    /// The rules as requests are held against them, tenants by their numbers in `roster`.
    pub fn rules_in(&self, roster: &mut Roster) -> Result<Rules, RosterFull> {
        // Without any key nobody would be asked for one.
        assert!(self.tenants.iter().all(|tenant| !tenant.keys.is_empty()), "a tenant has a key");
        let numbers = self.tenants.iter().map(|tenant| roster.number(&tenant.name));
        let numbers: Vec<u32> = numbers.collect::<Result<_, _>>()?;
        let mut present: Vec<(u32, TenantRules)> =
            numbers.iter().copied().zip(self.tenants.iter().map(TenantConfig::rules)).collect();
        let asks = if self.tenants.is_empty() {
            let anybody = roster.anybody()?;
            present.push((anybody, self.everybody()));
            Asks::Nobody(anybody)
        } else {
            let with_number = self.tenants.iter().zip(&numbers);
            let keys = with_number
                .flat_map(|(tenant, number)| tenant.keys.iter().map(|digest| (*digest, *number)));
            Asks::Key(Keyring::new(keys.collect()))
        };
        let mut tenants: Vec<Option<TenantRules>> = Vec::new();
        tenants.resize_with(roster.len(), || None);
        for (number, tenant) in present {
            tenants[number as usize] = Some(tenant);
        }
        Ok(Rules {
            tenants,
            asks,
            paths: PathRules::new(self.numbered(&numbers))
                .expect("each pattern was compiled before"),
            unknown_path_leaves: self.unknown_path_leaves,
            unmatched_path_leaves: self.unmatched_path_leaves,
        })
    }

    /// The path rules, with the tenants' numbers instead of their places among the rows.
    fn numbered(&self, numbers: &[u32]) -> Vec<PathRule> {
        let numbered = |rule: &PathRule| PathRule {
            tenant: rule.tenant.map(|place| numbers[place as usize]),
            ..rule.clone()
        };
        self.paths.iter().map(numbered).collect()
    }

    /// What finds secrets in requests that would leave.
    pub fn scanner(&self) -> Scanner {
        Scanner::new(&self.secrets).expect("each pattern was compiled before")
    }

    /// The one tenant that there is without rows.
    fn everybody(&self) -> TenantRules {
        TenantRules {
            name: "default".into(),
            rule: "anonymous_cloud".into(),
            away: if self.anonymous_cloud { Ok(()) } else { Err(KeptHere::Anonymous) },
            require: Arc::default(),
            on_secret: self.on_secret,
            classes: CLASSES.to_vec(),
            // Whom the door lets in for that where nobody has a key is the door's affair.
            admin: false,
        }
    }
}

impl TenantConfig {
    fn rules(&self) -> TenantRules {
        TenantRules {
            name: self.name.clone(),
            rule: format!("tenant {}", self.name).into(),
            away: if self.leaves { Ok(()) } else { Err(KeptHere::Tenant) },
            require: Arc::new(self.require.clone()),
            on_secret: self.on_secret,
            classes: self.classes.clone(),
            admin: self.admin,
        }
    }
}

/// Every class, lowest first.
pub(super) const CLASSES: [Priority; 3] = [Priority::Batch, Priority::Chat, Priority::Completion];
