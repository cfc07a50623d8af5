//! From a tenant, its headers and source paths to where a request may run.

use std::sync::Arc;

use super::asked::Asked;
use super::keys::Keyring;
use super::paths::{Access, PathRule, PathRules, parts};
use crate::completion::compliance::{KeptHere, OnSecret, RequestPolicy, Requires};
use crate::completion::{Input, Priority};

/// All that the operator said of who may send what where; frozen.
#[derive(Clone, Debug)]
pub struct Rules {
    /// By their numbers in the [`Roster`](super::Roster), which are [`CompletionRequest::tenant`].
    /// None: whoever had that number is gone.
    ///
    /// [`CompletionRequest::tenant`]: crate::completion::CompletionRequest::tenant
    pub tenants: Vec<Option<TenantRules>>,
    pub asks: Asks,
    pub paths: PathRules,
    /// Whether a part without a path may leave where there are path rules.
    pub unknown_path_leaves: bool,
    /// Whether a path that no rule is about may leave where there are path rules.
    pub unmatched_path_leaves: bool,
}

/// How whoever comes in is told apart.
#[derive(Clone, Debug)]
pub enum Asks {
    /// Nobody is asked, and everybody is this tenant.
    Nobody(u32),
    /// Everybody is asked for one of these; there is at least one.
    Key(Keyring),
}

/// What holds for everything one tenant sends.
#[derive(Clone, Debug)]
pub struct TenantRules {
    pub name: Arc<str>,
    /// `tenant NAME`, for the record.
    pub rule: Arc<str>,
    pub away: Result<(), KeptHere>,
    pub require: Arc<Requires>,
    pub on_secret: OnSecret,
    /// Classes it may use, the lowest first; never empty.
    pub classes: Vec<Priority>,
    /// Whether it may hold clouds and see how they are.
    pub admin: bool,
}

impl TenantRules {
    /// The class a request runs in: the one it is of by nature, or the next lower one that the
    /// tenant may use, or the lowest there is. Never a higher one.
    pub fn class(&self, natural: Priority) -> Priority {
        let allowed = self.classes.iter().rev().find(|class| **class <= natural);
        allowed.copied().unwrap_or(natural.min(Priority::Batch))
    }
}

impl Rules {
    /// By its number, which only [`Asks`] gives out, of these same rules.
    pub fn tenant(&self, number: u32) -> &TenantRules {
        self.tenants[number as usize].as_ref().expect("no key is a tenant's who is gone")
    }

    /// Names by numbers; that of a tenant who is gone is empty.
    pub fn names(&self) -> Vec<Arc<str>> {
        let name = |tenant: &Option<TenantRules>| {
            tenant.as_ref().map_or_else(Arc::default, |tenant| tenant.name.clone())
        };
        self.tenants.iter().map(name).collect()
    }

    /// Whether whoever comes in is asked for a key.
    pub fn ask_for_keys(&self) -> bool {
        matches!(self.asks, Asks::Key(_))
    }

    /// Where a request of `tenant` may run. Whatever is asked or matched only tightens.
    pub fn settle(&self, tenant: u32, asked: &Asked, input: &Input) -> RequestPolicy {
        let of = self.tenant(tenant);
        let mut settling = Settling(RequestPolicy {
            here: true,
            away: of.away,
            require: of.require.clone(),
            on_secret: of.on_secret,
            rule: of.rule.clone(),
        });
        if asked.stays_here {
            settling.keep(KeptHere::Header, || "header".into());
        }
        settling.require(&asked.require);
        if self.paths.concern(tenant) {
            for part in parts(input) {
                self.hold(tenant, part.as_deref(), &mut settling);
            }
        }
        settling.0
    }

    /// Holds one part of a request against the path rules.
    fn hold(&self, tenant: u32, part: Option<&[String]>, settling: &mut Settling) {
        let Some(written) = part else {
            if !self.unknown_path_leaves {
                settling.keep(KeptHere::UnknownPath, || "unknown_path".into());
            }
            return;
        };
        let matching = self.paths.matching(tenant, written);
        if matching.is_empty() && !self.unmatched_path_leaves {
            settling.keep(KeptHere::UnmatchedPath, || "unmatched_path".into());
        }
        for rule in matching {
            settling.apply(rule);
        }
    }
}

struct Settling(RequestPolicy);

impl Settling {
    /// The first reason stays.
    fn keep(&mut self, why: KeptHere, rule: impl FnOnce() -> Arc<str>) {
        if self.0.away.is_ok() {
            (self.0.away, self.0.rule) = (Err(why), rule());
        }
    }

    fn require(&mut self, more: &Requires) {
        if *more != Requires::default() {
            self.0.require = Arc::new(self.0.require.and(more));
        }
    }

