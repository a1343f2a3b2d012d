//! From an island of a plan to the dataflow of one worker. Every worker renders the same graph.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{Array, AsArray, RecordBatch};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::dataflow::operators::probe::{Handle, Probe};

use crate::batch::{Batch, Edge, Stream, Time};
use crate::catalog::Table;
use crate::contract::{BuildContext, Running};
use crate::dataflow::Dataflow;
use crate::merge::merge;
use crate::metrics::{NodeMetrics, Rejected};
use crate::plan::{Input, PlannedNode};
use crate::processes::Place as Process;
use crate::shared::Shared;
use crate::source_log::LogInput;

mod derived;
mod logs;

use derived::keep;
use logs::{append, replay};

/// Builds a dataflow's nodes, counters, served tables, the ways to and from its logs, and the probe, which it returns.
pub(crate) fn render(
    dataflow: &Arc<Dataflow>,
    scope: Scope<'_, Time>,
    worker: usize,
    place: Process,
    shared: &Arc<Shared>,
) -> Handle<Time> {
    let (plan, island) = (&dataflow.plan, &dataflow.island);
    let mut tables: HashMap<(usize, usize), Vec<Arc<Table>>> = HashMap::new();
    if let Some(serve) = &plan.serve {
        for (at, table) in island.tables.iter().zip(&dataflow.tables) {
            let (_, node, port) = &serve.tables[*at];
            tables.entry((*node, *port)).or_default().push(Arc::clone(table));
        }
    }
    let (probe, ports) = (Handle::new(), HashMap::new());
    let mut rendering = Rendering { dataflow, scope, worker, place, shared, probe, ports, tables };
    for ((log, input), origin) in island.reads.iter().zip(&dataflow.reads).zip(1..) {
        let context = rendering.context(log.source);
        let streams = replay((&context, dataflow), (input.as_ref(), origin), log.ports.len());
        for (&(index, port), stream) in log.ports.iter().zip(streams) {
            // Rows of a log of this run were counted when they came in.
            let node = &plan.nodes[index];
            let is_archive = matches!(input, Some(LogInput::Archive(_)));
            let own = is_archive.then(|| dataflow.metrics.node(&node.id, node.kind.name));
            rendering.pass((index, port, true), stream, &context, own.as_ref());
        }
    }
    for &index in &island.nodes {
        let context = rendering.context(index);
        let inputs = rendering.inputs(index, &context);
        let node = &plan.nodes[index];
        let streams = node.node.build(&context, inputs);
        for (port, stream) in streams.into_iter().enumerate() {
            if port >= node.outputs.len() {
                stream.probe_with(&rendering.probe);
            } else {
                rendering.pass((index, port, false), stream, &context, Some(&context.metrics));
            }
        }
    }
    for (log, kept) in island.keeps.iter().zip(&dataflow.keeps) {
        let context = rendering.context(log.source);
        let streams = log.ports.iter().filter_map(|(node, port)| rendering.ports.get(&(*node, *port, false)).cloned());
        keep(&context, kept.as_ref(), streams.collect()).probe_with(&rendering.probe);
    }
    if let Some(log) = &island.writes {
        let streams =
            log.ports.iter().filter_map(|(node, port)| rendering.ports.remove(&(*node, *port, false))).collect();
        append((&rendering.context(log.source), dataflow), dataflow.writes.as_ref(), streams)
            .probe_with(&rendering.probe);
    }
    dataflow.built();
    rendering.probe
}

/// A dataflow while it is built.
struct Rendering<'a, 's> {
    dataflow: &'a Arc<Dataflow>,
    scope: Scope<'s, Time>,
    worker: usize,
    place: Process,
    shared: &'a Arc<Shared>,
    probe: Handle<Time>,
    /// By node, port, and whether they come from a log.
    ports: HashMap<(usize, usize, bool), Stream<'s>>,
    tables: HashMap<(usize, usize), Vec<Arc<Table>>>,
}

