//! The dataflow around the matcher: what arrives, when it is decided, what leaves at which time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use engine::batch::{Batch, Edge, MAX_ROWS, Stream, Time};
use engine::metrics::NodeMetrics;
use engine::render::BuildContext;
use engine::time::nanos;
use timely::PartialOrder;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;

use super::emit::{Decision, Emitter};
use super::keys::Keys;
use super::matcher::{Key, Matcher, Rules};
use super::store::{RowRef, Store};
use super::{KeyColumns, Planned};
use crate::exchange::{arrivals, partition};

/// The most decisions, and the most expired hellos, of one activation; the other operators get their turn in between.
const PER_ACTIVATION: usize = 8 * MAX_ROWS;

/// The least step between message times where nobody waits for results: few messages, each with many rows.
const BOUNDED_STEP: Duration = Duration::from_secs(30);

/// The end of time: both inputs are closed.
const CLOSED: i64 = i64::MAX;

type Out = OutputBuilder<Time, CapacityContainerBuilder<Vec<Batch>>>;

pub(super) fn build<'s>(node: &Planned, context: &BuildContext<'s>, inputs: Vec<Edge<'s>>) -> Vec<Stream<'s>> {
    let Ok([hello, request]) = <[Edge<'s>; 2]>::try_from(inputs) else { return Vec::new() };
    let columns = node.options.key;
    let hash = move |rows: &RecordBatch, hashes: &mut Vec<u64>| {
        if let Some(keys) = Keys::new(rows, columns) {
            hashes.extend((0..rows.num_rows()).map(|row| keys.get(row).route()));
        }
    };
    let emitter = Emitter::new(&node.schema, &request.ty.schema, &hello.ty.schema);
    let hello = partition(hello.stream, context, hash);
    let request = partition(request.stream, context, hash);

    let mut builder = OperatorBuilder::new(context.id.clone(), context.scope);
    let activator = context.scope.activator_for(builder.operator_info().address);
    let mut hello = builder.new_input(hello, Exchange::new(|batch: &Batch| batch.route));
    let mut request = builder.new_input(request, Exchange::new(|batch: &Batch| batch.route));
    let (mut outputs, mut streams): (Vec<Out>, Vec<_>) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (output, stream) = builder.new_output::<Vec<Batch>>();
        outputs.push(OutputBuilder::from(output));
        streams.push(stream);
    }
    let share = |bound: usize| (bound / context.peers).max(1);
    let mut join = Join {
        rules: node.rules(),
        step: nanos(if context.bounded { node.tick.max(BOUNDED_STEP) } else { node.tick }).max(1_000_000),
        columns,
        emit_hellos: node.options.orphans.hello,
        max_hellos: share(node.options.max_hellos),
        max_requests: share(node.options.max_requests),
        matcher: Matcher::new(node.rules()),
        hellos: Store::default(),
        requests: Store::default(),
        pending: Vec::new(),
        decided: i64::MIN,
        swept: i64::MIN,
        emitter,
        counters: Counters::new(&context.metrics),
        held: 0,
        metrics: Arc::clone(&context.metrics),
    };
    let (fail, note) = (context.failure(), arrivals(context));
    builder.build(move |capabilities| {
        let mut capabilities: Vec<Capability<Time>> = capabilities;
        move |frontiers| {
            let mut out = Outbox::default();
            let mut turn = || -> Result<bool, ArrowError> {
                hello.for_each_stamp(|_, data| {
                    for batches in data {
                        note(batches);
                        out.arrived_hellos.append(batches);
                    }
                });
                request.for_each_stamp(|_, data| {
                    for batches in data {
                        note(batches);
                        out.arrived_requests.append(batches);
                    }
                });
                for batch in std::mem::take(&mut out.arrived_hellos) {
                    join.take_hellos(batch, &mut out)?;
                }
                for batch in std::mem::take(&mut out.arrived_requests) {
                    join.take_requests(batch, &mut out)?;
                }
                join.advance(bound(&frontiers[0]), bound(&frontiers[1]), &mut out)
            };
            let more = turn().unwrap_or_else(|error| {
                fail(format!("rows cannot be joined: {error}"));
                false
            });
            if let [main, late, evicted] = &capabilities[..] {
                for (time, batch) in out.main.drain(..) {
                    outputs[0].activate().session(&main.delayed(&time.max(*main.time()))).give(batch);
                }
                for (output, capability, batches) in [(1, late, &mut out.late), (2, evicted, &mut out.evicted)] {
                    if !batches.is_empty() {
                        outputs[output].activate().session(capability).give_iterator(batches.drain(..).map(|(_, b)| b));
                    }
                }
            }
            match join.output_frontier() {
                Some(time) => capabilities.iter_mut().for_each(|c| {
                    if c.time().less_than(&time) {
                        c.downgrade(&time);
                    }
                }),
                None => capabilities.clear(),
            }
            if more {
                activator.activate();
            }
        }
    });
    streams
}

