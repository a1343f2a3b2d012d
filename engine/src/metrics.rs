//! Counters of one run: per node what came in, went out, was late, rejected or evicted, and what is held.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::spool::Counters;

/// Counters of one node, shared by all workers.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    /// Rows that arrived.
    pub rows_in: AtomicU64,
    /// Rows that left for good, through any port but `late`, `rejected` and `evicted`. What a relation takes back later
    /// counts in the own counter `live_updates`.
    pub rows_out: AtomicU64,
    /// Bytes that a source read or a sink wrote.
    pub bytes: AtomicU64,
    /// Rows whose event time was before the watermark.
    pub late: AtomicU64,
    /// Input that was not understood.
    pub rejected: AtomicU64,
    /// Rows that a bound pushed out of the node's state.
    pub evicted: AtomicU64,
    /// Rows or groups that the node holds now.
    pub state_rows: AtomicI64,
    /// The node's watermark in milliseconds since the epoch; 0 before the first.
    pub watermark: AtomicU64,
    named: Mutex<BTreeMap<&'static str, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<&'static str, Arc<AtomicI64>>>,
    troubles: Mutex<BTreeMap<String, String>>,
    references: Mutex<BTreeMap<String, SystemTime>>,
    inputs: Mutex<Vec<Arc<AtomicU64>>>,
    first_rejected: Mutex<Option<Rejected>>,
}

/// Input that was not understood, as a row of a port `rejected` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub reason: String,
    /// Its beginning. From the network: escape it before it goes to a terminal.
    pub line: String,
}

impl NodeMetrics {
    /// A counter that only this kind of node has, such as `kernel_dropped`. Made at the first call.
    pub fn counter(&self, name: &'static str) -> Arc<AtomicU64> {
        Arc::clone(self.named.lock().entry(name).or_default())
    }

    /// The node's own counters by name.
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let named = self.named.lock();
        named.iter().map(|(name, value)| (*name, value.load(Relaxed))).collect()
    }

    /// A value that goes up and down and that only this kind of node has, such as `clock_skew_us`. Made at the first call.
    pub fn gauge(&self, name: &'static str) -> Arc<AtomicI64> {
        Arc::clone(self.gauges.lock().entry(name).or_default())
    }

    /// The node's own gauges by name.
    pub fn gauges(&self) -> Vec<(&'static str, i64)> {
        let gauges = self.gauges.lock();
        gauges.iter().map(|(name, value)| (*name, value.load(Relaxed))).collect()
    }

    /// What keeps a part of the node, such as one table of a sink, from going on, in words; `None` when it goes on again.
    pub fn set_trouble(&self, part: &str, trouble: Option<String>) {
        let mut troubles = self.troubles.lock();
        match trouble {
            Some(trouble) => troubles.insert(part.to_owned(), trouble),
            None => troubles.remove(part),
        };
    }

    /// What keeps the node from going on now, by part.
    pub fn troubles(&self) -> BTreeMap<String, String> {
        self.troubles.lock().clone()
    }

    /// From when the data of a file is that the node looks things up in; `None` if that is not known.
    pub fn set_reference(&self, file: &str, as_of: Option<SystemTime>) {
        let mut references = self.references.lock();
        match as_of {
            Some(as_of) => references.insert(file.to_owned(), as_of),
            None => references.remove(file),
        };
    }

    /// From when the data is of each file that the node looks things up in.
    pub fn references(&self) -> BTreeMap<String, SystemTime> {
        self.references.lock().clone()
    }

    /// Rows that arrived by one of the node's inputs. Made at the first call.
    pub fn input(&self, slot: usize) -> Arc<AtomicU64> {
        let mut inputs = self.inputs.lock();
        while inputs.len() <= slot {
            inputs.push(Arc::default());
        }
        Arc::clone(&inputs[slot])
    }

    /// Rows that arrived, by input.
    pub fn inputs(&self) -> Vec<u64> {
        let inputs = self.inputs.lock();
        inputs.iter().map(|rows| rows.load(Relaxed)).collect()
    }

    /// The first that was not understood; `rejected` is asked for it if there is none yet.
    pub(crate) fn note_rejected(&self, rejected: impl FnOnce() -> Option<Rejected>) {
        let mut first = self.first_rejected.lock();
        if first.is_none() {
            *first = rejected();
        }
    }

    /// The first that was not understood.
    pub fn first_rejected(&self) -> Option<Rejected> {
        self.first_rejected.lock().clone()
    }

    /// Has the next that is not understood be the first.
    pub(crate) fn forget_rejected(&self) {
        *self.first_rejected.lock() = None;
    }

    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Relaxed);
    }
}

/// All counters of a run.
#[derive(Debug, Default)]
pub struct Metrics {
    nodes: Mutex<Vec<(String, String, Arc<NodeMetrics>)>>,
    spools: Mutex<Vec<(String, Counters)>>,
}

