//! The join in the dataflow: what arrives, and what leaves at which time.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use engine::batch::{Batch, Edge, Stream, Time};
use engine::contract::BuildContext;
use engine::contract::{Here, MAX_IN_FLIGHT, nanos};
use timely::PartialOrder;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;
use timely::scheduling::Activator;

use super::Planned;
use super::emit::Emitter;
use super::join::{Join, Outbox, Settings};
use super::keys::Keys;
use super::matcher::END;
use super::skew::{Monitor, Skew};
use engine::contract::exchange::{arrivals, partition};

/// The least step between message times where nobody waits for results: few messages, each with many rows.
const BOUNDED_STEP: Duration = Duration::from_secs(30);

type Output = OutputBuilder<Time, CapacityContainerBuilder<Vec<Batch>>>;

/// The join of both inputs, which are partitioned by the connection's key, with its three outputs.
pub(super) fn build<'s>(node: &Planned, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
    let Ok([hello, request]) = <[Edge<'s>; 2]>::try_from(inputs) else { return Vec::new() };
    let spec = node.keys();
    let hash = move |rows: &RecordBatch, hashes: &mut Vec<u64>| {
        if let Some(keys) = Keys::new(rows, spec) {
            hashes.extend((0..rows.num_rows()).map(|row| keys.get(row).route()));
        }
    };
    let settings = settings(node, context);
    let monitor = monitor(node, context, settings.rules.tolerance);
    let emitter = Emitter::new(&node.schema, &request.ty.schema, &hello.ty.schema);
    let join = Join::new(settings, emitter, monitor);
    let hello = partition(hello.stream, context, hash);
    let request = partition(request.stream, context, hash);

    let mut builder = OperatorBuilder::new(context.id.clone(), context.scope);
    let activator = context.scope.activator_for(builder.operator_info().address);
    let mut hello = builder.new_input(hello, Exchange::new(|batch: &Batch| batch.route));
    let mut request = builder.new_input(request, Exchange::new(|batch: &Batch| batch.route));
    let (mut outputs, mut streams): (Vec<Output>, Vec<_>) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (output, stream) = builder.new_output::<Vec<Batch>>();
        outputs.push(OutputBuilder::from(output));
        streams.push(stream);
    }
    let (fail, note, here) = (context.failure(), arrivals(context), Here::new(&context.id));
    builder.build(move |capabilities| {
        let mut operator = Operator { join, capabilities, outputs, activator, fail };
        move |frontiers| {
            let _here = here.enter();
            let (mut hellos, mut requests) = (Vec::new(), Vec::new());
            for (input, arrived) in [(&mut hello, &mut hellos), (&mut request, &mut requests)] {
                input.for_each_stamp(|stamp, data| {
                    let time = stamp.least().copied().unwrap_or_default();
                    for batches in data {
                        note(batches);
                        arrived.extend(batches.drain(..).map(|batch| (time, batch)));
                    }
                });
            }
            operator.turn(hellos, requests, bound(&frontiers[0]).min(bound(&frontiers[1])));
        }
    });
    streams
}

/// This worker's share of what the user has set.
fn settings(node: &Planned, context: &BuildContext<'_>) -> Settings {
    let rules = node.rules(context.peers);
    Settings {
        rules,
        tick: nanos(node.tick).max(1_000_000),
        step: nanos(if context.bounded { node.tick.max(BOUNDED_STEP) } else { node.tick }).max(1_000_000),
        keys: node.keys(),
        filters: node.filters.clone(),
        emit_hellos: node.options.orphans.hello,
        max_requests: (node.options.max_requests / context.peers).max(1),
        // A source sends no more than this before it waits: with it, what is evicted does not depend on arrival.
        max_waiting_hellos: rules.max_hellos.max(MAX_IN_FLIGHT),
    }
}

/// What compares the clocks of both sensors.
fn monitor(node: &Planned, context: &BuildContext<'_>, tolerance: i64) -> Monitor {
    Monitor {
        worker: context.worker,
        id: context.id.clone(),
        tolerance,
        board: Arc::clone(&node.skews),
        metrics: Arc::clone(&context.metrics),
        samples: context.metrics.counter("clock_skew_samples"),
        skew: Skew::default(),
    }
}

/// The operator of one worker.
struct Operator<F> {
    join: Join,
    /// For each output the time from which something may still leave; empty once nothing can.
    capabilities: Vec<Capability<Time>>,
    outputs: Vec<Output>,
    activator: Activator,
    fail: F,
}

impl<F: Fn(String)> Operator<F> {
    /// Takes in what has arrived and sends what can be decided when both inputs are complete before `ready` (ns).
    fn turn(&mut self, hellos: Vec<(Time, Batch)>, requests: Vec<(Time, Batch)>, ready: i64) {
        let mut out = Outbox::default();
        let more = self.join.turn(hellos, requests, ready, &mut out).unwrap_or_else(|error| {
            (self.fail)(format!("rows cannot be joined: {error}"));
            false
        });
        self.send(out);
        self.hold();
        if more {
            self.activator.activate();
        }
    }

    /// Sends rows at their message times.
    fn send(&mut self, out: Outbox) {
        let [main, late, evicted] = &self.capabilities[..] else { return };
        for (time, batch) in out.main {
            self.outputs[0].activate().session(&main.delayed(&time.max(*main.time()))).give(batch);
        }
        // Their event time has been promised away. The time at which they came has not, and a run after this one finds
        // them at the same; what is evicted depends on what else is there.
        for (time, batch) in out.late {
            self.outputs[1].activate().session(&late.delayed(&time.max(*late.time()))).give(batch);
        }
        if !out.evicted.is_empty() {
            self.outputs[2].activate().session(evicted).give_iterator(out.evicted.into_iter());
        }
    }

    /// Holds the time from which something may still leave.
    fn hold(&mut self) {
        let Some(time) = self.join.output_frontier() else {
            self.capabilities.clear();
            return;
        };
        for capability in &mut self.capabilities {
            if capability.time().less_than(&time) {
                capability.downgrade(&time);
            }
        }
    }
}

/// The event time in ns before which an input is complete.
fn bound(frontier: &MutableAntichain<Time>) -> i64 {
    frontier.frontier().first().map_or(END, |ms| i64::try_from(*ms).unwrap_or(END).saturating_mul(1_000_000))
}
