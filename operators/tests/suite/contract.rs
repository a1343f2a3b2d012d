//! Every kind of the registry against what the engine promises of it: rows and watermarks decide what leaves, and neither
//! workers nor batches do; each row is accounted for; a replay is what the live run was. A kind without a case is a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt16Array,
    UInt32Array, UInt64Array,
};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::json::LineDelimitedWriter;
use arrow::util::display::array_value_to_string;
use engine::batch::{Batch, EdgeClass, EdgeType, stream_schema, time_array};
use engine::contract::{Inputs, Kind, NodeMetrics, Registry};
use engine::plan::{LoadOptions, Plan};
use engine::replay::{Of, Replay};
use engine::run::execute_with;
use engine::shared::Shared;
use engine::time::{Arrival, Watermark, wall_clock_ns};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::replay::{Recording, collected, load, record, run, run_with, unique};

const MS: i64 = 1_000_000;
/// 2026-11-23 00:00:03 UTC in ns: in the middle of a window.
const START: i64 = 1_795_392_003_000 * MS;
const LATENESS: Duration = Duration::from_secs(2);
const ROWS: usize = 450;
const WORKERS: [usize; 3] = [1, 2, 4];
/// Rows of a batch: all of them at once, some, one.
const CUTS: [usize; 3] = [usize::MAX, 7, 1];

/// What the node of a case reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// It is a source.
    Nothing,
    /// A stream of requests.
    Requests,
    /// The same without late rows: when those take effect depends on the watermark that their batch was given.
    InTime,
    /// A relation: groups of requests, corrected while their windows are open.
    Groups,
    /// The same of rows in time.
    GroupsInTime,
    /// A stream of hellos and one of requests.
    Both,
    /// Packets, in the order of a capture but for some that come late.
    Packets,
}
use Input::{Both, Groups, GroupsInTime, InTime, Nothing, Packets, Requests};

/// A node of a kind. Words in capitals in the options stand for what is too long for the table: see [`LONG`].
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: &'static str,
    input: Input,
    options: &'static str,
}

const fn case(kind: &'static str, input: Input, options: &'static str) -> Case {
    Case { kind, input, options }
}

const CASES: &[Case] = &[
    case("source.pcap", Nothing, "file: RECORDED/capture.pcap, ports: [443]"),
    case("source.file", Nothing, "path: lines.jsonl, format: reqin_log, lateness: 2s"),
    case("source.unix_socket", Nothing, "path: lines, format: reqin_log, lateness: 2s, max_ahead: 6h"),
    case("tls.client_hello", Packets, "sensor_id: here, retries: true, variants: true"),
    // So many hellos of one connection are alive at a time that its bound, which does not depend on workers, is met.
    case("correlate", Both, "window: 1m"),
    case("correlate", Both, "window: 5s, keepalive_ttl: 3s, max_age: 20s, longest_request: 2s, ORPHANS"),
    case("correlate", Both, "key: connection, mode: one_to_one, exclude_source_ips: [203.0.113.0/24], ORPHANS"),
    // Whether the cast is computed for a row must not depend on its neighbours.
    case("filter", Requests, "where: flag and cast(text as bigint) > 0"),
    case("filter", Groups, "where: hits > 3 or cast(least as bigint) > 0"),
    case("derive", Requests, "columns: [{ name: value, expr: cast(text as bigint) }, COLUMNS], drop: [size]"),
    case("derive", Groups, "columns: [{ name: value, expr: cast(least as bigint) }], drop: [total]"),
    case("enrich.asn", Requests, "file: RECORDED/asn.csv"),
    case("enrich.asn", Groups, "file: RECORDED/asn.csv"),
    case("enrich.reputation", Requests, "file: LISTS/asn_reputation.csv, asn: asn"),
    case("enrich.bots", Requests, "BOT_LISTS, ja4_column: ja4, user_agent: agent"),
    case("enrich.browser", Requests, "file: LISTS/browser_ja4.csv, user_agent: agent"),
    case(
        "enrich.anubis",
        Requests,
        "policy: policy.yaml, path: text, asn: asn, headers: { User-Agent: agent, X-Big: text }",
    ),
    case("aggregate", Requests, "by: [src_ip, flag], window: 10s, FEATURES"),
    case("detect.forest", Requests, "model: model.json"),
    case("detect.forest", Groups, "model: model.json"),
    case("detect.rules", Requests, "rules: [FLAGGED, { name: cast, level: HIGH, TEXT_IS_BIG, reason: '{size}' }]"),
    case("detect.rules", Groups, "rules: [FEW, { name: cast, level: HIGH, LEAST_IS_BIG, reason: '{texts}' }]"),
    case("detect.rules", Groups, "rules: [FEW], keep: all"),
    case(
        "verdict",
        Requests,
        "scheme: [{ verdict: ODD, TEXT_IS_BIG }, { verdict: HIGH, when: flag, reason: '{real:.2}' }], reasons: [text]",
    ),
    case(
        "verdict",
        Groups,
        "scheme: [{ verdict: ODD, LEAST_IS_BIG }, { verdict: REST }], keep: hits > 2 or verdict = 'ODD'",
    ),
    case("recurrence", InTime, "look_back: 1h, level: text, score: real"),
    case("recurrence", Groups, "look_back: 15s, granularity: 5s, score: mean"),
    case("peers", InTime, "by: [window_start, src_ip], columns: PEER_COLUMNS"),
    case("peers", Groups, "by: [window_start], columns: [{ name: place, expr: rank() over (order by hits) }]"),
    case("campaigns", InTime, "link: [[ja4], [agent, asn]], look_back: 1h, min_members: 2, level: text, score: real"),
    case("campaigns", GroupsInTime, "link: [[hits]], where: hits > 1, look_back: 15s, granularity: 5s, min_members: 2"),
    case("sink.jsonl", Requests, "path: new/out.jsonl"),
    case("sink.jsonl", Groups, "path: new/out.jsonl"),
    case("sink.jsonl", Groups, "path: new/out.jsonl, mode: changes"),
    case("sink.unix_socket", Requests, "path: out, max_wait: 1m"),
    case("sink.unix_socket", Groups, "path: out, max_wait: 1m"),
    case("sink.unix_socket", Groups, "path: out, max_wait: 1m, mode: changes"),
    case("sink.parquet", Requests, "rotate: 5s, max_rows: 50"),
    case("sink.parquet", Groups, "rotate: 5s"),
];

