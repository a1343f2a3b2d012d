//! The stateful operator: a [`Window`] on each worker, driven by the frontier.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use engine::batch::{Batch, MAX_ROWS, Stream, Time};
use engine::contract::BuildContext;
use engine::contract::NodeMetrics;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

use engine::contract::exchange::arrivals;

use super::window::{CLOSED, Settings, Window};

/// Takes in rows; how many of them an expression has no value for, such as a cast of text that is no number. One such
/// row must not end the run, nor cost its neighbours: a batch that fails is halved until the rows that fail are alone.
fn push(window: &mut Window, rows: &RecordBatch) -> u64 {
    match (window.push(rows), rows.num_rows()) {
        (Ok(()), _) => 0,
        (Err(error), 0 | 1) => {
            tracing::warn!(%error, "a row has no value for a feature and is left out");
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
    let mut outputs = [output, final_output].map(OutputBuilder::<_, CapacityContainerBuilder<Vec<Batch>>>::from);
    let activator = context.scope.activator_for(info.address);
    let (fail, note, metrics) = (context.failure(), arrivals(context), context.metrics.clone());
    let mut window = match Window::new(settings, context.metrics.clone()) {
        Ok(window) => Some(window),
        Err(error) => {
            fail(format!("groups cannot be made: {error}"));
            None
        }
    };
    builder.build(move |capabilities| {
        drop(capabilities);
        let mut held: Option<[Capability<Time>; 2]> = None;
        let (mut arrived, mut sent) = (Vec::new(), Vec::new());
        move |frontiers| {
            input.for_each_stamp(|stamp, data| {
                let earlier = held.as_ref().is_some_and(|held| stamp.least().is_none_or(|t| held[0].time() <= t));
                if !earlier && let (Some(out), Some(last)) = (stamp.retain_least(0), stamp.retain_least(1)) {
                    held = Some([out, last]);
                }
                for batches in data {
                    note(batches);
                    arrived.extend(batches.drain(..).map(|batch| batch.rows));
                }
            });
            let Some(open) = window.as_mut() else {
                arrived.clear();
                held = None;
                return;
            };
            let frontier = frontiers[0].frontier().first().copied().unwrap_or(CLOSED);
            let pushed = gather(&mut arrived).map(|batches| batches.iter().map(|rows| push(open, rows)).sum::<u64>());
            let worked = pushed.and_then(|refused| {
                NodeMetrics::add(&metrics.rejected, refused as usize);
                open.work(frontier, &mut sent)
            });
            for (port, time, batch) in sent.drain(..) {
                if let Some(held) = &held {
                    let port = port as usize;
                    outputs[port].activate().session(&held[port].delayed(&time)).give(batch);
                }
            }
            match worked {
                Ok(true) => activator.activate(),
                Ok(false) => {}
                Err(error) => {
                    fail(format!("a feature cannot be computed: {error}"));
                    window = None;
                    held = None;
                    return;
                }
            }
            match open.hold() {
                None => held = None,
                Some(time) => {
                    for capability in held.iter_mut().flatten() {
                        if time > *capability.time() {
                            capability.downgrade(&time);
                        }
                    }
                }
            }
        }
    });
    [out, last]
}

/// Small batches that arrived together as larger ones: the cost of an expression is mostly per batch.
fn gather(arrived: &mut Vec<RecordBatch>) -> Result<Vec<RecordBatch>, datafusion::error::DataFusionError> {
    let mut gathered = Vec::new();
    let mut small: Vec<RecordBatch> = Vec::new();
    let mut rows = 0;
    let mut join = |small: &mut Vec<RecordBatch>| -> Result<(), datafusion::error::DataFusionError> {
        if let [first, _, ..] = small.as_slice() {
            gathered.push(concat_batches(&first.schema(), small.iter())?);
            small.clear();
        }
        gathered.append(small);
        Ok(())
    };
    for batch in arrived.drain(..) {
        if rows + batch.num_rows() > MAX_ROWS {
            join(&mut small)?;
            rows = 0;
        }
        rows += batch.num_rows();
        small.push(batch);
    }
    join(&mut small)?;
    Ok(gathered)
}
