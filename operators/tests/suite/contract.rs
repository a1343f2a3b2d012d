//! Every kind of the registry against what the engine promises of it: rows and watermarks decide what leaves, and neither
//! workers nor batches do; each row is accounted for; a replay is what the live run was. A kind without a case is a fault.

mod cases;
mod files;
mod node;
mod operator;
mod replays;
mod rows;
mod sinks;
mod sources;

use std::time::Duration;

use engine::contract::{Inputs, Kind, Registry};

use cases::{CASES, Case, WITHOUT};

const MS: i64 = 1_000_000;
/// 2026-11-23 00:00:03 UTC in ns: in the middle of a window.
const START: i64 = 1_795_392_003_000 * MS;
const LATENESS: Duration = Duration::from_secs(2);
const ROWS: usize = 450;
const WORKERS: [usize; 3] = [1, 2, 4];
/// Rows of a batch: all of them at once, some, one.
const CUTS: [usize; 3] = [usize::MAX, 7, 1];

/// The cases of some kinds.
fn cases(of: fn(&Kind) -> bool) -> impl Iterator<Item = &'static Case> {
    let registry = operators::registry();
    CASES.iter().filter(move |case| registry.find(case.kind).is_some_and(of))
}

fn is_source(kind: &Kind) -> bool {
    kind.inputs == Inputs::None
}

fn is_sink(kind: &Kind) -> bool {
    kind.outputs.is_empty()
}

fn is_operator(kind: &Kind) -> bool {
    !is_source(kind) && !is_sink(kind)
}

/// The kinds that have neither a case nor a reason for none.
fn uncovered(registry: &Registry) -> Vec<&'static str> {
    let known: Vec<&str> = CASES.iter().map(|case| case.kind).chain(WITHOUT.iter().map(|(kind, _)| *kind)).collect();
    registry.kinds().iter().map(|kind| kind.name).filter(|name| !known.contains(name)).collect()
}

#[test]
fn every_kind_has_a_case_or_a_reason_for_none() {
    let registry = operators::registry();
    assert_eq!(uncovered(&registry), [""; 0], "write a case in CASES for each of these kinds");
    for (kind, reason) in WITHOUT {
        assert!(registry.find(kind).is_some() && CASES.iter().all(|case| case.kind != *kind), "{kind}: {reason}");
    }
    assert!(CASES.iter().all(|case| registry.find(case.kind).is_some()), "a case of a kind that is gone");
    let mut kinds = registry.kinds().to_vec();
    kinds.push(Kind { name: "enrich.new", ..kinds[0] });
    assert_eq!(uncovered(&Registry::new(kinds)), ["enrich.new"], "the check finds a new kind");
}
