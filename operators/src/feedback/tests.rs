//! What is held against a list of all that ever came.

use std::collections::BTreeMap;
use std::rc::Rc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::UInt64Type;
use differential_dataflow::consolidation::consolidate;
use engine::batch::time_array;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::held::{Bytes, Given, Held, Leaving};
use super::said::{Saying, Who, Word};
use super::*;
use crate::source::feedback::Label;

const TICK: Time = 10;

/// A row of a client: it comes at a tick, to stay or until it is taken back.
#[derive(Clone, Debug)]
struct Row {
    client: usize,
    comes: Time,
    /// `None` if it comes to stay; the end of time if it is never taken back.
    goes: Option<Time>,
}

/// What is said at a tick.
#[derive(Clone, Debug)]
struct Heard {
    about: usize,
    at: Time,
    label: Option<Label>,
    until: Time,
}

/// Four clients of two addresses, with and without a host.
fn client(nth: usize) -> Who {
    [Some(["a", "b"][nth % 2].into()), ["x", "y"].get(nth / 2).filter(|_| nth < 4).map(|host| (*host).into()), None]
}

/// Whom something can be about: some of it is about nobody here.
fn about(nth: usize) -> Who {
    let names: [[&str; 3]; 7] =
        [["a", "", ""], ["b", "", ""], ["", "x", ""], ["", "y", ""], ["a", "x", ""], ["b", "y", ""], ["", "", "t"]];
    names[nth % 7].map(|text| (!text.is_empty()).then(|| text.into()))
}

fn bytes(number: usize) -> Bytes {
    [u8::try_from(number).expect("few")].into()
}

/// All that leaves when time passes in these steps.
fn run(rows: &[Row], heard: &[Heard], look_back: Time, frontiers: &[Option<Time>]) -> Vec<(Time, Leaving)> {
    let mut held = Held::new((1000, 1000), look_back, TICK);
    for (number, row) in rows.iter().enumerate() {
        let whose = || (bytes(row.client), || client(row.client));
        let settled = row.goes.is_none();
        held.waiting.entry(row.comes).or_default().row(whose(), bytes(number), 1, settled);
        if let Some(goes) = row.goes.filter(|goes| *goes < Time::MAX) {
            held.waiting.entry(goes).or_default().row(whose(), bytes(number), -1, false);
        }
    }
    for (number, Heard { about: nth, at, label, until }) in heard.iter().enumerate() {
        let saying = Saying { about: about(*nth), word: word(number, *label), until: *until };
        held.waiting.entry(*at).or_default().saying((0, number as u64), saying);
    }
    let mut out = Vec::new();
    for frontier in frontiers {
        held.advance(*frontier, |time, leaving| out.push((time, leaving)));
    }
    out
}

fn word(number: usize, label: Option<Label>) -> Option<Rc<Word>> {
    label.map(|label| Rc::new(Word { at: number as i64, label, by: "ada".into() }))
}

/// What is said of a client at a time, looked for in all that was ever said.
fn expected_word(heard: &[Heard], nth: usize, time: Time) -> Option<Rc<Word>> {
    let mut order: Vec<(usize, &Heard)> = heard.iter().enumerate().filter(|(_, one)| one.at <= time).collect();
    order.sort_by_key(|(number, one)| (one.at, *number));
    let mut last: BTreeMap<usize, (usize, &Heard)> = BTreeMap::new();
    for (number, one) in order {
        if one.label.is_none() || one.until > one.at {
            last.insert(one.about, (number, one));
        }
    }
    let client = client(nth);
    let fits = |one: &Heard| about(one.about).iter().zip(&client).all(|(about, own)| about.is_none() || about == own);
    let live = last.into_values().filter(|(_, one)| one.label.is_some() && one.until > time && fits(one));
    let named = |one: &Heard| about(one.about).iter().flatten().count();
    let best = live.max_by_key(|(number, one)| (named(one), *number))?;
    word(best.0, best.1.label)
}

fn ticks() -> impl Strategy<Value = Time> {
    (1..30_u64).prop_map(|tick| tick * TICK)
}

prop_compose! {
    fn rows()(rows in prop::collection::vec((0..6_usize, ticks(), prop::option::of(1..12_u64)), 0..25)) -> Vec<Row> {
        let goes = |comes: Time, life: Option<u64>| life.map(|life| if life < 10 { comes + life * TICK } else { Time::MAX });
        rows.into_iter().map(|(client, comes, life)| Row { client, comes, goes: goes(comes, life) }).collect()
    }
}

