//! `aggregate` against DataFusion over all rows at once, and against itself under other arrivals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt16Array, UInt64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::util::display::array_value_to_string;
use datafusion::prelude::SessionContext;
use engine::batch::{Batch, EdgeType, stream_schema, time_array};
use engine::time::{Arrival, Watermark};
use proptest::prelude::*;

use crate::replay::{Recording, collected, load, record, run, unique};

const MS: i64 = 1_000_000;
/// In the middle of a window of a minute.
const START: i64 = 1_700_000_010_000 * MS;
const LATENESS_MS: i64 = 2_000;

/// Name, SQL as a feature, SQL for the oracle where it must be written otherwise.
const FEATURES: &[(&str, &str, Option<&str>)] = &[
    ("hits", "count(*)", None),
    ("first_seen", "min(time)", None),
    ("last_status", "max(status)", None),
    ("least_path", "min(path)", None),
    ("statuses", "sum(status)", None),
    (
        "post_ratio",
        "1.0 * count(*) filter (where method = 'POST') / hits",
        Some("1.0 * count(*) filter (where method = 'POST') / count(*)"),
    ),
    ("paths", "count(distinct path)", None),
    ("referers", "count(referer)", None),
    ("failed_posts", "count(distinct path) filter (where method = 'POST' and status >= 400)", None),
    ("gap_mean", "avg(gap_ms)", None),
    ("gap_cv", "stddev_pop(gap_ms) / nullif(avg(gap_ms), 0)", None),
    ("gap_product", "avg(gap_ms * prev_gap_ms)", None),
    ("bursts", "count(*) filter (where gap_ms < 100)", None),
    ("later_without_referer", "count(*) filter (where referer is null and nth > 1)", None),
    ("late_paths", "max(case when nth > 2 then path end)", None),
    ("status_var", "var_samp(status)", None),
    ("any_cookie", "bool_or(cookie)", None),
    ("all_cookies", "bool_and(cookie) filter (where status < 500)", None),
    ("odd_paths", "count(*) filter (where regexp_like(path, '[13579]$') and status < 500)", None),
    ("referers_or_none", "count(distinct coalesce(lower(referer), 'none'))", None),
    ("path_entropy", "entropy(path)", Some("0.0")),
    ("most_frequent", "mode_share(path)", Some("0.0")),
    ("transitions", "transition_entropy(path) filter (where status < 500)", Some("0.0")),
    ("first_digits", "benford_chi2(gap_ms)", Some("0.0")),
    (
        "status_steps",
        "count(*) filter (where abs(cast(status as bigint) - prev(cast(status as bigint))) = 100)",
        Some("count(*) filter (where abs(cast(status as bigint) - status_before) = 100)"),
    ),
    ("repeats", "count(*) filter (where path = prev(path))", Some("count(*) filter (where path = path_before)")),
    (
        "after_a_post",
        "avg(since_ms(method = 'POST'))",
        Some("avg(cast(cast(time as bigint) - post_before as double) / 1e6)"),
    ),
    (
        "first_after_a_post",
        "min(since_ms(method = 'POST')) filter (where method = 'GET' and prev(case when method <> 'HEAD' then method end) = 'POST')",
        Some(
            "min(cast(cast(time as bigint) - post_before as double) / 1e6) filter (where method = 'GET' and method_before = 'POST')",
        ),
    ),
    ("score", "post_ratio * 2 + hits", Some("1.0 * count(*) filter (where method = 'POST') / count(*) * 2 + count(*)")),
];

/// What DataFusion cannot recompute; unit tests do.
const NOT_COMPARED: [&str; 4] = ["path_entropy", "most_frequent", "transitions", "first_digits"];

/// A request: its time in ms from the start, its client, by how many ms its arrival is delayed, and what it says.
#[derive(Clone, Debug)]
struct Request {
    at: i64,
    client: u8,
    delay: i64,
    what: u8,
}

