//! Numbers for tenants that mean the same tenant for as long as the process lives.
//!
//! Requests, accounts and the engine's cache know a tenant by its number. When the configuration is
//! read again rows may come, go and change places; a number stays with its name, and that of a
//! tenant who is gone is nobody else's, so that no cached prefix ever changes hands.

use std::collections::HashMap;
use std::sync::Arc;

/// Most names in the life of a process, those that are gone included: four times the rows that a
/// configuration may have.
pub const NAMES_MAX: usize = 4096;

/// Whoever asks while nobody has a key. It is not the tenant of any row, not even of one that is
/// named `default`.
const ANYBODY: &str = "";

/// Every tenant there has been.
#[derive(Clone, Debug, Default)]
pub struct Roster(HashMap<Arc<str>, u32>);

/// There were too many tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {NAMES_MAX} different tenants have been there since weir was started; start it anew"
)]
pub struct RosterFull;

impl Roster {
    /// The number of a row's tenant, a new one where the name is.
    pub fn number(&mut self, name: &Arc<str>) -> Result<u32, RosterFull> {
        if let Some(number) = self.0.get(name) {
            return Ok(*number);
        }
        if self.0.len() == NAMES_MAX {
            return Err(RosterFull);
        }
        let number = u32::try_from(self.0.len()).expect("the bound is smaller");
        self.0.insert(name.clone(), number);
        Ok(number)
    }

    /// The number of whoever asks while nobody has a key.
    pub fn anybody(&mut self) -> Result<u32, RosterFull> {
        self.number(&ANYBODY.into())
    }

    /// Numbers below this were given out.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_and_no_number_is_given_twice() {
        let mut roster = Roster::default();
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        assert_eq!((roster.number(&a), roster.number(&b), roster.anybody()), (Ok(0), Ok(1), Ok(2)));
        assert_eq!((roster.number(&b), roster.number(&a), roster.anybody()), (Ok(1), Ok(0), Ok(2)));
        assert_eq!(roster.number(&"default".into()), Ok(3));
        assert_eq!(roster.len(), 4);
    }

    #[test]
    fn it_is_bounded() {
        let mut roster = Roster::default();
        for number in 0..NAMES_MAX {
            assert_eq!(roster.number(&format!("t{number}").into()), Ok(number as u32));
        }
        assert_eq!(roster.number(&"one more".into()), Err(RosterFull));
        assert_eq!(roster.number(&"t7".into()), Ok(7), "whoever was there may stay");
    }
}
