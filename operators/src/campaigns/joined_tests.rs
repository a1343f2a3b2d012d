//! Rows with their campaigns, from changes of both, against a recomputation.

use std::collections::BTreeMap;

use arrow::array::UInt64Array;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, UInt32Type, UInt64Type};
use engine::batch::{EdgeClass, EdgeType, WINDOW_START, stream_schema, time_array, time_type};
use proptest::prelude::*;

use super::super::evidence::Evidence;
use super::super::flow::Limits;
use super::super::id;
use super::*;

const TICK: Time = 100;
/// How long a window counts, in ticks.
const LIFE: Time = 6;
const RAISE_FROM: u32 = 4;

/// A node of which nothing is used but what `joined` needs.
fn node(is_relation: bool, max_rows: usize) -> Planned {
    let fields = [
        Field::new(WINDOW_START, time_type(), true),
        Field::new("src_ip", DataType::Utf8, true),
        Field::new("threat_level", DataType::Utf8, false),
        Field::new("number", DataType::UInt64, false),
    ];
    let class = EdgeClass::Relation { key: vec!["number".to_owned()] };
    let input = if is_relation {
        EdgeType { schema: Arc::new(Schema::new(fields.to_vec())), class }
    } else {
        EdgeType::stream(stream_schema(fields))
    };
    let at = |name: &str| input.schema.index_of(name).expect("a column");
    let added =
        [Field::new("campaign_id", DataType::Int32, false), Field::new("campaign_members", DataType::UInt32, false)];
    let joined = input.schema.fields().iter().cloned().chain(added.map(Arc::new)).collect::<Vec<_>>();
    Planned {
        columns: Columns {
            member: at("src_ip"),
            window: at(WINDOW_START),
            level: Some(at("threat_level")),
            score: None,
            system: None,
        },
        evidence: Evidence { condition: None, links: Arc::new([]) },
        ages: Ages { tick: TICK, look_back: LIFE * TICK, granularity: TICK, is_relation },
        limits: Limits { max_linked: 10, min_members: 2, max_distance: 32, max_members: 1000 },
        raise_from: RAISE_FROM,
        max_rows,
        out: Arc::new(Schema::empty()),
        joined: Arc::new(Schema::new(joined)),
        input,
    }
}

/// A row: its window in ticks, if it has one, its member, 0 for none, its level and its number.
type Plain = (Option<Time>, u8, bool, u64);

fn batch(rows: &[Plain], schema: &SchemaRef, diff: i8, settled: bool) -> Batch {
    let windows = rows.iter().map(|row| row.0.map(|window| (window * TICK * 1_000_000) as i64));
    let windows = arrow::array::TimestampNanosecondArray::from(windows.collect::<Vec<_>>()).with_timezone("UTC");
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(windows),
        Arc::new(rows.iter().map(|row| name(row.1)).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| Some(if row.2 { "HIGH" } else { "LOW" })).collect::<StringArray>()),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.3))),
    ];
    if schema.fields().len() > columns.len() {
        columns.insert(0, time_array(rows.iter().map(|row| (row.0.unwrap_or(0) * TICK * 1_000_000) as i64).collect()));
        columns.insert(1, Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.3))));
    }
    Batch { diff, settled, ..Batch::new(RecordBatch::try_new(Arc::clone(schema), columns).expect("valid")) }
}

fn name(member: u8) -> Option<String> {
    (member > 0).then(|| format!("192.0.2.{member}"))
}

fn id(member: u8) -> Id {
    id::member(name(member).expect("a member").as_bytes())
}

/// Rows that left: number, campaign, members, level, and whether they will stay.
type Left = BTreeMap<(u64, i32, u32, String, bool), isize>;

/// Adds what has left until a tick.
fn standing(out: &[(Time, Batch)], until: Time) -> Left {
    let mut left = Left::new();
    for (_, batch) in out.iter().filter(|(time, _)| *time <= until * TICK) {
        assert!(batch.diff > 0 || !batch.settled, "what is settled stays");
        let rows = &batch.rows;
        let column = |name: &str| rows.column_by_name(name).expect("a column");
        for row in 0..rows.num_rows() {
            let key = (
                column("number").as_primitive::<UInt64Type>().value(row),
                column("campaign_id").as_primitive::<Int32Type>().value(row),
                column("campaign_members").as_primitive::<UInt32Type>().value(row),
                column("threat_level").as_string::<i32>().value(row).to_owned(),
                batch.settled,
            );
            *left.entry(key).or_default() += isize::from(batch.diff);
        }
    }
    left.retain(|_, count| *count != 0);
    left
}