/// Kinds without a case, and why.
const WITHOUT: &[(&str, &str)] = &[
    ("sink.clickhouse", "needs a server: tests/clickhouse"),
    ("train.forest", "writes a model and no rows: tests/cli/test_forest.py"),
    ("source.feedback", "rows come by HTTP: tests/detect/test_feedback.py"),
    ("feedback", "its second input is what analysts say: tests/detect/test_feedback.py"),
];

/// Ports at which no case has rows, and why.
const WITHOUT_ROWS: &[(&str, &str, &str)] =
    &[("enrich.anubis", "rejected", "what is an error in Anubis does not hold; nothing else is known to fail")];

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/recording/demo");

/// What stands in options for something longer.
const LONG: &[(&str, &str)] = &[
    (
        "BOT_LISTS",
        "crawlers: LISTS/crawlers.csv, networks: LISTS/bot_ip.csv, ja4: LISTS/bot_ja4.csv, \
         agents: LISTS/crawler-user-agents.json",
    ),
    ("LISTS", concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/reference")),
    ("RECORDED", RECORDED),
    ("PEER_COLUMNS_OF_GROUPS", "[{ name: place, expr: rank() over (order by hits) }]"),
    (
        "PEER_COLUMNS",
        "[{ name: place, expr: rank() over (order by number) }, { name: share, expr: 1.0 * place / count(*) over () }]",
    ),
    ("ORPHANS", "orphans: { emit_after: 1s, hello: true }"),
    ("COLUMNS", "{ name: third, expr: real / 3 }, { name: net, expr: 'ip_prefix(src_ip, 24, 64)' }"),
    ("FEW", "{ name: few, level: LOW, when: hits < 4, reason: '{hits} {mean:.2}' }"),
    ("TEXT_IS_BIG", "when: cast(text as bigint) > 5"),
    ("LEAST_IS_BIG", "when: cast(least as bigint) > 5"),
    ("FLAGGED", "{ name: flagged, level: LOW, when: flag and number > 0, reason: '{text} {real:.2}' }"),
    (
        "FEATURES",
        "features: [{ name: hits, expr: count(*) }, { name: total, expr: sum(number) }, { name: mean, expr: avg(real) }, \
         { name: spread, expr: stddev_pop(number) }, { name: least, expr: min(text) }, { name: most, expr: max(real) }, \
         { name: texts, expr: count(distinct text) }, { name: mixed, expr: entropy(text) }, \
         { name: gap, expr: avg(gap_ms * nth) }, { name: flags, expr: count(*) filter (where flag) }]",
    ),
];

const ADDRESSES: &[&str] =
    &["192.0.2.1", "203.0.113.81", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8:100::f", "198.51.100.241"];
const TEXTS: &[&str] =
    &["", "7", "-3", " 12", "9223372036854775808", "NULL", "a|\"\\\n", "\0", "\u{fc}\u{202e}\u{1f980}", "e\u{301}"];
const JA4S: &[&str] = &["t13d1516h2_8daaf6152771_d8a2da3f94cd", "t13d1517h2_8daaf6152771_b6f405a00624", "", "t13"];
const AGENTS: &[&str] = &[
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "curl/8.5.0",
    "\u{202e}Firefox/144.0",
    "",
];
const REALS: &[f64] = &[0.0, -0.0, 0.1, -2.5, f64::MAX, f64::MIN_POSITIVE / 2.0, f64::NAN, f64::INFINITY];

/// A number that looks random: SplitMix64 (Steele, Lea and Flood, 2014) of where it is used.
fn draw(seed: u64, column: u64, row: usize) -> u64 {
    let mut bits = (seed << 48 ^ column << 32 ^ row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// One of some values.
fn one<T: Copy>(of: &[T], draw: u64) -> T {
    of[(draw % of.len() as u64) as usize]
}

/// Event times in ms after the start, in the order of arrival: out of order, and one in twelve late.
fn times(seed: u64) -> Vec<i64> {
    let event = |row: usize| {
        let at = (draw(seed, 0, row) % 60_000) as i64;
        // Whole seconds make ties.
        let at = if draw(seed, 1, row).is_multiple_of(3) { at / 1_000 * 1_000 } else { at };
        let late = draw(seed, 2, row).is_multiple_of(12);
        let delay = if late { 3_000 + draw(seed, 3, row) % 20_000 } else { draw(seed, 3, row) % 1_900 };
        (at + delay as i64, at)
    };
    let mut events: Vec<(i64, i64)> = (0..ROWS).map(event).collect();
    events.sort_unstable();
    events.into_iter().map(|(_, at)| at).collect()
}

/// A column of some values and, one in nine, of null.
fn column<T: Copy, A: Array + FromIterator<Option<T>> + 'static>(seed: u64, number: u64, of: &[T]) -> ArrayRef {
    let value = |row| (!draw(seed, 50 + number, row).is_multiple_of(9)).then(|| one(of, draw(seed, number, row)));
    Arc::new((0..ROWS).map(value).collect::<A>())
}

/// Rows in the order of arrival, hellos or requests, whose number is the column of that name.
fn table(seed: u64, name: &str) -> RecordBatch {
    let ns: Vec<i64> = times(seed).iter().map(|ms| START + ms * MS).collect();
    let begins = ns.iter().enumerate().map(|(row, ns)| ns - (draw(seed, 4, row) % 4_000) as i64 * MS).collect();
    let windows = ns.iter().map(|ns| ns - ns.rem_euclid(5_000 * MS)).collect();
    let nth: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..ROWS as u64));
    let others = [&ADDRESSES[1..], &["no address", ""]].concat();
    // Most hellos are of one connection.
    let addresses = [vec![ADDRESSES[0]; if name == "hello" { 40 } else { 1 }], others].concat();
    let ports: &[u16] = if name == "hello" { &[1] } else { &[1, 2, 3] };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("begin_time", time_array(begins)),
        ("window_start", time_array(windows)),
        ("src_ip", column::<_, StringArray>(seed, 5, &addresses)),
        ("src_port", column::<_, UInt16Array>(seed, 6, ports)),
        ("dst_ip", column::<_, StringArray>(seed, 7, &ADDRESSES[..1])),
        ("dst_port", column::<_, UInt16Array>(seed, 8, &[443])),
        ("asn", column::<_, UInt32Array>(seed, 14, &[0, 13_335, 15_169, 16_509])),
        ("ja4", column::<_, StringArray>(seed, 15, JA4S)),
        ("agent", column::<_, StringArray>(seed, 16, AGENTS)),
        ("text", column::<_, StringArray>(seed, 9, TEXTS)),
        ("number", column::<_, Int64Array>(seed, 10, &[0, 1, -1, 42, i64::MIN, i64::MAX])),
        ("size", column::<_, UInt64Array>(seed, 11, &[0, 512, u64::MAX])),
        ("real", column::<_, Float64Array>(seed, 12, REALS)),
        ("flag", column::<_, BooleanArray>(seed, 13, &[false, true])),
        (name, Arc::clone(&nth)),
    ];
    let schema = stream_schema(columns.iter().map(|(name, of)| Field::new(*name, of.data_type().clone(), true)));
    let columns = [time_array(ns), nth].into_iter().chain(columns.into_iter().map(|(_, column)| column));
    RecordBatch::try_new(schema, columns.collect()).expect("valid")
}