impl<'s> Rendering<'_, 's> {
    fn context(&self, index: usize) -> BuildContext<'s> {
        let plan = &self.dataflow.plan;
        let node = &plan.nodes[index];
        // Tables are shown by the first process; a sink elsewhere cannot tell them what it has stored.
        let tables = Some(&self.tables).filter(|_| node.process == 0);
        let shown = |input: &Input| tables?.get(&(input.node, input.port)).and_then(|t| t.first()).cloned();
        let threads = self.place.threads;
        BuildContext {
            scope: self.scope,
            id: node.id.clone(),
            metrics: self.dataflow.metrics.node(&node.id, node.kind.name),
            worker: self.worker,
            peers: threads * self.place.processes,
            threads,
            probe: self.probe.clone(),
            shared: Arc::clone(self.shared),
            connected: node.connected.clone(),
            recorded: node.recorded.clone(),
            tick: Time::try_from(plan.tick.as_millis()).unwrap_or(Time::MAX).max(1),
            complete_from: self.dataflow.complete_from,
            tables: node
                .slots()
                .map(|members| match members {
                    [input] => shown(input),
                    // A table shows the rows of one node.
                    _ => None,
                })
                .collect(),
            input_names: node.slots().filter_map(|members| Some(members.first()?.name.clone())).collect(),
            bounded: self.dataflow.bounded,
            home: node.process * threads + index % threads,
            dataflow: Arc::clone(self.dataflow) as Arc<dyn Running>,
            writes: node.node.facts().writes,
        }
    }

    /// The edges to a node.
    fn inputs(&self, index: usize, context: &BuildContext<'s>) -> Vec<Edge<'s>> {
        let node = &self.dataflow.plan.nodes[index];
        let mut slots: Vec<Vec<Stream<'s>>> = node.types.iter().map(|_| Vec::new()).collect();
        for input in &node.inputs {
            let from_log = self.dataflow.island.log_of(input).is_some();
            let Some(mut stream) = self.ports.get(&(input.node, input.port, from_log)).cloned() else { continue };
            if node.outputs.is_empty() && self.place.is_shared() {
                stream = bring(stream, context.home(), self.shared);
            }
            if let Some(range) = self.dataflow.only.as_ref().filter(|_| node.outputs.is_empty()) {
                stream = within(stream, range.clone());
            }
            slots[input.slot].push(stream);
        }
        let inputs = slots.into_iter().zip(&node.types).filter_map(|(mut streams, ty)| match streams.len() {
            1 => Some(Edge { stream: streams.pop()?, ty: ty.clone() }),
            0 => None,
            _ => Some(merge(streams, ty, context)),
        });
        inputs.collect()
    }

    /// What all edges have in common: they are counted, shown, and either read by a node or at their end.
    fn pass(
        &mut self,
        (index, port, from_log): (usize, usize, bool),
        stream: Stream<'s>,
        context: &BuildContext<'s>,
        own: Option<&Arc<NodeMetrics>>,
    ) {
        let (plan, island) = (&self.dataflow.plan, &self.dataflow.island);
        let of =
            |input: &&Input| (input.node, input.port) == (index, port) && island.log_of(input).is_some() == from_log;
        let reads = |node: &&usize| plan.nodes[**node].inputs.iter().any(|input| of(&input));
        let readers = island.nodes.iter().filter(reads).map(|node| &plan.nodes[*node]);
        let reader = |node: &PlannedNode| {
            let metrics = self.dataflow.metrics.node(&node.id, node.kind.name);
            let slots = node.inputs.iter().filter(of).map(|input| metrics.input(input.slot));
            Reader { slots: slots.collect(), metrics }
        };
        let readers = readers.map(reader).collect();
        let stream = count(stream, plan.nodes[index].kind.outputs[port].name, own.cloned(), readers);
        // A table of rows that are kept in a log besides shows them as they come.
        let is_shown = !(from_log && island.nodes.contains(&index));
        for table in self.tables.get(&(index, port)).into_iter().flatten().filter(|_| is_shown) {
            let mut shown = stream.clone();
            if self.place.is_shared() {
                shown = bring(shown, 0, self.shared);
            }
            show(shown, table, (context, self.dataflow)).probe_with(&self.probe);
        }
        let mut logs = island.writes.iter().chain(&island.keeps);
        let is_logged = !from_log && logs.any(|log| log.ports.contains(&(index, port)));
        if is_logged || island.nodes.iter().any(|node| reads(&node)) {
            self.ports.insert((index, port, from_log), stream);
        } else {
            stream.probe_with(&self.probe);
        }
    }
}

