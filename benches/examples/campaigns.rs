//! How long does `campaigns` take for a tick of changes, and how much memory?
//!
//!     campaigns [MEMBERS] [LINKS] [CHANGES] [TICKS] [WORKERS] [joined] [one|groups|chain] [unbounded]
//!
//! Graphs: `one`, all members in one component, by values that ten of them share; `groups`, campaigns of a hundred members,
//! with twenty values each; and, if it is named, `chain`, in which each member is linked to the next by a value of its own,
//! and has two links whatever LINKS is. `unbounded` lets campaigns be as wide as `max_distance` may say. Each link is a row. A tick takes half as many links away as it changes,
//! and adds as many. With `joined`, that port is read too: it gives each row anew whose campaign has another size.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use benches::process::{cpu_seconds, resident};
use benches::ticks::{Ticks, run};
use engine::batch::{Batch, EdgeClass, EdgeType, MAX_ROWS, WINDOW_START, time_array, time_type};

/// That of the engine.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The time of the first tick, in ms.
const START: u64 = 1_700_000_000_000;
/// Members of one campaign, and the values that they share.
const GROUP: u64 = 100;
const GROUP_VALUES: u64 = 20;

/// How members are linked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Graph {
    One,
    Groups,
    Chain,
}

#[derive(Clone, Copy)]
struct Load {
    members: u64,
    links: u64,
    changes: u64,
    ticks: u64,
    graph: Graph,
    is_unbounded: bool,
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, or: u64| -> Result<u64, String> {
        arguments.get(at).map_or(Ok(or), |text| text.parse().map_err(|_| format!("`{text}` is no number")))
    };
    let (members, links) = (number(0, 100_000)?.max(GROUP), number(1, 1_000_000)?);
    let (changes, ticks) = (number(2, 1_000)?, number(3, 100)?);
    let workers = usize::try_from(number(4, 1)?).unwrap_or(1).max(1);
    let has = |text: &str| arguments.iter().any(|argument| argument == text);
    println!("{members} members, {links} links, {changes} changes a tick, {workers} workers");
    let all = [(Graph::Groups, "groups"), (Graph::One, "one"), (Graph::Chain, "chain")];
    let is_any_named = all.iter().any(|(_, name)| has(name));
    // The chain has to be named.
    for (graph, name) in all.into_iter().filter(|(graph, name)| has(name) || !is_any_named && *graph != Graph::Chain) {
        let links = if graph == Graph::Chain { 2 * members } else { links };
        let load = Load { members, links, changes, ticks, graph, is_unbounded: has("unbounded") };
        measure(load, name, workers, has("joined"))?;
    }
    Ok(())
}

fn measure(load: Load, name: &str, workers: usize, joined: bool) -> Result<(), String> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new(WINDOW_START, time_type(), false),
        Field::new("src_ip", DataType::Utf8, false),
        Field::new("ja4", DataType::Utf8, false),
    ]));
    let key = ["src_ip", "ja4"].map(str::to_owned).to_vec();
    let ty = EdgeType { schema: Arc::clone(&schema), class: EdgeClass::Relation { key } };
    let make = move || {
        let schema = Arc::clone(&schema);
        Box::new(ticks(load).map(move |parts| {
            let part = |(diff, rows): (i8, Vec<(u64, u64)>)| {
                rows.chunks(MAX_ROWS).filter_map(|rows| batch(rows, &schema, diff)).collect::<Vec<_>>()
            };
            parts.into_iter().flat_map(part).collect()
        })) as Box<dyn Iterator<Item = Vec<Batch>> + Send>
    };
    let distance = if load.is_unbounded { ", max_distance: 1000" } else { "" };
    let mut nodes =
        format!("  - {{ id: found, kind: campaigns, from: changes, link: [[ja4]], max_rows: 4000000{distance} }}\n");
    nodes.push_str("  - { id: out, kind: bench.sink, from: found }\n");
    if joined {
        nodes.push_str("  - { id: rows, kind: bench.sink, from: found.joined }\n");
    }
    let before = cpu_seconds();
    let (_, took) = run(Ticks { ty, start: START, make: Arc::new(make) }, &nodes, workers)?;
    let mut ms: Vec<f64> = took.iter().map(|took| took.as_secs_f64() * 1e3).collect();
    let first = if ms.is_empty() { 0.0 } else { ms.remove(0) };
    ms.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| ms.get(((ms.len() as f64 - 1.0) * share) as usize).copied().unwrap_or_default();
    println!(
        "{}: all links at once {first:.0} ms; then a tick {:.1} ms (median), {:.1} (95 %), {:.1} (most); {:.1} s of CPU; {} MB \
         resident at the end",
        name,
        at(0.5),
        at(0.95),
        at(1.0),
        cpu_seconds() - before,
        resident()
    );
    Ok(())
}

/// Links that go and come.
type Parts = [(i8, Vec<(u64, u64)>); 2];

/// All links, and then what changes in each tick.
fn ticks(load: Load) -> impl Iterator<Item = Parts> + Send {
    let link = move |number: u64| {
        if load.graph == Graph::Chain {
            // The last one is linked to the first by nothing.
            let number = number % load.links;
            return (number / 2, number.div_ceil(2));
        }
        // Each member in turn, neighbours far apart.
        let (member, round) = (number * 7_919 % load.members, number / load.members);
        let value = if load.graph == Graph::One {
            mix(number) % (load.links / 10).max(1)
        } else {
            member / GROUP * GROUP_VALUES + (mix(member) % GROUP_VALUES + round) % GROUP_VALUES
        };
        (member, value)
    };
    let half = load.changes / 2;
    // Of a chain, what went in the tick before comes back.
    let delay = if load.graph == Graph::Chain { half.min(load.links) } else { 0 };
    std::iter::once([(-1, Vec::new()), (1, (0..load.links).map(link).collect())]).chain((0..load.ticks).map(
        move |tick| {
            // The first that came go.
            let going = (tick * half..(tick + 1) * half).map(link).collect();
            let next = load.links + tick * half - delay;
            let coming = (next..next + half).map(link).collect();
            [(-1, going), (1, coming)]
        },
    ))
}

fn batch(rows: &[(u64, u64)], schema: &SchemaRef, diff: i8) -> Option<Batch> {
    let address = |member: u64| std::net::Ipv4Addr::from_bits(0x0a00_0000 | (member as u32 * 7)).to_string();
    let columns: Vec<ArrayRef> = vec![
        time_array(rows.iter().map(|_| (START * 1_000_000) as i64).collect()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(member, _)| address(*member)))),
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|(_, value)| format!("t13d1516h2_8daaf6152771_{value:012x}")),
        )),
    ];
    let rows = RecordBatch::try_new(Arc::clone(schema), columns).ok()?;
    Some(Batch { diff, settled: false, ..Batch::new(rows) })
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