impl Metrics {
    /// The counters of node `id`, made at the first call; the order of first calls is kept.
    pub fn node(&self, id: &str, kind: &str) -> Arc<NodeMetrics> {
        let mut nodes = self.nodes.lock();
        if let Some((_, _, found)) = nodes.iter().find(|(name, _, _)| name == id) {
            return Arc::clone(found);
        }
        let made = Arc::new(NodeMetrics::default());
        nodes.push((id.to_owned(), kind.to_owned(), Arc::clone(&made)));
        made
    }

    /// Counts for these nodes from now on, in this order; those in `changed` with counters of their own.
    pub(crate) fn adopt<'a>(
        &self,
        order: impl Iterator<Item = (&'a str, &'a str)>,
        changed: &HashMap<String, Arc<NodeMetrics>>,
    ) {
        let mut nodes = self.nodes.lock();
        let before = std::mem::take(&mut *nodes);
        for (id, kind) in order {
            let own = changed.get(id).cloned();
            let kept = || before.iter().find(|(name, _, _)| name == id).map(|(_, _, found)| Arc::clone(found));
            nodes.push((id.to_owned(), kind.to_owned(), own.or_else(kept).unwrap_or_default()));
        }
    }

    /// Shows the counters of the log of source `id` too.
    pub fn spool(&self, id: &str, counters: &Counters) {
        let mut spools = self.spools.lock();
        spools.retain(|(name, _)| name != id);
        spools.push((id.to_owned(), counters.clone()));
    }

    /// Whether a source waits because its log is full, or the disk does not write.
    pub fn is_spool_full(&self, id: &str) -> bool {
        let spools = self.spools.lock();
        spools.iter().any(|(name, counters)| name == id && counters.full.load(Relaxed) > 0)
    }

    /// Every node's id, kind and counters, in the order of the pipeline.
    pub fn nodes(&self) -> Vec<(String, String, Arc<NodeMetrics>)> {
        self.nodes.lock().clone()
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        type Read = fn(&NodeMetrics) -> i64;
        let families: [(&str, &str, &str, Read); 8] = [
            ("rows_in_total", "counter", "Rows that arrived at the node.", |m| m.rows_in.load(Relaxed) as i64),
            ("rows_out_total", "counter", "Rows that left the node.", |m| m.rows_out.load(Relaxed) as i64),
            ("bytes_total", "counter", "Bytes that a source read or a sink wrote.", |m| m.bytes.load(Relaxed) as i64),
            ("late_total", "counter", "Rows older than the watermark.", |m| m.late.load(Relaxed) as i64),
            ("rejected_total", "counter", "Input that was not understood.", |m| m.rejected.load(Relaxed) as i64),
            ("evicted_total", "counter", "Rows that a bound pushed out of state.", |m| m.evicted.load(Relaxed) as i64),
            ("state_rows", "gauge", "Rows or groups that the node holds.", |m| m.state_rows.load(Relaxed)),
            ("watermark_ms", "gauge", "Watermark, ms since the epoch.", |m| m.watermark.load(Relaxed) as i64),
        ];
        let nodes = self.nodes();
        let mut out = String::new();
        for (name, kind, help, read) in families {
            let _ = writeln!(out, "# HELP ja4_engine_node_{name} {help}\n# TYPE ja4_engine_node_{name} {kind}");
            for (id, node_kind, m) in &nodes {
                let _ = writeln!(out, "ja4_engine_node_{name}{{node=\"{id}\",kind=\"{node_kind}\"}} {}", read(m));
            }
        }
        let _ = writeln!(
            out,
            "# HELP ja4_engine_node_events_total What only this kind of node counts.\n# TYPE ja4_engine_node_events_total counter"
        );
        for (id, node_kind, m) in &nodes {
            for (event, value) in m.named() {
                let _ = writeln!(
                    out,
                    "ja4_engine_node_events_total{{node=\"{id}\",kind=\"{node_kind}\",event=\"{event}\"}} {value}"
                );
            }
        }
        let _ = writeln!(
            out,
            "# HELP ja4_engine_node_value What only this kind of node measures.\n# TYPE ja4_engine_node_value gauge"
        );
        for (id, node_kind, m) in &nodes {
            for (name, value) in m.gauges() {
                let _ = writeln!(
                    out,
                    "ja4_engine_node_value{{node=\"{id}\",kind=\"{node_kind}\",name=\"{name}\"}} {value}"
                );
            }
        }
        render_references(&nodes, &mut out);
        self.render_troubles(&nodes, &mut out);
        self.render_spools(&mut out);
        out
    }

    /// What keeps nodes from going on: how many parts of each, and which. What it is in words is under `GET /status`.
    fn render_troubles(&self, nodes: &[(String, String, Arc<NodeMetrics>)], out: &mut String) {
        let parts: Vec<Vec<String>> = nodes
            .iter()
            .map(|(id, _, m)| {
                let spool = self.is_spool_full(id).then(|| "spool".to_owned());
                m.troubles().into_keys().chain(spool).collect()
            })
            .collect();
        out.push_str(
            "# HELP ja4_engine_node_troubles Parts of the node that have a trouble now; GET /status says what.\n\
             # TYPE ja4_engine_node_troubles gauge\n",
        );
        for ((id, kind, _), parts) in nodes.iter().zip(&parts) {
            let _ = writeln!(out, "ja4_engine_node_troubles{{node=\"{id}\",kind=\"{kind}\"}} {}", parts.len());
        }
        out.push_str(
            "# HELP ja4_engine_node_trouble 1 while a part of the node, such as a table, has a trouble.\n\
             # TYPE ja4_engine_node_trouble gauge\n",
        );
        for ((id, kind, _), parts) in nodes.iter().zip(&parts) {
            for part in parts {
                let part = label(part);
                let _ = writeln!(out, "ja4_engine_node_trouble{{node=\"{id}\",kind=\"{kind}\",part=\"{part}\"}} 1");
            }
        }
    }

    /// Counters of the logs.
    fn render_spools(&self, out: &mut String) {
        type Read = fn(&Counters) -> &Arc<AtomicU64>;
        let families: [(&str, &str, &str, Read); 19] = [
            ("records_total", "counter", "Records made durable.", |c| &c.records),
            ("rows_total", "counter", "Rows made durable.", |c| &c.rows),
            ("bytes_total", "counter", "Bytes made durable.", |c| &c.bytes),
            ("commits_total", "counter", "Group commits.", |c| &c.commits),
            ("commit_ns_total", "counter", "Nanoseconds spent in commits.", |c| &c.commit_ns),
            ("commit_ns_max", "gauge", "Nanoseconds of the longest commit.", |c| &c.commit_ns_max),
            ("damaged_records_total", "counter", "Records lost to damage.", |c| &c.damaged_records),
            ("damaged_rows_total", "counter", "Rows lost to damage, as far as known.", |c| &c.damaged_rows),
            ("torn_bytes_total", "counter", "Bytes of a record whose writing was cut off.", |c| &c.torn_bytes),
            ("unreadable_rows_total", "counter", "Rows that do not fit today's columns.", |c| &c.unreadable_rows),
            ("dropped_records_total", "counter", "Records removed to make room.", |c| &c.dropped_records),
            ("refused_rows_total", "counter", "Rows that do not fit their port's columns, or are too large.", |c| {
                &c.refused_rows
            }),
            ("dropped_rows_total", "counter", "Rows removed to make room.", |c| &c.dropped_rows),
            ("write_errors_total", "counter", "Failed writes; nothing is lost by one.", |c| &c.write_errors),
            ("sync_errors_total", "counter", "Failed fdatasyncs; nothing is lost by one.", |c| &c.sync_errors),
            ("disk_bytes", "gauge", "Bytes of all segments.", |c| &c.disk_bytes),
            ("segments", "gauge", "Segments.", |c| &c.segments),
            ("queued_bytes", "gauge", "Bytes that are not durable yet.", |c| &c.queued_bytes),
            ("full", "gauge", "1 while there is no room.", |c| &c.full),
        ];
        let spools = self.spools.lock().clone();
        for (name, kind, help, read) in families.into_iter().filter(|_| !spools.is_empty()) {
            let _ = writeln!(out, "# HELP ja4_engine_spool_{name} {help}\n# TYPE ja4_engine_spool_{name} {kind}");
            for (id, counters) in &spools {
                let _ = writeln!(out, "ja4_engine_spool_{name}{{node=\"{id}\"}} {}", read(counters).load(Relaxed));
            }
        }
    }
}

