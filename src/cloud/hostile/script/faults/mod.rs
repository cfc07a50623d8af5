//! What the faults of the table do, by the part of an exchange that they spoil.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod errors;
pub(crate) mod frame;
pub(crate) mod head;

use super::Scene;
use super::upstream::Act;
use super::wires::chunk;

/// The honest answer so far, these bytes of its body, and the rest of it as if nothing were.
fn within(scene: &Scene<'_>, bytes: &[u8]) -> Vec<Act> {
    then(scene, Act::Send(chunk(bytes)))
}

/// The honest answer so far, this, and the rest as if nothing were.
fn then(scene: &Scene<'_>, act: Act) -> Vec<Act> {
    let mut acts = scene.before();
    acts.push(act);
    acts.extend(scene.after());
    acts
}

/// The honest answer so far, and this.
fn at_last(scene: &Scene<'_>, act: Act) -> Vec<Act> {
    let mut acts = scene.before();
    acts.push(act);
    acts
}