/// What happens to a row of a relation: when it comes and, perhaps, when it settles or is taken back, in ticks.
#[derive(Clone, Debug)]
struct Life {
    row: Plain,
    comes: Time,
    settles: Option<Time>,
    goes: Option<Time>,
}

impl Life {
    fn until(&self, comes: Time) -> Time {
        self.row.0.map_or(comes, |window| window + LIFE)
    }
}

/// The campaign of a member from a tick on; 0 is none.
type Joins = Vec<(Time, u8, u8)>;

fn campaign(joins: &Joins, member: u8, tick: Time) -> Campaign {
    let known = joins.iter().filter(|(time, of, _)| *of == member && *time <= tick);
    match known.max_by_key(|(time, _, _)| *time).map(|(_, _, number)| *number) {
        Some(number) if number > 0 && member > 0 => {
            Campaign { number: i32::from(number), members: u32::from(number) * 2 }
        }
        _ => NONE,
    }
}

/// The same from nothing but the lives.
fn expected(lives: &[Life], joins: &Joins, tick: Time, is_over: bool) -> Left {
    let mut left = Left::new();
    for life in lives {
        // The row as it comes, and as it comes again when it settles.
        let first_ends = life.settles.or(life.goes).unwrap_or(Time::MAX);
        for (comes, goes, settled) in [(Some(life.comes), first_ends, false), (life.settles, Time::MAX, true)] {
            let Some(comes) = comes.filter(|comes| *comes <= tick && tick < goes) else { continue };
            let until = life.until(comes);
            let known = campaign(joins, life.row.1, tick.min(until.saturating_sub(1)).max(comes));
            let is_raised = life.row.2 && known.members >= RAISE_FROM;
            let level = if is_raised {
                "CRITICAL"
            } else if life.row.2 {
                "HIGH"
            } else {
                "LOW"
            };
            let stays = settled && (until <= tick || is_over || life.row.1 == 0);
            *left.entry((life.row.3, known.number, known.members, level.to_owned(), stays)).or_default() += 1;
        }
    }
    left
}

/// Sends both sides, tick by tick where the frontier stops there.
fn run(lives: &[Life], joins: &Joins, stops: &[Time]) -> Vec<(Time, Batch)> {
    let node = node(true, 1_000);
    let mut join = Join::new(&node, 1, &NodeMetrics::default()).expect("a converter");
    let send = |join: &mut Join, row: Plain, at: Time, diff, settled| {
        join.waiting.push(batch(&[row], &node.input.schema, diff, settled), at * TICK).expect("valid");
    };
    for life in lives {
        send(&mut join, life.row, life.comes, 1, false);
        life.settles.or(life.goes).into_iter().for_each(|goes| send(&mut join, life.row, goes, -1, false));
        life.settles.into_iter().for_each(|settles| send(&mut join, life.row, settles, 1, true));
    }
    for (nth, (time, member, _)) in joins.iter().enumerate() {
        let mut before = NONE;
        joins[..nth]
            .iter()
            .filter(|(_, of, _)| of == member)
            .for_each(|(at, ..)| before = campaign(joins, *member, *at));
        let now = campaign(joins, *member, *time);
        if before != now {
            let updates = [(before, -1), (now, 1)].into_iter().filter(|(campaign, _)| *campaign != NONE);
            updates.for_each(|(campaign, diff)| join.known.push(id(*member), campaign, time * TICK, diff));
        }
    }
    let mut out = Vec::new();
    for stop in stops {
        join.advance(Some(stop * TICK), &mut out).expect("valid");
    }
    join.advance(None, &mut out).expect("valid");
    assert!(out.is_sorted_by_key(|(time, _)| *time));
    assert_eq!(join.next(), None);
    out
}

/// When a row comes, how old its window is, its member, whether it is HIGH, how long it stays, and how it ends.
type Drawn = (Time, Option<Time>, u8, bool, Time, u8);

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let one = (0..20_u64, prop::option::weighted(0.9, 0..5_u64), 0..5_u8, any::<bool>(), 1..12_u64, 0..3_u8);
    prop::collection::vec(one, 1..30).prop_map(|all| {
        let life = |(number, (comes, age, member, is_high, stays, ends)): (usize, Drawn)| {
            let row = (age.map(|age| comes.saturating_sub(age)), member, is_high, number as u64);
            let end = Some(comes + stays);
            Life { row, comes, settles: end.filter(|_| ends == 0), goes: end.filter(|_| ends == 1) }
        };
        all.into_iter().enumerate().map(life).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_seed: proptest::test_runner::RngSeed::Fixed(18),
        ..ProptestConfig::default()
    })]

    #[test]
    fn rows_have_the_campaigns_of_their_members_until_they_are_too_old(
        lives in lives(),
        joins in prop::collection::btree_map((0..24_u64, 1..5_u8), 0..4_u8, 0..20),
        stops in prop::collection::btree_set(0..40_u64, 0..6),
    ) {
        let joins: Joins = joins.into_iter().map(|((time, member), number)| (time, member, number)).collect();
        let out = run(&lives, &joins, &stops.into_iter().collect::<Vec<_>>());
        for tick in 0..32 {
            prop_assert_eq!(standing(&out, tick), expected(&lives, &joins, tick, false), "tick {}", tick);
        }
        prop_assert_eq!(standing(&out, Time::MAX / TICK), expected(&lives, &joins, 60, true));
    }
}

