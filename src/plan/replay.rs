//! A trace run through a router, a box and clouds, in simulated time.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use tokio::time::Instant;

use super::cloud::{Answer, CloudRow, SimulatedCloud, Why};
use super::local::{BoxRoom, Progress, SimulatedBox};
use super::outcome::{CloudOutcome, Outcome, Placement, Tallies};
use super::pace::Pace;
use super::rivals::{Cooldown, QueueDepth};
use super::router::{Router, Sight, Weir};
use super::speed::BoxSpeed;
use super::trace::{Arrival, Trace};
use crate::completion::{Reason, Refusal};
use crate::config::OverflowConfig;
use crate::dispatch::Placed;
use crate::policy::secrets::Scanner;

/// What a trace is replayed against.
#[derive(Clone, Debug)]
pub struct World {
    pub speed: BoxSpeed,
    pub room: BoxRoom,
    pub clouds: Vec<CloudRow>,
    pub overflow: OverflowConfig,
    /// Of the clouds' times.
    pub seed: u64,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// [`crate::dispatch`].
    Weir,
    /// Nothing leaves; without clouds [`Policy::Weir`] is the same.
    Local,
    /// A queue of so many, as it was seen now and then, for a cloud.
    QueueDepth { most: usize, cloud: usize, seen_every: Duration },
    /// So long after a failure, for a cloud.
    Cooldown { pause: Duration, cloud: usize },
}

/// Replays a trace.
pub fn replay(trace: &Trace, world: &World, policy: Policy) -> Outcome {
    replay_paced(trace, world, policy).0
}

/// [`replay`], and how fast the box was in it; None: it had nothing to do.
pub fn replay_paced(trace: &Trace, world: &World, policy: Policy) -> (Outcome, Option<Pace>) {
    // A simulated cloud that fails is no news for a log.
    let nobody = tracing::subscriber::NoSubscriber::default();
    tracing::subscriber::with_default(nobody, || Replay::new(trace, world, policy).run())
}

struct Replay<'a> {
    trace: &'a Trace,
    /// What the trace's 0 is for whoever decides.
    zero: Instant,
    local: SimulatedBox,
    overhead_ns: u64,
    clouds: Vec<SimulatedCloud>,
    router: Box<dyn Router>,
    events: BinaryHeap<Reverse<Event>>,
    /// Of the clouds' times.
    seed: u64,
    /// Whether overflow went on when the last request came.
    active: bool,
    tallies: Tallies,
    progress: Vec<Progress>,
}

/// Something that a cloud does.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at_ns: u64,
    request: u32,
    row: usize,
    what: What,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    First { asked_ns: u64, end_ns: u64 },
    Refused { why: Why, attempt: Attempt },
    Ended,
}

/// What a request may still try.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Attempt {
    /// Rows to ask next, the last one first.
    rest: Vec<usize>,
    /// What to do when none is left: the box, or nothing.
    then_local: bool,
}

impl Attempt {
    fn new(mut rows: Vec<usize>, then_local: bool) -> Self {
        rows.reverse();
        Self { rest: rows, then_local }
    }
}

impl<'a> Replay<'a> {
    fn new(trace: &'a Trace, world: &World, policy: Policy) -> Self {
        let local = SimulatedBox::new(world.room.clone(), &world.speed, trace.sessions);
        let rows: &[CloudRow] = if policy == Policy::Local { &[] } else { &world.clouds };
        let clouds: Vec<_> = rows.iter().cloned().map(SimulatedCloud::new).collect();
        let router: Box<dyn Router> = match policy {
            Policy::Weir | Policy::Local => {
                let scanner = Scanner::new(&[]).expect("the known formats compile");
                let purses = clouds.iter().map(|cloud| (cloud.row().clone(), cloud.purse()));
                let saturation = local.saturation().clone();
                Box::new(Weir::new(saturation, purses, &world.overflow, &scanner))
            }
            Policy::QueueDepth { most, cloud, seen_every } => {
                Box::new(QueueDepth { most, cloud, seen_every, seen: None, leaving: false })
            }
            Policy::Cooldown { pause, cloud } => {
                let late = world.overflow.ttft_objective;
                Box::new(Cooldown { late, pause, cloud, until: None })
            }
        };
        Self {
            trace,
            zero: Instant::now(),
            local,
            overhead_ns: (world.speed.overhead_ms * 1e6) as u64,
            router,
            events: BinaryHeap::new(),
            seed: world.seed,
            active: false,
            tallies: Tallies::new(trace, world.overflow.ttft_objective),
            progress: Vec::new(),
            clouds,
        }
    }

    fn run(mut self) -> (Outcome, Option<Pace>) {
        for request in 0..self.trace.arrivals.len() as u32 {
            let at_ns = self.arrival(request).at_ns;
            self.play_until(at_ns);
            self.arrive(request, at_ns);
        }
        self.play_until(u64::MAX);
        let mut kept = self.router.kept();
        kept.resize_with(self.clouds.len(), BTreeMap::new);
        let rows = self.clouds.iter().zip(kept).map(|(cloud, kept)| CloudOutcome {
            name: cloud.row().name.clone(),
            tally: cloud.tally,
            kept,
        });
        (self.tallies.outcome(rows.collect()), self.local.pace())
    }

    fn arrival(&self, request: u32) -> Arrival {
        self.trace.arrivals[request as usize]
    }

