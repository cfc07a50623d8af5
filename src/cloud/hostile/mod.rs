//! Hostile upstreams: every cell of the table, through the real client and the real readers, over
//! pipes and in virtual time.

mod cell;
mod docs;
mod script;

use std::fmt::Write;

use self::cell::{PACE, Rows, run};
use self::script::Scene;
use self::script::list::ROWS;
use self::script::wires::{WIRES, Wire};

/// The cells of a wire.
fn scenes(wire: &'static Wire) -> impl Iterator<Item = Scene<'static>> {
    ROWS.iter().flat_map(move |row| {
        let phases = row.when.cells().into_iter().map(|(phase, _)| phase);
        let phases = phases.filter(move |phase| row.exists(*phase, wire));
        phases.map(move |phase| Scene { row, phase, wire, pace: PACE })
    })
}

/// How many cells there are, and what is wrong with which.
fn of_wire(wire: &'static Wire, rows: &Rows) -> (usize, String) {
    let (mut cells, mut wrong) = (0, String::new());
    for scene in scenes(wire) {
        cells += 1;
        if let Err(said) = run(&scene, rows) {
            writeln!(wrong, "{}, {:?}, {}: {said}", scene.row.name, scene.phase, wire.name)
                .expect("memory");
        }
    }
    (cells, wrong)
}

#[test]
fn every_cell_has_its_outcome() {
    let rows = Rows::load();
    let (mut cells, mut wrong) = (0, String::new());
    std::thread::scope(|threads| {
        // Rows are those of the features of this build.
        let wires = WIRES.iter().filter(|wire| wire.is_built());
        let running: Vec<_> = wires.map(|wire| threads.spawn(|| of_wire(wire, &rows))).collect();
        for wire in running {
            let (more, said) = wire.join().expect("no cell panics");
            cells += more;
            wrong += &said;
        }
    });
    assert!(wrong.is_empty(), "of {cells} cells:\n{wrong}");
    assert!(cells > 1000, "only {cells} cells");
}
