use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use arrow::array::{AsArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use differential_dataflow::operators::Iterate;
use parking_lot::Mutex;
use proptest::prelude::*;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};

use super::*;

const HOUR: Time = 3_600_000;

fn row(key: u64, at: Time, until: Time, diff: isize) -> Row<u64, Time> {
    Row { key, value: until, at, until, diff }
}

/// All updates, in the order of time.
fn updates(held: &mut Held<u64, Time>, rows: &[Row<u64, Time>], frontiers: &[Option<Time>]) -> Vec<Update<u64, Time>> {
    rows.iter().for_each(|row| held.push(row.clone()));
    held.clock = rows.iter().map(|row| row.at).max().unwrap_or_default();
    let mut out = Vec::new();
    frontiers.iter().for_each(|frontier| held.advance(*frontier, &mut out));
    assert!(out.is_sorted_by_key(|(_, time, _)| *time));
    out
}

#[test]
fn a_row_ends_when_its_time_has_come_and_stays_when_the_input_ends_before() {
    let rows = [row(1, 10, 30, 1), row(2, 20, 50, 2), row(3, 40, 60, 1)];
    let expected = vec![((1, 30), 10, 1), ((2, 50), 20, 2), ((1, 30), 30, -1), ((3, 60), 40, 1)];
    for frontiers in [&[None][..], &[Some(11), Some(31), None], &[Some(45), None]] {
        assert_eq!(updates(&mut Held::new(10), &rows, frontiers), expected, "{frontiers:?}");
    }
    let mut held = Held::new(10);
    let found = updates(&mut held, &rows, &[Some(51)]);
    assert_eq!(found[4..], [((2, 50), 50, -2)], "the frontier is enough");
    assert_eq!((held.len, held.next()), (1, Some(60)));
}

#[test]
fn what_has_ended_before_it_comes_is_counted() {
    let mut held = Held::new(10);
    let found = updates(&mut held, &[row(1, 30, 30, 1), row(1, 30, 29, 1), row(1, 30, 31, 1)], &[None]);
    assert_eq!((found, held.too_old), (vec![((1, 31), 30, 1)], 2));
}

#[test]
fn a_full_state_ends_early_what_would_end_first_and_never_takes_it_back_twice() {
    let rows = [
        row(1, 1, 100, 2),
        row(2, 2, 90, 1),
        // No room: the row of key 2 ends early.
        row(3, 3, 95, 1),
        row(2, 4, 90, -1),
        // Room again once key 3 is gone: what goes at a time goes first.
        row(3, 5, 95, -1),
        row(4, 5, 99, 1),
    ];
    let mut held = Held::new(2);
    let found = updates(&mut held, &rows, &[None]);
    let expected =
        [((1, 100), 1, 2), ((2, 90), 2, 1), ((2, 90), 3, -1), ((3, 95), 3, 1), ((3, 95), 5, -1), ((4, 99), 5, 1)];
    assert_eq!((found, held.evicted), (expected.to_vec(), 1));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        rng_seed: proptest::test_runner::RngSeed::Fixed(11),
        ..ProptestConfig::default()
    })]

    #[test]
    fn rows_are_those_that_have_come_and_not_ended(
        rows in prop::collection::vec((0..4_u64, 0..60_u64, 0..40_u64, any::<bool>()), 1..60),
        stops in prop::collection::vec(0..100_u64, 0..6),
    ) {
        // Half of the rows are taken back some time after they came.
        let mut all = Vec::new();
        for (key, at, life, is_taken_back) in rows {
            let until = 20 + at / 10 * 10 + life / 10 * 10;
            all.push(row(key, at, until, 1));
            if is_taken_back {
                all.push(row(key, at + life / 3, until, -1));
            }
        }
        let mut frontiers: Vec<Option<Time>> = stops.into_iter().map(Some).collect();
        frontiers.sort_unstable();
        frontiers.push(None);
        let last = all.iter().map(|row| row.at).max().unwrap_or_default();
        let seen = frontiers.iter().flatten().max().copied().unwrap_or_default();
        let found = updates(&mut Held::new(1000), &all, &frontiers);
        for time in 0..=last.max(seen.saturating_sub(1)) {
            let mut held: Vec<((u64, Time), isize)> =
                found.iter().filter(|(_, at, _)| *at <= time).map(|(row, _, diff)| (*row, *diff)).collect();
            consolidate(&mut held);
            let alive = all.iter().filter(|row| row.at <= time && row.at < row.until && row.until > time);
            let mut expected: Vec<((u64, Time), isize)> = alive.map(|row| ((row.key, row.value), row.diff)).collect();
            consolidate(&mut expected);
            prop_assert_eq!(held, expected, "at {}", time);
        }
    }
}

