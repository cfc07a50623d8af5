//! Tenants, path rules and what clouds declare, as typed.

use std::collections::BTreeMap;

use super::section::Section;

/// A key that takes one string or a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneOrMore(pub Vec<String>);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawTenant {
    pub name: Option<String>,
    pub key_file: Option<OneOrMore>,
    pub key_sha256: Option<OneOrMore>,
    pub overflow: Option<String>,
    pub on_secret: Option<String>,
    pub classes: Option<Vec<String>>,
    pub admin: Option<bool>,
    pub require: Option<RawRequire>,
    pub budget: RawBudget,
    /// By the name of a cloud.
    pub cloud_budgets: Option<BTreeMap<String, RawBudget>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawPath {
    pub pattern: Option<String>,
    pub tenant: Option<String>,
    pub policy: Option<String>,
    pub require: Option<RawRequire>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawSecret {
    pub name: Option<String>,
    pub pattern: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawRequire {
    pub fedramp: Option<String>,
    pub impact_level: Option<String>,
    pub realms: Option<Vec<String>>,
    pub regions: Option<Vec<String>>,
    pub certifications: Option<Vec<String>>,
    pub retention_days: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawDeclared {
    pub realm: Option<String>,
    pub regions: Option<Vec<String>>,
    pub fedramp: Option<String>,
    pub impact_level: Option<String>,
    pub certifications: Option<Vec<String>>,
    pub retention_days: Option<i64>,
    pub attested_by: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawBudget {
    pub usd_day: Option<f64>,
    pub usd_month: Option<f64>,
}

impl RawTenant {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.name = section.take("name");
        self.key_file = section.take("key_file");
        self.key_sha256 = section.take("key_sha256");
        self.overflow = section.take("overflow");
        self.on_secret = section.take("on_secret");
        self.classes = section.take("classes");
        self.admin = section.take("admin");
        self.require = section.table("require", RawRequire::read);
        self.budget.read(section);
        self.cloud_budgets = section.table("cloud_budgets", |all: &mut BTreeMap<_, _>, inside| {
            all.extend(inside.tables(RawBudget::read));
        });
    }
}

impl RawSecret {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.name = section.take("name");
        self.pattern = section.take("pattern");
    }
}

impl RawPath {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.pattern = section.take("pattern");
        self.tenant = section.take("tenant");
        self.policy = section.take("policy");
        self.require = section.table("require", RawRequire::read);
    }
}

impl RawRequire {
    fn read(&mut self, section: &mut Section<'_>) {
        self.fedramp = section.take("fedramp");
        self.impact_level = section.take("impact_level");
        self.realms = section.take("realms");
        self.regions = section.take("regions");
        self.certifications = section.take("certifications");
        self.retention_days = section.take("retention_days");
    }
}

impl RawDeclared {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.realm = section.take("realm");
        self.regions = section.take("regions");
        self.fedramp = section.take("fedramp");
        self.impact_level = section.take("impact_level");
        self.certifications = section.take("certifications");
        self.retention_days = section.take("retention_days");
        self.attested_by = section.take("attested_by");
    }
}

impl RawBudget {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        self.usd_day = section.take("budget_usd_day");
        self.usd_month = section.take("budget_usd_month");
    }
}
