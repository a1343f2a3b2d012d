//! A live run, and the same pipeline over its spool.

use std::path::Path;

use arrow::util::display::array_value_to_string;
use engine::plan::Plan;
use engine::replay::{Of, Replay};
use engine::run::execute_with;
use engine::shared::Shared;

use super::*;
use crate::replay::run_with;

/// The rows that stay, as text, sorted.
fn settled(name: &str) -> Vec<String> {
    let text = |batch: &Batch, row: usize| {
        let values = batch.rows.columns().iter().map(|column| array_value_to_string(column, row).expect("a value"));
        values.collect::<Vec<_>>().join("|")
    };
    let batches = collected(name);
    let stay = batches.iter().filter(|batch| batch.settled && batch.diff > 0);
    let mut rows: Vec<String> =
        stay.flat_map(|batch| (0..batch.rows.num_rows()).map(|row| text(batch, row)).collect::<Vec<_>>()).collect();
    rows.sort_unstable();
    rows
}

/// Runs it live to its end, but as if it had been told to stop then: what a next run could need is kept.
fn run_live(plan: Plan, workers: usize) {
    let shared = Arc::new(Shared::new(&plan));
    run_with(plan, workers, &shared, move |shared, dataflows| {
        if dataflows.from(0).iter().flatten().all(|dataflow| dataflow.has_ended(workers)) {
            shared.stop();
        }
    });
    assert_eq!(shared.failure(), None);
}

fn replay(
    plan: Plan,
    spool: Option<&Path>,
    workers: usize,
    time: Option<std::ops::Range<i64>>,
) -> BTreeMap<String, u64> {
    let plan = Arc::new(plan);
    let shared = Arc::new(Shared::new(&plan));
    let replay = Replay::prepare(&plan, &shared, &Of { spool, time, ..Of::default() }).expect("there is a spool");
    let (options, missed) = replay.start(workers);
    execute_with(plan, &shared, options).expect("ends well");
    missed.records().into_iter().map(|(log, records)| (log.to_owned(), records)).collect()
}

#[test]
fn replayed_rows_equal_those_of_the_live_run_for_any_number_of_workers() {
    let event =
        |i: i64, at: i64| Event { at, client: (i * 7 % 23) as u16, delay: i * 131 % LATENESS_MS, ..Event::default() };
    let hellos: Vec<Event> = (0..200).map(|i| event(i, i * 400)).collect();
    let mut requests: Vec<Event> = (0..900).map(|i| event(i, i * 90 + 13)).collect();
    requests.push(Event { delay: 20_000, ..event(5, 30_000) });
    let (left, right, rows, late, windows) = (unique(), unique(), unique(), unique(), unique());
    record(&left, Recording { live: true, ..recording("hello", &hellos, 17) });
    record(&right, Recording { live: true, ..recording("request", &requests, 17) });
    let dir = tempfile::tempdir().expect("a folder");
    let yaml = format!(
        "name: t\nnodes:\n  - {{ id: h, kind: test.replay, name: {left} }}\n  - {{ id: r, kind: test.replay, name: {right} }}\n  \
         - {{ id: c, kind: correlate, from: {{ hello: h, request: r }}, window: 3s, keepalive_ttl: 2s, max_age: 10s }}\n  \
         - {{ id: o, kind: test.collect, from: c, name: {rows} }}\n  - {{ id: l, kind: test.collect, from: c.late, name: {late} }}\n  \
         - {{ id: f, kind: aggregate, from: c, by: [src_ip], window: 5s, features: [ {{ name: hits, expr: count(*) }},\n      \
             {{ name: known, expr: count(*) filter (where correlated = 1) }} ] }}\n  \
         - {{ id: w, kind: test.collect, from: f, name: {windows} }}\n"
    );
    let plan = || load(&dir.path().join("p.yaml"), &yaml).expect("a valid pipeline");
    run_live(plan(), 2);
    let [live_rows, live_late, live_windows] = [&rows, &late, &windows].map(|name| settled(name));
    assert_eq!((live_rows.len(), live_late.len()), (900, 1));
    assert!(live_windows.len() > 100);
    for workers in [1, 2, 4] {
        assert_eq!(replay(plan(), None, workers, None), BTreeMap::new(), "nothing is missed");
        assert_eq!(settled(&rows), live_rows, "{workers} workers");
        assert_eq!(settled(&late), live_late, "{workers} workers");
        assert_eq!(settled(&windows), live_windows, "{workers} workers");
    }
    // A part of the time gives the rows of that time as they were, though what they depend on is before it.
    let time = START + 40_000 * MS..START + 60_000 * MS;
    replay(plan(), Some(&dir.path().join("data/spool")), 2, Some(time));
    let (some_rows, some_windows) = (settled(&rows), settled(&windows));
    assert_eq!(some_rows.len(), 222);
    assert!(some_rows.iter().all(|row| live_rows.contains(row)));
    assert!(!some_windows.is_empty() && some_windows.iter().all(|row| live_windows.contains(row)));
}
