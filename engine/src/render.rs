//! From a plan to the dataflow of one worker. Every worker renders the same graph.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::dataflow::operators::probe::{Handle, Probe};

use crate::batch::{Batch, Edge, Stream, Time};
use crate::catalog::{Catalog, Table};
use crate::metrics::{Metrics, NodeMetrics};
use crate::plan::Plan;
use crate::registry::Inputs;
use crate::time::{Backlog, Sources};

/// What the workers of a run share with each other, with the web service and with the terminal.
#[derive(Debug, Default)]
pub struct Shared {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Served tables.
    pub catalog: Arc<Catalog>,
    /// Bytes that bounded sources have to read, and have read.
    pub progress: Progress,
    /// Where the sources are.
    pub sources: Sources,
    /// Rows on their way between workers.
    pub backlog: Backlog,
    stopping: AtomicBool,
    aborted: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

/// Why a node ended the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What sort of failure it is; decides the exit code.
    pub class: FailureClass,
    /// Node and cause, lower-case. May quote what came from the network: escape it before it goes to a terminal.
    pub message: String,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { class: FailureClass::Node, message }
    }
}

/// Sorts of failures that a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// Any other: a file cannot be read, a sink refuses, a value cannot be computed.
    Node,
    /// The process lacks a right, such as CAP_NET_RAW for a capture.
    Permission,
}

/// How far bounded sources are.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of all files.
    pub total: AtomicU64,
    /// Bytes read so far.
    pub read: AtomicU64,
}

impl Shared {
    /// What a run of this plan shares; the served tables are empty.
    pub fn new(plan: &Plan) -> Self {
        let serve = plan.serve.iter();
        let tables = serve.flat_map(|serve| {
            serve
                .tables
                .iter()
                .map(|(name, node, port)| Arc::new(Table::new(name, &plan.nodes[*node].outputs[*port], serve.hot_rows)))
        });
        let sources = plan.nodes.iter().filter(|node| node.kind.inputs == Inputs::None).map(|node| node.id.clone());
        let shared = Self {
            catalog: Arc::new(Catalog::new(tables.collect())),
            sources: Sources::new(sources),
            ..Self::default()
        };
        for node in &plan.nodes {
            shared.metrics.node(&node.id, node.kind.name);
        }
        shared
    }

    /// Ends the run: sources stop, what they have received is processed.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the run is to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends the run where it stands: workers drop the dataflow, what is in flight is lost.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// Whether the workers are to drop the dataflow.
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Ends the run with an error; the first one counts.
    pub fn fail(&self, message: String) {
        self.fail_as(FailureClass::Node, message);
    }

    /// [`Shared::fail`] with the sort of failure.
    pub fn fail_as(&self, class: FailureClass, message: String) {
        tracing::debug!(message, "a node ended the run");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(Failure { class, message });
        self.stop();
    }

    /// The first error.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a node sees while it is built.
pub struct BuildContext<'s> {
    /// Where operators are added.
    pub scope: Scope<'s, Time>,
    /// The node's id.
    pub id: String,
    /// The node's counters. Ports are counted by the engine: rows out, and rows on ports named `late`, `rejected`
    /// and `evicted`.
    pub metrics: Arc<NodeMetrics>,
    /// The number of this worker, from 0.
    pub worker: usize,
    /// How many workers there are.
    pub peers: usize,
    /// How far everything downstream has got.
    pub probe: Handle<Time>,
    /// What the run shares.
    pub shared: Arc<Shared>,
    /// Whether anything reads each output port.
    pub connected: Vec<bool>,
    /// For each input the served table that shows the same port, if there is one.
    pub tables: Vec<Option<Arc<Table>>>,
    /// For each input the name that the user gave it.
    pub input_names: Vec<String>,
    /// Whether every source of the run ends by itself.
    pub bounded: bool,
    /// The worker that owns this node, if it works on one worker only.
    home: usize,
}

impl BuildContext<'_> {
    /// Whether this worker owns the node. Sources and single files are spread over the workers in pipeline order.
    pub fn is_home(&self) -> bool {
        self.worker == self.home
    }

    /// Routes batches to the worker that owns the node: the value for [`Batch::route`].
    pub fn home(&self) -> u64 {
        self.home as u64
    }

    /// Reports an error that ends the run.
    pub fn failure(&self) -> impl Fn(String) + 'static + use<> {
        let (shared, id) = (self.shared.clone(), self.id.clone());
        move |message| shared.fail(format!("{id}: {message}"))
    }
}

