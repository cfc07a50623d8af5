//! What the box's prefix cache would hold, by session.

use std::collections::VecDeque;

/// Tokens of each session's latest text that are still in the KV memory. The least recently used
/// session goes first, as the engine's blocks do.
#[derive(Debug)]
pub(super) struct Sessions {
    /// `[session]`: tokens, and the use that put them there.
    kept: Vec<(u32, u64)>,
    /// Uses in their order; one that a later use of its session has replaced is skipped.
    uses: VecDeque<(u32, u64)>,
    clock: u64,
    /// Sum of the tokens kept, and most that may be.
    tokens: u64,
    room: u64,
}

impl Sessions {
    pub(super) fn new(sessions: u32, room: u64) -> Self {
        let kept = vec![(0, 0); sessions as usize];
        Self { kept, uses: VecDeque::new(), clock: 0, tokens: 0, room }
    }

    /// Of the tokens that a session's next prompt shares with what came before, how many are here.
    pub(super) fn found(&self, session: Option<u32>, shared: u32) -> u32 {
        session.map_or(shared, |session| shared.min(self.kept[session as usize].0))
    }

    /// A session's latest text is in the memory.
    pub(super) fn keep(&mut self, session: Option<u32>, tokens: u32) {
        let Some(session) = session else { return };
        self.clock += 1;
        let kept = &mut self.kept[session as usize];
        self.tokens = self.tokens - u64::from(kept.0) + u64::from(tokens);
        *kept = (tokens, self.clock);
        self.uses.push_back((session, self.clock));
        if self.uses.len() > 2 * self.kept.len() {
            let kept = &self.kept;
            self.uses.retain(|&(session, used)| kept[session as usize].1 == used);
        }
        while self.tokens > self.room {
            let Some((oldest, used)) = self.uses.pop_front() else { break };
            let kept = &mut self.kept[oldest as usize];
            if kept.1 == used {
                self.tokens -= u64::from(kept.0);
                kept.0 = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut sessions = Sessions::new(3, 100);
        assert_eq!(sessions.found(None, 7), 7, "nobody's prefix is always there");
        assert_eq!(sessions.found(Some(0), 7), 0);
        sessions.keep(Some(0), 40);
        sessions.keep(Some(1), 40);
        sessions.keep(Some(0), 50);
        assert_eq!((sessions.found(Some(0), 45), sessions.found(Some(1), 45)), (45, 40));
        sessions.keep(Some(2), 30);
        assert_eq!([0, 1, 2].map(|session| sessions.found(Some(session), 99)), [50, 0, 30]);
        for _ in 0..1000 {
            sessions.keep(Some(2), 30);
        }
        assert!(sessions.uses.len() <= 7, "{} uses are remembered", sessions.uses.len());
        assert_eq!(sessions.tokens, 80);
    }
}
