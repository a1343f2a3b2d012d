use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field};
use arrow::util::display::array_value_to_string;
use engine::batch::{EdgeClass, stream_schema, time_array};
use engine::contract::{NodeMetrics, Session};
use proptest::prelude::*;

use super::*;

const TICK: u64 = 1_000;
const LOOK_BACK: u64 = 6 * TICK;
const COLUMNS: [(&str, &str); 6] = [
    ("n", "count(*) over ()"),
    ("kinds", "count(distinct kind) over ()"),
    ("same", "count(*) over (partition by kind)"),
    ("place", "rank() over (order by hits desc)"),
    ("share", "1.0 * hits / nullif(sum(hits) over (partition by kind), 0)"),
    ("nth", "row_number() over (order by hits)"),
];

/// A row of the input; times in ms.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    number: u64,
    part: u8,
    kind: Option<u8>,
    hits: i64,
    note: u8,
    window: u64,
}

fn fields() -> Vec<Field> {
    vec![
        Field::new(WINDOW_START, time_type(), false),
        Field::new("note", DataType::Utf8, false),
        Field::new("part", DataType::Utf8, false),
        Field::new("number", DataType::UInt64, false),
        Field::new("kind", DataType::Utf8, true),
        Field::new("hits", DataType::Int64, false),
    ]
}

fn relation_type() -> EdgeType {
    let class = EdgeClass::Relation { key: vec!["number".to_owned()] };
    EdgeType { schema: Arc::new(Schema::new(fields())), class }
}

fn batch(rows: &[Row], ty: &EdgeType, events: &[u64]) -> RecordBatch {
    let ns = |ms: u64| ms as i64 * 1_000_000;
    let text = |cell: u8| format!("value {cell}");
    let mut columns: Vec<ArrayRef> = vec![
        time_array(rows.iter().map(|row| ns(row.window)).collect()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| text(row.note)))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| text(row.part)))),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.number))),
        Arc::new(rows.iter().map(|row| row.kind.map(text)).collect::<StringArray>()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.hits))),
    ];
    if !ty.is_relation() {
        columns.insert(0, time_array(events.iter().map(|event| ns(*event)).collect()));
        columns.insert(1, Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.number))));
    }
    RecordBatch::try_new(ty.schema.clone(), columns).expect("valid")
}

fn state(ty: &EdgeType, columns: &[(&str, &str)], settings: Settings) -> (State, Arc<NodeMetrics>) {
    let by = [ty.schema.index_of("part").expect("there")];
    let windows = Session::new().windows(columns, &ty.schema).expect("compiles");
    let layout = Layout::new(ty, &by, windows.read());
    let windows = Session::new().windows(columns, &layout.head_schema(&ty.schema)).expect("compiles");
    let added = windows.fields().iter().cloned().map(Arc::new);
    let out = Schema::new(ty.schema.fields().iter().cloned().chain(added).collect::<Vec<_>>());
    let codec = Codec::new(&Arc::new(layout), &Arc::new(out)).expect("valid");
    let metrics = Arc::new(NodeMetrics::default());
    (State::new(Rc::new(codec), Arc::new(windows), settings, Arc::clone(&metrics)), metrics)
}

fn settings(is_relation: bool) -> Settings {
    Settings { tick: TICK, look_back: Some(LOOK_BACK), max_rows: 1_000, max_peers: 1_000, is_relation }
}

/// Each row as text from a column on.
fn text(rows: &RecordBatch, from: usize) -> Vec<String> {
    let cell = |column: &ArrayRef, row| array_value_to_string(column, row).expect("text");
    let of_row = |row| rows.columns()[from..].iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|");
    (0..rows.num_rows()).map(of_row).collect()
}

/// What happens to a group: it gets other values, ends, or settles.
#[derive(Clone, Debug)]
struct Event {
    tick: u64,
    group: u8,
    what: u8,
    row: Row,
}

/// A change of the relation.
#[derive(Clone, Debug)]
struct Changed {
    at: u64,
    diff: i8,
    settled: bool,
    row: Row,
}