/// The counters of a node that reads a port.
struct Reader {
    metrics: Arc<NodeMetrics>,
    /// The node's inputs that read it.
    slots: Vec<Arc<AtomicU64>>,
}

/// The first row of a port `rejected`, if it has the columns for it.
fn rejected(rows: &RecordBatch) -> Option<Rejected> {
    let text = |column: &str| {
        let values = rows.column_by_name(column)?.as_string_opt::<i32>()?;
        (!values.is_empty() && values.is_valid(0)).then(|| values.value(0).to_owned())
    };
    Some(Rejected { reason: text("reason")?, line: text("line").unwrap_or_default() })
}

/// Counts what leaves a port, for the node and for those who read it.
fn count<'s>(stream: Stream<'s>, port: &str, own: Option<Arc<NodeMetrics>>, readers: Vec<Reader>) -> Stream<'s> {
    let rejects = port == "rejected";
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
                    if let Some(own) = &own {
                        if rejects && rows > 0 {
                            own.note_rejected(|| batches.iter().find_map(|batch| rejected(&batch.rows)));
                        }
                        NodeMetrics::add(select(own), rows);
                        if live > 0 {
                            NodeMetrics::add(&own.counter("live_updates"), live);
                        }
                    }
                    for reader in &readers {
                        NodeMetrics::add(&reader.metrics.rows_in, rows);
                        reader.slots.iter().for_each(|slot| NodeMetrics::add(slot, rows));
                    }
                    session.give_container(batches);
                }
            });
        }
    })
}

/// Brings all rows to one worker.
fn bring<'s>(stream: Stream<'s>, worker: u64, shared: &Arc<Shared>) -> Stream<'s> {
    let rows = |batches: &[Batch]| -> usize { batches.iter().map(|batch| batch.rows.num_rows()).sum() };
    let (sending, receiving) = (Arc::clone(shared), Arc::clone(shared));
    let sent = stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "send", move |_, _| {
        move |input, output| {
            input.for_each_stamp(|time, data| {
                let mut session = output.session(&time);
                for batches in data {
                    sending.backlog.sent(rows(batches));
                    session.give_container(batches);
                }
            });
        }
    });
    let to = Exchange::new(move |_: &Batch| worker);
    sent.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(to, "receive", move |_, _| {
        move |input, output| {
            input.for_each_stamp(|time, data| {
                let mut session = output.session(&time);
                for batches in data {
                    receiving.backlog.arrived(rows(batches));
                    session.give_container(batches);
                }
            });
        }
    })
}

/// Lets rows of a time pass, in ns.
fn within(stream: Stream<'_>, range: Range<i64>) -> Stream<'_> {
    stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "within", move |_, _| {
        move |input, output| {
            input.for_each_stamp(|time, data| {
                let mut session = output.session(&time);
                for batch in data.flat_map(|batches| batches.drain(..)) {
                    if let Some(batch) = batch.within(&range) {
                        session.give(batch);
                    }
                }
            });
        }
    })
}

/// Puts what leaves a port into a served table. What leaves before it is complete is left out: another dataflow has shown it.
fn show<'s>(stream: Stream<'s>, table: &Arc<Table>, (context, dataflow): (&BuildContext<'_>, &Dataflow)) -> Stream<'s> {
    let (table, fail) = (Arc::clone(table), context.failure());
    let takes_a_place = !dataflow.is_in_charge();
    let (from, new_logs) = (context.complete_from, dataflow.new_logs());
    stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "serve", move |_, _| {
        move |input, _output| {
            input.for_each_stamp(|stamp, data| {
                let time = stamp.least().copied().unwrap_or_default();
                for batch in data.flat_map(|batches| batches.drain(..)) {
                    let is_new = new_logs.get(usize::from(batch.origin)).copied().unwrap_or(false);
                    // Rows that may change are shown as they are now, whenever they became so.
                    if takes_a_place && time < from && !is_new && batch.settled && batch.diff > 0 {
                        continue;
                    }
                    if let Err(error) = table.push(time, &batch) {
                        fail(format!("the table {} cannot be kept: {error}", table.name));
                    }
                }
            });
        }
    })
}