fn schema() -> SchemaRef {
    stream_schema([
        Field::new("host", DataType::Utf8, false),
        Field::new("ja4", DataType::Utf8, true),
        Field::new("path", DataType::Utf8, true),
        Field::new("method", DataType::Utf8, true),
        Field::new("referer", DataType::Utf8, true),
        Field::new("status", DataType::UInt16, true),
        Field::new("cookie", DataType::Boolean, true),
        Field::new("unused", DataType::UInt64, true),
    ])
}

fn batch(rows: &[(usize, &Request)]) -> RecordBatch {
    let what = |n: u8| rows.iter().map(move |(_, r)| r.what % n);
    let columns: Vec<ArrayRef> = vec![
        time_array(rows.iter().map(|(_, r)| START + r.at * MS).collect()),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(seq, _)| *seq as u64))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, r)| format!("h{}", r.client % 3)))),
        Arc::new(rows.iter().map(|(_, r)| (r.client % 2 == 1).then_some("t13d")).collect::<StringArray>()),
        Arc::new(what(11).map(|w| (w > 0).then(|| format!("/{w}"))).collect::<StringArray>()),
        Arc::new(what(3).map(|w| Some(["GET", "POST", "HEAD"][usize::from(w)])).collect::<StringArray>()),
        Arc::new(what(2).map(|w| (w == 0).then_some("there")).collect::<StringArray>()),
        Arc::new(what(5).map(|w| (w < 4).then_some(200 + 100 * u16::from(w))).collect::<UInt16Array>()),
        Arc::new(what(7).map(|w| (w > 1).then_some(w > 4)).collect::<BooleanArray>()),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(seq, _)| *seq as u64))),
    ];
    RecordBatch::try_new(schema(), columns).expect("valid")
}

/// The requests as a source would send them: in the order of arrival, cut into batches, late rows apart.
fn recording(requests: &[Request], rows_per_batch: usize) -> Recording {
    let mut arrivals: Vec<(usize, &Request)> = requests.iter().enumerate().collect();
    arrivals.sort_by_key(|(seq, request)| (request.at + request.delay, *seq));
    let mut watermark = Watermark::new(Duration::from_millis(LATENESS_MS as u64), Duration::from_millis(100));
    let mut batches = Vec::new();
    for chunk in arrivals.chunks(rows_per_batch) {
        let time = watermark.time();
        let (late, on_time): (Vec<_>, Vec<_>) =
            chunk.iter().partition(|(_, r)| watermark.observe(START + r.at * MS) == Arrival::Late);
        for (rows, late) in [(on_time, false), (late, true)] {
            if !rows.is_empty() {
                batches.push((time, Batch { late, ..Batch::new(batch(&rows)) }));
            }
        }
    }
    Recording { ty: EdgeType::stream(schema()), batches, live: false }
}

/// What leaves the three ports.
struct Left {
    out: Vec<Batch>,
    last: Vec<Batch>,
    late: usize,
    evicted: u64,
}

fn aggregate(recording: Recording, workers: usize, extra: &str) -> Left {
    let (name, out, last, late) = (unique(), unique(), unique(), unique());
    record(&name, recording);
    let features: String =
        FEATURES.iter().map(|(n, sql, _)| format!("\n  - {{ name: {n}, expr: \"{sql}\" }}")).collect();
    let yaml = format!(
        "name: t\nnodes:\n- {{ id: r, kind: test.replay, name: {name} }}\n- id: a\n  kind: aggregate\n  from: r\n  \
         by: [host, ja4]\n  window: 1m{extra}\n  features:{features}\n- {{ id: o, kind: test.collect, from: a, name: {out} }}\n\
         - {{ id: f, kind: test.collect, from: a.final, name: {last} }}\n\
         - {{ id: l, kind: test.collect, from: a.late, name: {late} }}\n"
    );
    let dir = tempfile::tempdir().expect("a folder");
    let plan = load(&dir.path().join("p.yaml"), &yaml).unwrap_or_else(|shown| panic!("{shown}"));
    let shared = run(plan, workers);
    assert_eq!(shared.failure(), None);
    let late = collected(&late);
    assert!(late.iter().all(|batch| batch.late));
    let node = shared.metrics.node("a", "aggregate");
    assert_eq!(node.state_rows.load(std::sync::atomic::Ordering::Relaxed), 0, "every group has ended");
    Left {
        out: collected(&out),
        last: collected(&last),
        late: late.iter().map(|batch| batch.rows.num_rows()).sum(),
        evicted: node.evicted.load(std::sync::atomic::Ordering::Relaxed),
    }
}

