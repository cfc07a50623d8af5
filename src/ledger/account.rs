//! Who pays: a tenant on a cloud, with the budgets that cover the two.

use std::sync::Arc;

use super::purse::Purse;

/// A tenant on a cloud, looked up once and then drawn on by many requests. Cheap to clone.
#[derive(Clone)]
pub struct Account(Arc<Inner>);

struct Inner {
    tenant: Arc<str>,
    cloud: Arc<str>,
    /// Fingerprint of the configuration that allowed it.
    config: Arc<str>,
    purses: Box<[Arc<Purse>]>,
}

impl Account {
    pub(super) fn new(
        tenant: Arc<str>,
        cloud: Arc<str>,
        config: Arc<str>,
        purses: Box<[Arc<Purse>]>,
    ) -> Self {
        Self(Arc::new(Inner { tenant, cloud, config, purses }))
    }

    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// Empty: no cloud, for what wanted to leave and found none.
    pub fn cloud(&self) -> &str {
        &self.0.cloud
    }

    pub(super) fn config(&self) -> &str {
        &self.0.config
    }

    pub(super) fn draws_on(&self, purse: &Arc<Purse>) -> bool {
        self.0.purses.iter().any(|own| Arc::ptr_eq(own, purse))
    }

    /// Tells accounts apart for as long as they live, without comparing names.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(super) fn purses(&self) -> &[Arc<Purse>] {
        &self.0.purses
    }
}