/// The event time in ns before which an input is complete.
fn bound(frontier: &MutableAntichain<Time>) -> i64 {
    frontier.frontier().first().map_or(CLOSED, |ms| i64::try_from(*ms).unwrap_or(CLOSED).saturating_mul(1_000_000))
}

/// The message time in ms of a row: its event time, down to a multiple of `step` ns. It depends on the row alone, so
/// that what is cut by message times downstream, such as files, is cut alike in every run.
fn message_time(ns: i64, step: i64) -> Time {
    u64::try_from(ns.saturating_sub(ns.rem_euclid(step)) / 1_000_000).unwrap_or(0)
}

/// What one activation takes in and gives out.
#[derive(Default)]
struct Outbox {
    arrived_hellos: Vec<Batch>,
    arrived_requests: Vec<Batch>,
    main: Vec<(Time, Batch)>,
    late: Vec<(Time, Batch)>,
    evicted: Vec<(Time, Batch)>,
}

/// A request that waits for its decision.
#[derive(Clone, Copy)]
struct Pending {
    time: i64,
    seq: u64,
    key: Key,
    row: RowRef,
}

struct Counters {
    correlated: Arc<AtomicU64>,
    orphan_requests: Arc<AtomicU64>,
    orphan_hellos: Arc<AtomicU64>,
    requests_decided_early: Arc<AtomicU64>,
}

impl Counters {
    fn new(metrics: &NodeMetrics) -> Self {
        Self {
            correlated: metrics.counter("correlated"),
            orphan_requests: metrics.counter("orphan_requests"),
            orphan_hellos: metrics.counter("orphan_hellos"),
            requests_decided_early: metrics.counter("requests_decided_early"),
        }
    }
}

/// One worker's share of the join.
struct Join {
    rules: Rules,
    /// Rows leave at message times that are multiples of this many ns.
    step: i64,
    columns: KeyColumns,
    emit_hellos: bool,
    max_hellos: usize,
    max_requests: usize,
    matcher: Matcher,
    hellos: Store,
    requests: Store,
    pending: Vec<Pending>,
    /// Every request before this event time (ns) has been decided.
    decided: i64,
    /// Every hello that expired before this event time (ns) has been let go.
    swept: i64,
    emitter: Emitter,
    counters: Counters,
    held: i64,
    metrics: Arc<NodeMetrics>,
}

impl Join {
    fn take_hellos(&mut self, batch: Batch, out: &mut Outbox) -> Result<(), ArrowError> {
        if batch.late {
            return self.pass_late(batch, true, out);
        }
        let (Some(keys), Some(times), Some(seqs)) = (Keys::new(&batch.rows, self.columns), batch.times(), batch.seqs())
        else {
            return Err(ArrowError::SchemaError("hellos lack the join's columns".to_owned()));
        };
        let slot = self.hellos.insert(batch.rows.clone());
        for row in 0..batch.rows.num_rows() {
            let at = RowRef { batch: slot, row: row as u32 };
            self.matcher.insert(keys.get(row), times.value(row), seqs.value(row), at);
        }
        let mut evicted = Vec::new();
        while self.matcher.len() > self.max_hellos {
            let Some(hello) = self.matcher.evict() else { break };
            evicted.push(Decision::Hello { hello: (hello.row, hello.time) });
        }
        // An evicted hello is older than what has been promised downstream.
        self.send(&evicted, |out| &mut out.evicted, true, out)
    }

    fn take_requests(&mut self, batch: Batch, out: &mut Outbox) -> Result<(), ArrowError> {
        if batch.late {
            return self.pass_late(batch, false, out);
        }
        let (Some(keys), Some(times), Some(seqs)) = (Keys::new(&batch.rows, self.columns), batch.times(), batch.seqs())
        else {
            return Err(ArrowError::SchemaError("requests lack the join's columns".to_owned()));
        };
        let slot = self.requests.insert(batch.rows.clone());
        self.pending.extend((0..batch.rows.num_rows()).map(|row| Pending {
            time: times.value(row),
            seq: seqs.value(row),
            key: keys.get(row),
            row: RowRef { batch: slot, row: row as u32 },
        }));
        Ok(())
    }

    /// Late rows leave as orphans of their side.
    fn pass_late(&mut self, batch: Batch, is_hello: bool, out: &mut Outbox) -> Result<(), ArrowError> {
        let times: Vec<i64> = batch.times().map(|times| times.values().to_vec()).unwrap_or_default();
        let store = if is_hello { &mut self.hellos } else { &mut self.requests };
        let slot = store.insert(batch.rows);
        let decisions: Vec<Decision> = times
            .iter()
            .enumerate()
            .map(|(row, time)| {
                let side = (RowRef { batch: slot, row: row as u32 }, *time);
                if is_hello { Decision::Hello { hello: side } } else { Decision::Request { request: side } }
            })
            .collect();
        self.send(&decisions, |out| &mut out.late, true, out)
    }

