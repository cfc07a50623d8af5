//! Faults of AWS's binary frames.

use super::super::Scene;
use super::super::frames;
use super::super::upstream::Act;
use super::super::wires::chunk;
use super::{at_last, within};

/// A frame with one byte changed.
fn damaged(scene: &Scene<'_>, at: impl Fn(usize) -> usize) -> Vec<Act> {
    let mut frame = scene.wire.text(0, "x");
    let at = at(frame.len());
    frame[at] ^= 1;
    within(scene, &frame)
}

pub(crate) fn of_frame(scene: &Scene<'_>) -> Vec<Act> {
    damaged(scene, |length| length - 6)
}

pub(crate) fn of_prelude(scene: &Scene<'_>) -> Vec<Act> {
    damaged(scene, |_| 9)
}

pub(crate) fn cut_prelude(scene: &Scene<'_>) -> Vec<Act> {
    let mut acts = at_last(scene, Act::Send(chunk(&scene.wire.text(0, "x")[..6])));
    acts.push(Act::Close);
    acts
}

/// A good prelude of a frame that nobody may send.
pub(crate) fn prelude(scene: &Scene<'_>, length: u32, headers: u32) -> Vec<Act> {
    within(scene, &frames::prelude(length, headers))
}

/// A good frame with these headers.
pub(crate) fn with(scene: &Scene<'_>, headers: &[(&str, &str)]) -> Vec<Act> {
    within(scene, &frames::frame(headers, b"{\"message\": \"no\"}"))
}

pub(crate) fn unknown_events(scene: &Scene<'_>) -> Vec<Act> {
    at_last(scene, Act::Repeat(chunk(&frames::event("ping", b"{}")), scene.pace.drip()))
}