fn columns(rows: &[(u64, isize)]) -> Result<RecordBatch, ArrowError> {
    let schema = Schema::new(vec![Field::new("key", DataType::UInt64, false)]);
    let keys = UInt64Array::from_iter_values(rows.iter().map(|(key, _)| *key));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys)])
}

#[test]
fn a_week_of_pending_ends_does_not_hold_time_back() {
    let found = timely::execute_directly(|worker| {
        let (mut input, probe, found) = (InputHandle::new(), ProbeHandle::new(), Rc::new(RefCell::new(Vec::new())));
        let sink = Rc::clone(&found);
        worker.dataflow(|scope| {
            let changes = scope.input_from(&mut input).container::<Vec<Change<u64, Time>>>();
            let rows = hold_as(changes, "hold", 100, Arc::default(), |_| {});
            let counts = rows.map(|(key, _)| key).count();
            // A row is settled by a column, here its key, or by the time at which it leaves.
            let batches = batches_as(
                counts,
                "batches",
                |fault| panic!("{fault}"),
                columns,
                |(key, _), time| *key == 7 || time >= 5 * HOUR,
            );
            batches.inspect(move |batch| sink.borrow_mut().push(batch.clone())).probe_with(&probe);
        });
        for hour in 0..10 {
            input.advance_to(hour * HOUR);
            input.send(Change::Row(row(hour % 3 + 6, hour * HOUR, hour * HOUR + 168 * HOUR, 1)));
            input.advance_to(hour * HOUR + 1);
            for _ in 0..20 {
                worker.step();
            }
            assert!(!probe.less_than(input.time()), "hour {hour}");
        }
        assert!(found.borrow().len() > 10);
        found.take()
    });
    let marks = |batch: &Batch| {
        let keys = batch.rows.column(0).as_primitive::<UInt64Type>();
        (keys.value(0), batch.diff, batch.settled)
    };
    let found: Vec<_> = found.iter().map(marks).collect();
    let first = [(6, 1, false), (7, 1, true), (8, 1, false), (6, -1, false), (6, 1, false)];
    assert_eq!(found[..5], first, "a change takes back the old row first");
    assert_eq!(found.last(), Some(&(6, 1, true)));
}

/// How many updates all arrangements of this worker hold, by their own account.
fn arranged(worker: &timely::worker::Worker) -> Arc<Mutex<i64>> {
    let (held, sum) = (Arc::new(Mutex::new(0_i64)), Arc::new(Mutex::new(0_i64)));
    let shared = Arc::clone(&held);
    let signed = |length: usize| i64::try_from(length).expect("small");
    let mut register = worker.log_register().expect("there is a log");
    register.insert::<DifferentialEventBuilder, _>("differential/arrange", move |_time, events| {
        let mut sum = sum.lock();
        for (_, event) in events.iter().flatten() {
            *sum += match event {
                DifferentialEvent::Batch(batch) => signed(batch.length),
                DifferentialEvent::Merge(merge) => {
                    merge.complete.map_or(0, |left| signed(left) - signed(merge.length1) - signed(merge.length2))
                }
                DifferentialEvent::Drop(batch) => -signed(batch.length),
                _ => 0,
            };
        }
        *shared.lock() = *sum;
    });
    held
}