/// The changes of a relation with one row for each group, which starts anew once it has settled.
fn changes(mut events: Vec<Event>) -> Vec<Changed> {
    events.sort_by_key(|event| event.tick);
    let (mut current, mut starts): (BTreeMap<u8, Row>, u64) = Default::default();
    let mut changes = Vec::new();
    for (nth, Event { tick, group, what, row }) in (1..).zip(events) {
        let at = (tick - 1) * TICK + nth;
        let before = current.remove(&group);
        let number = before.as_ref().map_or_else(
            || {
                starts += 1;
                starts * 100 + u64::from(group)
            },
            |before| before.number,
        );
        changes.extend(before.iter().map(|row| Changed { at, diff: -1, settled: false, row: row.clone() }));
        // Some settle, or are given again, as they are.
        let row = match before {
            Some(before) if row.note == 0 => before,
            _ => Row { number, window: (tick * TICK).saturating_sub(row.window), ..row },
        };
        let settled = what == 1;
        if what != 0 {
            changes.push(Changed { at, diff: 1, settled, row: row.clone() });
        }
        if what > 1 {
            current.insert(group, row);
        }
    }
    changes
}

/// A row of the recomputation.
struct Known {
    row: Row,
    settled: Option<u64>,
    given: Option<String>,
}

/// The added columns of a row, from nothing but its peers.
fn added(row: &Row, peers: &[Row]) -> String {
    let kinds: BTreeSet<u8> = peers.iter().filter_map(|peer| peer.kind).collect();
    let same: Vec<&Row> = peers.iter().filter(|peer| peer.kind == row.kind).collect();
    let place = 1 + peers.iter().filter(|peer| peer.hits > row.hits).count();
    let sum: i64 = same.iter().map(|peer| peer.hits).sum();
    let share = if sum == 0 { String::new() } else { format!("{:?}", row.hits as f64 / sum as f64) };
    let order = |row: &Row| (row.hits, row.kind, row.number);
    let number = 1 + peers.iter().filter(|peer| order(peer) < order(row)).count();
    format!("{}|{}|{}|{place}|{share}|{number}", peers.len(), kinds.len(), same.len())
}

/// What stands downstream after each tick, recomputed.
fn recomputed(changes: &[Changed]) -> BTreeMap<u64, Vec<String>> {
    let mut known: Vec<Known> = Vec::new();
    let mut gone: Vec<String> = Vec::new();
    let mut standing = BTreeMap::new();
    let ticks: BTreeSet<u64> = changes.iter().map(|change| change.at.next_multiple_of(TICK)).collect();
    for tick in ticks {
        let (kept, old): (Vec<Known>, Vec<Known>) =
            known.into_iter().partition(|k| k.settled.is_none() || k.row.window + LOOK_BACK > tick);
        gone.extend(old.into_iter().filter_map(|k| k.given.map(|given| format!("{}:{given}", k.row.number))));
        known = kept;
        let mut touched = BTreeSet::new();
        for change in changes.iter().filter(|change| change.at.next_multiple_of(TICK) == tick) {
            touched.insert(change.row.part);
            if change.diff > 0 {
                let settled = change.settled.then_some(tick);
                known.push(Known { row: change.row.clone(), settled, given: None });
            } else {
                known.retain(|k| k.settled.is_some() || k.row.number != change.row.number);
            }
        }
        for part in touched {
            let peers: Vec<Row> = known.iter().filter(|k| k.row.part == part).map(|k| k.row.clone()).collect();
            for k in known.iter_mut().filter(|k| k.row.part == part && k.settled.is_none_or(|at| at == tick)) {
                k.given = Some(added(&k.row, &peers));
            }
        }
        let rows = known.iter().filter_map(|k| k.given.as_ref().map(|given| format!("{}:{given}", k.row.number)));
        let mut rows: Vec<String> = rows.chain(gone.iter().cloned()).collect();
        rows.sort_unstable();
        standing.insert(tick, rows);
    }
    standing
}

