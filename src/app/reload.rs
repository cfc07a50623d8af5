//! Another configuration for a server that runs, all of it or nothing.
//!
//! Requests that are there finish on what they began with; what is known of the clouds, what
//! budgets have spent and who has which number goes on.

use std::io;
use std::mem::discriminant;
use std::sync::Arc;

use super::{App, Parts, Rooms, StartError, blocking, ledger};
use crate::cloud::{self, EgressError, Provider};
use crate::config::{CloudConfig, Complaint, Config};
use crate::ledger::{Ledger, Terms};

/// A configuration and what is odd about it, or all that is wrong.
pub type Loaded = Result<(Config, Vec<Complaint>), Vec<Complaint>>;

/// What came of it where it holds now.
#[derive(Debug)]
pub struct Reloaded {
    /// What is odd about it.
    pub warnings: Vec<Complaint>,
    /// What it says otherwise than the running one and only a start changes.
    pub kept: Vec<&'static str>,
}

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("the configuration is not valid")]
    Invalid(Vec<Complaint>),
    #[error(transparent)]
    Unusable(#[from] StartError),
}

impl App {
    /// Reads a configuration with `read` and lets new requests see it. Dropping the future before
    /// it is done leaves everything as it was, but for budgets and rents: those may hold already.
    pub async fn reload(
        &mut self,
        read: impl FnOnce() -> Loaded + Send + 'static,
    ) -> Result<Reloaded, ReloadError> {
        let reloaded = self.replace(read).await;
        let (applied, refused) = (&self.telemetry.reloads_applied, &self.telemetry.reloads_refused);
        if reloaded.is_ok() { applied } else { refused }.increment(1);
        reloaded
    }

    async fn replace(
        &mut self,
        read: impl FnOnce() -> Loaded + Send + 'static,
    ) -> Result<Reloaded, ReloadError> {
        let (mut config, warnings) = blocking(read).await.map_err(ReloadError::Invalid)?;
        let kept = config.keep_what_only_a_start_sets(&self.config);

        // All that can fail, before anything is changed.
        let mut roster = self.roster.clone();
        let rules = config.policy.rules_in(&mut roster).map_err(StartError::from)?;
        let terms = ledger::terms(&config).map_err(StartError::from)?;
        let clouds = self.providers(config.clouds_in_use()).await.map_err(StartError::from)?;
        let ledger = self.ledger_for(&config, terms).await.map_err(StartError::Ledger)?;

        let parts = Parts {
            engine: self.engine.clone(),
            clouds: clouds.clone(),
            tenants: rules.names(),
            ledger: ledger.clone(),
            telemetry: self.telemetry.clone(),
        };
        let making = blocking(move || (parts.dispatcher(&config), config));
        let (mut dispatcher, config) = making.await;
        dispatcher.succeed(&self.dispatcher, |one, other| is_same(one.row(), other.row()));
        self.dispatcher = Arc::new(dispatcher);
        let rooms = Rooms::new(&self.card, &self.dispatcher, &config);
        self.api.replace(rooms, &config.serve, rules);
        (self.clouds, self.ledger, self.roster, self.config) = (clouds, ledger, roster, config);
        Ok(Reloaded { warnings, kept })
    }

    /// The rows' providers: of a row that nothing has changed the one it had, with its connections
    /// and whatever it has fetched to prove who asks.
    async fn providers(&self, rows: &[CloudConfig]) -> Result<Vec<Arc<Provider>>, EgressError> {
        let known = |row: &CloudConfig| self.clouds.iter().find(|known| *known.row() == *row);
        let changed: Vec<_> = rows.iter().filter(|row| known(row).is_none()).cloned().collect();
        let own = self.instance.clone();
        let made = blocking(move || cloud::providers_of(&changed, &own)).await?;
        let mut made = made.into_iter().map(Arc::new);
        let provider = |row| known(row).cloned().or_else(|| made.next());
        Ok(rows.iter().filter_map(provider).collect())
    }

    /// The ledger that runs, under other terms; or one, where there was none and now something has
    /// a price. It stays until the end: a request that is out settles there.
    async fn ledger_for(&self, config: &Config, terms: Terms) -> io::Result<Option<Ledger>> {
        let Some(ledger) = self.ledger.clone() else {
            return ledger::open(config, terms, self.telemetry.clone()).await;
        };
        let reconfiguring = blocking(move || {
            // A disk that fails stops what is metered, and was told to the log.
            let _written = ledger.reconfigure(terms);
            ledger
        });
        Ok(Some(reconfiguring.await))
    }
}

/// Whether two rows of one name are one cloud, so that what is known of the one is true of the
/// other.
fn is_same(one: &CloudConfig, other: &CloudConfig) -> bool {
    let same_service = discriminant(&one.service) == discriminant(&other.service);
    same_service && one.base_url == other.base_url && one.model == other.model
}