#[test]
fn memory_does_not_grow_with_history() {
    const KEYS: u64 = 50;
    const DAYS: u64 = 60;
    let most = timely::execute_directly(|worker| {
        let held = arranged(worker);
        let metrics: Arc<NodeMetrics> = Arc::default();
        let (mut input, probe) = (InputHandle::new(), ProbeHandle::new());
        worker.dataflow(|scope| {
            let changes = scope.input_from(&mut input).container::<Vec<Change<u64, Time>>>();
            let rows = hold_as(changes, "hold", 1_000_000, Arc::clone(&metrics), |_| {});
            let counts =
                rows.reduce(|_key, values, out| out.push((values.iter().map(|(_, count)| count).sum(), 1_isize)));
            batches_as(counts, "batches", |_| {}, columns, |_, _| false).probe_with(&probe);
        });
        let mut most = Vec::new();
        for hour in 0..DAYS * 24 {
            let at = hour * HOUR;
            for key in 0..KEYS {
                input.send(Change::Row(row(key, at, at + 24 * HOUR, 1)));
            }
            input.advance_to(at + HOUR);
            while probe.less_than(input.time()) {
                worker.step();
            }
            // What one day holds: a row for each key and hour.
            let rows = metrics.state_rows.load(Relaxed);
            assert!(rows <= i64::try_from(KEYS * 25).expect("small"), "{rows} rows");
            if hour % 240 == 239 {
                worker.log_register().expect("there is a log").flush();
                most.push(*held.lock());
            }
        }
        most
    });
    assert!(most.iter().all(|held| *held > 0), "the account works: {most:?}");
    let (early, late) = (most[0].max(most[1]), most[most.len() - 1]);
    assert!(late <= 2 * early, "{most:?}");
    assert!(late < i64::try_from(KEYS * 24 * 4).expect("small"), "{most:?}");
}

/// The least node of each node's component, by going over the edges until nothing changes.
fn components(edges: &BTreeSet<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut least: BTreeMap<u64, u64> = edges.iter().flat_map(|(a, b)| [(*a, *a), (*b, *b)]).collect();
    loop {
        let before = least.clone();
        for (a, b) in edges {
            let both = least[a].min(least[b]);
            least.insert(*a, both);
            least.insert(*b, both);
        }
        if least == before {
            return least.into_iter().collect();
        }
    }
}

/// What `iterate` makes of rows that age, and that an iteration keeps no more than the rows need.
#[test]
fn components_of_edges_that_age_are_those_of_the_edges_that_are_left() {
    const LIFE: u64 = 6;
    let most = timely::execute_directly(|worker| {
        let held = arranged(worker);
        let (mut input, probe, standing) = (InputHandle::new(), ProbeHandle::new(), Rc::new(RefCell::new(Vec::new())));
        let sink = Rc::clone(&standing);
        worker.dataflow(|scope| {
            let changes = scope.input_from(&mut input).container::<Vec<Change<u64, u64>>>();
            let edges = hold_as(changes, "hold", 10_000, Arc::default(), |_| {}).distinct();
            let edges = edges.clone().concat(edges.map(|(a, b)| (b, a)));
            let nodes = edges.clone().map(|(node, _)| (node, node)).distinct();
            let components = nodes.clone().iterate(|scope, labels| {
                let (edges, nodes) = (edges.enter(scope), nodes.enter(scope));
                let told = labels.join_map(edges, |_from, label, to| (*to, *label));
                told.concat(nodes).reduce(|_node, labels, out| out.push((*labels[0].0, 1_isize)))
            });
            components.inspect(move |change| sink.borrow_mut().push(*change)).probe_with(&probe);
        });
        let (mut seed, mut live, mut most) = (1_u64, Vec::new(), Vec::new());
        for hour in 0..400_u64 {
            live.retain(|(_, until)| *until > hour);
            for _ in 0..5 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (a, b) = (seed >> 33 & 31, seed >> 43 & 31);
                let until = hour + 1 + (seed >> 53) % LIFE;
                let known = live.iter().any(|(edge, _)| *edge == (a, b));
                if !known {
                    live.push(((a, b), until));
                    input.send(Change::Row(Row { key: a, value: b, at: hour, until, diff: 1 }));
                }
            }
            input.advance_to(hour + 1);
            while probe.less_than(input.time()) {
                worker.step();
            }
            let mut found: Vec<((u64, u64), isize)> =
                standing.borrow().iter().map(|(row, _, diff)| (*row, *diff)).collect();
            consolidate(&mut found);
            let expected = components(&live.iter().map(|(edge, _)| *edge).collect());
            assert_eq!(found, expected.into_iter().map(|row| (row, 1)).collect::<Vec<_>>(), "hour {hour}");
            if hour % 100 == 99 {
                worker.log_register().expect("there is a log").flush();
                most.push(*held.lock());
            }
        }
        most
    });
    assert!(most[0] > 0 && most.iter().all(|held| *held <= 3 * most[0]), "{most:?}");
}
