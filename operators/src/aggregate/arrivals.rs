//! Rows as they arrive: late ones are set aside, the others lose what no feature needs and go to their group's worker.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use engine::batch::{Batch, Stream, Time};
use engine::contract::{BuildContext, Here, NodeMetrics};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::{OutputBuilder, builder_rc::OperatorBuilder};

use super::hash::key_hashes;
use super::program::Program;
use crate::cut::cut_keys;
use engine::contract::exchange::partition;

/// Streams of the rows that count, by worker, with the needed columns, and of the late rows as they came.
pub(super) fn arrivals<'s>(
    stream: Stream<'s>,
    context: &BuildContext<'s>,
    program: &Arc<Program>,
    max_key: usize,
) -> (Stream<'s>, Stream<'s>) {
    let mut builder = OperatorBuilder::new(format!("{} arrivals", context.id), context.scope);
    let mut input = builder.new_input(stream, Pipeline);
    let (output, rows) = builder.new_output::<Vec<Batch>>();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Batch>>>::from(output);
    let (late_output, late) = builder.new_output::<Vec<Batch>>();
    let mut late_output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Batch>>>::from(late_output);
    let (fail, here) = (context.failure(), Here::new(&context.id));
    let (needed, keys) = (program.needed.clone(), program.by);
    let cuts = context.metrics.counter("cut_keys");
    builder.build(move |capabilities| {
        drop(capabilities);
        move |_frontiers| {
            let _here = here.enter();
            let (mut output, mut late_output) = (output.activate(), late_output.activate());
            input.for_each_stamp(|stamp, data| {
                let time = stamp.least().copied().unwrap_or_default();
                let mut session = output.session(&stamp);
                let mut late_session = late_output.session(&stamp);
                for batch in data.flat_map(|batches| batches.drain(..)) {
                    match sort_out(batch, time, &needed) {
                        Ok((kept, late)) => {
                            session.give_iterator(kept.into_iter().map(|batch| {
                                let (rows, count) = cut_keys(batch.rows.clone(), keys, max_key);
                                NodeMetrics::add(&cuts, count);
                                batch.with_rows(rows)
                            }));
                            late_session.give_iterator(late.into_iter());
                        }
                        Err(error) => fail(format!("rows cannot be read: {error}")),
                    }
                }
            });
        }
    });
    let (by, fail) = (program.by, context.failure());
    let rows = partition(rows, context, move |rows, hashes| {
        if let Err(error) = key_hashes(&rows.columns()[..by], hashes) {
            fail(format!("keys cannot be hashed: {error}"));
            hashes.resize(rows.num_rows(), 0);
        }
    });
    (rows, late)
}

/// The rows that count, with the needed columns, and the late ones. A row before the time of its message is late even
/// if it is not marked: its window may be closed.
fn sort_out(batch: Batch, time: Time, needed: &[usize]) -> Result<(Option<Batch>, Option<Batch>), ArrowError> {
    let keep = |rows: &RecordBatch| Ok::<_, ArrowError>(Some(batch.with_rows(rows.project(needed)?)));
    if batch.late {
        return Ok((None, Some(batch)));
    }
    let first = i64::try_from(time).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    // Every event time is in the window of time 0 or after it, or before the epoch.
    let is_early = |ns: i64| time > 0 && ns < first;
    match batch.times() {
        Some(times) if times.values().iter().any(|ns| is_early(*ns)) => {
            let late = times.values().iter().map(|ns| Some(is_early(*ns))).collect();
            let kept = filter_record_batch(&batch.rows, &arrow::compute::not(&late)?)?;
            let late = Batch { late: true, ..batch.with_rows(filter_record_batch(&batch.rows, &late)?) };
            Ok((keep(&kept)?, Some(late)))
        }
        _ => Ok((keep(&batch.rows)?, None)),
    }
}
