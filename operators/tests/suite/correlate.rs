//! `correlate` against a recomputation that knows nothing of frontiers (`oracle`).

mod oracle;
mod replayed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt16Array, UInt64Array};
use arrow::datatypes::{DataType, Field, SchemaRef, UInt8Type, UInt16Type, UInt64Type};
use engine::batch::{Batch, EdgeType, Time, stream_schema, time_array};
use engine::time::{Arrival, Watermark};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::replay::{Recording, collected, load, record, run, unique};
use oracle::{Event, Row, Rules, address};

const MS: i64 = 1_000_000;
const START: i64 = 1_700_000_000_000 * MS;
const LATENESS_MS: i64 = 2_000;

/// What a request's row and a hello's row have besides the ends of the connection.
fn schema(own: &str) -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    stream_schema([
        Field::new("src_ip", DataType::Utf8, false),
        Field::new("src_port", DataType::UInt16, false),
        text("dst_ip"),
        Field::new("dst_port", DataType::UInt16, true),
        text("sensor_id"),
        text(if own == "hello" { "ja4" } else { "http_version" }),
        Field::new(own, DataType::UInt64, false),
        // A hello's says nothing.
        Field::new("begin_time", engine::batch::time_type(), true),
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
    let kind = |e: &Event| match (own, e.udp) {
        ("hello", udp) => format!("{}13d1516h2_{}", if udp { 'q' } else { 't' }, e.program),
        (_, true) => "HTTP/3.0".to_owned(),
        (_, false) => "HTTP/1.1".to_owned(),
    };
    let text = |value: &dyn Fn(&Event) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, e)| value(e)).collect::<StringArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        time_array(rows.iter().map(|(_, e)| START + e.at * MS).collect()),
        Arc::new(UInt64Array::from_iter_values(seqs())),
        text(&|e| Some(address(e.client))),
        Arc::new(UInt16Array::from_iter_values(rows.iter().map(|(_, e)| e.client % 4))),
        text(&|e| Some(format!("198.51.100.{}", e.server))),
        Arc::new(rows.iter().map(|(_, e)| e.port).collect::<UInt16Array>()),
        text(&|e| e.sensor.map(|sensor| format!("sensor-{sensor}"))),
        text(&|e| Some(kind(e))),
        Arc::new(UInt64Array::from_iter_values(seqs())),
        time_array(rows.iter().map(|(_, e)| START + (e.at - e.took) * MS).collect()),
    ];
    RecordBatch::try_new(schema(own), columns).expect("valid")
}

/// What a run gave.
struct Outcome {
    rows: Vec<Row>,
    /// Hellos without a request, in order.
    alone: Vec<u64>,
    /// Hellos that a bound pushed out, in order.
    evicted: Vec<u64>,
    /// The requests in the order in which they left.
    left: Vec<u64>,
    counters: BTreeMap<&'static str, u64>,
    gauges: BTreeMap<&'static str, i64>,
}

/// Runs the join and reads its rows; `options` begins with a comma.
fn correlated(hellos: &[Event], requests: &[Event], cut: usize, workers: usize, options: &str) -> Outcome {
    let (left, right, out, evicted) = (unique(), unique(), unique(), unique());
    record(&left, recording("hello", hellos, cut));
    record(&right, recording("request", requests, cut));
    let dir = tempfile::tempdir().expect("a folder");
    let yaml = format!(
        "name: t\nnodes:\n  - {{ id: h, kind: test.replay, name: {left} }}\n  - {{ id: r, kind: test.replay, name: {right} }}\n  \
         - {{ id: c, kind: correlate, from: {{ hello: h, request: r }}{options} }}\n  \
         - {{ id: o, kind: test.collect, from: c, name: {out} }}\n  \
         - {{ id: e, kind: test.collect, from: c.evicted, name: {evicted} }}\n"
    );
    let plan = load(&dir.path().join("p.yaml"), &yaml).expect("a valid pipeline");
    let shared = run(plan, workers);
    let node = shared.metrics.node("c", "correlate");
    assert_eq!(node.state_rows.load(Relaxed), 0, "nothing is held in the end");
    let (mut rows, mut alone, mut order) = (Vec::new(), Vec::new(), Vec::new());
    for batch in collected(&out) {
        let column = |name: &str| batch.rows.column_by_name(name).expect("the column").clone();
        let (request, hello) = (column("request"), column("hello"));
        let (request, hello) = (request.as_primitive::<UInt64Type>(), hello.as_primitive::<UInt64Type>());
        let (flag, keepalives) = (column("correlated"), column("keepalives"));
        let (flag, keepalives) = (flag.as_primitive::<UInt8Type>(), keepalives.as_primitive::<UInt16Type>());
        let side = column("orphan_side");
        for row in 0..batch.rows.num_rows() {
            if side.as_string::<i32>().value(row) == "B" {
                alone.push(hello.value(row));
                continue;
            }
            let found = (flag.value(row) == 1).then(|| (hello.value(row), keepalives.value(row)));
            rows.push((request.value(row), found));
            order.push(request.value(row));
        }
    }
    let mut gone: Vec<u64> = Vec::new();
    for batch in collected(&evicted) {
        gone.extend(batch.rows.column_by_name("hello").expect("the column").as_primitive::<UInt64Type>().values());
    }
    rows.sort_unstable();
    alone.sort_unstable();
    gone.sort_unstable();
    let counters = node.named().into_iter().collect();
    let gauges = node.gauges().into_iter().collect();
    Outcome { rows, alone, evicted: gone, left: order, counters, gauges }
}

