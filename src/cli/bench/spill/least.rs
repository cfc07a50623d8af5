//! The least that has to leave: what a router would send away that knows everything beforehand.

use std::time::Duration;

use crate::plan::Service;

/// One request, as a router knows it that knows everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) at_ns: u64,
    pub(super) service: Service,
}

/// A request that is kept, and when the box begins with it.
struct Kept {
    index: usize,
    begins_ns: u64,
}

/// [`fewest`] on a box with so many slots: while a prompt is read, the sequences in the other slots
/// have the rest of their answers before them, and nobody waits for that.
pub(super) fn fewest_beside(requests: &[Known], objective: Duration, slots: usize) -> Vec<usize> {
    let decodes: u64 = requests.iter().map(|known| known.service.decode_ns).sum();
    let beside_ns = decodes / requests.len().max(1) as u64 * (slots as u64).saturating_sub(1);
    fewest(requests, objective.as_nanos() as u64 + beside_ns)
}

/// The requests, by index, that must leave so that the box, one after another in the order of
/// arrival, gives each of the rest its first token within `patience_ns`: the fewest, by the rule
/// of Kise, Ibaraki and Mine for jobs whose due times are in the order of their release. When one
/// would be late, that one of those so far leaves without which the box is done soonest.
///
/// `patience_ns` may be longer than the objective: while one request is read, those before it go
/// on generating beside it.
fn fewest(requests: &[Known], patience_ns: u64) -> Vec<usize> {
    let mut kept: Vec<Kept> = Vec::new();
    let mut left = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let free_ns = kept.last().map_or(0, |last| last.begins_ns + work_ns(requests, last));
        let begins_ns = free_ns.max(request.at_ns);
        kept.push(Kept { index, begins_ns });
        while kept.last().is_some_and(|last| is_late(requests, last, patience_ns)) {
            let place = best_without(requests, &kept);
            left.push(kept.remove(place).index);
            settle_from(requests, &mut kept, place);
        }
    }
    left.sort_unstable();
    left
}

fn is_late(requests: &[Known], kept: &Kept, patience_ns: u64) -> bool {
    let request = &requests[kept.index];
    kept.begins_ns + request.service.prefill_ns > request.at_ns + patience_ns
}

fn work_ns(requests: &[Known], kept: &Kept) -> u64 {
    let service = requests[kept.index].service;
    service.prefill_ns + service.decode_ns
}

/// Whose absence brings the end forward most. It can be brought forward by no more than each
/// later request waits.
fn best_without(requests: &[Known], kept: &[Kept]) -> usize {
    let mut least_wait_ns = u64::MAX;
    let mut best = (0, kept.len() - 1);
    for (place, candidate) in kept.iter().enumerate().rev() {
        let gain = work_ns(requests, candidate).min(least_wait_ns);
        if gain > best.0 {
            best = (gain, place);
        }
        let waits_ns = candidate.begins_ns - requests[candidate.index].at_ns;
        least_wait_ns = least_wait_ns.min(waits_ns);
        if least_wait_ns <= best.0 {
            break;
        }
    }
    best.1
}

/// Lets everything from `place` on begin as soon as it can.
fn settle_from(requests: &[Known], kept: &mut [Kept], place: usize) {
    let before = place.checked_sub(1).map(|before| &kept[before]);
    let mut free_ns = before.map_or(0, |before| before.begins_ns + work_ns(requests, before));
    for next in &mut kept[place..] {
        next.begins_ns = free_ns.max(requests[next.index].at_ns);
        free_ns = next.begins_ns + work_ns(requests, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(at_ns: u64, prefill_ns: u64, decode_ns: u64) -> Known {
        Known { at_ns, service: Service { prefill_ns, decode_ns } }
    }

    /// Whether all but those meet the objective.
    fn suffices(requests: &[Known], left: u32, patience_ns: u64) -> bool {
        let mut free_ns = 0;
        let stays = |index: &usize| left & (1 << index) == 0;
        (0..requests.len()).filter(stays).all(|index| {
            let Known { at_ns, service } = requests[index];
            let begins_ns = at_ns.max(free_ns);
            free_ns = begins_ns + service.prefill_ns + service.decode_ns;
            begins_ns + service.prefill_ns <= at_ns + patience_ns
        })
    }

    #[test]
    fn what_is_longest_leaves() {
        let requests = [known(0, 10, 0), known(1, 50, 0), known(2, 10, 0), known(3, 10, 0)];
        assert_eq!(fewest(&requests, 60), [1]);
        assert_eq!(fewest(&requests, 100), [0; 0]);
        assert_eq!(fewest(&[known(0, 10, 0)], 9), [0]);
    }

    /// Beside every set there is, on small cases of equal patience.
    #[test]
    fn no_fewer_would_do() {
        let mut luck = fastrand::Rng::with_seed(4);
        for case in 0..300 {
            let mut at_ns = 0;
            let requests: Vec<Known> = (0..10)
                .map(|_| {
                    at_ns += luck.u64(0..12);
                    known(at_ns, luck.u64(1..25), 0)
                })
                .collect();
            let patience_ns = luck.u64(20..50);
            let found = fewest(&requests, patience_ns);
            let chosen = found.iter().fold(0_u32, |set, index| set | 1 << index);
            assert!(suffices(&requests, chosen, patience_ns), "case {case}: {found:?}");
            let smaller = |set: &u32| (set.count_ones() as usize) < found.len();
            let fewer = (0..1_u32 << requests.len()).filter(smaller);
            let better = fewer.into_iter().find(|&set| suffices(&requests, set, patience_ns));
            assert_eq!(better, None, "case {case}: {found:?} of {requests:?}, {patience_ns}");
        }
    }
}
