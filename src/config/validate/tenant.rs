//! `[[tenant]]` and `[[path]]` rows, and budgets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::Checker;
use super::keys::key_from_file;
use crate::completion::Priority;
use crate::completion::compliance::OnSecret;
use crate::config::policy::CLASSES;
use crate::config::raw::{RawBudget, RawPath, RawTenant, row_prefix};
use crate::config::{
    Budget, CloudConfig, Config, Micros, PolicyConfig, RawCloud, RawConfig, TenantConfig,
};
use crate::policy::keys::{KEYS_MAX, KeyDigest};
use crate::policy::paths::{Access, PathRule, PathRules, globs};
use crate::policy::qualifies;

/// Most `[[tenant]]` rows.
const TENANTS_MAX: usize = 1024;
/// Most `[[path]]` rows.
const PATHS_MAX: usize = 256;
/// Fewest characters of a key in a `key_file`: 24 random letters and digits are 142 bits. A digest
/// without salt protects no shorter one.
const KEY_CHARS_MIN: usize = 24;
/// Upper bound of a budget in dollars; what is more was meant in another unit.
const USD_MAX: f64 = 5e7;

const LEAVES: [(&str, bool); 2] = [("auto", true), ("never", false)];
const PATH_LEAVES: [(&str, bool); 2] = [("allow", true), ("never", false)];
const CLASS_WORDS: [(&str, Option<Priority>); 3] = [
    ("completion", Some(Priority::Completion)),
    ("chat", Some(Priority::Chat)),
    ("batch", Some(Priority::Batch)),
];
const ACCESS: [(&str, Option<Access>); 3] = [
    ("never-cloud", Some(Access::NeverCloud)),
    ("cloud-allowed", Some(Access::CloudAllowed)),
    ("cloud-only", Some(Access::CloudOnly)),
];

