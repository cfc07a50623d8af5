//! The first tokens: prove that the device works, and measure it.

use std::time::{Duration, Instant};

use models::sampler::Plan;
use models::step::{Device, DeviceError, DeviceLimits, Row, Rows, Sample, Segment, Step};

use super::draft::ROWS_MAX;
use super::rates::Rates;
use super::scheduler::StepRows;

/// Prompt of the first token: enough rows to see the speed of prefill, few enough for a large
/// model on a slow machine.
const WARM_UP_TOKENS: usize = 16;
/// Rows of the decode steps that are measured; what lies between is interpolated.
const MEASURED_ROWS: [usize; 5] = [1, 2, 4, 8, ROWS_MAX];
/// Measurements of each; the best one counts, because nothing makes a step faster than it is.
const MEASURED_TIMES: usize = 2;
/// No further measurement begins after so long: nobody waits seconds for them. What is missing
/// is learned at work.
const MEASURED_FOR: Duration = Duration::from_millis(200);

/// Reads a short prompt and generates one token after it, before any block is in use; then
/// measures what drafted rows cost, if that is wanted.
pub(super) fn warm_up(
    device: &mut dyn Device,
    rates: &mut Rates,
    measure_rows: bool,
) -> Result<(), DeviceError> {
    let limits = device.limits();
    let room = limits.context.min(limits.blocks * limits.block_tokens);
    let prompt = WARM_UP_TOKENS.min(room - 1).min(limits.rows_max).max(1);
    let blocks = (prompt + 1).div_ceil(limits.block_tokens) as u32;
    let ids: Vec<u32> = (0..prompt).map(|at| (at % limits.vocab) as u32).collect();
    let mut rows = Rows::default();
    let first = step(&ids, 0, blocks, 1);
    let mut read = pass(device, &mut rows, &first)?;
    // The first one finds nothing in its place, and would foretell seconds for a long prompt.
    if read < MEASURED_FOR / 2 {
        read = read.min(pass(device, &mut rows, &first)?);
    }
    rates.record(StepRows { prefills: prompt, ..StepRows::default() }, read);
    let Some(&Row::Token { id, .. }) = rows.rows.first() else {
        return Err(DeviceError("it generated no token".into()));
    };
    let decoded = pass(device, &mut rows, &step(&[id], prompt as u32, blocks, 1))?;
    rates.record(StepRows { decodes: 1, ..StepRows::default() }, decoded);
    if measure_rows && decoded < MEASURED_FOR / 2 {
        measure(device, rates, prompt, &limits)?;
    }
    Ok(())
}

/// Measures decode steps of one row and of more after a prompt.
fn measure(
    device: &mut dyn Device,
    rates: &mut Rates,
    prompt: usize,
    limits: &DeviceLimits,
) -> Result<(), DeviceError> {
    let room = limits.context.min(limits.blocks * limits.block_tokens) - prompt;
    let most = room.min(limits.rows_max).min(limits.samples_max);
    let mut answers = Rows::default();
    let started = Instant::now();
    for rows in MEASURED_ROWS.into_iter().filter(|&rows| rows <= most) {
        let ids: Vec<u32> = (0..rows).map(|at| (at % limits.vocab) as u32).collect();
        let blocks = (prompt + rows).div_ceil(limits.block_tokens) as u32;
        let step = step(&ids, prompt as u32, blocks, rows);
        let mut best = Duration::MAX;
        for _ in 0..MEASURED_TIMES {
            if started.elapsed() < MEASURED_FOR {
                best = best.min(pass(device, &mut answers, &step)?);
            }
        }
        if best < Duration::MAX {
            rates.costs_mut().set(rows, best.as_secs_f64() * 1e3);
        }
    }
    Ok(())
}

/// Runs a step and says how long it took.
fn pass(device: &mut dyn Device, rows: &mut Rows, step: &Step) -> Result<Duration, DeviceError> {
    let started = Instant::now();
    device.run(step, rows)?;
    Ok(started.elapsed())
}

/// These ids from this position on, the last `samples` of them sampled.
fn step(ids: &[u32], position: u32, blocks: u32, samples: usize) -> Step {
    let rows = ids.len() as u32;
    let sample = |row| Sample { row, plan: Plan::Greedy, logprob: false, stop_ids: 0..0 };
    Step {
        tokens: ids.to_vec(),
        positions: (position..position + rows).collect(),
        segments: vec![Segment { rows: 0..rows, blocks: 0..blocks }],
        blocks: (0..blocks).collect(),
        samples: (rows - samples as u32..rows).map(sample).collect(),
        ..Step::default()
    }
}
