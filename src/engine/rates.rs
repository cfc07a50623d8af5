//! How fast this machine is, measured from the steps it runs.

use std::time::Duration;

use super::draft::Costs;
use super::scheduler::{Span, StepRows};

/// Weight of the tokens of a step: with drafts they differ from step to step.
const TOKENS_WEIGHT: f64 = 0.05;
/// Weight of a new measurement: half of what is known dates from the last three full ones.
const WEIGHT: f64 = 0.2;
/// A chunk of fewer prefill rows than this says less about the speed of prefill and weighs less.
const FULL_ROWS: f64 = 32.0;
/// Prefill rows that a step with prefill in it may always have, so that the slowest machine
/// progresses. One block.
pub(super) const PREFILL_ROWS_MIN: usize = 16;
/// A long step, in ordinary ones: what arrives meanwhile waits for so many at most. On a machine
/// where an ordinary one has room for 16 rows of a model, each row costs a quarter more in it than
/// in one of 32 or more, and those cost all the same.
const LONG_STEPS: f64 = 3.0;
/// The part of the prompt rows of an ordinary step that a short one has.
const SHORT_PART: f64 = 0.25;
/// Generated tokens of a sequence, before one has ended. A few lines of code.
const SEQUENCE_TOKENS_FIRST: f64 = 32.0;

/// Moving averages of the engine's speed. Times are milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Rates {
    /// A step with prefill in it should take no longer.
    step_ms_max: f64,
    /// Of a row that a sequence has in each step, drafts not counted.
    decode_row_ms: Average,
    /// Tokens generated for each that would have been in the same time without drafts.
    draft_gain: Average,
    costs: Costs,
    /// Of prefill alone: what a step's budget is made of.
    prefill_row_ms: Average,
    sequence_tokens: Average,
}

impl Rates {
    pub(crate) fn new(step_ms_max: u32) -> Self {
        Self {
            step_ms_max: f64::from(step_ms_max),
            decode_row_ms: Average::default(),
            draft_gain: Average(Some(1.0)),
            costs: Costs::default(),
            prefill_row_ms: Average::default(),
            sequence_tokens: Average(Some(SEQUENCE_TOKENS_FIRST)),
        }
    }

    /// Takes in how long one step took.
    pub(crate) fn record(&mut self, rows: StepRows, took: Duration) {
        let took_ms = took.as_secs_f64() * 1e3;
        let (decodes, prefills) = (rows.decodes as f64, rows.prefills as f64);
        if rows.prefills == 0 {
            self.costs.record(rows.decodes + rows.drafts, took_ms);
            let alone_ms = took_ms * self.part_without_drafts(rows);
            self.decode_row_ms.update(alone_ms / decodes.max(1.0), WEIGHT);
            return;
        }
        let weight = WEIGHT * (prefills / FULL_ROWS).min(1.0);
        let decode_ms = decodes * self.decode_row_ms.get();
        let prefill_ms = prefills * self.prefill_row_ms.get();
        if decode_ms == 0.0 || prefill_ms == 0.0 {
            self.prefill_row_ms.update(took_ms / prefills, weight);
            return;
        }
        // Nobody sees which part of a mixed step took longer than expected, so each takes its
        // share of the blame. The mix changes from step to step and sorts them out in time, and
        // the sum, which the budget is about, is right at once.
        let expected_ms = decode_ms + prefill_ms;
        let error = took_ms / expected_ms;
        let decode = self.decode_row_ms.get() * error;
        let prefill = self.prefill_row_ms.get() * error;
        self.decode_row_ms.update(decode, WEIGHT * decode_ms / expected_ms);
        self.prefill_row_ms.update(prefill, weight * prefill_ms / expected_ms);
    }

    /// Takes in how many tokens one step came to.
    pub(crate) fn record_tokens(&mut self, rows: StepRows, generated: usize) {
        if rows.prefills == 0 && rows.decodes > 0 {
            let each = generated as f64 / rows.decodes as f64;
            self.draft_gain.update(each * self.part_without_drafts(rows), TOKENS_WEIGHT);
        }
    }

    /// What part of a step's time it takes without its drafts.
    fn part_without_drafts(&self, rows: StepRows) -> f64 {
        if rows.drafts == 0 {
            return 1.0;
        }
        self.costs.ms(rows.decodes) / self.costs.ms(rows.decodes + rows.drafts)
    }

    /// What a step of so many rows costs.
    pub(super) fn costs(&self) -> &Costs {
        &self.costs
    }

    pub(super) fn costs_mut(&mut self) -> &mut Costs {
        &mut self.costs
    }

    /// Takes in how many tokens a sequence generated until its end.
    pub(crate) fn record_sequence(&mut self, generated: usize) {
        self.sequence_tokens.update(generated as f64, WEIGHT);
    }

