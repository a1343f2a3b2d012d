//! A plan as parts that are dataflows of their own: what receives, and what computes.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::SchemaRef;

use super::{Digest, Plan};
use crate::batch::Time;

/// Nodes that run as one dataflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Indices of the nodes, each behind those that it reads.
    pub nodes: Vec<usize>,
    /// The log that takes in what these nodes receive.
    pub writes: Option<LogPorts>,
    /// The logs that these nodes read.
    pub reads: Vec<LogPorts>,
    /// Ports of other parts that these nodes read or that are shown; see [`Plan::stages`].
    pub taps: Vec<(usize, usize)>,
    /// Indices of the served tables that this part fills.
    pub tables: Vec<usize>,
}

/// A log: what one live source receives, as the ports that yield facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPorts {
    /// Index of the source, whose id is the log's name.
    pub source: usize,
    /// Node and output port of each of the log's ports.
    pub ports: Vec<(usize, usize)>,
}

/// What must be equal of two parts, of one plan or of two, for one to go on in the other's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id and digest of each node.
    nodes: BTreeSet<(String, Digest)>,
    /// By name: the ports of the logs that it reads or writes.
    logs: BTreeMap<String, Vec<(String, SchemaRef)>>,
    /// Name, node, port and hot rows of the tables that it fills.
    tables: BTreeSet<(String, String, usize, usize)>,
    /// Id, port and digest of each node of another part that it reads.
    pub(super) taps: BTreeSet<(String, usize, Digest)>,
    /// Which ports of each node are read.
    pub(super) connected: BTreeMap<String, Vec<bool>>,
}

impl Plan {
    /// What a part is, whatever the plan around it.
    pub fn identity(&self, part: &Part) -> Identity {
        let id = |node: usize| self.nodes[node].id.clone();
        let tables = self.serve.iter().flat_map(|serve| {
            part.tables.iter().map(|at| {
                let (name, node, port) = &serve.tables[*at];
                (name.clone(), id(*node), *port, serve.hot_rows)
            })
        });
        let logs = part.reads.iter().chain(&part.writes);
        Identity {
            nodes: part.nodes.iter().map(|node| (id(*node), self.nodes[*node].digest)).collect(),
            logs: logs.map(|log| (id(log.source), self.log_schemas(log))).collect(),
            tables: tables.collect(),
            taps: BTreeSet::new(),
            connected: BTreeMap::new(),
        }
    }

    /// Name and columns of each port of a log.
    pub fn log_schemas(&self, log: &LogPorts) -> Vec<(String, SchemaRef)> {
        let named = log.ports.iter().map(|&(index, port)| {
            let node = &self.nodes[index];
            let name = node.kind.outputs[port].name;
            // The source's own ports, and those of the nodes that make facts of its rows.
            let name = if index == log.source { name.to_owned() } else { format!("{}.{name}", node.id) };
            (name, SchemaRef::clone(&node.outputs[port].schema))
        });
        named.collect()
    }

    /// The whole plan as one dataflow.
    pub fn whole(&self) -> Part {
        let tables = self.serve.as_ref().map_or(0, |serve| serve.tables.len());
        Part { nodes: (0..self.nodes.len()).collect(), tables: (0..tables).collect(), ..Part::default() }
    }

    /// The parts in front of the logs, then the parts behind them.
    pub fn parts(&self) -> (Vec<Part>, Vec<Part>) {
        let partition = self.partition();
        let served = self.serve.as_ref().map_or(&[][..], |serve| &serve.tables);
        let mut receiving = Vec::with_capacity(partition.ingest.len());
        for nodes in partition.ingest {
            let source = nodes[0];
            let facts = nodes.iter().filter(|node| self.nodes[**node].node.yields_facts());
            // All ports, read or not: a node that is added later finds what came before.
            let ports = facts.flat_map(|&node| (0..self.nodes[node].outputs.len()).map(move |port| (node, port)));
            let ports: Vec<(usize, usize)> = ports.collect();
            // What is no fact is in no log, and is shown as it passes.
            let tables = served
                .iter()
                .enumerate()
                .filter(|(_, (_, node, port))| nodes.contains(node) && !ports.contains(&(*node, *port)));
            let tables = tables.map(|(at, _)| at).collect();
            let writes = (!ports.is_empty()).then_some(LogPorts { source, ports });
            receiving.push(Part { nodes, writes, tables, ..Part::default() });
        }
        let logs: Vec<&LogPorts> = receiving.iter().filter_map(|part| part.writes.as_ref()).collect();
        let mut computing: Vec<Part> = Vec::with_capacity(partition.islands.len());
        for nodes in partition.islands {
            let inputs = || nodes.iter().flat_map(|node| &self.nodes[*node].inputs);
            let read = |log: &&&LogPorts| inputs().any(|input| log.ports.contains(&(input.node, input.port)));
            let reads = logs.iter().filter(read).map(|log| (*log).clone()).collect();
            let tables = served.iter().enumerate().filter(|(_, (_, node, _))| nodes.contains(node));
            let tables = tables.map(|(at, _)| at).collect();
            computing.push(Part { nodes, reads, tables, ..Part::default() });
        }
        // A log that is served as it is belongs to an island that reads it, or to one without nodes.
        for (at, (_, node, port)) in served.iter().enumerate() {
            let Some(log) = logs.iter().find(|log| log.ports.contains(&(*node, *port))) else { continue };
            match computing.iter_mut().find(|part| part.reads.contains(log)) {
                Some(part) => part.tables.push(at),
                None => computing.push(Part { reads: vec![(*log).clone()], tables: vec![at], ..Part::default() }),
            }
        }
        (receiving, computing)
    }

    /// From which event time (ms) on each log that a part reads is needed, so that what leaves the part at message
    /// times from `time` on is complete and right. In the order of the part's logs.
    pub fn needs(&self, part: &Part, time: Time) -> Vec<Time> {
        let mut of_output = vec![time; self.nodes.len()];
        for &node in part.nodes.iter().rev() {
            let needed = self.nodes[node].node.needs_from(of_output[node]);
            for input in &self.nodes[node].inputs {
                of_output[input.node] = of_output[input.node].min(needed);
            }
        }
        let of_log = |log: &LogPorts| log.ports.iter().map(|(node, _)| of_output[*node]).min().unwrap_or(time);
        part.reads.iter().map(of_log).collect()
    }
}