prop_compose! {
    fn sayings()(said in prop::collection::vec((0..7_usize, ticks(), 0..3_u8, 0..15_u64), 0..20)) -> Vec<Heard> {
        let label = |n: u8| [None, Some(Label::FalsePositive), Some(Label::TruePositive)][usize::from(n)];
        said.into_iter().map(|(about, at, n, life)| Heard { about, at, label: label(n), until: at + life * TICK }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(17), ..ProptestConfig::default() })]

    #[test]
    fn at_each_tick_each_row_has_what_is_said_of_its_client_then(
        rows in rows(), heard in sayings(), look_back in prop::sample::select(vec![0, TICK, 4 * TICK, 5 * TICK - 3]),
        stops in prop::collection::vec(0..400_u64, 0..8),
    ) {
        let once = run(&rows, &heard, look_back, &[None]);
        let mut stops: Vec<Option<Time>> = stops.into_iter().map(Some).collect();
        stops.sort_unstable();
        // Whether time has gone far before the input ends makes no difference to what has left by then.
        let in_steps = run(&rows, &heard, look_back, &stops);
        let seen = stops.last().copied().flatten().unwrap_or(0);
        let before: Vec<_> = once.iter().filter(|(time, _)| *time < seen).collect();
        prop_assert!(in_steps.len() >= before.len());
        prop_assert_eq!(&in_steps.iter().take(before.len()).collect::<Vec<_>>(), &before);
        let until = |row: &Row| (row.comes + look_back).next_multiple_of(TICK);
        let last = once.iter().map(|(time, _)| *time).max().unwrap_or(0);
        for time in (TICK..=last).step_by(TICK as usize) {
            let mut open: Vec<(Given, isize)> = Vec::new();
            let mut settled: Vec<Given> = Vec::new();
            for (_, leaving) in once.iter().filter(|(at, _)| *at <= time) {
                open.extend(leaving.open.iter().cloned());
                settled.extend(leaving.settled.iter().cloned());
            }
            consolidate(&mut open);
            settled.sort();
            let (mut expected_open, mut expected_settled) = (Vec::new(), Vec::new());
            for (number, row) in rows.iter().enumerate().filter(|(_, row)| row.comes <= time) {
                let given = |at: Time| (bytes(number), expected_word(&heard, row.client, at));
                match row.goes {
                    Some(goes) if goes > time => expected_open.push((given(time), 1)),
                    Some(_) => {}
                    None if until(row) > time => expected_open.push((given(time), 1)),
                    None => expected_settled.push(given(until(row))),
                }
            }
            consolidate(&mut expected_open);
            expected_settled.sort();
            prop_assert_eq!(open, expected_open, "at {}", time);
            prop_assert_eq!(settled, expected_settled, "at {}", time);
        }
    }
}

/// A row of the first client.
fn come(held: &mut Held, at: Time, number: usize, diff: isize, settled: bool) {
    held.waiting.entry(at).or_default().row((bytes(0), || client(0)), bytes(number), diff, settled);
}

