//! Between two weirs: what is required travels with a request, is acknowledged before anything is
//! answered, and a request is sent on once at most.
//!
//! The sender writes `x-weir-require`, `x-weir-overflow: never` and its own name in `x-weir-hops`;
//! the receiver repeats what it understood in `x-weir-acknowledged`, word for word in one order, so
//! that a sender can compare it with what it meant. A server that is no weir, or one that does not
//! know a word, cannot repeat it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::asked::Asked;
use crate::completion::compliance::{FedRamp, ImpactLevel, Requires};

/// The weirs that a request has come through, by their names; commas between.
pub const HOPS: &str = "x-weir-hops";
pub const ACKNOWLEDGED: &str = "x-weir-acknowledged";
pub const REQUIRE: &str = "x-weir-require";
pub const OVERFLOW: &str = "x-weir-overflow";

/// Weirs in one list. A weir sends with one name in it; more come from elsewhere.
pub const HOPS_MAX: usize = 4;
/// Bytes of all `x-weir-require` of a request.
pub const REQUIRE_BYTES_MAX: usize = 1024;

/// A running weir's own name, drawn when it starts: 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(Arc<str>);

impl Instance {
    pub fn random() -> Self {
        Self(format!("{:032x}", fastrand::u128(..)).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a weir says of itself on `GET /v1/peer`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name since it started; none other has it.
    pub instance: String,
    /// The headers that it reads and acknowledges.
    pub acknowledges: Vec<String>,
    /// Whether its model answers.
    pub ready: bool,
    /// Milliseconds of work ahead of a new request.
    pub work_ahead_ms: f64,
    /// As measured; 0: not yet.
    pub prefill_tokens_per_second: f64,
}

impl Status {
    /// The headers that a weir of this version acknowledges.
    pub const ACKNOWLEDGES: [&str; 3] = [REQUIRE, OVERFLOW, HOPS];
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Turned {
    #[error("the request has been here before")]
    Loop,
    #[error("the request has come through more than {HOPS_MAX} weirs")]
    Hops,
    #[error("`x-weir-hops` must be names of 32 hexadecimal digits with commas between")]
    Malformed,
}

/// Whether a request that came through `hops` may run on `own`.
pub fn arrived(hops: &str, own: &Instance) -> Result<(), Turned> {
    let name = |hop: &str| hop.len() == 32 && hop.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Counted before anything is compared: a list without end costs nothing.
    if hops.split(',').nth(HOPS_MAX).is_some() {
        return Err(Turned::Hops);
    }
    let hops: Vec<&str> = hops.split(',').map(str::trim).collect();
    if !hops.iter().all(|hop| name(hop)) {
        return Err(Turned::Malformed);
    }
    match hops.iter().any(|hop| hop.eq_ignore_ascii_case(own.as_str())) {
        true => Err(Turned::Loop),
        false => Ok(()),
    }
}

/// What is asked, as `x-weir-acknowledged` repeats it; None: no header can say it.
pub fn acknowledgement(asked: &Asked) -> Option<String> {
    let overflow = if asked.stays_here { "overflow=never" } else { "overflow=auto" };
    let require = required(&asked.require)?;
    Some(if require.is_empty() { overflow.into() } else { format!("{overflow}, {require}") })
}

/// What is required, as `x-weir-require` says it, in one order; empty: nothing. None: no header
/// can say it, because nobody could meet it or because it is too long.
pub fn required(requires: &Requires) -> Option<String> {
    let mut items = Vec::new();
    let mut item = |key: &str, value: &str| items.push(format!("{key}={value}"));
    if let Some(level) = requires.fedramp {
        item("fedramp", word(level, &FedRamp::WORDS));
    }
    if let Some(level) = requires.impact_level {
        item("impact_level", word(level, &ImpactLevel::WORDS));
    }
    for (key, names) in [("realm", &requires.realms), ("region", &requires.regions)] {
        let Some(names) = names else { continue };
        if names.is_empty() {
            return None;
        }
        names.iter().for_each(|name| item(key, name));
    }
    requires.certifications.iter().for_each(|name| item("certification", name));
    if let Some(days) = requires.retention_days {
        item("retention_days", &days.to_string());
    }
    Some(items.join(", ")).filter(|text| text.len() <= REQUIRE_BYTES_MAX)
}

fn word<T: PartialEq>(level: T, words: &[(&'static str, T)]) -> &'static str {
    words.iter().find(|(_, meant)| *meant == level).expect("every level has its word").0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::completion::compliance::Names;
    use crate::policy::asked;

    #[test]
    fn a_request_is_turned_away_where_it_has_been() {
        let (own, other) = (Instance::random(), Instance::random());
        assert_ne!(own, other);
        let list = |hops: &[&str]| arrived(&hops.join(", "), &own);
        let (own, other) = (own.as_str(), other.as_str());
        assert_eq!(list(&[other]), Ok(()));
        assert_eq!(list(&[other; HOPS_MAX]), Ok(()));
        assert_eq!(list(&[other; HOPS_MAX + 1]), Err(Turned::Hops));
        assert_eq!(list(&[own]), Err(Turned::Loop));
        assert_eq!(list(&[other, &own.to_uppercase()]), Err(Turned::Loop));
        for wrong in ["", "me", "a,b", &format!("{other},"), &other[1..]] {
            assert_eq!(list(&[wrong]), Err(Turned::Malformed), "{wrong:?}");
        }
    }

    fn names() -> impl Strategy<Value = Names> {
        prop::collection::btree_set("[a-z0-9._-]{1,9}".prop_map(|name| Arc::from(&*name)), 1..4)
    }

    proptest! {
        /// What one weir writes another one reads, and repeats in the same words.
        #[test]
        fn what_is_required_survives_the_way(
            fedramp in prop::option::of(prop::sample::select(vec![FedRamp::Low, FedRamp::High])),
            impact_level in prop::option::of(Just(ImpactLevel::Il5)),
            realms in prop::option::of(names()),
            regions in prop::option::of(names()),
            certifications in prop::option::of(names()),
            retention_days in prop::option::of(0u32..36_500),
        ) {
            let certifications = certifications.unwrap_or_default();
            let requires =
                Requires { fedramp, impact_level, realms, regions, certifications, retention_days };
            let text = required(&requires).unwrap();
            let mut read = Requires::default();
            if !text.is_empty() {
                asked::require(&text, &mut read).unwrap();
            }
            prop_assert_eq!(&read, &requires);
            let sent = Asked { require: requires, stays_here: true };
            let got = Asked { require: read, stays_here: true };
            prop_assert_eq!(acknowledgement(&sent), acknowledgement(&got));
        }
    }

    #[test]
    fn what_nobody_meets_cannot_be_said() {
        let nobody = Requires { regions: Some(Names::new()), ..Requires::default() };
        assert_eq!(required(&nobody), None);
        let long = (0..60).map(|n| format!("{n:064}").into()).collect();
        assert_eq!(required(&Requires { certifications: long, ..Requires::default() }), None);
        assert_eq!(required(&Requires::default()), Some(String::new()));
    }
}
