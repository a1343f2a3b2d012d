//! Sending rows to the worker that holds their key's state.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::dataflow::operators::vec::Filter;

use super::build_context::BuildContext;
use crate::batch::{Batch, Stream};

/// Splits batches by a hash of their rows, so that an exchange on [`Batch::route`] brings equal hashes together.
/// `hash` must give the same on every worker and in every process.
pub fn partition<'s>(
    stream: Stream<'s>,
    context: &BuildContext<'s>,
    hash: impl Fn(&RecordBatch, &mut Vec<u64>) + 'static,
) -> Stream<'s> {
    let peers = context.peers;
    if peers == 1 {
        return stream;
    }
    let (fail, shared) = (context.failure(), Arc::clone(&context.shared));
    stream.unary::<CapacityContainerBuilder<Vec<Batch>>, _, _, _>(Pipeline, "partition", move |_, _| {
        let mut hashes = Vec::new();
        move |input, output| {
            input.for_each_stamp(|time, data| {
                let mut session = output.session(&time);
                for batch in data.flat_map(|batches| batches.drain(..)) {
                    shared.backlog.sent(batch.rows.num_rows());
                    hashes.clear();
                    hash(&batch.rows, &mut hashes);
                    match split(&batch, &hashes, peers) {
                        Ok(parts) => session.give_iterator(parts.into_iter()),
                        Err(error) => fail(format!("rows cannot be split: {error}")),
                    }
                }
            });
        }
    })
}

/// The batches that are kept, noted as sent to the one worker that takes all of them.
pub fn kept<'s>(stream: Stream<'s>, context: &BuildContext<'_>, keep: impl Fn(&Batch) -> bool + 'static) -> Stream<'s> {
    let (shared, peers) = (Arc::clone(&context.shared), context.peers);
    stream.filter(move |batch: &Batch| {
        let keep = keep(batch);
        if keep && peers > 1 {
            shared.backlog.sent(batch.rows.num_rows());
        }
        keep
    })
}

/// Notes that batches which went through [`partition`] or [`kept`] have arrived.
pub fn arrivals(context: &BuildContext<'_>) -> impl Fn(&[Batch]) + use<> {
    let (shared, peers) = (Arc::clone(&context.shared), context.peers);
    move |batches| {
        if peers > 1 {
            shared.backlog.arrived(batches.iter().map(|batch| batch.rows.num_rows()).sum());
        }
    }
}

/// The rows of a batch by worker, in their order; workers without rows are left out.
fn split(batch: &Batch, hashes: &[u64], peers: usize) -> Result<Vec<Batch>, ArrowError> {
    let mut rows: Vec<Vec<u32>> = vec![Vec::with_capacity(hashes.len() / peers + 16); peers];
    for (row, hash) in hashes.iter().enumerate() {
        rows[(hash % peers as u64) as usize].push(row as u32);
    }
    let mut parts = Vec::with_capacity(peers);
    for (worker, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        let route = worker as u64;
        let part = if rows.len() == batch.rows.num_rows() {
            batch.rows.clone()
        } else {
            take_record_batch(&batch.rows, &UInt32Array::from(rows))?
        };
        parts.push(Batch { route, ..batch.with_rows(part) });
    }
    Ok(parts)
}
