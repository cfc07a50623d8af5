//! Tenants, path rules and budgets, validated.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::completion::Priority;
use crate::completion::compliance::{KeptHere, OnSecret, Requires};
use crate::policy::keys::{KeyDigest, Keyring};
use crate::policy::paths::{PathRule, PathRules};
use crate::policy::secrets::{Scanner, SecretRule};
use crate::policy::{Rules, TenantRules};

/// Who may send what where.
#[derive(Clone, Debug)]
pub struct PolicyConfig {
    /// In the order of the rows. Empty: nobody is asked for a key.
    pub tenants: Vec<TenantConfig>,
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

    /// The rules as requests are held against them.
    pub fn rules(&self) -> Rules {
        // Without any key nobody would be asked for one.
        assert!(self.tenants.iter().all(|tenant| !tenant.keys.is_empty()), "a tenant has a key");
        let keys = self
            .tenants
            .iter()
            .zip(0..)
            .flat_map(|(tenant, index)| tenant.keys.iter().map(move |digest| (*digest, index)));
        let tenants = match &self.tenants[..] {
            [] => vec![self.everybody()],
            tenants => tenants.iter().map(TenantConfig::rules).collect(),
        };
        Rules {
            tenants,
            keys: Keyring::new(keys.collect()),
            paths: PathRules::new(self.paths.clone()).expect("each pattern was compiled before"),
            unknown_path_leaves: self.unknown_path_leaves,
            unmatched_path_leaves: self.unmatched_path_leaves,
        }
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
        }
    }
}

/// Every class, lowest first.
pub(super) const CLASSES: [Priority; 3] = [Priority::Batch, Priority::Chat, Priority::Completion];