/// Every row as text, with floating-point numbers in full.
fn rows(batch: &RecordBatch, columns: std::ops::Range<usize>) -> Vec<String> {
    let cell = |c: usize, row: usize| {
        let column = batch.column(c);
        if column.is_null(row) { "null".to_owned() } else { array_value_to_string(column, row).expect("text") }
    };
    (0..batch.num_rows()).map(|row| columns.clone().map(|c| cell(c, row)).collect::<Vec<_>>().join("|")).collect()
}

/// The final rows in a fixed order, without time and seq.
fn finals(left: &Left) -> Vec<String> {
    let mut all: Vec<String> = left.last.iter().flat_map(|b| rows(&b.rows, 2..b.rows.num_columns())).collect();
    all.sort_unstable();
    all
}

/// Adds up the live relation; a row that is not there is never taken back, and a key never has two rows once the
/// dataflow has come to rest.
fn consolidated(left: &Left) -> Vec<String> {
    let mut held: BTreeMap<String, i64> = BTreeMap::new();
    for batch in &left.out {
        for row in rows(&batch.rows, 0..batch.rows.num_columns()) {
            let count = held.entry(row.clone()).or_default();
            *count += i64::from(batch.diff);
            assert!(*count >= 0, "taken back but never given: {row}");
            assert!(*count <= 1, "given twice: {row}");
        }
        assert_eq!(batch.settled, batch.rows.column_by_name("final").expect("there").as_boolean().true_count() > 0);
    }
    // What differential dataflow, whose notion of change this is, makes of the same changes.
    let changes = left.out.iter().flat_map(|b| {
        rows(&b.rows, 0..b.rows.num_columns()).into_iter().map(|row| (row, i64::from(b.diff))).collect::<Vec<_>>()
    });
    let mut changes: Vec<(String, i64)> = changes.collect();
    differential_dataflow::consolidation::consolidate(&mut changes);
    held.retain(|_, count| *count > 0);
    assert_eq!(changes, held.clone().into_iter().collect::<Vec<_>>());
    held.into_keys().collect()
}

fn requests(most: usize) -> impl Strategy<Value = Vec<Request>> {
    let request = (0..240_000_i64, 0..8_u8, 0..LATENESS_MS, any::<u8>(), any::<bool>());
    prop::collection::vec(request, 1..most).prop_map(|all| {
        let coarse = |at, coarse| if coarse { at / 5_000 * 5_000 } else { at };
        all.into_iter().map(|(at, client, delay, what, c)| Request { at: coarse(at, c), client, delay, what }).collect()
    })
}

