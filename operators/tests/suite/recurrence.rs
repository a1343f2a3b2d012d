//! `recurrence` against a plain recomputation of every change, and in a pipeline whose numbers are worked out by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt16Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use engine::batch::{Batch, EdgeClass, EdgeType, WINDOW_START, stream_schema, time_array, time_type};
use proptest::prelude::*;

use crate::replay::{Recording, collected, load, record, run, unique};

const MS: i64 = 1_000_000;
const MINUTE: i64 = 60_000;
/// A multiple of an hour, in ms.
const START: i64 = 1_700_002_800_000;
const TICK: i64 = 1_000;
const LOOK_BACK: i64 = 120 * MINUTE;
const GRANULARITY: i64 = 10 * MINUTE;
const LEVELS: [&str; 5] = ["LOW", "MEDIUM", "HIGH", "CRITICAL", "NORMAL"];

/// A detection: all times in ms since [`START`].
#[derive(Clone, Debug)]
struct Detection {
    /// When it comes: its event time, or when the relation gives it.
    at: i64,
    /// When it is taken back.
    gone: Option<i64>,
    /// By how much its window starts before it comes.
    age: i64,
    client: u8,
    what: u8,
    number: u64,
}

impl Detection {
    fn window(&self) -> i64 {
        (self.at - self.age).div_euclid(10 * MINUTE) * 10 * MINUTE
    }

    fn level(&self) -> &'static str {
        LEVELS[usize::from(self.what % 5)]
    }

    fn score(&self) -> Option<f64> {
        (!self.what.is_multiple_of(4)).then(|| 0.0 - f64::from(self.what % 7) / 10.0)
    }
}

fn fields() -> Vec<Field> {
    vec![
        Field::new(WINDOW_START, time_type(), false),
        Field::new("src_ip", DataType::Utf8, true),
        Field::new("threat_level", DataType::Utf8, false),
        Field::new("anomaly_score", DataType::Float64, true),
        Field::new("number", DataType::UInt64, false),
    ]
}

fn batch(detections: &[&Detection], schema: &SchemaRef) -> RecordBatch {
    let mut columns: Vec<ArrayRef> = vec![
        time_array(detections.iter().map(|d| (START + d.window()) * MS).collect()),
        Arc::new(detections.iter().map(|d| (d.client > 0).then(|| client(d.client))).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(detections.iter().map(|d| d.level()))),
        Arc::new(detections.iter().map(|d| d.score()).collect::<Float64Array>()),
        Arc::new(UInt64Array::from_iter_values(detections.iter().map(|d| d.number))),
    ];
    if schema.fields().len() > columns.len() {
        columns.insert(0, time_array(detections.iter().map(|d| (START + d.at) * MS).collect()));
        columns.insert(1, Arc::new(UInt64Array::from_iter_values(detections.iter().map(|d| d.number))));
    }
    RecordBatch::try_new(schema.clone(), columns).expect("valid")
}

fn client(number: u8) -> String {
    format!("192.0.2.{number}")
}

/// The detections as a stream: a message's time is not after that of its rows nor of those behind it.
fn stream(detections: &[Detection], cut: usize) -> Recording {
    let schema = stream_schema(fields());
    let mut ordered: Vec<&Detection> = detections.iter().collect();
    ordered.sort_by_key(|d| d.at / 3_000);
    let least = |from: usize| ordered[from..].iter().map(|d| START + d.at).min().unwrap_or(0);
    let cuts = (0..ordered.len()).step_by(cut);
    let batches = cuts.map(|from| {
        let rows = &ordered[from..(from + cut).min(ordered.len())];
        (least(from) as u64, Batch::new(batch(rows, &schema)))
    });
    Recording { ty: EdgeType::stream(schema.clone()), batches: batches.collect(), live: false }
}