/// How old the data is of files that nodes look things up in.
fn render_references(nodes: &[(String, String, Arc<NodeMetrics>)], out: &mut String) {
    out.push_str(
        "# HELP ja4_engine_reference_age_seconds Age of the data of a file that the node looks things up in.\n\
         # TYPE ja4_engine_reference_age_seconds gauge\n",
    );
    for (id, kind, m) in nodes {
        for (file, as_of) in m.references() {
            let (file, age) = (label(&file), as_of.elapsed().unwrap_or_default().as_secs());
            let _ = writeln!(
                out,
                "ja4_engine_reference_age_seconds{{node=\"{id}\",kind=\"{kind}\",file=\"{file}\"}} {age}"
            );
        }
    }
}

/// Text as the value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_counted_and_named() {
        let metrics = Metrics::default();
        metrics.node("a", "k");
        metrics.node("b", "k").set_trouble("x\"\n\\", Some("why".to_owned()));
        let shown = metrics.render();
        for line in [
            "ja4_engine_node_troubles{node=\"a\",kind=\"k\"} 0",
            "ja4_engine_node_troubles{node=\"b\",kind=\"k\"} 1",
            "ja4_engine_node_trouble{node=\"b\",kind=\"k\",part=\"x\\\"\\n\\\\\"} 1",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
        }
        metrics.node("a", "k").set_reference("/x.csv", Some(SystemTime::now() + std::time::Duration::from_secs(90)));
        let shown = metrics.render();
        assert!(shown.contains("reference_age_seconds{node=\"a\",kind=\"k\",file=\"/x.csv\"} 0\n"), "{shown}");
        metrics.node("b", "k").set_trouble("x\"\n\\", None);
        assert!(!metrics.render().contains("ja4_engine_node_trouble{"));
    }
}
