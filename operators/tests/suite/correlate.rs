//! `correlate` against a recomputation that knows nothing of frontiers: for every request in the order of event time,
//! look at every hello.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt16Array, UInt64Array};
use arrow::datatypes::{DataType, Field, SchemaRef, UInt8Type, UInt16Type, UInt64Type};
use engine::batch::{Batch, EdgeType, Time, stream_schema, time_array};
use engine::time::{Arrival, Watermark};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::replay::{Recording, collected, load, record, run, unique};

const MS: i64 = 1_000_000;
const START: i64 = 1_700_000_000_000 * MS;
const LATENESS_MS: i64 = 2_000;

/// A hello or a request: its time in ms from the start, its client, and by how many ms its arrival is delayed.
#[derive(Clone, Debug)]
struct Event {
    at: i64,
    client: u16,
    delay: i64,
}

/// A row of the result: the request's position, and its hello's position and number on the connection.
type Row = (u64, Option<(u64, u16)>);

fn schema(own: &str) -> SchemaRef {
    stream_schema([
        Field::new("src_ip", DataType::Utf8, false),
        Field::new("src_port", DataType::UInt16, false),
        Field::new(own, DataType::UInt64, false),
    ])
}

/// The events as a source would send them: in the order of arrival, cut into batches, late rows apart.
fn recording(own: &str, events: &[Event], rows_per_batch: usize) -> Recording {
    let mut arrivals: Vec<(usize, &Event)> = events.iter().enumerate().collect();
    arrivals.sort_by_key(|(seq, event)| (event.at + event.delay, *seq));
    let mut watermark = Watermark::new(Duration::from_millis(LATENESS_MS as u64), Duration::from_millis(100));
    let mut batches = Vec::new();
    for chunk in arrivals.chunks(rows_per_batch) {
        let time = watermark.time();
        let (late, on_time): (Vec<_>, Vec<_>) =
            chunk.iter().partition(|(_, event)| watermark.observe(START + event.at * MS) == Arrival::Late);
        for (rows, late) in [(on_time, false), (late, true)] {
            if !rows.is_empty() {
                batches.push((time, Batch { late, ..Batch::new(batch(own, &rows)) }));
            }
        }
    }
    Recording { ty: EdgeType::stream(schema(own)), batches, live: false }
}

fn batch(own: &str, rows: &[(usize, &Event)]) -> RecordBatch {
    let seqs = || rows.iter().map(|(seq, _)| *seq as u64);
    let columns: Vec<ArrayRef> = vec![
        time_array(rows.iter().map(|(_, e)| START + e.at * MS).collect()),
        Arc::new(UInt64Array::from_iter_values(seqs())),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, e)| format!("2001:db8::{}", e.client / 4)))),
        Arc::new(UInt16Array::from_iter_values(rows.iter().map(|(_, e)| e.client % 4))),
        Arc::new(UInt64Array::from_iter_values(seqs())),
    ];
    RecordBatch::try_new(schema(own), columns).expect("valid")
}

fn expected(hellos: &[Event], requests: &[Event], window: i64, ttl: i64, tolerance: i64) -> Vec<Row> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| (requests[i].at, i));
    let mut last: Vec<Option<i64>> = vec![None; hellos.len()];
    let mut count = vec![0u16; hellos.len()];
    let mut rows = Vec::new();
    for i in order {
        let request = &requests[i];
        let alive = |h: &usize| {
            let hello = &hellos[*h];
            hello.client == request.client
                && (hello.at + window >= request.at || last[*h].is_some_and(|l| l + ttl >= request.at))
        };
        let before = (0..hellos.len()).filter(alive).filter(|&h| hellos[h].at <= request.at);
        let after = (0..hellos.len())
            .filter(alive)
            .filter(|&h| hellos[h].at > request.at && hellos[h].at <= request.at + tolerance);
        let found = before.max_by_key(|&h| (hellos[h].at, h)).or_else(|| after.min_by_key(|&h| (hellos[h].at, h)));
        if let Some(h) = found {
            last[h] = Some(last[h].unwrap_or(i64::MIN).max(request.at));
            count[h] += 1;
        }
        rows.push((i as u64, found.map(|h| (h as u64, count[h]))));
    }
    rows.sort_unstable();
    rows
}