    fn apply(&mut self, rule: &PathRule) {
        let name = || format!("path {}", rule.pattern).into();
        match rule.access {
            Access::NeverCloud => self.keep(KeptHere::Path, name),
            Access::CloudOnly => {
                if std::mem::take(&mut self.0.here) && self.0.away.is_ok() {
                    self.0.rule = name();
                }
            }
            Access::CloudAllowed => {}
        }
        self.require(&rule.require);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::compliance::FedRamp;
    use crate::completion::{ExtraFile, FimInput};

    fn rule(pattern: &str, access: Access) -> PathRule {
        PathRule { pattern: pattern.into(), tenant: None, access, require: Requires::default() }
    }

    fn rules(paths: Vec<PathRule>) -> Rules {
        let tenant = TenantRules {
            name: "a".into(),
            rule: "tenant a".into(),
            away: Ok(()),
            require: Arc::default(),
            on_secret: OnSecret::Stay,
            classes: vec![Priority::Chat],
            admin: false,
        };
        Rules {
            tenants: vec![Some(tenant)],
            asks: Asks::Nobody(0),
            paths: PathRules::new(paths).unwrap(),
            unknown_path_leaves: false,
            unmatched_path_leaves: true,
        }
    }

    /// The first path is the current file's.
    fn files(paths: &[&str]) -> Input {
        let extra = |path: &&str| ExtraFile { path: (*path).into(), text: String::new() };
        Input::Fim(FimInput {
            path: Some(paths[0].into()),
            extra: paths[1..].iter().map(extra).collect(),
            ..FimInput::default()
        })
    }

    fn away(rules: &Rules, input: &Input) -> Result<(), &'static str> {
        rules.settle(0, &Asked::default(), input).away.map_err(KeptHere::code)
    }

    #[test]
    fn without_rules_every_path_may_leave_and_with_them_the_strictest_holds() {
        let none = rules(Vec::new());
        assert_eq!(away(&none, &Input::Text("x".into())), Ok(()));
        let mut some = rules(vec![
            rule("src", Access::CloudAllowed),
            rule("keys", Access::NeverCloud),
            rule("big", Access::CloudOnly),
        ]);
        assert_eq!(away(&some, &Input::Text("x".into())), Err("policy:unknown_path"));
        assert_eq!(away(&some, &files(&["src/a"])), Ok(()));
        assert_eq!(away(&some, &files(&["other/a"])), Ok(()));
        assert_eq!(away(&some, &files(&["src/keys/a"])), Err("policy:path"));
        assert_eq!(away(&some, &files(&["src/a", "src/b", "keys/c"])), Err("policy:path"));
        assert_eq!(away(&some, &files(&["src/a", ""])), Err("policy:unknown_path"));
        some.unmatched_path_leaves = false;
        assert_eq!(away(&some, &files(&["other/a"])), Err("policy:unmatched_path"));
        assert_eq!(away(&some, &files(&["src/a"])), Ok(()));
        some.unknown_path_leaves = true;
        assert_eq!(away(&some, &Input::Text("x".into())), Ok(()));
        assert_eq!(away(&some, &files(&["", "keys/c"])), Err("policy:path"));
    }

    #[test]
    fn two_rules_may_leave_no_place_at_all() {
        let rules = rules(vec![rule("keys", Access::NeverCloud), rule("big", Access::CloudOnly)]);
        let settled = |paths: &[&str]| rules.settle(0, &Asked::default(), &files(paths));
        let only = settled(&["big/a"]);
        assert_eq!((only.here, only.away, &*only.rule), (false, Ok(()), "path big"));
        let both = settled(&["big/a", "keys/b"]);
        assert_eq!((both.here, both.away), (false, Err(KeptHere::Path)));
        assert_eq!(&*both.rule, "path keys");
    }

    #[test]
    fn headers_and_paths_add_to_what_the_tenant_requires() {
        let mut all = rules(vec![rule("gov", Access::CloudAllowed)]);
        let some = |fedramp| Requires { fedramp: Some(fedramp), ..Requires::default() };
        all.tenants[0].as_mut().unwrap().require = Arc::new(some(FedRamp::Moderate));
        let level = |rules: &Rules, asked: &Asked, path: &str| {
            rules.settle(0, asked, &files(&[path])).require.fedramp
        };
        let nothing = Asked::default();
        assert_eq!(level(&all, &nothing, "a"), Some(FedRamp::Moderate));
        let low = Asked { require: some(FedRamp::Low), stays_here: false };
        assert_eq!(level(&all, &low, "a"), Some(FedRamp::Moderate), "it does not loosen");
        let high = Asked { require: some(FedRamp::High), stays_here: false };
        assert_eq!(level(&all, &high, "a"), Some(FedRamp::High));
        let mut gov = rule("gov", Access::CloudAllowed);
        gov.require = some(FedRamp::High);
        all.paths = PathRules::new(vec![gov]).unwrap();
        assert_eq!(level(&all, &low, "gov/a"), Some(FedRamp::High));
        let stays = Asked { stays_here: true, ..Asked::default() };
        assert_eq!(all.settle(0, &stays, &files(&["a"])).away, Err(KeptHere::Header));
    }

    #[test]
    fn a_class_is_only_lowered() {
        let with = |classes: &[Priority]| {
            let mut tenant = rules(Vec::new()).tenants.remove(0).unwrap();
            tenant.classes = classes.to_vec();
            tenant
        };
        use Priority::{Batch, Chat, Completion};
        let all = with(&[Batch, Chat, Completion]);
        for class in [Batch, Chat, Completion] {
            assert_eq!(all.class(class), class);
            assert_eq!(with(&[Batch]).class(class), Batch);
        }
        assert_eq!(with(&[Batch, Chat]).class(Completion), Chat);
        assert_eq!(with(&[Completion]).class(Chat), Batch);
    }
}