/// The detections as a relation, which takes some of them back.
fn relation(detections: &[Detection], cut: usize) -> Recording {
    let schema: SchemaRef = Arc::new(Schema::new(fields()));
    let mut changes: BTreeMap<(i64, i8), Vec<&Detection>> = BTreeMap::new();
    for detection in detections {
        changes.entry((detection.at, 1)).or_default().push(detection);
        if let Some(gone) = detection.gone {
            changes.entry((gone, -1)).or_default().push(detection);
        }
    }
    let mut batches = Vec::new();
    for ((at, diff), rows) in changes {
        for rows in rows.chunks(cut) {
            let rows = Batch { diff, settled: false, ..Batch::new(batch(rows, &schema)) };
            batches.push(((START + at) as u64, rows));
        }
    }
    let class = EdgeClass::Relation { key: vec!["number".to_owned()] };
    Recording { ty: EdgeType { schema, class }, batches, live: false }
}

/// Every change of both ports as text, in a fixed order, and how many rows were evicted.
fn changes_of(recording: Recording, workers: usize, extra: &str) -> (Vec<String>, Vec<String>, u64) {
    let (name, out, joined) = (unique(), unique(), unique());
    record(&name, recording);
    let yaml = format!(
        "name: t\ntick: 1s\nnodes:\n- {{ id: d, kind: test.replay, name: {name} }}\n\
         - {{ id: r, kind: recurrence, from: d, look_back: 2h, granularity: 10m{extra} }}\n\
         - {{ id: o, kind: test.collect, from: r, name: {out} }}\n\
         - {{ id: j, kind: test.collect, from: r.joined, name: {joined} }}\n"
    );
    let dir = tempfile::tempdir().expect("a folder");
    let plan = load(&dir.path().join("p.yaml"), &yaml).unwrap_or_else(|shown| panic!("{shown}"));
    let shared = run(plan, workers);
    assert_eq!(shared.failure(), None);
    let node = shared.metrics.node("r", "recurrence");
    assert_eq!(node.state_rows.load(Relaxed), 0, "nothing is left behind");
    let out = collected(&out);
    assert!(out.iter().all(|batch| !batch.settled), "an address may always come again");
    let joined = collected(&joined);
    (text(&out, 0), text(&joined, joined.first().map_or(0, |b| b.rows.num_columns() - 2)), node.evicted.load(Relaxed))
}

/// Each row with its sign, from a column on.
fn text(batches: &[Batch], from: usize) -> Vec<String> {
    let mut all = Vec::new();
    for batch in batches {
        for row in 0..batch.rows.num_rows() {
            let cells = batch.rows.columns()[from..].iter().map(|c| array_value_to_string(c, row).expect("text"));
            all.push(format!("{:+} {}", batch.diff, cells.collect::<Vec<_>>().join("|")));
        }
    }
    all.sort_unstable();
    all
}

fn up(value: i64, step: i64) -> i64 {
    (value + step - 1).div_euclid(step) * step
}

/// A detection with when it counts, in ms since the epoch.
struct Counted<'a> {
    detection: &'a Detection,
    from: i64,
    to: i64,
}

/// When detections count. A stream's do at the close of their tick.
fn counted(detections: &[Detection], is_relation: bool) -> Vec<Counted<'_>> {
    let effect = |at: i64| if is_relation { up(START + at, TICK) } else { up(START + at + 1, TICK) };
    let count = |detection: &'_ Detection| {
        let from = effect(detection.at);
        let old = up(START + detection.window() + LOOK_BACK, GRANULARITY);
        let to = detection.gone.filter(|_| is_relation).map_or(old, |gone| old.min(effect(gone)));
        (from, to)
    };
    let all = detections.iter().map(|d| (d, count(d)));
    all.map(|(detection, (from, to))| Counted { detection, from, to }).collect()
}