    fn at(&self, ns: u64) -> Instant {
        self.zero + Duration::from_nanos(ns)
    }

    /// Everything that happens before `until_ns`, or then.
    fn play_until(&mut self, until_ns: u64) {
        loop {
            let local = self.local.next_ns().unwrap_or(u64::MAX);
            let cloud = self.events.peek().map_or(u64::MAX, |Reverse(event)| event.at_ns);
            let next = local.min(cloud);
            if next > until_ns || next == u64::MAX {
                return;
            }
            if local <= cloud { self.play_local(local) } else { self.play_cloud() }
        }
    }

    fn play_local(&mut self, now_ns: u64) {
        let mut progress = std::mem::take(&mut self.progress);
        self.local.advance(now_ns, &mut progress);
        for progress in progress.drain(..) {
            match progress {
                Progress::First(request) => {
                    let ttft_ns = now_ns + self.overhead_ns - self.arrival(request).at_ns;
                    self.router.local_first(Duration::from_nanos(ttft_ns), self.at(now_ns));
                    self.tallies.first(request, Placement::Local, ttft_ns);
                }
                Progress::Ended(request, service) => self.tallies.served(request, service),
            }
        }
        self.progress = progress;
    }

    fn play_cloud(&mut self) {
        let Some(next) = self.events.peek_mut() else { return };
        let Reverse(Event { at_ns, request, row, what }) = PeekMut::pop(next);
        let now = self.at(at_ns);
        match what {
            What::First { asked_ns, end_ns } => {
                let arrival = self.arrival(request);
                self.router.answered(row, Duration::from_nanos(at_ns - asked_ns), now);
                let cost = self.clouds[row].book(&arrival, at_ns);
                self.tallies.first(request, Placement::Cloud(row), at_ns - arrival.at_ns);
                self.tallies.paid(at_ns, cost);
                self.events.push(Reverse(Event { at_ns: end_ns, request, row, what: What::Ended }));
            }
            What::Refused { why, attempt } => {
                self.clouds[row].ended();
                self.router.refused(row, &why.refusal(), now);
                self.try_clouds(request, attempt, at_ns);
            }
            What::Ended => {
                self.clouds[row].ended();
                self.router.ended_well(row, now);
                self.tallies.ended();
            }
        }
    }

    fn sight(&self, arrival: &Arrival, now_ns: u64) -> Sight {
        let predicted = self.local.predicted(arrival);
        Sight { now: self.at(now_ns), queue_depth: self.local.queue_depth(), predicted }
    }

    fn arrive(&mut self, request: u32, now_ns: u64) {
        self.local.catch_up(now_ns);
        let arrival = self.arrival(request);
        let sight = self.sight(&arrival, now_ns);
        self.note_state(sight.now, now_ns);
        let placed = self.router.place(&arrival, sight);
        self.note_state(sight.now, now_ns);
        match placed {
            Placed::Local => self.try_local(request, now_ns),
            Placed::Shed => self.tallies.shed(request),
            Placed::Clouds(rows) => {
                self.tallies.left(now_ns);
                self.try_clouds(request, Attempt::new(rows, true), now_ns);
            }
        }
    }

    /// Overflow may have ended by time alone.
    fn note_state(&mut self, now: Instant, now_ns: u64) {
        let active = self.router.is_active(now);
        if std::mem::replace(&mut self.active, active) != active {
            self.tallies.changed(now_ns);
        }
    }

    /// The box, then the clouds if it is full.
    fn try_local(&mut self, request: u32, now_ns: u64) {
        let arrival = self.arrival(request);
        if self.local.offer(request, &arrival, now_ns) {
            return;
        }
        let sight = self.sight(&arrival, now_ns);
        let rows = self.router.instead(&arrival, sight);
        self.try_clouds(request, Attempt::new(rows, false), now_ns);
    }

    /// Asks one row after another until one has the request.
    fn try_clouds(&mut self, request: u32, mut attempt: Attempt, now_ns: u64) {
        let arrival = self.arrival(request);
        while let Some(row) = attempt.rest.pop() {
            if !self.router.admit(row, &arrival, self.at(now_ns)) {
                continue;
            }
            let mut luck = luck(self.seed, request, row);
            match self.clouds[row].ask(&arrival, now_ns, &mut luck) {
                Answer::Busy => {
                    let busy = Refusal::new(Reason::CloudBusy, "busy");
                    self.router.refused(row, &busy, self.at(now_ns));
                }
                Answer::Refused { at_ns, why } => {
                    let what = What::Refused { why, attempt };
                    self.events.push(Reverse(Event { at_ns, request, row, what }));
                    return;
                }
                Answer::First { at_ns, end_ns } => {
                    let what = What::First { asked_ns: now_ns, end_ns };
                    self.events.push(Reverse(Event { at_ns, request, row, what }));
                    return;
                }
            }
        }
        if !attempt.then_local || !self.local.offer(request, &arrival, now_ns) {
            self.tallies.shed(request);
        }
    }
}

/// The same for a request and a row whatever else happens, so that two policies meet the same
/// clouds.
fn luck(seed: u64, request: u32, row: usize) -> fastrand::Rng {
    let of_request = seed.wrapping_add(u64::from(request) << 8).wrapping_add(row as u64);
    fastrand::Rng::with_seed(of_request.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