/// The rows that are not late.
fn in_time(rows: &RecordBatch) -> RecordBatch {
    let times = Batch::new(rows.clone()).times().expect("a time").values().to_vec();
    let mut watermark = Watermark::new(LATENESS, Duration::from_millis(100));
    let kept = (0..).zip(times).filter(|(_, ns)| watermark.observe(*ns) != Arrival::Late).map(|(row, _)| row);
    take_record_batch(rows, &kept.collect::<UInt32Array>()).expect("in range")
}

/// Packets of the demo's capture. Each 97th comes later than those behind it.
fn packets() -> &'static RecordBatch {
    static PACKETS: OnceLock<RecordBatch> = OnceLock::new();
    PACKETS.get_or_init(|| {
        let run = Run::of(&CASES[0], usize::MAX, 1);
        let all = run.ports[0].batches.iter().map(|batch| &batch.rows);
        let all = concat_batches(&run.ports[0].ty.schema, all).expect("one schema");
        let mut order: Vec<u32> = (0..2_500.min(all.num_rows() as u32)).collect();
        order.sort_by_key(|row| row + if row % 97 == 96 { 300 } else { 0 });
        take_record_batch(&all, &UInt32Array::from(order)).expect("in range")
    })
}

/// Rows as a source sends them: a batch at the watermark before it, late rows in one of their own. Packets keep their
/// order and come to one of the workers: behind each batch stand empty ones for the others.
fn recording(rows: &RecordBatch, cut: usize, one_of: Option<usize>) -> Recording {
    let times = Batch::new(rows.clone()).times().expect("a time").values().to_vec();
    let mut watermark = Watermark::new(LATENESS, Duration::from_millis(100));
    let mut batches = Vec::new();
    for chunk in (0..).zip(times).collect::<Vec<(u32, i64)>>().chunks(cut) {
        let time = watermark.time();
        let judged = chunk.iter().map(|(row, ns)| (watermark.observe(*ns) == Arrival::Late, *row));
        let mut judged: Vec<(bool, u32)> = judged.collect();
        if one_of.is_none() {
            judged.sort_by_key(|(late, _)| *late);
        }
        for part in judged.chunk_by(|a, b| a.0 == b.0) {
            let picked = UInt32Array::from_iter_values(part.iter().map(|(_, row)| *row));
            let picked = take_record_batch(rows, &picked).expect("in range");
            batches.push((time, Batch { late: part[0].0, ..Batch::new(picked) }));
            let empty = (time, Batch::new(rows.slice(0, 0)));
            batches.extend(std::iter::repeat_n(empty, one_of.unwrap_or(1) - 1));
        }
    }
    Recording { ty: EdgeType::stream(rows.schema()), batches, live: false }
}

/// What left a port.
struct Port {
    name: &'static str,
    ty: EdgeType,
    batches: Vec<Batch>,
}

/// Rows as text, and how often each is there.
type Net = BTreeMap<String, i64>;

fn add(net: &mut Net, row: String, count: i64) {
    *net.entry(row).or_default() += count;
}

impl Port {
    /// The rows: of a relation the sum of its changes, and the rows that stay besides.
    fn net(&self) -> Net {
        let (mut net, mut keys) = (Net::new(), Net::new());
        for batch in &self.batches {
            assert_eq!(batch.rows.schema(), self.ty.schema, "the columns of {} as planned", self.name);
            let cell = |column: &ArrayRef, row| match column.is_null(row) {
                true => "-".to_owned(),
                false => format!("{:?}", array_value_to_string(column, row).expect("text")),
            };
            for row in 0..batch.rows.num_rows() {
                let cells: Vec<String> = batch.rows.columns().iter().map(|column| cell(column, row)).collect();
                let text = format!("{}{}", if batch.late { "late " } else { "" }, cells.join(" "));
                if let EdgeClass::Relation { key } = &self.ty.class {
                    let key = key.iter().map(|name| cell(batch.rows.column_by_name(name).expect("a key"), row));
                    add(&mut keys, key.collect::<Vec<_>>().join(" "), batch.diff.into());
                    add(&mut net, format!("settled {text}"), i64::from(batch.settled && batch.diff > 0));
                } else {
                    assert!(batch.diff == 1 && batch.settled, "a stream takes nothing back");
                }
                add(&mut net, text, batch.diff.into());
            }
        }
        net.retain(|_, count| *count != 0);
        assert!(net.values().all(|count| *count > 0), "what {} takes back it has given", self.name);
        assert!(keys.values().all(|count| (0..2).contains(count)), "{} has one row for a key", self.name);
        net
    }

    /// Rows that are inserted, and stay or not.
    fn rows(&self, settled: bool) -> u64 {
        let inserted = self.batches.iter().filter(|batch| batch.diff > 0 && batch.settled == settled);
        inserted.map(|batch| batch.rows.num_rows() as u64).sum()
    }

