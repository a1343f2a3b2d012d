//! The stateful operator: a [`Window`] on each worker, driven by the frontier.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use engine::batch::{Batch, MAX_ROWS, Stream, Time};
use engine::contract::NodeMetrics;
use engine::contract::{BuildContext, Here};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};
use timely::dataflow::operators::{Capability, InputCapability};
use timely::scheduling::Activator;

use engine::contract::exchange::arrivals;

use super::window::{CLOSED, Sent, Settings, Window};

/// The most bytes of batches that are put together.
const MAX_JOINED: usize = 64 << 20;

/// Takes in rows; how many of them an expression has no value for, such as a cast of text that is no number. One such
/// row must not end the run, nor cost its neighbours: a batch that fails is halved until the rows that fail are alone.
fn push(window: &mut Window, rows: &RecordBatch) -> u64 {
    match (window.push(rows), rows.num_rows()) {
        (Ok(()), _) => 0,
        (Err(error), 0 | 1) => {
            // Whoever sends such rows must not fill the log.
            tracing::debug!(%error, "a row has no value for a feature and is left out");
            1
        }
        (Err(_), n) => push(window, &rows.slice(0, n / 2)) + push(window, &rows.slice(n / 2, n - n / 2)),
    }
}

/// The live relation and the stream of final rows, from rows that are routed to the worker of their group.
pub(super) fn run<'s>(stream: Stream<'s>, context: &BuildContext<'s>, settings: Settings) -> [Stream<'s>; 2] {
    let mut builder = OperatorBuilder::new(context.id.clone(), context.scope);
    let info = builder.operator_info();
    let mut input = builder.new_input(stream, Exchange::new(|batch: &Batch| batch.route));
    let (output, out) = builder.new_output::<Vec<Batch>>();
    let (final_output, last) = builder.new_output::<Vec<Batch>>();
    let (fail, note, here) = (context.failure(), arrivals(context), Here::new(&context.id));
    let window = Window::new(settings, context.metrics.clone())
        .inspect_err(|error| fail(format!("groups cannot be made: {error}")))
        .ok();
    let mut operator = Operator {
        window,
        arrived: Vec::new(),
        held: None,
        sent: Vec::new(),
        outputs: [output, final_output].map(OutputBuilder::from),
        metrics: context.metrics.clone(),
        activator: context.scope.activator_for(info.address),
        fail,
    };
    builder.build(move |capabilities| {
        // Nothing is sent before rows have come.
        drop(capabilities);
        move |frontiers| {
            let _here = here.enter();
            input.for_each_stamp(|stamp, data| {
                operator.hold_from(&stamp);
                for batches in data {
                    note(batches);
                    operator.arrived.extend(batches.drain(..).map(|batch| batch.rows));
                }
            });
            operator.turn(frontiers[0].frontier().first().copied().unwrap_or(CLOSED));
        }
    });
    [out, last]
}

type Output = OutputBuilder<Time, CapacityContainerBuilder<Vec<Batch>>>;

/// The operator of one worker.
struct Operator<F> {
    /// There is none after a failure.
    window: Option<Window>,
    /// Rows that the window has not taken in yet.
    arrived: Vec<RecordBatch>,
    /// For each output the time from which something may still be sent; `None` if nothing can.
    held: Option<[Capability<Time>; 2]>,
    /// What is to be sent; empty between activations.
    sent: Vec<Sent>,
    /// By [`Port`](super::window::Port).
    outputs: [Output; 2],
    metrics: Arc<NodeMetrics>,
    activator: Activator,
    fail: F,
}

impl<F: Fn(String)> Operator<F> {
    /// Something may be sent from the time of this message on.
    fn hold_from(&mut self, stamp: &InputCapability<Time>) {
        let earlier = self.held.as_ref().is_some_and(|held| stamp.least().is_none_or(|t| held[0].time() <= t));
        if !earlier && let (Some(out), Some(last)) = (stamp.retain_least(0), stamp.retain_least(1)) {
            self.held = Some([out, last]);
        }
    }

    /// Nothing is sent before this time any more.
    fn hold_until(&mut self, time: Option<Time>) {
        let Some(time) = time else {
            self.held = None;
            return;
        };
        for capability in self.held.iter_mut().flatten() {
            if time > *capability.time() {
                capability.downgrade(&time);
            }
        }
    }

    /// Takes in what has arrived, and computes what the frontier has passed.
    fn turn(&mut self, frontier: Time) {
        let Some(window) = self.window.as_mut() else {
            self.arrived.clear();
            self.held = None;
            return;
        };
        let pushed =
            gather(&mut self.arrived).map(|batches| batches.iter().map(|rows| push(window, rows)).sum::<u64>());
        let worked = pushed.and_then(|refused| {
            NodeMetrics::add(&self.metrics.rejected, refused as usize);
            window.work(frontier, &mut self.sent)
        });
        let hold = window.hold();
        self.send();
        match worked {
            Ok(more) => {
                if more {
                    self.activator.activate();
                }
                self.hold_until(hold);
            }
            Err(error) => {
                (self.fail)(format!("a feature cannot be computed: {error}"));
                self.window = None;
                self.held = None;
            }
        }
    }

    /// Sends what the window has given.
    fn send(&mut self) {
        for (port, time, batch) in self.sent.drain(..) {
            if let Some(held) = &self.held {
                let port = port as usize;
                self.outputs[port].activate().session(&held[port].delayed(&time)).give(batch);
            }
        }
    }
}

/// Small batches that arrived together as larger ones: the cost of an expression is mostly per batch.
fn gather(arrived: &mut Vec<RecordBatch>) -> Result<Vec<RecordBatch>, datafusion::error::DataFusionError> {
    let mut gathered = Vec::new();
    let mut small: Vec<RecordBatch> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    let mut join = |small: &mut Vec<RecordBatch>| -> Result<(), datafusion::error::DataFusionError> {
        if let [first, _, ..] = small.as_slice() {
            gathered.push(concat_batches(&first.schema(), small.iter())?);
            small.clear();
        }
        gathered.append(small);
        Ok(())
    };
    for batch in arrived.drain(..) {
        let size = batch.get_array_memory_size();
        if rows + batch.num_rows() > MAX_ROWS || bytes + size > MAX_JOINED {
            join(&mut small)?;
            (rows, bytes) = (0, 0);
        }
        rows += batch.num_rows();
        bytes += size;
        small.push(batch);
    }
    join(&mut small)?;
    Ok(gathered)
}