/// The features by DataFusion, over all rows at once.
fn recomputed(requests: &[Request]) -> RecordBatch {
    let all: Vec<(usize, &Request)> = requests.iter().enumerate().collect();
    let select: Vec<String> = FEATURES.iter().map(|(n, sql, own)| format!("{} as {n}", own.unwrap_or(sql))).collect();
    let sql = format!(
        "with windows as (select *, to_timestamp_nanos(cast(time as bigint) / 60000000000 * 60000000000) as w from rows), \
         gaps as (select *, cast(cast(time as bigint) - lag(cast(time as bigint)) over g as double) / 1e6 as gap_ms, \
         row_number() over g as nth from windows window g as (partition by w, host, ja4 order by time, seq)), \
         both_gaps as (select *, lag(gap_ms) over g as prev_gap_ms, \
         lag(cast(status as bigint)) ignore nulls over g as status_before, lag(path) ignore nulls over g as path_before, \
         lag(case when method = 'POST' then cast(time as bigint) end) ignore nulls over g as post_before, \
         lag(case when method <> 'HEAD' then method end) ignore nulls over g as method_before \
         from gaps window g as (partition by w, host, ja4 order by time, seq)) \
         select w, host, ja4, {} from both_gaps group by w, host, ja4 order by w, host, ja4",
        select.join(", ")
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    runtime.block_on(async {
        let context = SessionContext::new();
        context.register_batch("rows", batch(&all)).expect("registered");
        let found = context.sql(&sql).await.expect("valid").collect().await.expect("runs");
        concat_batches(&found[0].schema(), &found).expect("one schema")
    })
}

/// The final rows as one batch in the order of the oracle.
fn sorted(left: &Left) -> RecordBatch {
    let batches: Vec<RecordBatch> = left.last.iter().map(|b| b.rows.clone()).collect();
    let all = concat_batches(&batches[0].schema(), &batches).expect("one schema");
    let keys: Vec<_> = all.columns()[2..5]
        .iter()
        .map(|values| arrow::compute::SortColumn {
            values: values.clone(),
            options: Some(arrow::compute::SortOptions { descending: false, nulls_first: false }),
        })
        .collect();
    let order = arrow::compute::lexsort_to_indices(&keys, None).expect("sortable");
    arrow::compute::take_record_batch(&all, &order).expect("in range")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, rng_seed: proptest::test_runner::RngSeed::Fixed(5), ..ProptestConfig::default() })]

    #[test]
    fn features_equal_a_recomputation_by_datafusion(requests in requests(400), cut in 1_usize..200) {
        let left = aggregate(recording(&requests, cut), 2, "");
        prop_assert_eq!(left.late, 0);
        let (found, expected) = (sorted(&left), recomputed(&requests));
        prop_assert_eq!(found.num_rows(), expected.num_rows());
        for (index, (name, _, _)) in FEATURES.iter().enumerate().filter(|(_, (name, ..))| !NOT_COMPARED.contains(name)) {
            let (mine, theirs) = (found.column(index + 5), expected.column(index + 3));
            let number = |column: &ArrayRef| arrow::compute::cast(column, &DataType::Float64).expect("a number");
            for row in 0..found.num_rows() {
                prop_assert_eq!(mine.is_null(row), theirs.is_null(row), "{} row {}", name, row);
                if mine.data_type().is_floating() {
                    let (a, b) = (number(mine), number(theirs));
                    let (a, b) = (a.as_primitive::<arrow::datatypes::Float64Type>(), b.as_primitive::<arrow::datatypes::Float64Type>());
                    let (a, b) = (a.value(row), b.value(row));
                    prop_assert!(mine.is_null(row) || (a - b).abs() <= 1e-9 * (1.0 + a.abs()), "{} row {}: {} {}", name, row, a, b);
                } else if mine.is_valid(row) {
                    let (a, b) = (array_value_to_string(mine, row), array_value_to_string(theirs, row));
                    prop_assert_eq!(a.expect("text").trim_end_matches('Z').to_owned(), b.expect("text").trim_end_matches('Z').to_owned(), "{} row {}", name, row);
                }
            }
        }
    }

    #[test]
    fn rows_do_not_depend_on_arrival_batches_or_workers(
        requests in requests(300),
        cut in prop::sample::select(vec![1_usize, 3, 17, 8192]),
        workers in prop::sample::select(vec![1_usize, 2, 4]),
        delays in prop::collection::vec(0..LATENESS_MS, 300),
    ) {
        let reference = aggregate(recording(&requests, 50), 1, "");
        let shuffled: Vec<Request> =
            requests.iter().zip(delays).map(|(r, delay)| Request { delay, ..r.clone() }).collect();
        let other = aggregate(recording(&shuffled, cut), workers, "");
        prop_assert_eq!(finals(&reference), finals(&other));
        prop_assert_eq!(consolidated(&reference), finals(&reference));
        prop_assert_eq!(consolidated(&other), finals(&other));
    }
}

#[test]
fn late_rows_leave_at_their_own_port() {
    let request = |at, delay| Request { at, client: 1, delay, what: 1 };
    let left = aggregate(recording(&[request(0, 0), request(90_000, 0), request(1_000, 100_000)], 1), 2, "");
    assert_eq!(left.late, 1);
    assert_eq!(finals(&left).len(), 2);
    // A source that breaks its promise is caught as well.
    let broken = Batch::new(batch(&[(0, &request(0, 0)), (1, &request(90_000, 0))]));
    let time = ((START / MS) + 60_000) as u64;
    let left =
        aggregate(Recording { ty: EdgeType::stream(schema()), batches: vec![(time, broken)], live: false }, 1, "");
    assert_eq!((left.late, finals(&left).len()), (1, 1));
}