/// Runs the join and reads its rows; `extra` is further options.
fn correlated(hellos: &[Event], requests: &[Event], cut: usize, workers: usize, extra: &str) -> (Vec<Row>, Vec<u64>) {
    let (left, right, out) = (unique(), unique(), unique());
    record(&left, recording("hello", hellos, cut));
    record(&right, recording("request", requests, cut));
    let dir = tempfile::tempdir().expect("a folder");
    let yaml = format!(
        "name: t\nnodes:\n  - {{ id: h, kind: test.replay, name: {left} }}\n  - {{ id: r, kind: test.replay, name: {right} }}\n  \
         - {{ id: c, kind: correlate, from: {{ hello: h, request: r }}, window: 10s, keepalive_ttl: 30s{extra} }}\n  \
         - {{ id: o, kind: test.collect, from: c, name: {out} }}\n"
    );
    let plan = load(&dir.path().join("p.yaml"), &yaml).expect("a valid pipeline");
    run(plan, workers);
    let (mut rows, mut alone) = (Vec::new(), Vec::new());
    for batch in collected(&out) {
        let column = |name: &str| batch.rows.column_by_name(name).expect("the column").clone();
        let (request, hello) = (column("request"), column("hello"));
        let (request, hello) = (request.as_primitive::<UInt64Type>(), hello.as_primitive::<UInt64Type>());
        let (flag, keepalives) = (column("correlated"), column("keepalives"));
        let (flag, keepalives) = (flag.as_primitive::<UInt8Type>(), keepalives.as_primitive::<UInt16Type>());
        let side = column("orphan_side");
        for row in 0..batch.rows.num_rows() {
            match side.as_string::<i32>().value(row) {
                "B" => alone.push(hello.value(row)),
                _ => rows.push((
                    request.value(row),
                    (flag.value(row) == 1).then(|| (hello.value(row), keepalives.value(row))),
                )),
            }
        }
    }
    rows.sort_unstable();
    alone.sort_unstable();
    (rows, alone)
}

fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let event = (0..120_000i64, 0..12u16, 0..LATENESS_MS).prop_map(|(at, client, delay)| Event { at, client, delay });
    // Coarse times make ties, equal keys and edges of the window likely.
    prop::collection::vec((event, prop::bool::ANY), 0..most).prop_map(|events| {
        let coarse = |(e, coarse): (Event, bool)| if coarse { Event { at: e.at / 5_000 * 5_000, ..e } } else { e };
        events.into_iter().map(coarse).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(2), ..ProptestConfig::default() })]

    #[test]
    fn the_join_equals_a_recomputation(
        hellos in events(60),
        requests in events(200),
        cut in prop::sample::select(vec![1usize, 3, 17, 8192]),
        workers in prop::sample::select(vec![1usize, 2, 4]),
    ) {
        let (rows, alone) = correlated(&hellos, &requests, cut, workers, ", orphans: { emit_after: 500ms }");
        prop_assert_eq!(&rows, &expected(&hellos, &requests, 10_000, 30_000, 500));
        prop_assert!(alone.is_empty());
    }

    #[test]
    fn hellos_that_nobody_matched_leave_when_asked_for(hellos in events(60), requests in events(60), cut in 1usize..40) {
        let (rows, alone) = correlated(&hellos, &requests, cut, 2, ", orphans: { hello: true }");
        let matched: Vec<u64> = rows.iter().filter_map(|(_, hello)| Some(hello.as_ref()?.0)).collect();
        let unmatched: Vec<u64> = (0..hellos.len() as u64).filter(|h| !matched.contains(h)).collect();
        prop_assert_eq!(alone, unmatched);
        prop_assert_eq!(rows, expected(&hellos, &requests, 10_000, 30_000, 500));
    }
}