    /// The numbers in a column, with those of changes that take back below zero.
    fn numbers(&self, column: &str) -> Vec<i64> {
        let mut all = Vec::new();
        for batch in &self.batches {
            let values = cast(batch.rows.column_by_name(column).expect("a column"), &DataType::Int64).expect("numbers");
            let values = values.as_primitive::<Int64Type>();
            all.extend(values.iter().flatten().map(|value| value * i64::from(batch.diff)));
        }
        all
    }
}

/// A node that has run, with what it read and what it gave.
struct Run {
    case: Case,
    shared: Arc<Shared>,
    /// What it reads: the nodes before it, and if it is one, what came from there.
    feeds: Vec<&'static str>,
    input: Option<Port>,
    ports: Vec<Port>,
    dir: TempDir,
}

impl Run {
    fn of(case: &Case, cut: usize, workers: usize) -> Self {
        Self::with(case, cut, workers, |_, plan| run(plan, workers))
    }

    /// Runs a case by `go`, which is given the folder.
    fn with(case: &Case, cut: usize, workers: usize, go: impl FnOnce(&Path, Plan) -> Arc<Shared>) -> Self {
        let recorded = |id: &str, rows: &RecordBatch, one_of: Option<usize>| {
            let name = unique();
            record(&name, recording(rows, cut, one_of));
            format!("  - {{ id: {id}, kind: test.replay, name: {name} }}\n")
        };
        let (before, feeds) = match case.input {
            Nothing => (String::new(), vec![]),
            Requests => (recorded("r", &table(1, "nr"), None), vec!["r"]),
            InTime => (recorded("r", &in_time(&table(1, "nr")), None), vec!["r"]),
            Packets => (recorded("r", packets(), Some(workers)), vec!["r"]),
            Both => (recorded("h", &table(3, "hello"), None) + &recorded("r", &table(4, "nr"), None), vec!["h", "r"]),
            Groups | GroupsInTime => {
                let rows = table(5, "nr");
                let rows = if case.input == GroupsInTime { in_time(&rows) } else { rows };
                let groups = "  - { id: g, kind: aggregate, from: r, by: [src_ip], window: 10s, FEATURES }\n";
                (recorded("r", &rows, None) + groups, vec!["g"])
            }
        };
        let from = match feeds[..] {
            [] => String::new(),
            [one] => format!(", from: {one}"),
            _ => ", from: { hello: h, request: r }".to_owned(),
        };
        let outputs = operators::registry().find(case.kind).expect("a kind").outputs;
        let mut yaml =
            format!("name: t\nnodes:\n{before}  - {{ id: n, kind: {}{from}, {} }}\n", case.kind, case.options);
        let names: Vec<String> = outputs.iter().map(|_| unique()).collect();
        let read = unique();
        for (port, name) in outputs.iter().zip(&names) {
            yaml += &format!("  - {{ id: {0}, kind: test.collect, from: n.{0}, name: {name} }}\n", port.name);
        }
        if let [_] = feeds[..] {
            yaml += &format!("  - {{ id: in, kind: test.collect{from}, name: {read} }}\n");
        }
        let yaml = LONG.iter().fold(yaml, |yaml, (short, long)| yaml.replace(short, long));
        let dir = tempfile::tempdir().expect("a folder");
        for (name, content) in files() {
            std::fs::write(dir.path().join(name), content).expect("written");
        }
        let plan = load(&dir.path().join("p.yaml"), &yaml).unwrap_or_else(|shown| panic!("{shown}"));
        let node = plan.nodes.iter().find(|node| node.id == "n").expect("the node");
        let (types, reads) = (node.outputs.clone(), node.types.first().cloned());
        let shared = go(dir.path(), plan);
        assert_eq!(shared.failure(), None, "{case:?}");
        let port = |((name, ty), from): ((&'static str, _), &String)| Port { name, ty, batches: collected(from) };
        let ports = outputs.iter().map(|port| port.name).zip(types).zip(&names).map(port).collect();
        let input = reads.filter(|_| feeds.len() == 1).map(|ty| port((("in", ty), &read)));
        Self { case: *case, shared, feeds, input, ports, dir }
    }

    fn node(&self, id: &str) -> Arc<NodeMetrics> {
        self.shared.metrics.node(id, "")
    }

    /// A counter that only this kind has.
    fn counter(&self, name: &str) -> u64 {
        self.node("n").named().into_iter().find(|(found, _)| *found == name).map_or(0, |(_, value)| value)
    }

    fn port(&self, name: &str) -> &Port {
        self.ports.iter().find(|port| port.name == name).expect("a port")
    }

    fn what_left(&self) -> Vec<Net> {
        self.ports.iter().map(Port::net).collect()
    }

    /// Each edge's counters say what passed it, and nothing is held in the end.
    fn check_counters(&self) {
        let (node, what) = (self.node("n"), format!("{:?}", self.case));
        let own = [("late", &node.late), ("rejected", &node.rejected), ("evicted", &node.evicted)];
        let mut out = 0;
        for port in &self.ports {
            assert_eq!(self.node(port.name).rows_in.load(Relaxed), port.rows(true), "{what}: read from {}", port.name);
            match own.iter().find(|(name, _)| *name == port.name) {
                Some((name, counter)) => assert_eq!(counter.load(Relaxed), port.rows(true), "{what}: {name}"),
                None => out += port.rows(true),
            }
        }
        assert_eq!(node.rows_out.load(Relaxed), out, "{what}: rows out");
        let live: u64 = self.ports.iter().map(|port| port.rows(false)).sum();
        assert_eq!(self.counter("live_updates"), live, "{what}: rows that may be taken back");
        let given: Vec<u64> = self.feeds.iter().map(|feed| self.node(feed).rows_out.load(Relaxed)).collect();
        assert_eq!((node.inputs(), node.rows_in.load(Relaxed)), (given.clone(), given.iter().sum()), "{what}: rows in");
        assert_eq!(node.state_rows.load(Relaxed), 0, "{what}: nothing is held in the end");
    }

    /// Of the rows that came in, those of which it is known what became of them, for a kind of which that can be told.
    fn accounted(&self) -> Option<u64> {
        let node = self.node("n");
        let (out, late, rejected) = (node.rows_out.load(Relaxed), node.late.load(Relaxed), node.rejected.load(Relaxed));
        match self.case.kind {
            "derive" | "enrich.asn" | "enrich.reputation" | "enrich.bots" | "enrich.browser" | "enrich.anubis"
            | "detect.forest" | "peers" => Some(out + rejected),
            "aggregate" => Some(self.port("final").numbers("hits").iter().sum::<i64>() as u64 + late + rejected),
            "recurrence" | "campaigns" => Some(self.port("joined").rows(true)),
            "tls.client_hello" => {
                assert_eq!(out, self.counter("hellos"));
                Some(self.counter("packets_received"))
            }
            "correlate" => {
                let of = |column| self.ports.iter().flat_map(move |port| port.numbers(column));
                let (requests, hellos) = (of("nr").collect::<BTreeSet<_>>(), of("hello").collect::<BTreeSet<_>>());
                assert_eq!(of("nr").count(), requests.len(), "a request leaves once");
                let dropped = ["duplicate_hellos", "failed_ip_excluded", "failed_dest_port_filtered"];
                let dropped: u64 = dropped.iter().map(|name| self.counter(name)).sum();
                // Without being asked for, a hello that no request has is counted and nothing more.
                let alone = if self.case.options.contains("ORPHANS") { 0 } else { self.counter("orphan_hellos") };
                Some((requests.len() + hellos.len()) as u64 + dropped + alone)
            }
            _ => None,
        }
    }

    fn check(&self) {
        self.check_counters();
        if let Some(accounted) = self.accounted() {
            assert_eq!(accounted, self.node("n").rows_in.load(Relaxed), "{:?}: rows are lost unseen", self.case);
        }
    }
}

fn same(found: &Net, expected: &Net, what: &str) {
    let differing = |a: &Net, b: &Net| {
        let rows = a.iter().filter(|(row, count)| b.get(*row) != Some(count));
        rows.take(3).map(|(row, count)| format!("{count} x {row}")).collect::<Vec<_>>().join("\n  ")
    };
    let (more, less) = (differing(found, expected), differing(expected, found));
    assert!(found == expected, "{what}: there is\n  {more}\nin place of\n  {less}");
}

/// The cases of some kinds.
fn cases(of: fn(&Kind) -> bool) -> impl Iterator<Item = &'static Case> {
    let registry = operators::registry();
    CASES.iter().filter(move |case| registry.find(case.kind).is_some_and(of))
}

fn is_source(kind: &Kind) -> bool {
    kind.inputs == Inputs::None
}

fn is_sink(kind: &Kind) -> bool {
    kind.outputs.is_empty()
}

fn is_operator(kind: &Kind) -> bool {
    !is_source(kind) && !is_sink(kind)
}

/// The kinds that have neither a case nor a reason for none.
fn uncovered(registry: &Registry) -> Vec<&'static str> {
    let known: Vec<&str> = CASES.iter().map(|case| case.kind).chain(WITHOUT.iter().map(|(kind, _)| *kind)).collect();
    registry.kinds().iter().map(|kind| kind.name).filter(|name| !known.contains(name)).collect()
}