#[test]
fn without_room_rows_stay_early_or_go_through_as_they_came() {
    let mut held = Held::new((2, 10), 100, TICK);
    let saying = Saying { about: about(0), word: word(1, Some(Label::FalsePositive)), until: Time::MAX };
    held.waiting.entry(TICK).or_default().saying((0, 0), saying);
    let label = word(1, Some(Label::FalsePositive));
    // One that stays and one that may be taken back; then one more of each kind, twice.
    come(&mut held, 10, 1, 1, true);
    come(&mut held, 20, 2, 1, false);
    come(&mut held, 30, 3, 1, false);
    come(&mut held, 40, 4, 1, false);
    come(&mut held, 50, 5, 1, true);
    come(&mut held, 60, 4, -1, false);
    let mut out = BTreeMap::new();
    held.advance(Some(61), |time, leaving| _ = out.insert(time, leaving));
    let given = |number: usize| (bytes(number), label.clone());
    let without = |number: usize| (bytes(number), None);
    let expected = [
        (10, vec![(given(1), 1)], vec![]),
        (20, vec![(given(2), 1)], vec![]),
        (30, vec![(given(1), -1), (given(3), 1)], vec![given(1)]),
        (40, vec![(without(4), 1)], vec![]),
        (50, vec![], vec![given(5)]),
        (60, vec![(without(4), -1)], vec![]),
    ];
    let expected = expected.map(|(time, open, settled)| (time, Leaving { open, settled }));
    assert_eq!(out.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!((held.len(), held.evicted, held.not_held), (2, 2, 1));
}

#[test]
fn a_row_that_comes_to_stay_as_it_was_leaves_nothing_but_itself() {
    let mut held = Held::new((10, 10), 20, TICK);
    come(&mut held, 10, 1, 1, false);
    come(&mut held, 20, 1, -1, false);
    come(&mut held, 20, 1, 1, true);
    let mut out = Vec::new();
    held.advance(None, |time, leaving| out.push((time, leaving)));
    let row = || (bytes(1), None);
    let first = Leaving { open: vec![(row(), 1)], settled: vec![] };
    let last = Leaving { open: vec![(row(), -1)], settled: vec![row()] };
    assert_eq!(out, [(10, first), (40, last)]);
    assert_eq!((held.len(), held.next()), (0, None));
}

const MS: i64 = 1_000_000;

/// A group's row, and its columns behind those of its client.
fn groups(hits: u64) -> RecordBatch {
    let columns: [(&str, ArrayRef); 4] = [
        ("window_start", time_array(vec![0])),
        ("src_ip", Arc::new(StringArray::from(vec!["192.0.2.1"]))),
        ("host", Arc::new(StringArray::from(vec![None::<&str>]))),
        ("hits", Arc::new(UInt64Array::from(vec![hits]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, name != "window_start")))
        .expect("valid")
}

/// A row of `source.feedback` that was received at a time in ms.
fn feedback(label: Option<&str>, seq: u64, at: i64) -> RecordBatch {
    let text = |text: Option<&str>| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let time = |ms: i64| time_array(vec![ms * MS]);
    let columns = vec![
        time(at),
        Arc::new(UInt64Array::from(vec![seq])),
        text(Some("192.0.2.1")),
        text(None),
        text(None),
        text(label),
        text(Some("ada")),
        text(None),
        text(Some("1")),
        time(at),
        time(99_999),
        Arc::new(BooleanArray::from(vec![false])),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns of feedback")
}

#[test]
fn what_is_said_reaches_a_row_at_the_close_of_its_tick() {
    let rows = groups(7);
    let added = [("feedback", DataType::Utf8), ("feedback_by", DataType::Utf8), ("feedback_at", time_type())];
    let added = added.map(|(name, ty)| Arc::new(Field::new(name, ty, true)));
    let out = Arc::new(Schema::new(rows.schema().fields().iter().cloned().chain(added).collect::<Vec<_>>()));
    let ticks = Ticks { tick: 100, is_relation: true };
    let encoder = Rows::new(&rows.schema(), [Some(1), Some(2), None], ticks, out).expect("valid");
    let metrics = NodeMetrics::default();
    let (sayings, mut held) = (Sayings::new(100, &metrics), Held::new((10, 10), 1000, 100));
    let open = Batch { settled: false, ..Batch::new(rows) };
    encoder.read(&open, 1000, &mut held).expect("read");
    for (label, seq, at) in [(Some("false_positive"), 0, 1234), (Some("nonsense"), 1, 1300), (None, 2, 1599)] {
        sayings.read(&Batch::new(feedback(label, seq, at)), 1200, &mut held).expect("read");
    }
    encoder.read(&Batch { diff: -1, ..open }, 1700, &mut held).expect("read");
    encoder.read(&Batch::new(groups(8)), 1700, &mut held).expect("read");
    let mut found = Vec::new();
    held.advance(None, |time, leaving| {
        let written = encoder.write(leaving, |batch| {
            assert_eq!(batch.rows.num_rows(), 1);
            let word = |name: &str| {
                let column = batch.rows.column_by_name(name).expect("there").as_string::<i32>();
                column.is_valid(0).then(|| column.value(0).to_owned())
            };
            let hits = batch.rows.column(3).as_primitive::<UInt64Type>().value(0);
            found.push((time, batch.diff, batch.settled, hits, word("feedback"), word("feedback_by")));
        });
        written.expect("written");
    });
    let said = |time, diff, settled, hits, label: Option<&str>| {
        (time, diff, settled, hits, label.map(str::to_owned), label.map(|_| "ada".to_owned()))
    };
    let expected = [
        said(1000, 1, false, 7, None),
        said(1300, -1, false, 7, None),
        said(1300, 1, false, 7, Some("false_positive")),
        said(1600, -1, false, 7, Some("false_positive")),
        said(1600, 1, false, 7, None),
        said(1700, -1, false, 7, None),
        said(1700, 1, false, 8, None),
        said(2700, -1, false, 8, None),
        said(2700, 1, true, 8, None),
    ];
    assert_eq!(found, expected);
    assert_eq!(metrics.counter("not_understood").load(Relaxed), 1);
}

#[test]
fn a_log_stands_before_what_corrects_rows_and_not_between_it_and_those_that_look_back_far() {
    let nodes = |durable: &str, feedback: &str| {
        format!(
            "name: t\nnodes:\n\
             - {{ id: rows, kind: source.unix_socket, path: x.socket, format: reqin_log }}\n\
             - {{ id: said, kind: source.feedback }}\n\
             - {{ id: groups, kind: aggregate, from: rows, by: [src_ip], window: 1h, features: [{{ name: n, expr: count(*) }}] }}\n\
             - {{ id: found, kind: filter, from: groups.final, where: n > 3{durable} }}\n\
             - {{ id: labelled, kind: feedback, from: {{ rows: found, feedback: said }}{feedback} }}\n\
             - {{ id: bots, kind: filter, from: labelled, where: feedback is null }}\n\
             - {{ id: recurrence, kind: recurrence, from: bots, look_back: 7d }}\n"
        )
    };
    let durable = |yaml: &str| -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p.yaml");
        std::fs::write(&path, yaml).expect("written");
        let plan = command_line::load(&path, &crate::registry()).expect("valid");
        plan.durable().map(str::to_owned).collect()
    };
    assert_eq!(durable(&nodes("", "")), ["found"], "`recurrence` looks back further than a start replays");
    assert_eq!(durable(&nodes(", durable: true", "")), ["found"]);
    assert_eq!(durable(&nodes("", ", durable: true")), ["labelled", "bots"], "who wants rows that stay gets them");
}