/// Builds all nodes, counters, served tables and the probe.
pub fn render(plan: &Plan, scope: Scope<'_, Time>, worker: usize, peers: usize, shared: &Arc<Shared>) {
    let probe = Handle::new();
    let mut ports: HashMap<(usize, usize), Stream<'_>> = HashMap::new();
    let mut tables: HashMap<(usize, usize), Vec<Arc<Table>>> = HashMap::new();
    if let Some(serve) = &plan.serve {
        for (name, node, port) in &serve.tables {
            tables.entry((*node, *port)).or_default().extend(shared.catalog.table(name).cloned());
        }
    }
    for (index, node) in plan.nodes.iter().enumerate() {
        let inputs: Vec<Edge<'_>> = node
            .inputs
            .iter()
            .filter_map(|input| {
                let stream = ports.get(&(input.node, input.port))?.clone();
                Some(Edge { stream, ty: plan.nodes[input.node].outputs[input.port].clone() })
            })
            .collect();
        let context = BuildContext {
            scope,
            id: node.id.clone(),
            metrics: shared.metrics.node(&node.id, node.kind.name),
            worker,
            peers,
            probe: probe.clone(),
            shared: Arc::clone(shared),
            connected: node.connected.clone(),
            tables: node
                .inputs
                .iter()
                .map(|i| tables.get(&(i.node, i.port)).and_then(|t| t.first()).cloned())
                .collect(),
            input_names: node.inputs.iter().map(|i| i.name.clone()).collect(),
            bounded: plan.is_bounded(),
            home: index % peers,
        };
        let streams = node.node.build(&context, inputs);
        for (port, stream) in streams.into_iter().enumerate() {
            if port >= node.outputs.len() {
                stream.probe_with(&probe);
                continue;
            }
            let readers = plan
                .nodes
                .iter()
                .filter(|reader| reader.inputs.iter().any(|i| (i.node, i.port) == (index, port)))
                .map(|reader| shared.metrics.node(&reader.id, reader.kind.name))
                .collect();
            let stream = count(stream, node.kind.outputs[port].name, &context.metrics, readers);
            for table in tables.get(&(index, port)).into_iter().flatten() {
                show(stream.clone(), table, &context).probe_with(&probe);
            }
            if node.connected[port] {
                ports.insert((index, port), stream);
            } else {
                stream.probe_with(&probe);
            }
        }
    }
}

/// Counts what leaves a port, for the node and for those who read it.
fn count<'s>(stream: Stream<'s>, port: &str, own: &Arc<NodeMetrics>, readers: Vec<Arc<NodeMetrics>>) -> Stream<'s> {
    let own = Arc::clone(own);
    let select: fn(&NodeMetrics) -> &AtomicU64 = match port {
        "late" => |m| &m.late,
        "rejected" => |m| &m.rejected,
        "evicted" => |m| &m.evicted,
        _ => |m| &m.rows_out,
    };
    stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "count", move |_, _| {
        move |input, output| {
            input.for_each_stamp(|time, data| {
                let mut session = output.session(&time);
                for batches in data {
                    let inserted = |settled: bool| -> usize {
                        let some = batches.iter().filter(|b| b.diff > 0 && b.settled == settled);
                        some.map(|b| b.rows.num_rows()).sum()
                    };
                    // How often a group was emitted before it was final depends on the frontier's steps; the rows
                    // that stay do not.
                    let (rows, live) = (inserted(true), inserted(false));
                    NodeMetrics::add(select(&own), rows);
                    if live > 0 {
                        NodeMetrics::add(&own.counter("live_updates"), live);
                    }
                    for reader in &readers {
                        NodeMetrics::add(&reader.rows_in, rows);
                    }
                    session.give_container(batches);
                }
            });
        }
    })
}

/// Puts what leaves a port into a served table.
fn show<'s>(stream: Stream<'s>, table: &Arc<Table>, context: &BuildContext<'_>) -> Stream<'s> {
    let (table, fail) = (Arc::clone(table), context.failure());
    stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "serve", move |_, _| {
        move |input, _output| {
            input.for_each_stamp(|stamp, data| {
                let time = stamp.least().copied().unwrap_or_default();
                for batch in data.flat_map(|batches| batches.drain(..)) {
                    if let Err(error) = table.push(time, &batch) {
                        fail(format!("the table {} cannot be kept: {error}", table.name));
                    }
                }
            });
        }
    })
}