#[test]
fn every_kind_has_a_case_or_a_reason_for_none() {
    let registry = operators::registry();
    assert_eq!(uncovered(&registry), [""; 0], "write a case in CASES for each of these kinds");
    for (kind, reason) in WITHOUT {
        assert!(registry.find(kind).is_some() && CASES.iter().all(|case| case.kind != *kind), "{kind}: {reason}");
    }
    assert!(CASES.iter().all(|case| registry.find(case.kind).is_some()), "a case of a kind that is gone");
    let mut kinds = registry.kinds().to_vec();
    kinds.push(Kind { name: "enrich.new", ..kinds[0] });
    assert_eq!(uncovered(&Registry::new(kinds)), ["enrich.new"], "the check finds a new kind");
}

#[test]
fn what_leaves_a_node_depends_neither_on_workers_nor_on_batches() {
    let mut used: BTreeSet<(&str, &str)> = BTreeSet::new();
    for case in cases(is_operator) {
        let first = Run::of(case, CUTS[0], WORKERS[0]);
        first.check();
        let late = |port: &Port| port.batches.iter().any(|batch| batch.late);
        assert!(
            [Groups, InTime, GroupsInTime].contains(&case.input) || first.input.as_ref().is_none_or(late),
            "{case:?}: no row is late"
        );
        let expected = first.what_left();
        used.extend(first.ports.iter().filter(|port| !port.batches.is_empty()).map(|port| (case.kind, port.name)));
        for workers in WORKERS {
            for cut in CUTS {
                let again = Run::of(case, cut, workers);
                again.check();
                for ((found, expected), port) in again.what_left().iter().zip(&expected).zip(&again.ports) {
                    let (kind, options, port) = (case.kind, case.options, port.name);
                    same(found, expected, &format!("{kind} ({options}), {port}, {workers} workers, batches of {cut}"));
                }
            }
        }
    }
    let has_case = |kind: &Kind| WITHOUT.iter().all(|(name, _)| *name != kind.name);
    for kind in operators::registry().kinds().iter().filter(|kind| is_operator(kind) && has_case(kind)) {
        let excused = |port: &str| WITHOUT_ROWS.iter().any(|(of, name, _)| (*of, *name) == (kind.name, port));
        let unused: Vec<_> = kind.outputs.iter().filter(|port| !used.contains(&(kind.name, port.name))).collect();
        let unused: Vec<_> = unused.into_iter().filter(|port| !excused(port.name)).collect();
        assert!(unused.is_empty(), "{}: no case has rows at {unused:?}", kind.name);
    }
}

