//! What a cloud declares of itself, what a request requires of one, and where a request may run:
//! plain data, settled before anybody is asked. `policy` compares them.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Names of realms, regions or certifications, in lower case.
pub type Names = BTreeSet<Arc<str>>;

/// Longest name of a realm, region or certification in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// FedRAMP's levels; a higher one includes those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FedRamp {
    Low,
    Moderate,
    High,
}

impl FedRamp {
    pub const WORDS: [(&'static str, Self); 3] =
        [("low", Self::Low), ("moderate", Self::Moderate), ("high", Self::High)];
}

/// Impact levels of the DoD cloud security requirements guide; a higher one includes those below
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImpactLevel {
    Il2,
    Il4,
    Il5,
    Il6,
}

impl ImpactLevel {
    pub const WORDS: [(&'static str, Self); 4] =
        [("il2", Self::Il2), ("il4", Self::Il4), ("il5", Self::Il5), ("il6", Self::Il6)];
}

/// What the operator declares of a cloud row. What is absent is not claimed: no region means
/// anywhere, no retention means for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// The partition of a provider, as in `aws-us-gov`; a world of its own accounts and staff.
    pub realm: Option<Arc<str>>,
    /// Every region where a prompt may be processed; empty: anywhere.
    pub regions: Names,
    pub fedramp: Option<FedRamp>,
    pub impact_level: Option<ImpactLevel>,
    pub certifications: Names,
    /// Days that the provider keeps prompts or answers; 0: it keeps nothing.
    pub retention_days: Option<u32>,
    /// Who vouches for a level above the one weir knows of; for the record.
    pub attested_by: Option<Arc<str>>,
}

/// What a request requires of whoever runs it beside this box. The default requires nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requires {
    /// At least this.
    pub fedramp: Option<FedRamp>,
    /// At least this.
    pub impact_level: Option<ImpactLevel>,
    /// One of these. An empty set is one that two requirements left, and nobody meets it.
    pub realms: Option<Names>,
    /// Within these. An empty set is one that two requirements left, and nobody meets it.
    pub regions: Option<Names>,
    /// All of these.
    pub certifications: Names,
    /// At most so many days.
    pub retention_days: Option<u32>,
}

impl Requires {
    /// What meets both; never less than either.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            fedramp: self.fedramp.max(other.fedramp),
            impact_level: self.impact_level.max(other.impact_level),
            realms: both(self.realms.as_ref(), other.realms.as_ref()),
            regions: both(self.regions.as_ref(), other.regions.as_ref()),
            certifications: &self.certifications | &other.certifications,
            // None is no limit here, so it is not the least.
            retention_days: [self.retention_days, other.retention_days].into_iter().flatten().min(),
        }
    }
}

fn both(a: Option<&Names>, b: Option<&Names>) -> Option<Names> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a & b),
        (a, b) => a.or(b).cloned(),
    }
}

/// Who says that a request must not leave the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptHere {
    /// The tenant's `overflow`.
    Tenant,
    /// Nobody is known by a key, and `anonymous_cloud` is off.
    Anonymous,
    /// `x-weir-overflow: never`.
    Header,
    /// A `[[path]]` rule.
    Path,
    /// There are path rules, and a part of the request has no path.
    UnknownPath,
    /// There are path rules, none is about a path of the request, and `unmatched_path` is never.
    UnmatchedPath,
    /// It only reads a prompt into the cache of this box.
    WarmUp,
}

impl KeptHere {
    /// Stable; a reason's code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Tenant => "policy:tenant",
            Self::Anonymous => "policy:anonymous",
            Self::Header => "policy:header",
            Self::Path => "policy:path",
            Self::UnknownPath => "policy:unknown_path",
            Self::UnmatchedPath => "policy:unmatched_path",
            Self::WarmUp => "policy:warm_up",
        }
    }
}

/// What becomes of a request that would leave and holds a secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnSecret {
    /// It leaves with a placeholder for each secret, where that can be undone exactly.
    Redact,
    /// It stays. The stricter one.
    #[default]
    Stay,
}

/// Where a request may run: settled when it arrives, and loosened by nobody after that.
#[derive(Clone, Debug)]
pub struct RequestPolicy {
    /// Whether it may run on this box.
    pub here: bool,
    /// Whether it may leave, or who says that it may not.
    pub away: Result<(), KeptHere>,
    /// What a cloud must be to get it.
    pub require: Arc<Requires>,
    /// What happens if it would leave and holds a secret.
    pub on_secret: OnSecret,
    /// The row that settled where it may run, as in `tenant agency` or `path secrets/**`; for the
    /// record.
    pub rule: Arc<str>,
}

impl RequestPolicy {
    /// Anywhere: for what a program inside this house asks, which has no tenant.
    pub fn open() -> Self {
        Self {
            here: true,
            away: Ok(()),
            require: Arc::default(),
            on_secret: OnSecret::Stay,
            rule: "open".into(),
        }
    }
}
