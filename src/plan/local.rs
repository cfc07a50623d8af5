//! The box in simulated time: continuous batching as the engine does it.
//!
//! Slots, the line and its ranks, the budget of prompt rows in a pass and the published state are
//! the engine's own types, fed with how long each pass would take; what is played here is the
//! order of events. Passes that only decode and cannot change are taken in one stride.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::pace::{Pace, PaceMeter};
use super::sessions::Sessions;
use super::speed::{BoxSpeed, PassTimes};
use super::trace::Arrival;
use crate::completion::Priority;
use crate::engine::{
    Company, Load, Predictor, Rank, Rates, Saturation, SequenceId, StepRows, TOKENS_PER_TURN,
};

/// How many of a stride's equal passes the engine's averages are told of; so many make an average
/// forget 97 % of what was before.
const RECORDED_MAX: u64 = 16;

/// The room that a box has.
#[derive(Clone, Debug)]
pub struct BoxRoom {
    pub slots: usize,
    /// Sequences that wait; one more is refused.
    pub queue_max: usize,
    pub step_ms_max: u32,
    /// Rows of one pass.
    pub step_rows_max: usize,
    /// Tokens that the KV memory holds.
    pub kv_tokens: u64,
}

/// A box as it would be at a moment.
pub(super) struct SimulatedBox {
    room: BoxRoom,
    times: PassTimes,
    draft_gain: f64,
    rates: Rates,
    saturation: Rc<Saturation>,
    predictor: Predictor,
    sessions: Sessions,
    /// Let in while a pass ran.
    arriving: Vec<Waiting>,
    waiting: BTreeMap<Rank, Waiting>,
    /// Prompt tokens that `waiting` will have to compute, as far as is known.
    waiting_tokens: usize,
    running: Vec<Running>,
    stride: Option<Stride>,
    pace: PaceMeter,
    /// Reused list of who prefills.
    prefills: Vec<(Rank, usize)>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    request: u32,
    arrival: Arrival,
    rank: Rank,
    /// Prompt tokens found in the cache.
    cached: u32,
    /// Milliseconds of work until its first token, as it came.
    work_ms: f64,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    request: u32,
    arrival: Arrival,
    rank: Rank,
    work_ms: f64,
    /// Prompt tokens in the KV memory,
    computed: u32,
    /// those of this pass,
    rows: u32,
    /// and passes until the answer is whole, once the prompt is read.
    passes_left: u64,
    /// Its share of the passes that it was in, by what they took for its rows.
    service_ns: Service,
}

/// How long a request kept the box busy, had the box done nothing else meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Until its prompt was read,
    pub prefill_ns: u64,
    /// and after that.
    pub decode_ns: u64,
}

/// Equal passes, one after another.
#[derive(Clone, Copy, Debug)]
struct Stride {
    began_ns: u64,
    pass_ns: u64,
    passes: u64,
    /// Of them, those that the averages know.
    recorded: u64,
    rows: StepRows,
    /// What a pass of the decodes alone would take.
    decode_ns: u64,
}

impl Stride {
    /// Of a pass, for each sequence that decodes in it.
    fn decode_share_ns(&self) -> u64 {
        self.decode_ns.min(self.pass_ns) / self.rows.decodes.max(1) as u64
    }

    /// Of a pass, for each prompt row in it.
    fn row_share_ns(&self) -> u64 {
        self.pass_ns.saturating_sub(self.decode_ns) / self.rows.prefills.max(1) as u64
    }
}

/// What becomes of a request here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its first token is there.
    First(u32),
    /// Its last one.
    Ended(u32, Service),
}

impl Running {
    fn is_prefilling(&self) -> bool {
        self.computed < self.arrival.prompt_tokens
    }

    fn left(&self) -> u32 {
        self.arrival.prompt_tokens - self.computed
    }
}

impl SimulatedBox {
    /// `sessions`: how many the trace has.
    pub(super) fn new(room: BoxRoom, speed: &BoxSpeed, sessions: u32) -> Self {
        let times = PassTimes::new(speed, room.slots, room.step_rows_max);
        let mut simulated = Self {
            times,
            draft_gain: speed.draft_gain,
            rates: Rates::new(room.step_ms_max),
            saturation: Rc::new(Saturation::new(room.slots)),
            predictor: Predictor::default(),
            sessions: Sessions::new(sessions, room.kv_tokens),
            arriving: Vec::new(),
            waiting: BTreeMap::new(),
            waiting_tokens: 0,
            running: Vec::with_capacity(room.slots),
            stride: None,
            pace: PaceMeter::default(),
            prefills: Vec::with_capacity(room.slots),
            room,
        };
        simulated.warm_up();
        simulated
    }

    /// What an engine knows of itself after its first tokens.
    fn warm_up(&mut self) {
        const WARM_UP_ROWS: usize = 16;
        let rows = WARM_UP_ROWS.min(self.room.step_rows_max - 1);
        for (decodes, prefills) in [(0, rows), (1, 0)] {
            let rows = StepRows { decodes, drafts: 0, prefills };
            self.rates.record(rows, Duration::from_nanos(self.times.ns(decodes, prefills)));
        }
        self.publish();
    }