#[test]
fn what_a_bound_pushes_out_is_counted_and_nothing_is_lost_unseen() {
    let bounded = [
        case("tls.client_hello", Packets, "max_flows: 3, retries: true"),
        case("correlate", Both, "window: 1m, max_hellos: 12, ORPHANS"),
        case("correlate", Both, "window: 1m, max_requests: 8, ORPHANS"),
        case("aggregate", Requests, "by: [src_ip, flag], window: 10s, max_groups: 4, FEATURES"),
        case("recurrence", Requests, "look_back: 1h, max_rows: 8"),
        case("recurrence", Groups, "look_back: 1h, max_rows: 8"),
    ];
    for case in &bounded {
        for (workers, cut) in [(1, CUTS[0]), (1, 1), (2, 7), (4, 1)] {
            let run = Run::of(case, cut, workers);
            run.check();
            let evicted = run.node("n").evicted.load(Relaxed);
            let pushed_out = match case.kind {
                "tls.client_hello" => {
                    let gone = ["flows_evicted", "flows_evicted_syn", "flows_recycled"];
                    let all = Run::of(&Case { options: "retries: true", ..*case }, cut, workers).counter("hellos");
                    let gone: u64 = gone.iter().map(|name| run.counter(name)).sum();
                    assert!(
                        all - run.counter("hellos") <= gone,
                        "{case:?}: a hello is missed with its connection only"
                    );
                    gone
                }
                "recurrence" if case.input == Requests => {
                    let held: i64 = run.port("out").numbers("detections").iter().sum();
                    assert_eq!(held as u64 + evicted, run.node("n").rows_in.load(Relaxed), "{case:?}");
                    evicted
                }
                _ => evicted + run.counter("requests_decided_early"),
            };
            assert!(pushed_out > 0, "{case:?}: the bound is not met");
        }
    }
}

#[test]
fn a_receiver_that_is_away_costs_rows_that_are_counted() {
    let case = case("sink.unix_socket", Requests, "path: nobody, max_wait: 1ms, queue: 5");
    let run = Run::of(&case, 7, 2);
    run.check();
    assert_eq!(run.counter("dropped"), ROWS as u64);
}

/// A row's values by name as text; both ways to write a time are one, and null is like nothing.
fn canonical(row: Value) -> String {
    let Value::Object(row) = row else { panic!("{row}") };
    let value = |(name, value): (String, Value)| {
        let time = value.as_str().filter(|_| ["time", "begin_time", "window_start"].contains(&name.as_str()));
        let ns = time.map(|text| chrono::DateTime::parse_from_rfc3339(text).expect("a time").timestamp_nanos_opt());
        (!value.is_null()).then(|| (name, ns.map_or(value, Value::from)))
    };
    let values: BTreeMap<String, Value> = row.into_iter().filter_map(value).collect();
    serde_json::to_string(&values).expect("text")
}

/// Lines as rows; `diff` of a line says how often.
fn net_of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Net {
    let mut net = Net::new();
    for line in lines {
        let mut row: Value = serde_json::from_str(line).expect("a line is a JSON object");
        let diff =
            row.as_object_mut().and_then(|row| row.remove("diff")).map_or(1, |diff| diff.as_i64().expect("diff"));
        add(&mut net, canonical(row), diff);
    }
    net.retain(|_, count| *count != 0);
    net
}

/// Arrow's own lines of rows.
fn arrow_lines(rows: &RecordBatch) -> String {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(rows).expect("rows can be written");
    String::from_utf8(writer.into_inner()).expect("text")
}

/// Takes datagrams until one says `end`.
fn receive(path: &Path) -> JoinHandle<String> {
    let socket = UnixDatagram::bind(path).expect("bound");
    std::thread::spawn(move || {
        let (mut buffer, mut all) = (vec![0; 1 << 16], String::new());
        loop {
            let len = socket.recv(&mut buffer).expect("received");
            match std::str::from_utf8(&buffer[..len]).expect("text") {
                "end" => return all,
                line => all.push_str(&format!("{line}\n")),
            }
        }
    })
}

/// What is in the Parquet files beneath a folder, as lines.
fn parquet_lines(dir: &Path) -> String {
    let mut text = String::new();
    for path in std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            text += &parquet_lines(&path);
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            let file = std::fs::File::open(path).expect("there");
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("readable");
            text.extend(reader.map(|rows| arrow_lines(&rows.expect("readable"))));
        }
    }
    text
}

#[test]
fn a_sink_has_each_row_once_at_any_number_of_workers_and_in_any_batches() {
    for case in cases(is_sink) {
        for (workers, cut) in WORKERS.into_iter().flat_map(|workers| CUTS.map(|cut| (workers, cut))) {
            let mut received = String::new();
            let run = Run::with(case, cut, workers, |dir, plan| {
                let receiver = receive(&dir.join("out"));
                let shared = run(plan, workers);
                let end = UnixDatagram::unbound().expect("made");
                end.send_to(b"end", dir.join("out")).expect("sent");
                received = receiver.join().expect("no panic");
                shared
            });
            run.check();
            let text = match case.kind {
                "sink.jsonl" => std::fs::read_to_string(run.dir.path().join("new/out.jsonl")).expect("the file"),
                "sink.unix_socket" => received,
                "sink.parquet" => parquet_lines(&run.dir.path().join("data")),
                kind => panic!("say where {kind} writes"),
            };
            let (mut expected, changes) = (Net::new(), case.options.contains("changes"));
            for batch in &run.input.as_ref().expect("one input").batches {
                let is_written = changes || batch.settled && batch.diff > 0;
                let text = arrow_lines(&batch.rows);
                for line in text.lines().filter(|_| is_written) {
                    add(&mut expected, canonical(serde_json::from_str(line).expect("JSON")), batch.diff.into());
                }
            }
            expected.retain(|_, count| *count != 0);
            assert!(expected.len() > 20 && expected.values().all(|count| *count == 1), "{case:?}");
            let what = format!("{} ({}), {workers} workers, batches of {cut}", case.kind, case.options);
            same(&net_of(text.lines()), &expected, &what);
        }
    }
}

/// When the lines of `source.*` begin, in ns: an hour ahead of the clock, so that time does not pass by it.
fn base() -> i64 {
    static BASE: OnceLock<i64> = OnceLock::new();
    *BASE.get_or_init(|| wall_clock_ns() + 3_600_000 * MS)
}

/// A policy of which every kind of matcher is asked.
const POLICY: &str = r#"
bots:
  - { name: crawler, user_agent_regex: "(?i)bot|curl", remote_addresses: ["192.0.2.0/24", "2001:db8::/32"], action: ALLOW }
  - { name: impostor, user_agent_regex: "(?i)bot", action: DENY }
  - { name: big, action: WEIGH, weight: { adjust: 20 }, expression: 'headers["X-Big"].size() > 3' }
  - { name: cloud, asns: { match: [16509] }, action: WEIGH, weight: { adjust: 15 } }
