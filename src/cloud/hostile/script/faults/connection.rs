//! Faults that TCP or TLS could have.

use super::super::Scene;
use super::super::upstream::Act;
use super::at_last;

pub(crate) fn fin(scene: &Scene<'_>) -> Vec<Act> {
    at_last(scene, Act::Close)
}

pub(crate) fn reset(scene: &Scene<'_>) -> Vec<Act> {
    at_last(scene, Act::Reset)
}

pub(crate) fn silence(scene: &Scene<'_>) -> Vec<Act> {
    at_last(scene, Act::Hang)
}

/// `handshake_failure`.
pub(crate) fn alert(_: &Scene<'_>) -> Vec<Act> {
    vec![Act::Send(vec![0x15, 3, 3, 0, 2, 2, 40]), Act::Close]
}

/// What is left of the honest answer, byte by byte.
pub(crate) fn drip(scene: &Scene<'_>) -> Vec<Act> {
    let mut left = Vec::new();
    for act in scene.after() {
        if let Act::Send(bytes) = act {
            left.extend(bytes);
        }
    }
    at_last(scene, Act::Drip(left, scene.pace.drip()))
}
