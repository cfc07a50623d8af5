//! The first token: proves that the device works, and measures it.

use std::time::Instant;

use models::sampler::Plan;
use models::step::{Device, DeviceError, Row, Rows, Sample, Segment, Step};

use super::rates::Rates;
use super::scheduler::StepRows;

/// Prompt of the first token: enough rows to see the speed of prefill, few enough for a large
/// model on a slow machine.
const WARM_UP_TOKENS: usize = 16;

/// Reads a short prompt and generates one token after it, before any block is in use.
pub(super) fn warm_up(device: &mut dyn Device, rates: &mut Rates) -> Result<(), DeviceError> {
    let limits = device.limits();
    let room = limits.context.min(limits.blocks * limits.block_tokens);
    let prompt = WARM_UP_TOKENS.min(room - 1).min(limits.rows_max).max(1);
    let blocks = (prompt + 1).div_ceil(limits.block_tokens) as u32;
    let ids: Vec<u32> = (0..prompt).map(|at| (at % limits.vocab) as u32).collect();
    let mut rows = Rows::default();
    let started = Instant::now();
    let ticket = device.submit(&step(&ids, 0, blocks))?;
    device.collect(ticket, &mut rows)?;
    rates.record(StepRows { decodes: 0, prefills: prompt }, started.elapsed());
    let Some(&Row::Token { id, .. }) = rows.rows.first() else {
        return Err(DeviceError("it generated no token".into()));
    };
    let started = Instant::now();
    let ticket = device.submit(&step(&[id], prompt as u32, blocks))?;
    device.collect(ticket, &mut rows)?;
    rates.record(StepRows { decodes: 1, prefills: 0 }, started.elapsed());
    Ok(())
}

/// These ids from this position on, the last one sampled.
fn step(ids: &[u32], position: u32, blocks: u32) -> Step {
    let rows = ids.len() as u32;
    Step {
        tokens: ids.to_vec(),
        positions: (position..position + rows).collect(),
        segments: vec![Segment { rows: 0..rows, blocks: 0..blocks }],
        blocks: (0..blocks).collect(),
        samples: vec![Sample { row: rows - 1, plan: Plan::Greedy, logprob: false, stop_ids: 0..0 }],
        ..Step::default()
    }
}