/// Events of which only time, client and delay differ.
fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let event = (0..120_000i64, 0..12u16, 0..LATENESS_MS).prop_map(|(at, client, delay)| {
        let at = if at % 2 == 0 { at / 5_000 * 5_000 } else { at };
        Event { at, client, delay, port: Some(443), ..Event::default() }
    });
    // Coarse times make ties, equal keys and edges of the window likely.
    prop::collection::vec(event, 0..most)
}

/// Events that differ in everything, close together.
fn various(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let ends = (0..8u16, prop::sample::select(vec![None, Some(443), Some(8443)]), 0..2u8);
    let kinds = (prop::option::weighted(0.9, 0..2u8), prop::bool::weighted(0.2), 0..2u8);
    let times = (0..60_000i64, 0..LATENESS_MS, prop_oneof![2 => Just(0), 1 => 0..500i64, 1 => 0..60_000i64]);
    let event = (times, prop::bool::ANY, ends, kinds).prop_map(
        |((at, delay, took), coarse, (client, port, server), (sensor, udp, program))| {
            let (at, took) = if coarse { (at / 1_000 * 1_000, took / 1_000 * 1_000) } else { (at, took) };
            Event { at, took, client, delay, port, server, sensor, udp, program }
        },
    );
    prop::collection::vec(event, 0..most)
}

