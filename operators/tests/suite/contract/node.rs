//! A node that runs: what it gave, by rows and by counters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::array_value_to_string;
use engine::batch::{Batch, EdgeClass, EdgeType};
use engine::contract::NodeMetrics;
use engine::plan::Plan;
use engine::shared::Shared;
use tempfile::TempDir;

use super::cases::{Both, Case, Groups, GroupsInTime, InTime, LONG, Nothing, Packets, Requests};
use super::files::files;
use super::rows::{in_time, packets, recording, table};
use crate::replay::{collected, load, record, run, unique};

/// What left a port.
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) ty: EdgeType,
    pub(super) batches: Vec<Batch>,
}

/// Rows as text, and how often each is there.
pub(super) type Net = BTreeMap<String, i64>;

pub(super) fn add(net: &mut Net, row: String, count: i64) {
    *net.entry(row).or_default() += count;
}

impl Port {
    /// The rows: of a relation the sum of its changes, and the rows that stay besides.
    pub(super) fn net(&self) -> Net {
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
    pub(super) fn rows(&self, settled: bool) -> u64 {
        let inserted = self.batches.iter().filter(|batch| batch.diff > 0 && batch.settled == settled);
        inserted.map(|batch| batch.rows.num_rows() as u64).sum()
    }

    /// The numbers in a column, with those of changes that take back below zero.
    pub(super) fn numbers(&self, column: &str) -> Vec<i64> {
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
pub(super) struct Run {
    pub(super) case: Case,
    pub(super) shared: Arc<Shared>,
    /// What it reads: the nodes before it, and if it is one, what came from there.
    pub(super) feeds: Vec<&'static str>,
    pub(super) input: Option<Port>,
    pub(super) ports: Vec<Port>,
    pub(super) dir: TempDir,
}

impl Run {
    pub(super) fn of(case: &Case, cut: usize, workers: usize) -> Self {
        Self::with(case, cut, workers, |_, plan| run(plan, workers))
    }

    /// Runs a case by `go`, which is given the folder.
    pub(super) fn with(case: &Case, cut: usize, workers: usize, go: impl FnOnce(&Path, Plan) -> Arc<Shared>) -> Self {
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

    pub(super) fn node(&self, id: &str) -> Arc<NodeMetrics> {
        self.shared.metrics.node(id, "")
    }

    /// A counter that only this kind has.
    pub(super) fn counter(&self, name: &str) -> u64 {
        self.node("n").named().into_iter().find(|(found, _)| *found == name).map_or(0, |(_, value)| value)
    }

    pub(super) fn port(&self, name: &str) -> &Port {
        self.ports.iter().find(|port| port.name == name).expect("a port")
    }

    pub(super) fn what_left(&self) -> Vec<Net> {
        self.ports.iter().map(Port::net).collect()
    }

    /// Each edge's counters say what passed it, and nothing is held in the end.
    pub(super) fn check_counters(&self) {
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

    pub(super) fn check(&self) {
        self.check_counters();
        if let Some(accounted) = self.accounted() {
            assert_eq!(accounted, self.node("n").rows_in.load(Relaxed), "{:?}: rows are lost unseen", self.case);
        }
    }
}

pub(super) fn same(found: &Net, expected: &Net, what: &str) {
    let differing = |a: &Net, b: &Net| {
        let rows = a.iter().filter(|(row, count)| b.get(*row) != Some(count));
        rows.take(3).map(|(row, count)| format!("{count} x {row}")).collect::<Vec<_>>().join("\n  ")
    };
    let (more, less) = (differing(found, expected), differing(expected, found));
    assert!(found == expected, "{what}: there is\n  {more}\nin place of\n  {less}");
}
