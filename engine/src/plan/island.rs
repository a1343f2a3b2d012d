//! A plan as islands, which are dataflows of their own: what receives, up to a log, and what computes behind the logs.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::SchemaRef;

use super::{Digest, Input, Plan};
use crate::batch::Time;

/// Nodes that hang together without a log between, and run as one dataflow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Island {
    /// Indices of the nodes, each behind those that it reads.
    pub nodes: Vec<usize>,
    /// The log that takes in what these nodes receive.
    pub writes: Option<LogPorts>,
    /// The logs that these nodes read.
    pub reads: Vec<LogPorts>,
    /// The logs that keep rows of these nodes, for others behind a durable edge.
    pub keeps: Vec<LogPorts>,
    /// Indices of the served tables that this island fills.
    pub tables: Vec<usize>,
}

/// A log: what one live source receives, as the ports that yield facts; or the rows of a node that are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPorts {
    /// Index of the source, or of the durable node, whose id is the log's name.
    pub source: usize,
    /// Node and output port of each of the log's ports.
    pub ports: Vec<(usize, usize)>,
}

/// What must be equal of two islands, of one plan or of two, for one to go on as the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id and digest of each node.
    nodes: BTreeSet<(String, Digest)>,
    /// By name: the ports of the logs that it reads or writes.
    logs: BTreeMap<String, Vec<(String, SchemaRef)>>,
    /// Name, node, port and hot rows of the tables that it fills.
    tables: BTreeSet<(String, String, usize, usize)>,
    /// Which ports of each node are read, since a node does not make what nobody wants, and by a sink of changes.
    ports: BTreeMap<String, (Vec<bool>, Vec<bool>)>,
}

impl Plan {
    /// What an island is, whatever the plan around it.
    pub fn identity(&self, island: &Island) -> Identity {
        let id = |node: usize| self.nodes[node].id.clone();
        let tables = self.serve.iter().flat_map(|serve| {
            island.tables.iter().map(|at| {
                let (name, node, port) = &serve.tables[*at];
                (name.clone(), id(*node), *port, serve.hot_rows)
            })
        });
        let logs = island.reads.iter().chain(&island.writes).chain(&island.keeps);
        Identity {
            nodes: island
                .nodes
                .iter()
                .map(|node| {
                    (
                        id(*node),
                        if island.writes.is_some() { self.nodes[*node].digest } else { self.nodes[*node].behind_logs },
                    )
                })
                .collect(),
            logs: logs.map(|log| (id(log.source), self.log_schemas(log))).collect(),
            tables: tables.collect(),
            // A log has all ports, read or not.
            ports: match island.writes {
                Some(_) => BTreeMap::new(),
                None => island.nodes.iter().map(|node| (id(*node), self.read_ports(*node))).collect(),
            },
        }
    }

    fn read_ports(&self, node: usize) -> (Vec<bool>, Vec<bool>) {
        (self.nodes[node].connected.clone(), self.nodes[node].recorded.clone())
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
    pub fn whole(&self) -> Island {
        let tables = self.serve.as_ref().map_or(0, |serve| serve.tables.len());
        Island { nodes: (0..self.nodes.len()).collect(), tables: (0..tables).collect(), ..Island::default() }
    }

    /// The islands that receive and write a log each, then those behind the logs.
    pub fn islands(&self) -> (Vec<Island>, Vec<Island>) {
        self.islands_with(true)
    }

    /// The same; without `durable` edges only live sources have logs.
    pub fn islands_with(&self, durable: bool) -> (Vec<Island>, Vec<Island>) {
        let partition = self.partition_with(durable);
        let served = self.serve.as_ref().map_or(&[][..], |serve| &serve.tables);
        let mut receiving = Vec::with_capacity(partition.ingest.len());
        for nodes in partition.ingest {
            let source = nodes[0];
            let facts = nodes.iter().filter(|node| self.nodes[**node].node.facts().yields_facts);
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
            receiving.push(Island { nodes, writes, tables, ..Island::default() });
        }
        let kept = |(node, planned): (usize, &super::PlannedNode)| {
            planned.durable.map(|_| LogPorts {
                source: node,
                ports: (0..planned.outputs.len()).map(|port| (node, port)).collect(),
            })
        };
        let kept: Vec<LogPorts> = match durable {
            true => self.nodes.iter().enumerate().filter_map(kept).collect(),
            false => Vec::new(),
        };
        let sources: Vec<&LogPorts> = receiving.iter().filter_map(|island| island.writes.as_ref()).collect();
        let logs: Vec<&LogPorts> = sources.iter().copied().chain(&kept).collect();
        let mut computing: Vec<Island> = Vec::with_capacity(partition.islands.len());
        for nodes in partition.islands {
            let inputs = || nodes.iter().flat_map(|node| &self.nodes[*node].inputs);
            let is_read = |input: &Input, log: &LogPorts| input.logged && log.ports.contains(&(input.node, input.port));
            let read = |log: &&&LogPorts| inputs().any(|input| is_read(input, log));
            let keeps = kept.iter().filter(|log| nodes.contains(&log.source)).cloned().collect();
            let reads = logs.iter().filter(read).map(|log| (*log).clone()).collect();
            // A table is filled where its rows are made, or where they are stored.
            let is_here = |node: usize, port: usize| match self.keeper(node, port).filter(|_| durable) {
                Some(sink) => nodes.contains(&sink),
                None => nodes.contains(&node),
            };
            let tables = served.iter().enumerate().filter(|(_, (_, node, port))| is_here(*node, *port));
            let tables = tables.map(|(at, _)| at).collect();
            computing.push(Island { nodes, reads, keeps, tables, ..Island::default() });
        }
        // A log that is served as it is belongs to an island that reads it, or to one without nodes.
        for (at, (_, node, port)) in served.iter().enumerate() {
            let Some(log) = sources.iter().find(|log| log.ports.contains(&(*node, *port))) else { continue };
            match computing.iter_mut().find(|island| island.reads.contains(log)) {
                Some(island) => island.tables.push(at),
                None => computing.push(Island { reads: vec![(*log).clone()], tables: vec![at], ..Island::default() }),
            }
        }
        (receiving, computing)
    }

    /// The sink that stores the rows of a port, which it reads through the log of a durable node.
    fn keeper(&self, node: usize, port: usize) -> Option<usize> {
        let reads = |input: &Input| input.logged && (input.node, input.port) == (node, port);
        let stores = |sink: &super::PlannedNode| sink.node.facts().keeps_tables && sink.inputs.iter().any(reads);
        self.nodes[node].durable.and_then(|_| self.nodes.iter().position(stores))
    }

    /// From which event time (ms) on each log that an island reads is needed, so that what leaves it at message times from
    /// `time` on is complete and right. In the order of the island's logs.
    pub fn needs(&self, island: &Island, time: Time) -> Vec<Time> {
        let mut of_output = vec![time; self.nodes.len()];
        let mut of_log = vec![time; island.reads.len()];
        for &node in island.nodes.iter().rev() {
            for input in &self.nodes[node].inputs {
                let needed = self.nodes[node].node.input_needs_from(input.slot, of_output[node]);
                let of = match island.log_of(input) {
                    Some(log) => &mut of_log[log],
                    None => &mut of_output[input.node],
                };
                *of = needed.min(*of);
            }
        }
        of_log
    }
}

impl Island {
    /// The log, among those that are read, through which the rows of an input come.
    pub fn log_of(&self, input: &Input) -> Option<usize> {
        let has = |log: &LogPorts| input.logged && log.ports.contains(&(input.node, input.port));
        self.reads.iter().position(has)
    }
}
