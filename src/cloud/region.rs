//! Where an answer says that it was made: a row that declares its regions and answers from another
//! is not what its operator thinks it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::HeaderMap;

use crate::completion::compliance::NAME_BYTES_MAX;
use crate::completion::{Reason, Refusal};
use crate::config::CloudConfig;

/// Headers by which providers name the region of an answer: Azure's, as in `East US 2`.
const HEADERS: [&str; 1] = ["x-ms-region"];

/// Whether a row has answered from where it should not be.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    elsewhere: AtomicBool,
    /// What the last answer said of where it was made.
    told: Mutex<Option<Arc<str>>>,
}

impl Whereabouts {
    /// Refuses while the row is not believed any more: until weir is started anew, or the row is
    /// another one.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        match self.elsewhere.load(Ordering::Relaxed) {
            true => Err(elsewhere()),
            false => Ok(()),
        }
    }

    pub(super) fn told(&self) -> Option<Arc<str>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the head of an answer; refuses where it names a region that `row` does not declare.
    pub(super) fn read(&self, row: &CloudConfig, headers: &HeaderMap) -> Result<(), Refusal> {
        let declared = &row.declared.regions;
        let told = HEADERS.iter().find_map(|name| headers.get(*name)?.to_str().ok());
        let name = told.filter(|name| name.len() <= NAME_BYTES_MAX).map(Arc::from);
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = name;
        let Some(told) = told.filter(|_| !declared.is_empty()) else { return Ok(()) };
        if declared.iter().any(|region| plain(region).eq(plain(told))) {
            return Ok(());
        }
        self.elsewhere.store(true, Ordering::Relaxed);
        let cloud = &*row.name;
        tracing::error!(
            cloud,
            told,
            "the cloud answers from a region that its row does not declare"
        );
        Err(elsewhere())
    }
}

/// A region's name without what spellings differ in.
fn plain(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase())
}

fn elsewhere() -> Refusal {
    let message = "the cloud answers from a region that was not declared";
    Refusal::new(Reason::CloudElsewhere, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::tests::row;

    #[test]
    fn another_region_ends_it_for_good_and_spelling_does_not() {
        let mut row = row("http://127.0.0.1:1/v1");
        let told = |region: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-ms-region", region.parse().unwrap());
            headers
        };
        let whereabouts = Whereabouts::default();
        assert!(whereabouts.read(&row, &told("Anywhere")).is_ok(), "nothing was declared");
        row.declared.regions = ["eastus2"].into_iter().map(Into::into).collect();
        assert!(whereabouts.read(&row, &told("East US 2")).is_ok());
        assert_eq!(whereabouts.told().as_deref(), Some("East US 2"));
        assert!(whereabouts.read(&row, &HeaderMap::new()).is_ok(), "nothing was told");
        assert_eq!(whereabouts.told(), None);
        assert!(whereabouts.check().is_ok());
        let refused = whereabouts.read(&row, &told("West Europe")).unwrap_err();
        assert_eq!(refused.reason, Reason::CloudElsewhere);
        assert!(whereabouts.read(&row, &told("East US 2")).is_ok());
        assert_eq!(whereabouts.check().unwrap_err().reason, Reason::CloudElsewhere);
    }
}