    /// The state that the box publishes.
    pub(super) fn saturation(&self) -> &Rc<Saturation> {
        &self.saturation
    }

    /// None: it had nothing to do.
    pub(super) fn pace(&self) -> Option<Pace> {
        self.pace.pace()
    }

    /// Sequences that wait for a slot.
    pub(super) fn queue_depth(&self) -> usize {
        self.waiting.len() + self.arriving.len()
    }

    /// The time to first token of a request that came now, as the engine would predict it.
    pub(super) fn predicted(&self, arrival: &Arrival) -> Duration {
        let ms = self.predictor.ms(self.work_ms(arrival));
        Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default()
    }

    fn work_ms(&self, arrival: &Arrival) -> f64 {
        let cached = self.sessions.found(arrival.session, arrival.cached_tokens);
        let own = self.saturation.own_work_ms((arrival.prompt_tokens - cached) as usize);
        self.saturation.work_ahead_ms() + own
    }

    /// When the next pass, or row of equal passes, is over; None: nothing runs.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.stride.map(|stride| stride.began_ns + stride.passes * stride.pass_ns)
    }

    /// Lets a request in, or not: the line is full.
    pub(super) fn offer(&mut self, request: u32, arrival: &Arrival, now_ns: u64) -> bool {
        let inside = self.running.len() + self.queue_depth();
        if inside >= self.room.slots + self.room.queue_max {
            return false;
        }
        let rank = Rank::new(SequenceId(u64::from(request)), arrival.priority);
        let cached = self.sessions.found(arrival.session, arrival.cached_tokens);
        let work_ms = self.work_ms(arrival);
        let waiting = Waiting { request, arrival: *arrival, rank, cached, work_ms };
        self.saturation.arriving(1, waiting.to_compute());
        self.arriving.push(waiting);
        match &mut self.stride {
            None => self.begin(now_ns),
            // The engine looks at what arrived between two passes.
            Some(stride) => {
                let begun = now_ns.saturating_sub(stride.began_ns) / stride.pass_ns + 1;
                stride.passes = stride.passes.min(begun);
            }
        }
        true
    }

    /// Tells the averages of the passes that are over, without ending the stride: what the box
    /// publishes is then as it would be now.
    pub(super) fn catch_up(&mut self, now_ns: u64) {
        let Some(stride) = &mut self.stride else { return };
        let over = now_ns.saturating_sub(stride.began_ns) / stride.pass_ns;
        let over = over.min(stride.passes.saturating_sub(1));
        if over > stride.recorded && stride.recorded < RECORDED_MAX {
            let stride = *stride;
            self.record(stride, over);
            self.saturation.publish_rates(&self.rates);
        }
    }

    /// Ends the passes that are over at `now_ns`, which is [`SimulatedBox::next_ns`], and begins
    /// the next.
    pub(super) fn advance(&mut self, now_ns: u64, progress: &mut Vec<Progress>) {
        let stride = self.stride.take().expect("something runs");
        self.pace.look(&self.saturation, (stride.passes * stride.pass_ns) as f64);
        self.record(stride, stride.passes);
        let mut index = 0;
        while index < self.running.len() {
            match self.advance_one(index, &stride, now_ns, progress) {
                true => self.end(index, progress),
                false => index += 1,
            }
        }
        self.begin(now_ns);
    }

    /// Whether it is over.
    fn advance_one(
        &mut self,
        index: usize,
        stride: &Stride,
        now_ns: u64,
        progress: &mut Vec<Progress>,
    ) -> bool {
        let running = &mut self.running[index];
        if !running.is_prefilling() {
            running.passes_left -= stride.passes;
            running.service_ns.decode_ns += stride.passes * stride.decode_share_ns();
            return running.passes_left == 0;
        }
        running.service_ns.prefill_ns += u64::from(running.rows) * stride.row_share_ns();
        running.computed += std::mem::take(&mut running.rows);
        if running.is_prefilling() {
            return false;
        }
        progress.push(Progress::First(running.request));
        let took_ms = (now_ns - running.arrival.at_ns) as f64 / 1e6;
        self.predictor.observe(running.work_ms, took_ms);
        let arrival = running.arrival;
        self.sessions.keep(arrival.session, arrival.prompt_tokens);
        let more = running.arrival.output_tokens - 1;
        running.passes_left = (f64::from(more) / self.draft_gain).ceil() as u64;
        running.passes_left == 0
    }

    fn end(&mut self, index: usize, progress: &mut Vec<Progress>) {
        let Running { request, arrival, service_ns, .. } = self.running.swap_remove(index);
        // The last token of an answer is never computed.
        let text = arrival.prompt_tokens + arrival.output_tokens - 1;
        self.sessions.keep(arrival.session, text);
        self.rates.record_sequence(arrival.output_tokens as usize);
        progress.push(Progress::Ended(request, service_ns));
    }

    fn record(&mut self, stride: Stride, over: u64) {
        let took = Duration::from_nanos(stride.pass_ns);
        let generated = (stride.rows.decodes as f64 * self.draft_gain).round() as usize;
        for _ in stride.recorded.min(RECORDED_MAX)..over.min(RECORDED_MAX) {
            self.rates.record(stride.rows, took);
            self.rates.record_tokens(stride.rows, generated);
        }
        if let Some(stride) = &mut self.stride {
            stride.recorded = over;
        }
    }

    /// Takes in what arrived and starts the next passes; none when nothing is left.
    fn begin(&mut self, now_ns: u64) {
        self.take_arrived();
        self.admit();
        let decodes = self.running.iter().filter(|running| !running.is_prefilling()).count();
        let prefills = self.add_prefills(decodes);
        let rows = StepRows { decodes, drafts: 0, prefills };
        self.publish();
        if self.running.is_empty() {
            assert!(self.waiting.is_empty(), "an idle box has nobody wait");
            return;
        }
        let left = self.running.iter().map(|running| running.passes_left).min().unwrap_or(1);
        let passes = if prefills > 0 { 1 } else { left };
        assert!(passes > 0 && decodes + prefills > 0, "a pass with work left does some");
        let pass_ns = self.times.ns(decodes, prefills);
        let decode_ns = if decodes == 0 { 0 } else { self.times.ns(decodes, 0) };
        let began_ns = now_ns;
        self.stride = Some(Stride { began_ns, pass_ns, passes, recorded: 0, rows, decode_ns });
    }

    fn take_arrived(&mut self) {
        for mut waiting in std::mem::take(&mut self.arriving) {
            self.saturation.arrived(1, waiting.to_compute());
            let arrival = &waiting.arrival;
            waiting.cached = self.sessions.found(arrival.session, arrival.cached_tokens);
            self.waiting_tokens += waiting.to_compute();
            self.waiting.insert(waiting.rank, waiting);
        }
    }

    /// Fills free slots from the line.
    fn admit(&mut self) {
        while self.running.len() < self.room.slots {
            let free = |waiting: &&Waiting| !self.follows(waiting);
            let Some(rank) = self.waiting.values().find(free).map(|waiting| waiting.rank) else {
                return;
            };
            let waiting = self.waiting.remove(&rank).expect("it was found there");
            self.waiting_tokens -= waiting.to_compute();
            let Waiting { request, arrival, rank, work_ms, .. } = waiting;
            let computed = self.sessions.found(arrival.session, arrival.cached_tokens);
            self.running.push(Running {
                request,
                arrival,
                rank,
                work_ms,
                computed,
                rows: 0,
                passes_left: 1,
                service_ns: Service::default(),
            });
        }
    }

    /// Whether another sequence is computing what this one's prompt begins with: taking it from
    /// the cache then is cheaper than doing it twice.
    fn follows(&self, waiting: &Waiting) -> bool {
        let session = waiting.arrival.session;
        let same = |running: &Running| running.arrival.session == session;
        session.is_some() && self.running.iter().any(|r| r.is_prefilling() && same(r))
    }

    /// Gives out the rows of the next pass; returns how many.
    fn add_prefills(&mut self, decodes: usize) -> usize {
        let mut prefills = std::mem::take(&mut self.prefills);
        let ahead = self.running.iter().enumerate().filter(|(_, running)| running.is_prefilling());
        let turn = |running: &Running| {
            running.rank.later_by(u64::from(running.left()) / TOKENS_PER_TURN as u64)
        };
        prefills.extend(ahead.map(|(index, running)| (turn(running), index)));
        prefills.sort_unstable();
        let room = self.room.step_rows_max - decodes;
        let company = self.company();
        let mut used = 0;
        for (_, index) in prefills.drain(..) {
            let running = &mut self.running[index];
            let span = company.span(running.arrival.priority);
            let budget = self.rates.prefill_rows(decodes, span).min(room).saturating_sub(used);
            running.rows = running.left().min(u32::try_from(budget).unwrap_or(u32::MAX));
            used += running.rows as usize;
        }
        self.prefills = prefills;
        used
    }

    /// Who is there.
    fn company(&self) -> Company {
        let running = self.running.iter().map(|running| &running.arrival);
        let waiting = self.waiting.values().map(|waiting| &waiting.arrival);
        let completes = |arrival: &Arrival| arrival.priority == Priority::Completion;
        Company {
            others: self.running.len() + self.waiting.len() > 1,
            completes: running.chain(waiting).any(completes),
        }
    }

    fn publish(&self) {
        let computing = self.running.iter().filter(|running| running.is_prefilling());
        let computing: usize = computing.map(|running| running.left() as usize).sum();
        self.saturation.publish_load(Load {
            seats: self.room.slots,
            running: self.running.len(),
            waiting: self.waiting.len(),
            prefill_tokens: self.waiting_tokens + computing,
            ..Load::default()
        });
        self.saturation.publish_rates(&self.rates);
    }
}

impl Waiting {
    fn to_compute(self) -> usize {
        (self.arrival.prompt_tokens - self.cached) as usize
    }
}