thresholds:
  - { name: much, expression: weight >= 30, action: DENY }
  - { name: some, expression: weight > 0, action: CHALLENGE }
"#;

/// A forest over columns of [`table`] and of groups.
fn model() -> Vec<u8> {
    static MODEL: OnceLock<Vec<u8>> = OnceLock::new();
    MODEL.get_or_init(forest).clone()
}

/// Trained by `train.forest` over rows as those of the cases.
fn forest() -> Vec<u8> {
    let (dir, name) = (tempfile::tempdir().expect("a folder"), unique());
    record(&name, recording(&table(9, "nr"), CUTS[0], None));
    let yaml = format!(
        "name: t\nnodes:\n  - {{ id: r, kind: test.replay, name: {name} }}\n  - {{ id: m, kind: train.forest, from: r, \
         model: model.json, min_rows: 100, features: [number, real, flag] }}\n"
    );
    run(load(&dir.path().join("p.yaml"), &yaml).unwrap_or_else(|shown| panic!("{shown}")), 1);
    std::fs::read(dir.path().join("model.json")).expect("a model")
}

/// What the options of cases name.
fn files() -> [(&'static str, Vec<u8>); 3] {
    [("lines.jsonl", lines(6, base()).join(&b'\n')), ("policy.yaml", POLICY.into()), ("model.json", model())]
}

/// Lines of requests, or of hellos, with times from `base` on; the first is right, and one in nine is not understood.
fn lines(seed: u64, base: i64) -> Vec<Vec<u8>> {
    let line = |(row, ms): (usize, i64)| {
        let time = base + ms * MS;
        let row_of = |time: Value, port: i64| {
            let mut line = json!({ "timestamp": time, "src_ip": one(ADDRESSES, draw(seed, 20, row)), "src_port": port,
                "ja4": "t13d", "path": one(TEXTS, draw(seed, 21, row)), "response_size": u64::MAX,
                "host": "\u{fc}", "duration_ms": draw(seed, 22, row) % 3_000 });
            if draw(seed, 23, row).is_multiple_of(9) {
                line["path"] = Value::Null;
            }
            line.to_string().into_bytes()
        };
        match if row == 0 { 9 } else { draw(seed, 24, row) % 45 } {
            0 => b"{".to_vec(),
            1 => b"{}".to_vec(),
            2 => row_of("yesterday".into(), 1),
            3 => row_of(time.into(), 70_000),
            4 => b"\xff\0\xfe".to_vec(),
            // What is no UTF-8 is repaired.
            5 => {
                let good = row_of(time.into(), 2);
                [&good[..good.len() - 1], b",\"query\":\"\xe9\"}"].concat()
            }
            _ => row_of(time.into(), (draw(seed, 25, row) % 4) as i64),
        }
    };
    times(seed).into_iter().enumerate().map(line).collect()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A sender to a socket that a run has made.
fn sender(path: &Path) -> UnixDatagram {
    let sender = UnixDatagram::unbound().expect("made");
    until("the socket", || sender.connect(path).is_ok());
    sender
}

/// Packets of a pcap file, by nothing but the lengths in it.
fn packets_in(path: &Path) -> u64 {
    let bytes = std::fs::read(path).expect("there");
    let (mut at, mut packets) = (24, 0);
    while let Some(len) = bytes.get(at + 8..at + 12) {
        at += 16 + u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
        packets += 1;
    }
    packets
}

#[test]
fn a_source_gives_the_same_rows_at_any_number_of_workers_and_all_that_was_sent_is_a_row_or_rejected() {
    let lines = lines(6, base());
    for case in cases(is_source) {
        // How lines are put into datagrams; a file cannot be cut.
        let cuts = if case.kind == "source.unix_socket" { &CUTS[..] } else { &CUTS[..1] };
        let mut first = None;
        for (workers, cut) in WORKERS.into_iter().flat_map(|workers| cuts.iter().map(move |cut| (workers, *cut))) {
            let run = Run::with(case, cut, workers, |dir, plan| {
                if plan.is_bounded() {
                    return run(plan, workers);
                }
                let shared = Arc::new(Shared::new(&plan));
                let running = Arc::clone(&shared);
                let thread = std::thread::spawn(move || run_with(plan, workers, &running, |_, _| {}));
                let sender = sender(&dir.join("lines"));
                for some in lines.chunks(cut) {
                    sender.send(&some.join(&b'\n')).expect("sent");
                }
                let node = shared.metrics.node("n", "");
                let read = || node.rows_out.load(Relaxed) + node.rejected.load(Relaxed);
                until("the lines", || read() >= lines.len() as u64);
                shared.stop();
                thread.join().expect("ends");
                shared
            });
            run.check_counters();
            let sent = match case.kind {
                "source.pcap" => packets_in(Path::new(RECORDED).join("capture.pcap").as_path()),
                _ => lines.len() as u64,
            };
            let node = run.node("n");
            let read = node.rows_out.load(Relaxed) + node.rejected.load(Relaxed) + run.counter("filtered");
            assert_eq!(read + run.counter("bad_time"), sent, "{case:?}, {workers} workers, {cut} lines at once");
            assert!(run.ports.iter().all(|port| !port.batches.is_empty()), "{case:?}: rows at each port");
            let left = run.what_left();
            let first = first.get_or_insert_with(|| left.clone());
            for (found, expected) in left.iter().zip(first) {
                same(found, expected, &format!("{}, {workers} workers, {cut} lines at once", case.kind));
            }
        }
    }
}

/// Every kind that works on requests, and a file for each of its ports.
const REQUESTS: &str = "name: live
data_dir: data
spool: { commit: 5ms }
nodes:
  - { id: hellos, kind: source.unix_socket, path: hellos, format: ja4sentinel, lateness: 2s, max_ahead: 6h }
  - { id: requests, kind: source.unix_socket, path: requests, format: reqin_log, lateness: 2s, max_ahead: 6h }
  - { id: pairs, kind: correlate, from: { hello: hellos, request: requests }, window: 5s, keepalive_ttl: 3s }
  - { id: numbers, kind: filter, from: pairs, where: cast(path as bigint) > 0 }
  - { id: more, kind: derive, from: requests, columns: [{ name: value, expr: cast(path as bigint) }] }
  - { id: known, kind: enrich.asn, from: pairs, file: RECORDED/asn.csv }
  - { id: rated, kind: enrich.reputation, from: known, file: LISTS/asn_reputation.csv }
  - { id: bots, kind: enrich.bots, from: rated, BOT_LISTS }
  - { id: browsers, kind: enrich.browser, from: bots, file: LISTS/browser_ja4.csv }
  - { id: policy, kind: enrich.anubis, from: browsers, policy: policy.yaml }
  - { id: scored, kind: detect.forest, from: policy, model: model.json }
  - { id: verdicts, kind: verdict, from: scored, scheme: [{ verdict: ODD, when: cast(path as bigint) > 0 }] }
  - { id: groups, kind: aggregate, from: known, by: [src_ip], window: 10s, features: [
      { name: hits, expr: count(*) }, { name: paths, expr: count(distinct path) }, { name: gap, expr: avg(gap_ms) } ] }
  - { id: found, kind: detect.rules, from: groups, rules: [{ name: some, level: LOW, when: hits > 5, reason: '{hits}' }] }
  - { id: last, kind: detect.rules, from: groups.final, rules: [{ name: some, level: LOW, when: hits > 5, reason: '{hits}' }] }
  - { id: again, kind: recurrence, from: last, granularity: 1m }
  - { id: ranked, kind: peers, from: groups.final, by: [window_start], columns: PEER_COLUMNS_OF_GROUPS }
  - { id: fleets, kind: campaigns, from: last, link: [[rules]], min_members: 2 }
";

/// The ports of [`REQUESTS`] that are written; a relation that never settles by its changes.
const FILES: &[&str] = &[
    "hellos",
    "hellos.rejected",
    "requests",
    "requests.rejected",
    "pairs",
    "pairs.late",
    "numbers",
    "numbers.rejected",
    "more",
    "more.rejected",
    "known",
    "rated",
    "bots",
    "browsers",
    "policy",
    "scored",
    "verdicts",
    "verdicts.rejected",
    "groups",
    "groups.final",
    "found",
    "last",
    "again",
    "again.joined",
    "ranked",
    "fleets",
    "fleets.joined",
];

/// Kinds that do not work on requests.
const NOT_ON_REQUESTS: &[&str] = &["tls.client_hello", "feedback"];

/// The client of the last request, whose window nothing closes.
const MARK: &str = "198.51.100.99";

#[test]
fn a_replay_writes_what_the_live_run_has_written() {
    for kind in
        operators::registry().kinds().iter().filter(|kind| kind.inputs != Inputs::None && !kind.outputs.is_empty())
    {
        let is_there = REQUESTS.contains(&format!("kind: {},", kind.name)) || NOT_ON_REQUESTS.contains(&kind.name);
        assert!(is_there, "put {} into REQUESTS", kind.name);
    }
    let dir = tempfile::tempdir().expect("a folder");
    for (name, content) in files() {
        std::fs::write(dir.path().join(name), content).expect("written");
    }
    let mut yaml = LONG.iter().fold(REQUESTS.to_owned(), |yaml, (short, long)| yaml.replace(short, long));
    for port in FILES {
        let mode = if ["again", "fleets"].contains(port) { ", mode: changes" } else { "" };
        let id = port.replace('.', "_");
        yaml += &format!("  - {{ id: {id}_file, kind: sink.jsonl, from: {port}, path: data/{port}.jsonl{mode} }}\n");
    }
    let path = dir.path().join("p.yaml");
    let plan = load(&path, &yaml).unwrap_or_else(|shown| panic!("{shown}"));
    // An hour ahead of the clock, so that what is late is known; two hours later comes the end of all windows but its own.
    let base = wall_clock_ns() + 3_600_000 * MS;
    let end = base + 2 * 3_600_000 * MS;
    let shared = Arc::new(Shared::new(&plan));
    let (running, written) = (Arc::clone(&shared), Arc::new(AtomicBool::new(false)));
    let noted = Arc::clone(&written);
    let thread = std::thread::spawn(move || {
        run_with(plan, 2, &running, move |_, dataflows| {
            // What leaves through a dataflow's sinks before its frontier is durable.
            let passed = (end / MS) as u64 - 60_000;
            if dataflows.from(0).iter().flatten().all(|dataflow| dataflow.frontier() >= passed) {
                noted.store(true, Relaxed);
            }
        });
    });
    let mark = json!({ "timestamp": end, "src_ip": MARK, "src_port": 9, "path": "1" }).to_string();
    for (seed, name) in [(7, "hellos"), (8, "requests")] {
        let sender = sender(&dir.path().join(name));
        for line in lines(seed, base).iter().map(Vec::as_slice).chain([mark.as_bytes()]) {
            sender.send(line).expect("sent");
        }
    }
    until("what was sent to be written", || written.load(Relaxed) || shared.failure().is_some());
    shared.stop();
    thread.join().expect("ends");
    assert_eq!(shared.failure(), None);
    let rows = |data: &Path, port: &str| {
        let text = std::fs::read_to_string(data.join(format!("{port}.jsonl"))).expect("a file");
        net_of(text.lines().filter(|line| !line.contains(MARK)))
    };
    for workers in WORKERS {
        let again = dir.path().join(format!("again{workers}"));
        let variable = |_: &str| None;
        let options = LoadOptions { output: Some(&again), ..LoadOptions::new(&variable) };
        let plan = Plan::load_as(&path, &operators::registry(), &options);
        let plan = Arc::new(plan.unwrap_or_else(|(problems, sources)| panic!("{}", sources.render(&problems, false))));
        let shared = Arc::new(Shared::new(&plan));
        let spool = dir.path().join("data/spool");
        let of = Of { spool: Some(&spool), ..Of::default() };
        let replay = Replay::prepare(&plan, &shared, &of).expect("a spool");
        let (options, missed) = replay.start(workers);
        execute_with(plan, &shared, options).expect("ends well");
        assert!(missed.records().is_empty());
        for port in FILES {
            let live = rows(&dir.path().join("data"), port);
            assert!(!live.is_empty(), "{port} has rows");
            same(&rows(&again, port), &live, &format!("{port}, replayed by {workers} workers"));
        }
    }
}
