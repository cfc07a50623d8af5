//! `docs/hostile.md` is made of the table.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::script::list::ROWS;
use super::script::table::{Outcome, PHASES, Phase, Row, Wires};
use super::script::wires::WIRES;

const DOCS: &str = include_str!("../../../docs/hostile.md");

#[test]
fn the_docs_are_the_table() {
    let table = table();
    assert!(DOCS.ends_with(&table), "docs/hostile.md has to end with:\n{table}");
    let (faults, wires) = (ROWS.len(), WIRES.len());
    let cells: usize = ROWS.iter().map(cells).sum();
    let numbers = format!("{faults} faults on {wires} wires, {cells} cells");
    assert!(DOCS.contains(&numbers), "{numbers}");
}

#[test]
fn no_fault_is_named_twice_and_none_is_without_a_cell() {
    let names: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), ROWS.len());
    for row in ROWS {
        assert!(cells(row) > 0, "{}", row.name);
    }
}

/// Of all wires, built or not.
fn cells(row: &Row) -> usize {
    let phases = || row.when.cells().into_iter().map(|(phase, _)| phase);
    WIRES.iter().map(|wire| phases().filter(|phase| row.exists(*phase, wire)).count()).sum()
}

fn table() -> String {
    let mut text = String::from("| fault | wires |");
    PHASES.iter().for_each(|(_, name)| write!(text, " {name} |").expect("memory"));
    text += "\n|---|---|";
    text += &"---|".repeat(PHASES.len());
    for row in ROWS {
        write!(text, "\n| {} | {} |", row.name, name(row.wires)).expect("memory");
        let cells = row.when.cells();
        let told = |phase: Phase| cells.iter().find(|(at, _)| *at == phase);
        for (phase, _) in PHASES {
            let cell = told(phase).map(|(_, outcome)| said(*outcome)).unwrap_or_default();
            write!(text, " {cell} |").expect("memory");
        }
    }
    text + "\n"
}

fn said(outcome: Outcome) -> String {
    let code = |reason: &str| reason.trim_start_matches("cloud_").to_owned();
    match outcome {
        Outcome::Refused(reason) => code(reason),
        Outcome::Paused(reason, None) => format!("{}, no time told", code(reason)),
        Outcome::Paused(reason, Some(after)) => format!("{}, {after} ms", code(reason)),
        Outcome::Broken(reason) => format!("*{}*", code(reason)),
        Outcome::Finished => "finished".into(),
        Outcome::Filtered => "finished (filter)".into(),
    }
}

/// The wires by name, where they are few.
fn name(wires: Wires) -> String {
    let held: Vec<&str> =
        WIRES.iter().filter(|wire| wires.hold(wire)).map(|wire| wire.name).collect();
    match WIRES.len() - held.len() {
        0 => "all".into(),
        missing if missing < held.len() => {
            let others = WIRES.iter().filter(|wire| !wires.hold(wire)).map(|wire| wire.name);
            format!("all but {}", others.collect::<Vec<_>>().join(", "))
        }
        _ => held.join(", "),
    }
}
