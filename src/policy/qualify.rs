//! Whether a cloud is what a request requires.

use crate::completion::compliance::{Declared, Names, RequestPolicy, Requires};

/// The first requirement that a cloud does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    FedRamp,
    ImpactLevel,
    Realm,
    Region,
    Certification,
    Retention,
}

impl Refused {
    /// Stable; a reason's code.
    pub fn code(self) -> &'static str {
        match self {
            Self::FedRamp => "compliance:fedramp",
            Self::ImpactLevel => "compliance:impact_level",
            Self::Realm => "compliance:realm",
            Self::Region => "compliance:region",
            Self::Certification => "compliance:certification",
            Self::Retention => "compliance:retention",
        }
    }
}

/// Whether what was declared meets what is required. What was not declared meets no requirement.
pub fn qualifies(declared: &Declared, require: &Requires) -> Result<(), Refused> {
    let met = |met: bool, or: Refused| if met { Ok(()) } else { Err(or) };
    met(require.fedramp.is_none() || declared.fedramp >= require.fedramp, Refused::FedRamp)?;
    let impact_level = require.impact_level;
    met(impact_level.is_none() || declared.impact_level >= impact_level, Refused::ImpactLevel)?;
    met(realm_meets(declared, require), Refused::Realm)?;
    met(regions_meet(&declared.regions, require.regions.as_ref()), Refused::Region)?;
    met(are_among(&require.certifications, &declared.certifications), Refused::Certification)?;
    met(retention_meets(declared.retention_days, require.retention_days), Refused::Retention)
}

/// One or two names in a few: looking each up is cheaper than walking through both sets.
fn are_among(few: &Names, names: &Names) -> bool {
    few.iter().all(|name| names.contains(name))
}

fn realm_meets(declared: &Declared, require: &Requires) -> bool {
    require
        .realms
        .as_ref()
        .is_none_or(|allowed| declared.realm.as_ref().is_some_and(|realm| allowed.contains(realm)))
}

/// No region declared means anywhere, which is within nothing.
fn regions_meet(declared: &Names, allowed: Option<&Names>) -> bool {
    allowed.is_none_or(|allowed| !declared.is_empty() && are_among(declared, allowed))
}

fn retention_meets(declared: Option<u32>, most: Option<u32>) -> bool {
    most.is_none_or(|most| declared.is_some_and(|days| days <= most))
}

/// Whether a request may be sent to a cloud that declares this; else the reason's code.
pub fn permits(policy: &RequestPolicy, declared: &Declared) -> Result<(), &'static str> {
    policy.away.map_err(|kept| kept.code())?;
    qualifies(declared, &policy.require).map_err(Refused::code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::compliance::{FedRamp, ImpactLevel, KeptHere};

    fn names(all: &[&str]) -> Names {
        all.iter().map(|&name| name.into()).collect()
    }

    fn declared() -> Declared {
        Declared {
            realm: Some("aws-us-gov".into()),
            regions: names(&["us-gov-west-1", "us-gov-east-1"]),
            fedramp: Some(FedRamp::High),
            impact_level: Some(ImpactLevel::Il4),
            certifications: names(&["iso27001", "hipaa"]),
            retention_days: Some(0),
            attested_by: None,
        }
    }

    fn requires() -> Requires {
        Requires {
            fedramp: Some(FedRamp::High),
            impact_level: Some(ImpactLevel::Il4),
            realms: Some(names(&["aws-us-gov", "azure-us-gov"])),
            regions: Some(names(&["us-gov-west-1", "us-gov-east-1", "usgovvirginia"])),
            certifications: names(&["hipaa"]),
            retention_days: Some(30),
        }
    }

    #[test]
    fn a_row_that_declares_everything_qualifies_and_each_lack_has_its_code() {
        assert_eq!(qualifies(&declared(), &requires()), Ok(()));
        assert_eq!(qualifies(&Declared::default(), &Requires::default()), Ok(()));
        type Change = fn(&mut Declared);
        let lacks: [(Change, &str); 11] = [
            (|d| d.fedramp = None, "compliance:fedramp"),
            (|d| d.fedramp = Some(FedRamp::Moderate), "compliance:fedramp"),
            (|d| d.impact_level = None, "compliance:impact_level"),
            (|d| d.impact_level = Some(ImpactLevel::Il2), "compliance:impact_level"),
            (|d| d.realm = None, "compliance:realm"),
            (|d| d.realm = Some("aws".into()), "compliance:realm"),
            (|d| d.regions = Names::new(), "compliance:region"),
            (|d| d.regions.extend(names(&["us-west-2"])), "compliance:region"),
            (|d| d.certifications = names(&["iso27001"]), "compliance:certification"),
            (|d| d.retention_days = None, "compliance:retention"),
            (|d| d.retention_days = Some(31), "compliance:retention"),
        ];
        for (change, code) in lacks {
            let mut lacking = declared();
            change(&mut lacking);
            assert_eq!(qualifies(&lacking, &requires()).unwrap_err().code(), code);
            assert_eq!(qualifies(&lacking, &Requires::default()), Ok(()), "nothing is required");
        }
    }

    #[test]
    fn two_requirements_together_are_never_met_by_what_fails_one() {
        let east = Requires { regions: Some(names(&["us-gov-east-1"])), ..Requires::default() };
        let west = Requires { regions: Some(names(&["us-gov-west-1"])), ..Requires::default() };
        let neither = east.and(&west);
        assert_eq!(neither.regions, Some(Names::new()));
        assert_eq!(qualifies(&declared(), &neither), Err(Refused::Region));
        let low = Requires { fedramp: Some(FedRamp::Low), ..Requires::default() };
        let kept = Requires { retention_days: Some(0), ..Requires::default() };
        let all = requires().and(&low).and(&kept);
        assert_eq!(all, Requires { retention_days: Some(0), ..requires() });
        assert_eq!(kept.and(&Requires::default()).retention_days, Some(0));
    }

    #[test]
    fn what_is_kept_here_leaves_for_nobody() {
        let mut policy = RequestPolicy::open();
        assert_eq!(permits(&policy, &Declared::default()), Ok(()));
        policy.away = Err(KeptHere::Path);
        assert_eq!(permits(&policy, &declared()), Err("policy:path"));
    }
}