    /// How many prefill rows fit in a step of this span beside so many decodes.
    pub(crate) fn prefill_rows(&self, decodes: usize, span: Span) -> usize {
        let decode_ms = decodes as f64 * self.decode_row_ms.get();
        let left_ms = match span {
            Span::Long => LONG_STEPS * self.step_ms_max - decode_ms,
            Span::Step => self.step_ms_max - decode_ms,
            Span::Short => SHORT_PART * (self.step_ms_max - decode_ms),
        };
        let rows = left_ms / self.prefill_row_ms.get().max(f64::MIN_POSITIVE);
        // A cast from float saturates: no measurement yet means no bound but the device's.
        (rows as usize).max(PREFILL_ROWS_MIN)
    }

    /// Milliseconds that a prompt token in the queue takes beside so many decodes, which share
    /// each step with as many prefill rows as fit. (Measured whole steps by their prefill rows
    /// would say how long a full queue takes only while the steps are full.)
    pub(super) fn prefill_wait_ms(&self, decodes: usize) -> f64 {
        let beside_ms = decodes as f64 * self.decode_row_ms.get();
        self.prefill_row_ms.get() + beside_ms / self.prefill_rows(decodes, Span::Step) as f64
    }

    /// Milliseconds between two generated tokens of any sequences.
    pub(super) fn decode_token_ms(&self) -> f64 {
        self.decode_row_ms.get() / self.draft_gain.get().max(f64::MIN_POSITIVE)
    }

    pub(super) fn sequence_tokens(&self) -> f64 {
        self.sequence_tokens.get()
    }
}

/// An exponentially weighted average; the first value stands by itself.
#[derive(Clone, Copy, Debug, Default)]
struct Average(Option<f64>);

impl Average {
    fn get(self) -> f64 {
        self.0.unwrap_or(0.0)
    }

    fn update(&mut self, value: f64, weight: f64) {
        self.0 = Some(match self.0 {
            None => value,
            Some(old) => old + weight * (value - old),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(decodes: usize, prefills: usize) -> StepRows {
        StepRows { decodes, drafts: 0, prefills }
    }

    /// A machine on which a prefill row costs 0.2 ms, a lone decode 5 ms and one of eight 1 ms.
    fn took(rows: StepRows) -> Duration {
        let decode_ms = match rows.decodes {
            0 => 0.0,
            few @ 1..4 => 5.0 * few as f64,
            many => 1.0 * many as f64,
        };
        Duration::from_secs_f64((decode_ms + 0.2 * rows.prefills as f64) / 1e3)
    }

    #[test]
    fn steps_come_to_take_as_long_as_they_may() {
        let mut rates = Rates::new(50);
        for first in [rows(0, 16), rows(1, 0)] {
            rates.record(first, took(first));
        }
        assert_eq!(rates.prefill_rows(0, Span::Step), 250);
        assert_eq!(rates.prefill_rows(0, Span::Long), 750);
        assert_eq!(rates.prefill_rows(5, Span::Short), 31);
        let mut longest = Duration::ZERO;
        let mut last = Duration::ZERO;
        for step in 0..200 {
            let decodes = 6 + step % 3;
            let step = rows(decodes, rates.prefill_rows(decodes, Span::Step));
            last = took(step);
            longest = longest.max(last);
            rates.record(step, last);
        }
        assert!(last > Duration::from_millis(45), "{last:?} wastes the step");
        assert!(longest < Duration::from_millis(60), "{longest:?} is too long a step");
        let least = rates.prefill_rows(1000, Span::Step);
        assert_eq!(least, PREFILL_ROWS_MIN, "prefill always progresses");
    }
    #[test]
    fn a_token_is_measured_by_tokens_and_a_row_by_rows() {
        let mut rates = Rates::new(50);
        let alone = rows(2, 0);
        let drafted = StepRows { drafts: 6, ..alone };
        for _ in 0..400 {
            rates.record(alone, Duration::from_millis(20));
            rates.record_tokens(alone, 2);
        }
        assert!((rates.decode_token_ms() - 10.0).abs() < 0.1);
        for _ in 0..400 {
            rates.record(drafted, Duration::from_millis(25));
            rates.record_tokens(drafted, 5);
        }
        assert!((rates.decode_token_ms() - 5.0).abs() < 0.1, "{}", rates.decode_token_ms());
        // A prefill goes beside rows without drafts.
        rates.record(rows(0, 32), Duration::from_millis(32));
        let beside = rates.prefill_rows(2, Span::Step);
        assert!(beside <= 35, "{beside} rows beside two decodes of 10 ms");
    }
}