    /// Decides what the inputs' bounds (ns) allow. Returns whether there is more to do at once.
    fn advance(&mut self, hellos: i64, requests: i64, out: &mut Outbox) -> Result<bool, ArrowError> {
        let ready = if hellos == CLOSED { CLOSED } else { hellos.saturating_sub(self.rules.tolerance) }.min(requests);
        let (mut due, rest): (Vec<Pending>, Vec<Pending>) = self.pending.drain(..).partition(|p| p.time < ready);
        self.pending = rest;
        due.sort_unstable_by_key(|p| (p.time, p.seq));
        if self.pending.len() > self.max_requests {
            self.pending.sort_unstable_by_key(|p| (p.time, p.seq));
            let early = self.pending.len() - self.max_requests;
            due.extend(self.pending.drain(..early));
        }
        let complete = due.len() <= PER_ACTIVATION;
        if !complete {
            self.pending.extend(due.drain(PER_ACTIVATION..));
        }
        let early = due.iter().filter(|p| p.time >= ready).count();
        self.counters.requests_decided_early.fetch_add(early as u64, Relaxed);
        let mut decisions = Vec::with_capacity(due.len());
        for pending in &due {
            let request = (pending.row, pending.time);
            decisions.push(match self.matcher.decide(pending.key, pending.time) {
                Some(found) => {
                    Decision::Matched { request, hello: (found.row, found.time), keepalives: found.keepalives }
                }
                None => Decision::Request { request },
            });
        }
        self.decided = match (complete, due.last()) {
            (true, _) => self.decided.max(ready),
            // Requests that a bound forced out may be later than what the inputs allow.
            (false, Some(last)) => self.decided.max(last.time.min(ready)),
            (false, None) => self.decided,
        };
        self.send(&decisions, |out| &mut out.main, false, out)?;
        let mut orphans = Vec::new();
        let mut finished = Vec::new();
        let swept = self.matcher.expire(self.decided, PER_ACTIVATION, |hello| {
            let list = if hello.is_matched() { &mut finished } else { &mut orphans };
            list.push(hello);
        });
        if swept {
            self.swept = self.decided;
        }
        self.counters.orphan_hellos.fetch_add(orphans.len() as u64, Relaxed);
        if self.emit_hellos {
            let mut rows: Vec<Decision> = orphans.iter().map(|h| Decision::Hello { hello: (h.row, h.time) }).collect();
            rows.sort_by_key(Decision::time);
            self.send(&rows, |out| &mut out.main, false, out)?;
        } else {
            orphans.iter().for_each(|hello| self.hellos.release(hello.row));
        }
        finished.iter().for_each(|hello| self.hellos.release(hello.row));
        if self.hellos.is_sparse() {
            self.hellos.compact(self.matcher.rows_mut())?;
        }
        if self.requests.is_sparse() {
            self.requests.compact(self.pending.iter_mut().map(|p| &mut p.row))?;
        }
        let held = (self.matcher.len() + self.pending.len()) as i64;
        self.metrics.state_rows.fetch_add(held - self.held, Relaxed);
        self.held = held;
        Ok(!complete || !swept)
    }

    /// Turns decisions into batches and lets go of rows that leave for good.
    fn send(
        &mut self,
        decisions: &[Decision],
        port: impl Fn(&mut Outbox) -> &mut Vec<(Time, Batch)>,
        late: bool,
        out: &mut Outbox,
    ) -> Result<(), ArrowError> {
        let step = self.step;
        let chunks = decisions
            .chunk_by(|a, b| a.time().div_euclid(step) == b.time().div_euclid(step))
            .flat_map(|c| c.chunks(MAX_ROWS));
        for chunk in chunks {
            let rows = self.emitter.batch(chunk, &self.requests, &self.hellos)?;
            let time = chunk.first().map_or(0, |first| message_time(first.time(), step));
            port(out).push((time, Batch { late, ..Batch::new(rows) }));
            for decision in chunk {
                match decision {
                    Decision::Matched { request, .. } => self.requests.release(request.0),
                    Decision::Request { request } => self.requests.release(request.0),
                    Decision::Hello { hello } => self.hellos.release(hello.0),
                }
            }
            if !late {
                let matched = chunk.iter().filter(|d| matches!(d, Decision::Matched { .. })).count();
                let alone = chunk.iter().filter(|d| matches!(d, Decision::Request { .. })).count();
                self.counters.correlated.fetch_add(matched as u64, Relaxed);
                self.counters.orphan_requests.fetch_add(alone as u64, Relaxed);
            }
        }
        Ok(())
    }

    /// The earliest time (ms) at which anything can still leave; `None` if nothing can.
    fn output_frontier(&self) -> Option<Time> {
        if self.decided == CLOSED && self.pending.is_empty() && (!self.emit_hellos || self.matcher.len() == 0) {
            return None;
        }
        // A hello that no request matched leaves with its own time, a window after it.
        let earliest = if self.emit_hellos { self.swept.saturating_sub(self.rules.window) } else { self.decided };
        match earliest {
            // Closed, but a capped sweep goes on: the capability stays where it is.
            CLOSED => Some(Time::MIN),
            ns => Some(message_time(ns, self.step)),
        }
    }
}