impl Checker<'_> {
    pub(super) fn policy(&mut self, raw: &RawConfig) -> PolicyConfig {
        self.prefix = "[overflow] ".into();
        let on_secret = self.on_secret(raw.overflow.on_secret.as_deref(), OnSecret::Stay);
        let tenants = self.tenants(raw, on_secret);
        let paths = self.paths(&raw.paths, &tenants);
        let secrets = self.secrets(&raw.secrets);
        self.prefix = "[overflow] ".into();
        let overflow = &raw.overflow;
        let (unknown, unmatched) = (&overflow.unknown_path, &overflow.unmatched_path);
        PolicyConfig {
            anonymous_cloud: overflow.anonymous_cloud.unwrap_or(false),
            unknown_path_leaves: self.choice(
                "unknown_path",
                unknown.as_deref(),
                false,
                &PATH_LEAVES,
            ),
            unmatched_path_leaves: self.choice(
                "unmatched_path",
                unmatched.as_deref(),
                true,
                &PATH_LEAVES,
            ),
            on_secret,
            tenants,
            paths,
            secrets,
        }
    }

    /// `on_secret`: where a row does not say.
    fn tenants(&mut self, raw: &RawConfig, on_secret: OnSecret) -> Vec<TenantConfig> {
        let (raw, clouds) = (&raw.tenants, &raw.clouds);
        self.prefix = String::new();
        if raw.len() > TENANTS_MAX {
            let message = format!("must be at most {TENANTS_MAX} rows, are {}", raw.len());
            self.complain("[[tenant]]", message);
        }
        let (mut names, mut keys) = (HashSet::new(), HashMap::new());
        let mut tenants = Vec::new();
        for (index, row) in raw.iter().enumerate() {
            self.prefix = row_prefix("tenant", row.name.as_deref(), index);
            if row.name.as_deref().is_some_and(|name| !names.insert(name)) {
                self.complain("name", "is used by an earlier row");
            }
            let tenant = self.tenant(row, clouds, on_secret);
            for digest in tenant.iter().flat_map(|tenant| &tenant.keys) {
                if keys.insert(*digest, index).is_some() {
                    self.complain("key_sha256", "or key_file has a key that is there already");
                }
            }
            tenants.extend(tenant);
        }
        self.prefix = String::new();
        if keys.len() > KEYS_MAX {
            let message = format!("must have at most {KEYS_MAX} keys together");
            self.complain("[[tenant]]", message);
        }
        tenants
    }

    /// None: a required key was absent or wrong, and complained about.
    fn tenant(
        &mut self,
        raw: &RawTenant,
        clouds: &[RawCloud],
        on_secret: OnSecret,
    ) -> Option<TenantConfig> {
        let name = self.row_name(raw.name.as_deref());
        let keys = self.tenant_keys(raw);
        let cloud_budgets = self.cloud_budgets(raw, clouds);
        let tenant = TenantConfig {
            name: Arc::from(name?),
            keys,
            leaves: self.choice("overflow", raw.overflow.as_deref(), true, &LEAVES),
            require: self.requires(raw.require.as_ref()),
            on_secret: self.stricter_on_secret(raw, on_secret),
            classes: self.classes(raw.classes.as_deref()),
            admin: raw.admin.unwrap_or(false),
            budget: self.budget(&raw.budget, ""),
            cloud_budgets,
        };
        Some(tenant)
    }

    fn tenant_keys(&mut self, raw: &RawTenant) -> Vec<KeyDigest> {
        let mut keys = Vec::new();
        let (files, digests) = (raw.key_file.as_ref(), raw.key_sha256.as_ref());
        for path in files.iter().flat_map(|files| &files.0) {
            match key_from_file(Path::new(path)) {
                Ok(key) if key.expose().len() >= KEY_CHARS_MIN => {
                    keys.push(KeyDigest::of(key.expose()));
                }
                Ok(_) => {
                    let message = format!("{path}: holds fewer than {KEY_CHARS_MIN} characters");
                    self.complain("key_file", message);
                }
                Err(wrong) => self.complain("key_file", format!("{path}: {wrong}")),
            }
        }
        // The text stays out of the message: it may be the key itself.
        for text in digests.iter().flat_map(|digests| &digests.0) {
            match KeyDigest::from_hex(text) {
                Some(digest) => keys.push(digest),
                None => self.complain("key_sha256", "must be SHA-256 in 64 hexadecimal digits"),
            }
        }
        if files.is_none_or(|all| all.0.is_empty()) && digests.is_none_or(|all| all.0.is_empty()) {
            self.complain("key_file", "or key_sha256 is required");
        }
        keys
    }

    fn classes(&mut self, typed: Option<&[String]>) -> Vec<Priority> {
        let Some(typed) = typed else { return CLASSES.to_vec() };
        if typed.is_empty() {
            self.complain("classes", "must name at least one");
        }
        let mut classes: Vec<Priority> = typed
            .iter()
            .filter_map(|word| self.choice("classes", Some(word), None, &CLASS_WORDS))
            .collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    fn cloud_budgets(
        &mut self,
        raw: &RawTenant,
        clouds: &[RawCloud],
    ) -> BTreeMap<Arc<str>, Budget> {
        let mut budgets = BTreeMap::new();
        for (cloud, raw) in raw.cloud_budgets.iter().flatten() {
            let key = format!("cloud_budgets.{cloud}");
            if !clouds.iter().any(|row| row.name.as_deref() == Some(cloud)) {
                self.complain(&key, "is no [[cloud]]");
            }
            let budget = self.budget(raw, &format!("{key}."));
            budgets.insert(Arc::from(cloud.as_str()), budget);
        }
        budgets
    }

    /// `prefix` goes before the keys in complaints.
    pub(super) fn budget(&mut self, raw: &RawBudget, prefix: &str) -> Budget {
        let per_day = self.dollars(&format!("{prefix}budget_usd_day"), raw.usd_day);
        let per_month = self.dollars(&format!("{prefix}budget_usd_month"), raw.usd_month);
        if per_month.is_some() && per_day > per_month {
            let message = "is more than a whole month's, which then ends it";
            self.warn(&format!("{prefix}budget_usd_day"), message);
        }
        Budget { per_day, per_month }
    }

    fn dollars(&mut self, key: &str, typed: Option<f64>) -> Option<Micros> {
        let usd = typed?;
        if !(0.0..=USD_MAX).contains(&usd) {
            self.complain(key, format!("must be 0 to {USD_MAX} dollars, is {usd}"));
            return None;
        }
        let micros = (usd * 1e6).round();
        if (micros - usd * 1e6).abs() > 1e-3 {
            self.complain(key, format!("must be in whole millionths of a dollar, is {usd}"));
        }
        // At most 5e13, which a float holds exactly.
        Some(Micros(micros as u64))
    }

    fn paths(&mut self, raw: &[RawPath], tenants: &[TenantConfig]) -> Vec<PathRule> {
        self.prefix = String::new();
        if raw.len() > PATHS_MAX {
            let message = format!("must be at most {PATHS_MAX} rows, are {}", raw.len());
            self.complain("[[path]]", message);
        }
        let mut rules = Vec::new();
        for (index, row) in raw.iter().enumerate() {
            self.prefix = row_prefix("path", row.pattern.as_deref(), index);
            rules.extend(self.path_rule(row, tenants));
        }
        self.prefix = String::new();
        if let Err(wrong) = PathRules::new(rules.clone()) {
            self.complain("[[path]]", format!("cannot be compiled together: {wrong}"));
        }
        rules
    }

    fn path_rule(&mut self, raw: &RawPath, tenants: &[TenantConfig]) -> Option<PathRule> {
        let pattern = self.required("pattern", raw.pattern.as_deref());
        let wrong = pattern.and_then(|pattern| globs(pattern).err());
        if let Some(wrong) = &wrong {
            self.complain("pattern", wrong.as_str());
        }
        let known = |name: &str| tenants.iter().position(|tenant| &*tenant.name == name);
        let tenant = raw.tenant.as_deref().map(known);
        if tenant == Some(None) {
            self.complain("tenant", "is no [[tenant]]");
        }
        let word = self.required("policy", raw.policy.as_deref());
        let access = self.choice("policy", word, None, &ACCESS);
        let require = self.requires(raw.require.as_ref());
        wrong.is_none().then_some(())?;
        Some(PathRule {
            pattern: Arc::from(pattern?),
            tenant: tenant.flatten().and_then(|index| u32::try_from(index).ok()),
            access: access?,
            require,
        })
    }

    /// Clouds that nobody may use, and tenants that no cloud will do for.
    pub(super) fn warn_unused_clouds(&mut self, config: &Config) {
        let policy = &config.policy;
        if config.clouds.is_empty() {
            return;
        }
        if policy.tenants.is_empty() && !policy.anonymous_cloud {
            self.warn(
                "[overflow] anonymous_cloud",
                "is off and there is no [[tenant]]: no request may leave, and no [[cloud]] is used",
            );
        }
        if !policy.tenants.is_empty() && policy.anonymous_cloud {
            self.warn("[overflow] anonymous_cloud", "has no effect with [[tenant]] rows");
        }
        for tenant in policy.tenants.iter().filter(|tenant| tenant.leaves) {
            let will_do = |cloud: &CloudConfig| qualifies(&cloud.declared, &tenant.require).is_ok();
            if !config.clouds.iter().any(will_do) {
                self.warn(
                    &format!("[[tenant]] {}: require", tenant.name),
                    "is more than any [[cloud]] declares: its requests stay here",
                );
            }
        }
    }
}