fn rules() -> impl Strategy<Value = Rules> {
    let one_of = |values: &'static [i64]| prop::sample::select(values);
    let times = (one_of(&[3_000, 10_000]), one_of(&[1_000, 30_000]), one_of(&[5_000, 20_000, 3_600_000]));
    let late = (one_of(&[0, 500, 3_000]), one_of(&[100, 500, 5_000]), one_of(&[0, 20_000, 900_000]));
    let flags = (prop::bool::ANY, prop::bool::ANY, prop::bool::weighted(0.3), prop::bool::ANY, prop::bool::ANY);
    (times, late, flags).prop_map(|((window, ttl, max_age), (tolerance, emit_after, longest), flags)| {
        let (one_to_one, by_connection, by_sensor, exclude, by_port) = flags;
        let excluded = if exclude { vec![0] } else { Vec::new() };
        let ports = if by_port { vec![443] } else { Vec::new() };
        Rules {
            window,
            ttl,
            max_age,
            longest,
            tolerance,
            emit_after,
            one_to_one,
            by_connection,
            by_sensor,
            excluded,
            ports,
        }
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
        let rules = Rules::default();
        let got = correlated(&hellos, &requests, cut, workers, &rules.options());
        prop_assert_eq!(&got.rows, &rules.expected(&hellos, &requests));
        prop_assert!(got.alone.is_empty() && got.evicted.is_empty());
    }

    #[test]
    fn every_option_equals_a_recomputation(
        hellos in various(80),
        requests in various(200),
        rules in rules(),
        cut in prop::sample::select(vec![1usize, 3, 17, 8192]),
        workers in prop::sample::select(vec![1usize, 2, 4]),
    ) {
        let got = correlated(&hellos, &requests, cut, workers, &rules.options());
        let expected = rules.expected(&hellos, &requests);
        prop_assert_eq!(&got.rows, &expected);
        let dropped = got.counters["failed_ip_excluded"] + got.counters["failed_dest_port_filtered"];
        let counted = rules.hellos(&hellos).len() as u64 + got.counters["duplicate_hellos"] + expected.len() as u64;
        prop_assert_eq!(dropped + counted, (hellos.len() + requests.len()) as u64, "every row is accounted for");
    }

    #[test]
    fn hellos_that_nobody_matched_leave_when_asked_for(hellos in events(60), requests in events(60), cut in 1usize..40) {
        let rules = Rules::default();
        let options = rules.options().replace("emit_after: 500ms", "emit_after: 500ms, hello: true");
        let got = correlated(&hellos, &requests, cut, 2, &options);
        let matched: Vec<u64> = got.rows.iter().filter_map(|(_, hello)| Some(hello.as_ref()?.0)).collect();
        let unmatched: Vec<u64> = (0..hellos.len() as u64).filter(|h| !matched.contains(h)).collect();
        prop_assert_eq!(got.alone, unmatched);
        prop_assert_eq!(got.rows, rules.expected(&hellos, &requests));
    }

    #[test]
    fn what_a_bound_evicts_does_not_depend_on_batches(
        hellos in various(120),
        requests in various(120),
        rules in rules(),
        cuts in prop::collection::vec(1usize..200, 2),
        bound in 1usize..12,
    ) {
        let options = format!("{}, max_hellos: {bound}", rules.options());
        let whole = correlated(&hellos, &requests, 8192, 1, &options);
        for cut in cuts {
            let got = correlated(&hellos, &requests, cut, 1, &options);
            prop_assert_eq!(&got.rows, &whole.rows);
            prop_assert_eq!(&got.evicted, &whole.evicted);
        }
    }
}

#[test]
fn a_request_whose_hello_is_known_leaves_before_one_that_waits() {
    let event = |at, client| Event { at, client, ..Event::default() };
    let hellos = [event(1_000, 1), event(5_000, 9), event(9_000, 9)];
    let requests: Vec<Event> =
        [event(1_100, 2), event(1_200, 1)].into_iter().chain((2..9).map(|s| event(s * 1_000, 9))).collect();
    let got = correlated(&hellos, &requests, 1, 1, ", orphans: { emit_after: 60s }");
    let at = |request| got.left.iter().position(|left| *left == request);
    assert!(at(1) < at(0), "{:?}: the first request has no hello and waits for a minute", got.left);
    assert_eq!(got.rows[..2], [(0, None), (1, Some((0, 1)))]);
}

#[test]
fn a_hello_of_two_sensors_is_one_connection_and_another_program_a_new_one() {
    let hello = |at, sensor, program| Event { at, sensor: Some(sensor), program, ..Event::default() };
    let hellos = [hello(1_000, 1, 1), hello(1_900, 2, 1), hello(4_000, 2, 2)];
    let requests: Vec<Event> = [1_500, 2_000, 4_500].map(|at| Event { at, ..Event::default() }).to_vec();
    let got = correlated(&hellos, &requests, 8192, 1, "");
    assert_eq!(got.rows, [(0, Some((0, 1))), (1, Some((0, 2))), (2, Some((2, 1)))]);
    assert_eq!(got.counters["duplicate_hellos"], 1);
}

#[test]
fn the_same_ports_over_quic_are_another_connection() {
    let event = |at, udp| Event { at, udp, ..Event::default() };
    let got = correlated(&[event(0, false), event(100, true)], &[event(200, false), event(300, true)], 8192, 1, "");
    assert_eq!(got.rows, [(0, Some((0, 1))), (1, Some((1, 1)))]);
}

#[test]
fn the_clocks_difference_is_shown() {
    // The requests' clock is 200 ms behind; a request comes 10 to 100 ms after its hello.
    let hellos: Vec<Event> =
        (0..400).map(|i| Event { at: 500 + i * 50, client: i as u16, ..Event::default() }).collect();
    let requests: Vec<Event> =
        hellos.iter().map(|h| Event { at: h.at - 190 + i64::from(h.client % 10) * 10, ..h.clone() }).collect();
    for workers in [1, 2] {
        let got = correlated(&hellos, &requests, 64, workers, "");
        assert_eq!(got.counters["correlated"], 400);
        assert_eq!(got.counters["clock_skew_samples"], 400);
        assert_eq!(got.gauges["clock_skew_us"], -190_000);
    }
}

#[test]
fn late_rows_leave_at_their_own_port_and_do_not_match() {
    let event = |at, delay| Event { at, client: 1, delay, ..Event::default() };
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
    let counters: BTreeMap<_, _> = node.named().into_iter().collect();
    assert_eq!((counters["correlated"], counters["orphan_requests"]), (0, 1));
    assert_eq!(node.late.load(Relaxed), 1);
}

#[test]
fn a_full_state_evicts_hellos_and_decides_requests_early_but_loses_nothing() {
    let event = |i: i64, at| Event { at, client: i as u16, ..Event::default() };
    let hellos: Vec<Event> = (0..500).map(|i| event(i, i)).collect();
    let requests: Vec<Event> = (0..500).map(|i| event(i, 1_000 + i)).collect();
    let got = correlated(&hellos, &requests, 50, 1, ", max_hellos: 100, max_requests: 20");
    assert_eq!(got.rows.len(), 500, "every request leaves once");
    assert!(got.rows.iter().all(|(r, hello)| hello.is_none_or(|(h, _)| h == *r)));
    assert!(got.counters["requests_decided_early"] > 0);
    assert!(!got.evicted.is_empty() && got.alone.is_empty());
}

#[test]
fn hellos_that_wait_have_a_bound_too() {
    // All in one second, so that none is passed before the input ends.
    let hellos: Vec<Event> =
        (0..70_000).map(|i| Event { at: i / 100, client: (i / 4) as u16, ..Event::default() }).collect();
    let got = correlated(&hellos, &[], 8192, 1, ", max_hellos: 1000");
    assert_eq!(got.counters["evicted_waiting"], 70_000 - 65_536);
    assert_eq!(got.evicted.len() as u64 + got.counters["orphan_hellos"], 70_000);
}

#[test]
fn a_run_that_starts_later_needs_the_hellos_of_the_greatest_age() {
    let (left, right) = (unique(), unique());
    record(&left, recording("hello", &[], 1));
    record(&right, recording("request", &[], 1));
    let dir = tempfile::tempdir().expect("a folder");
    let yaml = format!(
        "name: t\nnodes:\n  - {{ id: h, kind: test.replay, name: {left} }}\n  - {{ id: r, kind: test.replay, name: {right} }}\n  \
         - {{ id: c, kind: correlate, from: {{ hello: h, request: r }}, max_age: 60s, tolerance: 1s, longest_request: 10s }}\n"
    );
    let plan = load(&dir.path().join("p.yaml"), &yaml).expect("a valid pipeline");
    let node = &plan.nodes[2].node;
    assert_eq!(node.needs_from(100_000), 100_000 - 60_000 - 10_000 - 1_000 - 2_000);
    assert_eq!(node.needs_from(5_000), 0);
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
        let rows = shared.metrics.node("c", "correlate").rows_out.load(Relaxed);
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
    let shown = load(&dir.path().join("p.yaml"), &yaml).expect_err("refused");
    assert!(shown.contains("unknown option `windw`") && shown.contains("did you mean `window`?"), "{shown}");
    let shown = load(&dir.path().join("p.yaml"), &yaml.replace(", windw: 1s", "")).expect_err("refused");
    assert!(shown.contains("the column `src_ip` must be Utf8, but is Int64"), "{shown}");
    assert!(shown.contains("no column `src_port`"), "{shown}");
    let ours = yaml
        .replace(&left, &right)
        .replace("windw: 1s", "exclude_source_ips: [10.0.0.0/8, nobody], match_sensor: true");
    let shown = load(&dir.path().join("p.yaml"), &ours).expect_err("refused");
    assert!(shown.contains("`nobody` is no address or network such as 192.0.2.0/24"), "{shown}");
    assert!(!shown.contains("needs the column"), "both have it: {shown}");
    let ours = yaml.replace("windw: 1s", "match_sensor: true");
    let shown = load(&dir.path().join("p.yaml"), &ours).expect_err("refused");
    assert!(shown.contains("`match_sensor` needs the column `sensor_id` in both inputs"), "{shown}");
}