#[test]
fn a_full_state_ends_the_oldest_groups_early_and_loses_no_row() {
    let requests: Vec<Request> =
        (0..600).map(|at| Request { at, client: (at % 6) as u8, delay: 0, what: at as u8 }).collect();
    let left = aggregate(recording(&requests, 40), 1, "\n  max_groups: 4");
    assert!(left.evicted > 0);
    assert_eq!(left.last.iter().map(|b| b.rows.num_rows() as u64).sum::<u64>(), left.evicted + 4);
    let hits: i64 = left
        .last
        .iter()
        .map(|b| {
            let hits = b.rows.column_by_name("hits").expect("there").as_primitive::<arrow::datatypes::Int64Type>();
            hits.values().iter().sum::<i64>()
        })
        .sum();
    assert_eq!(hits, 600);
}

#[test]
fn final_rows_are_events_at_the_end_of_their_window() {
    let left = aggregate(recording(&[Request { at: 0, client: 0, delay: 0, what: 0 }], 1), 1, "");
    let rows = &left.last[0].rows;
    let times = left.last[0].times().expect("a time").value(0);
    let start = rows.column_by_name("window_start").expect("there");
    let start = start.as_primitive::<arrow::datatypes::TimestampNanosecondType>().value(0);
    assert_eq!((start % (60_000 * MS), times - start), (0, 60_000 * MS));
}

#[test]
fn faults_are_shown_at_their_place() {
    let name = unique();
    record(&name, recording(&[], 1));
    let shown = |feature: &str| {
        let dir = tempfile::tempdir().expect("a folder");
        let yaml = format!(
            "name: t\nnodes:\n- {{ id: r, kind: test.replay, name: {name} }}\n- id: a\n  kind: aggregate\n  from: r\n  \
             by: [host]\n  features: f.yaml\n- {{ id: o, kind: test.collect, from: a, name: x }}\n"
        );
        std::fs::write(dir.path().join("f.yaml"), feature).expect("written");
        load(&dir.path().join("p.yaml"), &yaml).err().unwrap_or_default()
    };
    let cases = [
        ("- { name: a, expr: path }", &["f.yaml:1:20", "`path` varies within a group"][..]),
        ("- { name: a, expr: count(pth) }", &["f.yaml:1:26", "did you mean `path`?"]),
        ("- { name: a, expr: median(status) }", &["`median` cannot be used here", "stddev_pop"]),
        ("- { name: a, expr: sum(path) }", &["`sum` of Utf8 is not possible"]),
        ("- { name: host, expr: count(*) }", &["`host` is taken by a column of the group"]),
        ("- { name: a, expr: count(*) }\n- { name: a, expr: count(*) }", &["f.yaml:2", "taken by another feature"]),
        ("- { name: a, expr: count(*) }\n- { name: b, expr: max(a) }", &["f.yaml:2", "`a` is a value of the group"]),
        ("- { name: a, expr: count(*) filter (where status) }", &["a condition is true or false"]),
        ("- { name: a, expr: count(*) / 'x' + path }", &["varies within a group"]),
        ("- { name: a, exp: count(*) }", &["unknown option `exp`"]),
        ("- { name: a, expr: sum(prev(gap_ms)) }", &["f.yaml:1:24", "depends on the order"]),
        ("- { name: a, expr: since_ms(status = 200) }", &["f.yaml:1:20", "put it into an aggregate"]),
        ("- { name: a, expr: avg(since_ms(status)) }", &["a condition is true or false"]),
    ];
    for (feature, parts) in cases {
        let text = shown(feature);
        for part in parts {
            assert!(text.contains(part), "{feature}: {part} is missing in:\n{text}");
        }
    }
    assert_eq!(shown("- { name: a, expr: count(*) }\n- { name: status, expr: a * 2 + max(status) }"), "");
}