/// What stands downstream after each tick, from the changes that the state gives.
fn accumulated(out: &[(Time, Batch)]) -> BTreeMap<u64, Vec<String>> {
    let (mut sums, mut standing): (BTreeMap<String, i64>, BTreeMap<u64, Vec<String>>) = Default::default();
    for (time, batch) in out {
        for (number, added) in text(&batch.rows.project(&[3]).expect("there"), 0).iter().zip(text(&batch.rows, 6)) {
            *sums.entry(format!("{number}:{added}")).or_default() += i64::from(batch.diff);
        }
        let rows = sums.iter().filter(|(_, count)| **count != 0).map(|(row, count)| {
            assert_eq!(*count, 1, "{row}");
            row.clone()
        });
        standing.insert(*time, rows.collect());
    }
    standing
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let row = (0..3_u8, prop::option::of(0..3_u8), 0..6_i64, 0..3_u8, 0..8_000_u64)
        .prop_map(|(part, kind, hits, note, window)| Row { number: 0, part, kind, hits, note, window });
    let event = (1..25_u64, 0..10_u8, 0..6_u8, row);
    prop::collection::vec(event.prop_map(|(tick, group, what, row)| Event { tick, group, what, row }), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_seed: proptest::test_runner::RngSeed::Fixed(17),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_stands_is_what_a_recomputation_gives(
        events in events(),
        cut in prop::sample::select(vec![1_usize, 3, 1_000]),
        step in prop::sample::select(vec![100_u64, 700, 5_000, 1_000_000]),
    ) {
        let changes = changes(events);
        let ty = relation_type();
        let (mut state, metrics) = state(&ty, &COLUMNS, settings(true));
        let (mut out, mut frontier) = (Vec::new(), 0);
        for tick in changes.chunk_by(|a, b| a.at.next_multiple_of(TICK) == b.at.next_multiple_of(TICK)) {
            while frontier + step <= tick[0].at {
                frontier += step;
                state.advance(Some(frontier), &mut out).expect("advances");
            }
            // What comes within a tick has no order.
            let mut tick = tick.to_vec();
            tick.sort_by_key(|change| (change.settled, -change.diff, change.row.number % 3));
            for same in tick.chunk_by(|a, b| (a.diff, a.settled) == (b.diff, b.settled)) {
                for rows in same.chunks(cut) {
                    let Changed { diff, settled, .. } = rows[0];
                    let at = rows.iter().map(|change| change.at).min().expect("rows");
                    let of_rows: Vec<Row> = rows.iter().map(|change| change.row.clone()).collect();
                    let rows = Batch { diff, settled, ..Batch::new(batch(&of_rows, &ty, &[])) };
                    state.push(rows, at).expect("pushes");
                }
            }
        }
        state.advance(None, &mut out).expect("advances");
        let (found, expected) = (accumulated(&out), recomputed(&changes));
        for (tick, rows) in &found {
            prop_assert_eq!(rows, &expected[tick], "tick {}", tick);
        }
        // A tick that gives nothing has changed nothing.
        prop_assert_eq!(found.last_key_value().map(|(_, rows)| rows), expected.last_key_value().map(|(_, rows)| rows));
        prop_assert_eq!(metrics.state_rows.load(Relaxed), 0);
        prop_assert_eq!(metrics.evicted.load(Relaxed), 0);
        let settled = changes.iter().filter(|change| change.settled).count();
        prop_assert_eq!(out.iter().filter(|(_, b)| b.settled && b.diff > 0).map(|(_, b)| b.rows.num_rows()).sum::<usize>(), settled);
    }
}

fn row(number: u64, kind: Option<u8>, hits: i64) -> Row {
    Row { number, part: 1, kind, hits, note: 7, window: 0 }
}

fn push(state: &mut State, ty: &EdgeType, at: u64, diff: i8, settled: bool, rows: &[Row]) {
    let rows = Batch { diff, settled, ..Batch::new(batch(rows, ty, &vec![at; rows.len()])) };
    state.push(rows, at).expect("pushes");
}

/// All changes up to a frontier as text: the sign, `!` if it is settled, the row's number and its added columns.
fn advance(state: &mut State, frontier: Option<u64>) -> Vec<String> {
    let mut out = Vec::new();
    state.advance(frontier, &mut out).expect("advances");
    let of_batch = |(_, batch): &(Time, Batch)| {
        let schema = batch.rows.schema();
        let number = batch.rows.project(&[schema.index_of("number").expect("there")]).expect("there");
        let added = text(&batch.rows, schema.index_of("hits").expect("there") + 1);
        let sign = format!("{}{}", if batch.diff > 0 { "+" } else { "-" }, if batch.settled { "!" } else { "" });
        text(&number, 0)
            .into_iter()
            .zip(added)
            .map(|(number, added)| format!("{sign}{number}:{added}"))
            .collect::<Vec<_>>()
    };
    out.iter().flat_map(of_batch).collect()
}

#[test]
fn rows_of_a_stream_leave_once_with_what_is_known_at_their_tick() {
    let ty = EdgeType::stream(stream_schema(fields()));
    let (mut state, metrics) = state(&ty, &COLUMNS[..1], settings(false));
    // Two equal rows are two rows. A message's time is not after the events in it.
    push(&mut state, &ty, 100, 1, true, &[row(1, None, 1), row(1, None, 1), row(2, None, 1)]);
    assert_eq!(state.next(), Some(100));
    assert!(advance(&mut state, Some(999)).is_empty());
    assert_eq!(advance(&mut state, Some(1_001)), ["+!1:3", "+!1:3", "+!2:3"]);
    assert_eq!(state.next(), None);
    let late = Batch { late: true, ..Batch::new(batch(&[row(3, None, 1)], &ty, &[200])) };
    state.push(late, 1_500).expect("pushes");
    let mut out = Vec::new();
    state.advance(Some(2_001), &mut out).expect("advances");
    assert_eq!(
        out.iter().map(|(time, batch)| (*time, batch.late, batch.settled)).collect::<Vec<_>>(),
        [(1_500, true, true)]
    );
    assert_eq!(text(&out[0].1.rows, 8), ["4"]);
    // The window is six ticks old: its rows are no peers any more.
    push(&mut state, &ty, 7_000, 1, true, &[row(4, None, 1)]);
    assert_eq!(advance(&mut state, None), ["+!4:1"]);
    assert_eq!(metrics.counter("too_old").load(Relaxed), 1);
}

#[test]
fn without_look_back_settled_rows_are_forgotten_at_their_tick() {
    let ty = relation_type();
    let (mut state, metrics) = state(&ty, &COLUMNS[..1], Settings { look_back: None, ..settings(true) });
    push(&mut state, &ty, 100, 1, false, &[row(1, None, 1), row(2, None, 1)]);
    assert_eq!(advance(&mut state, Some(1_001)), ["+1:2", "+2:2"]);
    push(&mut state, &ty, 1_100, -1, false, &[row(1, None, 1), row(2, None, 1)]);
    push(&mut state, &ty, 1_100, 1, true, &[row(1, None, 1), row(2, None, 5)]);
    assert_eq!(advance(&mut state, Some(2_001)), ["-1:2", "-2:2", "+!1:2", "+!2:2"]);
    assert_eq!(metrics.state_rows.load(Relaxed), 0);
    push(&mut state, &ty, 2_100, 1, false, &[row(3, None, 1)]);
    assert_eq!(advance(&mut state, Some(3_001)), ["+3:1"]);
}

#[test]
fn what_comes_and_goes_within_a_tick_is_not_seen() {
    let ty = relation_type();
    let (mut state, _) = state(&ty, &COLUMNS[..1], settings(true));
    push(&mut state, &ty, 100, 1, false, &[row(1, None, 1)]);
    assert_eq!(advance(&mut state, Some(1_001)), ["+1:1"]);
    for (diff, rows) in
        [(1, [row(2, None, 1)]), (-1, [row(2, None, 1)]), (-1, [row(1, None, 1)]), (1, [row(1, None, 1)])]
    {
        push(&mut state, &ty, 1_100, diff, false, &rows);
    }
    assert!(advance(&mut state, Some(2_001)).is_empty());
}

#[test]
fn a_full_state_forgets_and_says_so_downstream() {
    let ty = relation_type();
    let (mut state, metrics) = state(&ty, &COLUMNS[..1], Settings { max_rows: 2, ..settings(true) });
    push(&mut state, &ty, 100, 1, false, &[row(1, None, 1), row(2, None, 1)]);
    assert_eq!(advance(&mut state, Some(1_001)), ["+1:2", "+2:2"]);
    push(&mut state, &ty, 1_100, 1, false, &[Row { window: 500, ..row(3, None, 1) }]);
    assert_eq!(advance(&mut state, Some(2_001)), ["-1:2", "+1:", "+3:2"]);
    assert_eq!(metrics.evicted.load(Relaxed), 1);
    // What was forgotten is taken back as it stands downstream.
    push(&mut state, &ty, 2_100, -1, false, &[row(1, None, 1)]);
    push(&mut state, &ty, 2_100, -1, false, &[row(2, None, 1)]);
    assert_eq!(advance(&mut state, Some(3_001)), ["-1:", "-2:2", "-3:2", "+3:1"]);
}

#[test]
fn a_partition_that_is_too_large_has_no_values() {
    let ty = relation_type();
    let (mut state, metrics) = state(&ty, &COLUMNS[..1], Settings { max_peers: 2, ..settings(true) });
    push(&mut state, &ty, 100, 1, false, &[row(1, None, 1), row(2, None, 1)]);
    assert_eq!(advance(&mut state, Some(1_001)), ["+1:2", "+2:2"]);
    push(&mut state, &ty, 1_100, 1, true, &[row(3, None, 1)]);
    assert_eq!(advance(&mut state, Some(2_001)), ["-1:2", "-2:2", "+1:", "+2:", "+!3:"]);
    assert_eq!(metrics.counter("too_many_peers").load(Relaxed), 1);
    push(&mut state, &ty, 2_100, -1, false, &[row(1, None, 1)]);
    assert_eq!(advance(&mut state, Some(3_001)), ["-1:", "-2:", "+2:2"]);
}