#[test]
fn late_rows_leave_at_their_own_port_and_do_not_match() {
    let event = |at, delay| Event { at, client: 1, delay };
    let (left, right, out) = (unique(), unique(), unique());
    // The second hello arrives ten seconds after its time.
    record(&left, recording("hello", &[event(20_000, 0), event(11_000, 10_000)], 1));
    record(&right, recording("request", &[event(12_000, 0)], 1));
    let dir = tempfile::tempdir().expect("a folder");
    let yaml = format!(
        "name: t\nnodes:\n  - {{ id: h, kind: test.replay, name: {left} }}\n  - {{ id: r, kind: test.replay, name: {right} }}\n  \
         - {{ id: c, kind: correlate, from: {{ hello: h, request: r }} }}\n  - {{ id: o, kind: test.collect, from: c.late, name: {out} }}\n"
    );
    let plan = load(&dir.path().join("p.yaml"), &yaml).expect("a valid pipeline");
    let shared = run(plan, 2);
    let late = collected(&out);
    assert_eq!(late.iter().map(|b| b.rows.num_rows()).sum::<usize>(), 1);
    assert!(late.iter().all(|b| b.late));
    let node = shared.metrics.node("c", "correlate");
    let counters: std::collections::BTreeMap<_, _> = node.named().into_iter().collect();
    assert_eq!((counters["correlated"], counters["orphan_requests"]), (0, 1));
    assert_eq!(node.late.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_full_state_evicts_hellos_and_decides_requests_early_but_loses_nothing() {
    let hellos: Vec<Event> = (0..500).map(|i| Event { at: i, client: i as u16, delay: 0 }).collect();
    let requests: Vec<Event> = (0..500).map(|i| Event { at: 1_000 + i, client: i as u16, delay: 0 }).collect();
    let (rows, _) = correlated(&hellos, &requests, 50, 1, ", max_hellos: 100, max_requests: 20");
    assert_eq!(rows.len(), 500, "every request leaves once");
    let matched = rows.iter().filter(|(_, hello)| hello.is_some()).count();
    assert!(matched <= 500 && rows.iter().all(|(r, hello)| hello.is_none_or(|(h, _)| h == *r)), "{matched}");
}

/// More rows in one second than a source may have under way, in a pipeline that holds time back for ten: the sources
/// must not wait for what only they can bring about.
#[test]
fn a_dense_second_does_not_stall_the_sources() {
    const ROWS: usize = 150_000;
    let dir = tempfile::tempdir().expect("a folder");
    let line = |i: usize| {
        let ns = START + (i as i64) * 1_000_000_000 / ROWS as i64;
        format!("{{\"timestamp\":{ns},\"src_ip\":\"192.0.2.{}\",\"src_port\":{}}}\n", i % 200, i % 50_000)
    };
    for name in ["hellos.jsonl", "requests.jsonl"] {
        std::fs::write(dir.path().join(name), (0..ROWS).map(line).collect::<String>()).expect("written");
    }
    for workers in [1, 2] {
        let yaml = "name: t\nnodes:\n  - { id: h, kind: source.file, path: hellos.jsonl, format: ja4sentinel }\n  \
                    - { id: r, kind: source.file, path: requests.jsonl, format: reqin_log }\n  \
                    - { id: c, kind: correlate, from: { hello: h, request: r }, orphans: { hello: true } }\n";
        let plan = load(&dir.path().join("p.yaml"), yaml).expect("a valid pipeline");
        let shared = run(plan, workers);
        let rows = shared.metrics.node("c", "correlate").rows_out.load(std::sync::atomic::Ordering::Relaxed);
        assert!(rows >= ROWS as u64, "{rows}");
    }
}

#[test]
fn wrong_inputs_are_refused_at_their_place() {
    let (left, right) = (unique(), unique());
    record(
        &left,
        Recording {
            ty: EdgeType::stream(stream_schema([Field::new("src_ip", DataType::Int64, false)])),
            batches: Vec::<(Time, Batch)>::new(),
            live: false,
        },
    );
    record(&right, recording("request", &[], 1));
    let dir = tempfile::tempdir().expect("a folder");
    let yaml = format!(
        "name: t\nnodes:\n  - {{ id: h, kind: test.replay, name: {left} }}\n  - {{ id: r, kind: test.replay, name: {right} }}\n  \
         - {{ id: c, kind: correlate, from: {{ hello: h, request: r }}, windw: 1s }}\n"
    );
    let shown = load(&dir.path().join("p.yaml"), &yaml).err().expect("refused");
    assert!(shown.contains("unknown option `windw`") && shown.contains("did you mean `window`?"), "{shown}");
    let shown = load(&dir.path().join("p.yaml"), &yaml.replace(", windw: 1s", "")).err().expect("refused");
    assert!(shown.contains("the column `src_ip` must be Utf8, but is Int64"), "{shown}");
    assert!(shown.contains("no column `src_port`"), "{shown}");
}