#[test]
fn a_row_for_which_there_is_no_room_is_in_no_campaign() {
    let node = node(true, 2);
    let metrics = NodeMetrics::default();
    let mut join = Join::new(&node, 1, &metrics).expect("a converter");
    join.known.push(id(1), Campaign { number: 7, members: 9 }, 0, 1);
    let rows: Vec<Plain> = (0..3).map(|number| (Some(0), 1, true, number)).collect();
    for (at, diff) in [(0, 1), (TICK, -1)] {
        join.waiting.push(batch(&rows, &node.input.schema, diff, false), at).expect("valid");
    }
    let mut out = Vec::new();
    join.advance(Some(1), &mut out).expect("valid");
    let given: Vec<(u64, i32, String)> = standing(&out, 0).into_keys().map(|key| (key.0, key.1, key.3)).collect();
    let given: Vec<(u64, i32, &str)> = given.iter().map(|(number, id, level)| (*number, *id, level.as_str())).collect();
    assert_eq!(given, [(0, 7, "CRITICAL"), (1, 7, "CRITICAL"), (2, -1, "HIGH")]);
    join.advance(None, &mut out).expect("valid");
    assert_eq!(standing(&out, 1), Left::new(), "each is taken back as it was given");
    assert_eq!(metrics.counter("not_joined").load(Relaxed), 1);
    assert_eq!(metrics.gauge("joined_rows").load(Relaxed), 0);
}

#[test]
fn a_row_of_a_stream_leaves_once_with_what_is_known_when_its_tick_closes() {
    let node = node(false, 2);
    let mut join = Join::new(&node, 1, &NodeMetrics::default()).expect("a converter");
    // An event at the beginning of tick 2 counts when that tick closes.
    let rows: Vec<Plain> =
        vec![(Some(2), 1, true, 1), (Some(2), 2, true, 2), (Some(5), 1, false, 3), (Some(5), 0, true, 4)];
    join.waiting.push(batch(&rows, &node.input.schema, 1, true), TICK).expect("valid");
    let campaigns = [(1, 3 * TICK, 1), (2, 4 * TICK, 1)];
    for (number, time, diff) in campaigns {
        join.known.push(id(1), Campaign { number, members: number as u32 * 3 }, time, diff);
    }
    join.known.push(id(1), Campaign { number: 1, members: 3 }, 4 * TICK, -1);
    assert_eq!(join.next(), Some(2 * TICK));
    let mut out = Vec::new();
    join.advance(Some(3 * TICK), &mut out).expect("valid");
    assert!(out.is_empty());
    join.advance(Some(3 * TICK + 1), &mut out).expect("valid");
    assert_eq!(out.iter().map(|(time, batch)| (*time, batch.rows.num_rows())).collect::<Vec<_>>(), [(2 * TICK, 2)]);
    join.advance(None, &mut out).expect("valid");
    assert_eq!(join.next(), None);
    let given: Vec<(u64, i32, String)> = standing(&out, 100).into_keys().map(|key| (key.0, key.1, key.3)).collect();
    let expected = [(1, 1, "HIGH"), (2, -1, "HIGH"), (3, 2, "LOW"), (4, -1, "HIGH")];
    assert_eq!(given, expected.map(|(number, id, level)| (number, id, level.to_owned())));
    assert!(out.iter().all(|(_, batch)| batch.settled && batch.diff == 1));
    let late = Batch { late: true, ..batch(&rows[..1], &node.input.schema, 1, true) };
    join.waiting.push(late, 20 * TICK).expect("valid");
    join.known.push(id(1), Campaign { number: 5, members: 9 }, 20 * TICK, 1);
    out.clear();
    join.advance(None, &mut out).expect("valid");
    assert_eq!(standing(&out, 100).into_keys().map(|key| key.1).collect::<Vec<_>>(), [-1]);
}
