//! What outlives a sequence: recent outputs and how well drafts did, for each tenant apart.

use super::acceptance::Acceptance;
use super::index::{CUT, Index};

/// Tokens of recent outputs: some hundred completions.
const RECENT_TOKENS: usize = 8192;
/// Tokens before an output that are kept with it, so that it is found from where it began.
const LEAD_TOKENS: usize = 16;
/// Tenants remembered; of more the one that was idle longest is forgotten.
const TENANTS_MAX: usize = 16;

/// Recent outputs of one tenant. Nothing in here ever meets another tenant's sequence.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(super) recent: Index,
    pub(super) acceptance: Acceptance,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { recent: Index::new(RECENT_TOKENS), acceptance: Acceptance::default() }
    }

    /// Takes in an output and the text that it went on from.
    pub(crate) fn remember(&mut self, before: &[u32], output: &[u32]) {
        let lead = &before[before.len().saturating_sub(LEAD_TOKENS)..];
        let output = &output[..output.len().min(RECENT_TOKENS / 2)];
        for &token in [CUT].iter().chain(lead).chain(output) {
            self.recent.push(token);
        }
    }
}

/// One memory for each tenant that was here lately.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    /// The latest last.
    tenants: Vec<(u32, Memory)>,
}

impl Memories {
    /// The memory of a tenant, a new one if there is none.
    pub(crate) fn of(&mut self, tenant: u32) -> &mut Memory {
        match self.tenants.iter().position(|&(id, _)| id == tenant) {
            Some(index) => self.tenants[index..].rotate_left(1),
            None => {
                if self.tenants.len() == TENANTS_MAX {
                    self.tenants.remove(0);
                }
                self.tenants.push((tenant, Memory::new()));
            }
        }
        &mut self.tenants.last_mut().expect("it was put there").1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_remembered_apart_and_the_idle_ones_forgotten() {
        let mut memories = Memories::default();
        memories.of(7).remember(&[1, 2], &[3, 4]);
        assert_eq!(memories.of(8).recent.end(), 0);
        assert_eq!(memories.of(7).recent.end(), 5);
        for tenant in 100..100 + TENANTS_MAX as u32 - 1 {
            memories.of(tenant);
        }
        assert_eq!(memories.of(7).recent.end(), 5, "it was there after 8");
        assert_eq!(memories.tenants.len(), TENANTS_MAX);
        memories.of(8).remember(&[1], &[2]);
        for tenant in 200..200 + TENANTS_MAX as u32 {
            memories.of(tenant);
        }
        assert_eq!(memories.of(7).recent.end(), 0, "it was idle longest");
    }
}