/// What is said of a client at a time, from nothing but the detections.
fn said(counted: &[Counted<'_>], client_number: u8, now: i64) -> Option<String> {
    let live: Vec<&Detection> = counted
        .iter()
        .filter(|c| c.detection.client == client_number && c.from <= now && now < c.to)
        .map(|c| c.detection)
        .collect();
    let windows: BTreeSet<i64> = live.iter().map(|d| d.window()).collect();
    let worst = LEVELS[..4].iter().rev().find(|level| live.iter().any(|d| d.level() == **level));
    let score = live.iter().filter_map(|d| d.score()).reduce(f64::min);
    let time = |ms: &i64| array_value_to_string(&time_array(vec![(START + ms) * MS]), 0).expect("text");
    Some(format!(
        "{}|{}|{}|{}|{}|{}|{}",
        if client_number > 0 { client(client_number) } else { String::new() },
        windows.len(),
        live.len(),
        worst.unwrap_or(&""),
        score.map_or(String::new(), |score| format!("{score:?}")),
        time(windows.first()?),
        time(windows.last()?),
    ))
}

/// Every change of the port `out`.
fn recomputed(counted: &[Counted<'_>]) -> Vec<String> {
    let end = counted.iter().map(|c| c.from).max().unwrap_or(0);
    let ends = counted.iter().flat_map(|c| [c.from, c.to]).chain(gone(counted));
    let moments: BTreeSet<i64> = ends.filter(|time| *time <= end.max(gone(counted).max().unwrap_or(0))).collect();
    let mut all = Vec::new();
    for client_number in 0..4 {
        let mut shown = None;
        for now in &moments {
            let next = said(counted, client_number, *now);
            if next != shown {
                all.extend(shown.iter().map(|row| format!("-1 {row}")));
                all.extend(next.iter().map(|row| format!("+1 {row}")));
                shown = next;
            }
        }
    }
    all.sort_unstable();
    all
}

/// When detections are taken back, as the node sees it: time goes on until then.
fn gone<'a>(counted: &'a [Counted<'_>]) -> impl Iterator<Item = i64> + 'a {
    counted.iter().filter_map(|c| c.detection.gone.map(|gone| up(START + gone, TICK)))
}

/// Every change of the port `joined`: the number of the row, and how many earlier windows there were.
fn joined(counted: &[Counted<'_>], is_relation: bool) -> Vec<String> {
    let mut all = Vec::new();
    for c in counted {
        let same = |other: &&Counted<'_>| other.detection.client == c.detection.client;
        let alive = counted.iter().filter(same).filter(|other| other.from <= c.from && c.from < other.to);
        let windows: BTreeSet<i64> = alive.map(|other| other.detection.window()).collect();
        let earlier = windows.iter().filter(|window| **window < c.detection.window()).count();
        all.push(format!("+1 {}|{earlier}", c.detection.number));
        if is_relation && c.detection.gone.is_some() {
            all.push(format!("-1 {}|{earlier}", c.detection.number));
        }
    }
    all.sort_unstable();
    all
}

fn detections(most: usize) -> impl Strategy<Value = Vec<Detection>> {
    let one = (0..360 * MINUTE, 0..150 * MINUTE, 0..4_u8, any::<u8>(), prop::option::of(1..90 * MINUTE), any::<bool>());
    prop::collection::vec(one, 1..most).prop_map(|all| {
        type Drawn = (i64, i64, u8, u8, Option<i64>, bool);
        let detection = |(number, (at, age, client, what, stays, coarse)): (usize, Drawn)| {
            let at = if coarse { at / (10 * MINUTE) * 10 * MINUTE } else { at };
            let gone = stays.map(|stays| at + stays);
            Detection { at, gone, age, client, what, number: number as u64 }
        };
        all.into_iter().enumerate().map(detection).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_change_is_that_of_a_recomputation(
        all in detections(120),
        cut in prop::sample::select(vec![1_usize, 3, 17, 8192]),
        workers in prop::sample::select(vec![1_usize, 2, 4]),
        is_relation in any::<bool>(),
    ) {
        let recording = if is_relation { relation(&all, cut) } else { stream(&all, cut) };
        let all: Vec<Detection> = if is_relation {
            all
        } else {
            all.into_iter().map(|d| Detection { gone: None, ..d }).collect()
        };
        let (out, rows, evicted) = changes_of(recording, workers, "");
        let expected = counted(&all, is_relation);
        prop_assert_eq!(out, recomputed(&expected));
        prop_assert_eq!(rows, joined(&expected, is_relation));
        prop_assert_eq!(evicted, 0);
    }
}

#[test]
fn a_full_state_forgets_the_oldest_windows_and_counts_them() {
    let all: Vec<Detection> = (0..12)
        .map(|n| Detection { at: n * 10 * MINUTE, gone: None, age: 0, client: 1, what: 1, number: n as u64 })
        .collect();
    let (out, _, evicted) = changes_of(stream(&all, 5), 1, ", max_rows: 4");
    assert_eq!(evicted, 8);
    let most = out.iter().filter_map(|row| row.split('|').nth(1)?.parse::<u32>().ok()).max();
    assert_eq!(most, Some(4), "{out:?}");
}

#[test]
fn a_joined_row_that_nobody_remembers_is_taken_back_as_it_was_given() {
    let one = |number: u64| Detection { at: 0, gone: Some(MINUTE), age: 0, client: 1, what: 1, number };
    let all: Vec<Detection> = (0..3).map(one).collect();
    let (_, rows, _) = changes_of(relation(&all, 8), 1, ", max_rows: 2");
    let (given, taken): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.starts_with('+'));
    assert_eq!(
        given.iter().map(|row| &row[1..]).collect::<Vec<_>>(),
        taken.iter().map(|row| &row[1..]).collect::<Vec<_>>()
    );
    assert_eq!(given.iter().filter(|row| row.ends_with('|')).count(), 1, "{given:?}");
}

/// One request: its minute and its client.
fn requests(of: &[(i64, u8)]) -> Recording {
    let schema =
        stream_schema([Field::new("src_ip", DataType::Utf8, false), Field::new("status", DataType::UInt16, false)]);
    let batches = of.iter().enumerate().map(|(seq, (minute, from))| {
        let columns: Vec<ArrayRef> = vec![
            time_array(vec![(START + minute * MINUTE) * MS]),
            Arc::new(UInt64Array::from(vec![seq as u64])),
            Arc::new(StringArray::from(vec![client(*from)])),
            Arc::new(UInt16Array::from(vec![200])),
        ];
        let rows = RecordBatch::try_new(schema.clone(), columns).expect("valid");
        ((START + minute * MINUTE) as u64, Batch::new(rows))
    });
    Recording { ty: EdgeType::stream(schema.clone()), batches: batches.collect(), live: false }
}

#[test]
fn behind_rules_an_address_recurs_by_its_final_windows_and_live_ones_are_taken_back() {
    // Windows of ten minutes from minute 0. A detection is a window with fewer than three requests, until the third comes.
    let of = [(0, 1), (1, 2), (2, 1), (5, 1), (11, 1), (12, 2), (13, 2), (14, 2), (21, 1), (31, 3)];
    let (name, live, last, joined) = (unique(), unique(), unique(), unique());
    record(&name, requests(&of));
    let yaml = format!(
        "name: t\ntick: 1s\nnodes:\n- {{ id: q, kind: test.replay, name: {name} }}\n\
         - id: f\n  kind: aggregate\n  from: q\n  by: [src_ip]\n  window: 10m\n  features: [{{ name: hits, expr: count(*) }}]\n\
         - id: d\n  kind: detect.rules\n  from: f\n  rules: &rules\n  - {{ name: few, when: hits < 3, level: HIGH, reason: few }}\n\
         - id: e\n  kind: detect.rules\n  from: f.final\n  rules:\n  - {{ name: few, when: hits < 3, level: HIGH, reason: few }}\n\
         - {{ id: rl, kind: recurrence, from: d }}\n- {{ id: rf, kind: recurrence, from: e, column: seen }}\n\
         - {{ id: o, kind: test.collect, from: rl, name: {live} }}\n\
         - {{ id: p, kind: test.collect, from: rf, name: {last} }}\n\
         - {{ id: j, kind: test.collect, from: rf.joined, name: {joined} }}\n"
    )
    .replace("&rules", "");
    let dir = tempfile::tempdir().expect("a folder");
    let plan = load(&dir.path().join("p.yaml"), &yaml).unwrap_or_else(|shown| panic!("{shown}"));
    let shared = run(plan, 2);
    assert_eq!(shared.failure(), None);
    // Client 1: three hits in window 0, one each in windows 1 and 2. Client 2: one, then three. Client 3: one.
    let standing = |name: &str| {
        let mut rows: BTreeMap<String, i64> = BTreeMap::new();
        for row in text(&collected(name), 0) {
            let (sign, row) = row.split_once(' ').expect("a sign");
            let cells: Vec<&str> = row.split('|').collect();
            *rows.entry(cells[..4].join("|")).or_default() += sign.parse::<i64>().expect("a number");
        }
        rows.retain(|_, count| *count != 0);
        assert!(rows.values().all(|count| *count == 1), "{rows:?}");
        rows.into_keys().collect::<Vec<_>>()
    };
    let expected = ["192.0.2.1|2|2|HIGH", "192.0.2.2|1|1|HIGH", "192.0.2.3|1|1|HIGH"];
    assert_eq!(standing(&last), expected);
    assert_eq!(standing(&live), expected);
    let rows = collected(&joined);
    let count = |b: &Batch, row: usize, name: &str| {
        array_value_to_string(b.rows.column_by_name(name).expect("there"), row).expect("text")
    };
    let mut found: Vec<String> = rows
        .iter()
        .flat_map(|b| (0..b.rows.num_rows()).map(move |row| (b, row)))
        .map(|(b, row)| {
            format!("{} {} {}", count(b, row, "src_ip"), &count(b, row, WINDOW_START)[14..16], count(b, row, "seen"))
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, ["192.0.2.1 10 0", "192.0.2.1 20 1", "192.0.2.2 00 0", "192.0.2.3 30 0"].map(str::to_owned));
    // A message's time is not after the events in it: nothing behind this node is late.
    assert!(rows.iter().all(|batch| !batch.late && batch.settled && batch.diff == 1));
}

#[test]
fn a_start_needs_the_days_before_it_and_faults_are_shown_at_their_place() {
    let name = unique();
    let one = Detection { at: 0, gone: None, age: 0, client: 1, what: 1, number: 1 };
    record(&name, stream(&[one], 1));
    let shown = |options: &str| {
        let dir = tempfile::tempdir().expect("a folder");
        let yaml = format!(
            "name: t\nnodes:\n- {{ id: d, kind: test.replay, name: {name} }}\n- {{ id: r, kind: recurrence, from: d{options} }}\n\
             - {{ id: o, kind: test.collect, from: r, name: x }}\n"
        );
        load(&dir.path().join("p.yaml"), &yaml)
    };
    let plan = shown("").unwrap_or_else(|shown| panic!("{shown}"));
    let hour = 3_600_000;
    assert_eq!(plan.nodes.iter().find(|n| n.id == "r").expect("there").node.needs_from(1000 * hour), 831 * hour);
    let cases = [
        (", by: [ja4]", "no column `ja4`"),
        (", by: []", "`by` names no column"),
        (", by: [src_ip, src_ip]", "`src_ip` is there already"),
        (", column: number", "the input has a column `number` already: set `column`"),
        (", column: first_seen", "`first_seen` would be there twice"),
        (", look_back: 1h, granularity: 2h", "`granularity` is at most `look_back`"),
        (", look_back: 0s", "whole milliseconds, at least one"),
        (", max_rows: 0", "`max_rows` is at least 1"),
        (", score: src_ip", "`src_ip` is Utf8, which cannot be used here"),
    ];
    for (options, part) in cases {
        let text = shown(options).err().unwrap_or_default();
        assert!(text.contains(part), "{options}: {part} is missing in:\n{text}");
    }
}
