//! Plans as running dataflows.

use std::sync::Arc;
use std::time::Duration;

use engine::graph::{dot, mermaid};
use engine::run::Loader;
use engine::run::{Options, RunError, Summary, execute, execute_with};
use engine::shared::{FailureClass, Shared};

use crate::{kinds, plan, shows};

/// Runs a pipeline; returns what the run shared.
fn run(text: &str, workers: usize) -> (Result<(), RunError>, Summary, Arc<Shared>) {
    let plan = plan(text).unwrap_or_else(|shown| panic!("{shown}"));
    let shared = Arc::new(Shared::new(&plan));
    let plan = Arc::new(plan);
    let outcome = execute(Arc::clone(&plan), workers, &shared);
    let summary = Summary::new(&plan, &shared, Duration::from_secs(1));
    (outcome, summary, shared)
}

fn pipeline(source: &str, sink: &str) -> String {
    format!(
        "name: t\nnodes:\n  - {{ id: a, kind: test.numbers, {source} }}\n  - {{ id: b, kind: test.numbers, rows: 5 }}\n  \
         - {{ id: k, kind: test.keep, from: a, where: n % 3 = 0 }}\n  - {{ id: both, kind: test.both, from: {{ left: k, right: b }} }}\n  \
         - {{ id: s, kind: test.collect, from: both, {sink} }}\nserve: {{ tables: {{ kept: k }} }}\n"
    )
}

#[test]
fn the_same_rows_for_any_number_of_workers() {
    let expected: Vec<i64> = {
        let mut all: Vec<i64> = (0..1000).filter(|n| n % 3 == 0).chain(0..5).collect();
        all.sort_unstable();
        all
    };
    for workers in [1, 2, 4] {
        let into = format!("workers{workers}");
        let (outcome, summary, shared) = run(&pipeline("rows: 1000", &format!("into: {into}")), workers);
        assert_eq!(outcome, Ok(()));
        assert_eq!(kinds::collected(&into), expected, "{workers} workers");
        assert_eq!(summary.source_rows(), 1005);
        let node = |id: &str| summary.nodes.iter().find(|n| n.id == id).unwrap();
        assert_eq!((node("k").rows_in, node("k").rows_out), (1000, 334));
        assert_eq!((node("s").rows_in, node("s").named.as_slice()), (339, [("collected", 339)].as_slice()));
        let kept = shared.catalog.table("kept").unwrap().snapshot();
        assert_eq!(kept.hot.iter().map(|rows| rows.num_rows()).sum::<usize>(), 334);
    }
}

#[test]
fn a_source_that_breaks_ends_the_run_after_what_it_has_read() {
    let (outcome, _, _) = run(&pipeline("rows: 100, breaks_at: 50", "into: breaks"), 2);
    let Err(RunError::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.class, FailureClass::Node);
    assert!(failure.message.starts_with("a: the numbers"), "{failure:?}");
    assert!(kinds::collected("breaks").contains(&48));
}

#[test]
fn a_missing_right_is_told_apart() {
    let (outcome, _, _) = run(&pipeline("rows: 100, breaks: for_want_of_rights", "into: rights"), 2);
    let Err(RunError::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.class, FailureClass::Permission);
}

#[test]
fn a_failed_sink_ends_live_sources() {
    let (outcome, _, _) = run(&pipeline("rows: 100, live: true", "into: fails, fails_at: 42"), 2);
    let Err(RunError::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.message, "s: refuses 42");
}

#[test]
fn a_stopped_live_run_ends_well_and_loses_nothing() {
    for workers in [1, 2] {
        let into = format!("stops{workers}");
        let (outcome, _, _) = run(&pipeline("rows: 100, live: true", &format!("into: {into}, stops_at: 3")), workers);
        assert_eq!(outcome, Ok(()));
        assert_eq!(kinds::collected(&into).len(), 34 + 5);
    }
}

#[test]
fn a_panic_ends_all_workers_with_its_message() {
    for workers in [1, 2, 4] {
        let (outcome, _, _) = run(&pipeline("rows: 100, live: true", "into: panics, panics_at: 42"), workers);
        let Err(RunError::Panicked { message, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(message, "cannot stand 42");
    }
}

#[test]
fn a_panic_of_the_thread_that_directs_ends_the_run() {
    let plan = plan(&pipeline("rows: 100, live: true", "into: undirected")).unwrap_or_else(|shown| panic!("{shown}"));
    let shared = Arc::new(Shared::new(&plan));
    shared.reloads.request();
    let loader: Loader = Box::new(|| panic!("a file that no parser stands"));
    let options = Options { workers: 2, loader: Some(loader), ..Options::default() };
    let outcome = execute_with(Arc::new(plan), &shared, options);
    let Err(RunError::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    shows(&failure.message, &["directs the run", "a file that no parser stands"]);
}

#[test]
fn an_aborted_run_ends_at_once() {
    let plan = plan(&pipeline("rows: 100, live: true", "into: aborted")).unwrap_or_else(|shown| panic!("{shown}"));
    let shared = Arc::new(Shared::new(&plan));
    shared.abort();
    assert_eq!(execute(Arc::new(plan), 2, &shared), Ok(()));
}

#[test]
fn a_slow_branch_holds_a_fast_source_back_but_never_for_good() {
    // Far more rows than a source may have in flight, from two sources that end at different times.
    let text = pipeline("rows: 150000, batch: 8192", "into: many").replace("rows: 5 }", "rows: 100000, batch: 100 }");
    let (outcome, summary, _) = run(&text, 2);
    assert_eq!(outcome, Ok(()));
    assert_eq!(summary.source_rows(), 250_000);
    assert_eq!(kinds::collected("many").len(), 150_000);
}

#[test]
fn the_graph_is_drawn_with_ports_and_tables() {
    let plan = plan(&pipeline("rows: 1", "into: drawn").replace("right: b", "right: b.late"))
        .unwrap_or_else(|s| panic!("{s}"));
    let drawn = mermaid(&plan);
    for line in [
        "flowchart LR",
        "    n0([\"a<br/>test.numbers\"])",
        "    n2[\"k<br/>test.keep\"]",
        "    t0[(\"kept\")]",
        "    n0 --> n2",
        "    n2 -- \"left\" --> n3",
        "    n1 -- \"late → right\" --> n3",
        "    n2 --> t0",
    ] {
        assert!(drawn.lines().any(|l| l == line), "{line}\n{drawn}");
    }
    let drawn = dot(&plan);
    assert!(drawn.contains("n1 -> n3 [label=\"late → right\"];") && drawn.ends_with("}\n"), "{drawn}");
}
