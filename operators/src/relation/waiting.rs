//! Rows that wait until their tick has closed, to be joined with what is known then: the operator of the ports `joined`.
//!
//! A tick has closed when both sides have passed it. Then what is known is that of the tick, on whichever worker and in
//! whichever batch a row came.

use std::collections::BTreeMap;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use differential_dataflow::{ExchangeData, VecCollection};
use engine::batch::{Batch, Stream, Time};
use engine::contract::exchange::arrivals;
use engine::contract::{BuildContext, Here};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator as _;

use super::windows::{Ages, millis};
use super::{hold_until, keep_least};

/// What one worker joins rows with.
pub(crate) trait Joining<K>: 'static {
    /// The rows that wait.
    fn waiting(&mut self) -> &mut Waiting;

    /// Takes in a change of what is known, which counts from `time` on.
    fn learn(&mut self, known: K, time: Time, diff: isize);

    /// Does what is due at the times that both sides have passed: those before `frontier`. Without a frontier both have
    /// ended. Rows that leave come into `out`, with the time at which they do.
    fn advance(&mut self, frontier: Option<Time>, out: &mut Vec<(Time, Batch)>) -> Result<(), ArrowError>;

    /// The first time at which a row may leave.
    fn next(&self) -> Option<Time>;
}

/// Joins rows, each on the worker of its route, with a collection, each of whose rows is on the worker of its `hash`.
pub(crate) fn joined<'s, K: ExchangeData>(
    rows: Stream<'s>,
    known: VecCollection<'s, Time, K, isize>,
    hash: impl Fn(&K) -> u64 + 'static,
    context: &BuildContext<'s>,
    mut join: impl Joining<K>,
) -> Stream<'s> {
    let by_route = Exchange::new(|batch: &Batch| batch.route);
    let by_hash = Exchange::new(move |(known, _, _): &(K, Time, isize)| hash(known));
    let (note, fail, name) = (arrivals(context), context.failure(), format!("{} joined", context.id));
    type Builder = CapacityContainerBuilder<Vec<Batch>>;
    rows.binary_frontier::<_, Builder, _, _, _, _>(known.inner, by_route, by_hash, &name, |initial, _info| {
        drop(initial);
        let (mut capability, mut out, here) = (None, Vec::new(), Here::new(&name));
        move |(rows, rows_frontier), (known, known_frontier), output| {
            let _here = here.enter();
            rows.for_each_stamp(|stamp, data| {
                keep_least(&mut capability, &stamp);
                let time = stamp.least().copied().unwrap_or_default();
                for batches in data {
                    note(batches);
                    for batch in batches.drain(..) {
                        let pushed = join.waiting().push(batch, time);
                        pushed.unwrap_or_else(|error| fail(format!("rows cannot be read: {error}")));
                    }
                }
            });
            known.for_each_stamp(|stamp, data| {
                // What becomes known may correct rows that have left.
                keep_least(&mut capability, &stamp);
                for (known, time, diff) in data.flat_map(|updates| updates.drain(..)) {
                    join.learn(known, time, diff);
                }
            });
            let frontiers = [rows_frontier, known_frontier].map(|frontier| frontier.frontier().first().copied());
            let advanced = join.advance(frontiers.into_iter().flatten().min(), &mut out);
            advanced.unwrap_or_else(|error| fail(format!("rows cannot be joined: {error}")));
            for (time, batch) in out.drain(..) {
                if let Some(capability) = &capability {
                    output.session(&capability.delayed(&time)).give(batch);
                }
            }
            hold_until(&mut capability, join.next());
        }
    })
}

/// Rows by the time at which they are joined.
pub(crate) struct Waiting {
    ages: Ages,
    pieces: BTreeMap<Time, Vec<Piece>>,
}

/// Rows of one batch that are joined at the same time.
pub(crate) struct Piece {
    /// The message's time. A relation's changes are applied in this order.
    stamp: Time,
    /// When they leave: not after the event time of any.
    pub leaves: Time,
    /// The rows.
    pub batch: Batch,
}

impl Waiting {
    pub fn new(ages: Ages) -> Self {
        Self { ages, pieces: BTreeMap::new() }
    }

    /// Takes in the rows of a message. Those of a stream wait for the tick of their event time.
    pub fn push(&mut self, batch: Batch, stamp: Time) -> Result<(), ArrowError> {
        if self.ages.is_relation {
            let at = self.ages.at(stamp, None);
            self.pieces.entry(at).or_default().push(Piece { stamp, leaves: at, batch });
            return Ok(());
        }
        let mut parts: BTreeMap<Time, (Time, Vec<u32>)> = BTreeMap::new();
        let events = batch.times();
        for row in 0..batch.rows.num_rows() {
            let event = events.map(|events| events.value(row));
            let leaves = event.map_or(stamp, |ns| stamp.max(millis(ns)));
            let part = parts.entry(self.ages.at(stamp, event)).or_insert_with(|| (leaves, Vec::new()));
            part.0 = part.0.min(leaves);
            part.1.push(row as u32);
        }
        for (at, (leaves, rows)) in parts {
            let rows = take_record_batch(&batch.rows, &UInt32Array::from(rows))?;
            self.pieces.entry(at).or_default().push(Piece { stamp, leaves, batch: batch.with_rows(rows) });
        }
        Ok(())
    }

    /// The first time at which rows are joined.
    pub fn first(&self) -> Option<Time> {
        self.pieces.first_key_value().map(|(time, _)| *time)
    }

    /// The rows that are joined at a time, in the order in which they are applied.
    pub fn take(&mut self, time: Time) -> Vec<Piece> {
        let mut pieces = self.pieces.remove(&time).unwrap_or_default();
        pieces.sort_by_key(|piece| (piece.stamp, piece.batch.diff));
        pieces
    }

    /// The first time at which rows leave. Rows of a later tick leave later.
    pub fn leaves(&self) -> Option<Time> {
        self.pieces.first_key_value().and_then(|(_, pieces)| pieces.iter().map(|piece| piece.leaves).min())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
    use engine::batch::{stream_schema, time_array};

    use super::*;

    const MS: i64 = 1_000_000;

    /// Rows at some ms, numbered by them.
    fn batch(times: &[i64]) -> Batch {
        let numbers: ArrayRef = Arc::new(times.iter().map(|ms| *ms as u64).collect::<UInt64Array>());
        let times = time_array(times.iter().map(|ms| ms * MS).collect());
        Batch::new(RecordBatch::try_new(stream_schema([]), vec![times, numbers]).expect("valid"))
    }

    fn numbers(piece: &Piece) -> Vec<u64> {
        piece.batch.seqs().expect("numbers").values().to_vec()
    }

    #[test]
    fn rows_of_a_stream_wait_for_their_own_tick_and_changes_of_a_relation_for_that_of_the_message() {
        let ages = Ages { tick: 100, look_back: 1_000, granularity: 100, is_relation: false };
        let mut waiting = Waiting::new(ages);
        waiting.push(batch(&[120, 70, 180, 100]), 60).expect("valid");
        assert_eq!((waiting.first(), waiting.leaves()), (Some(100), Some(70)));
        let first = waiting.take(100);
        assert_eq!(first.iter().map(numbers).collect::<Vec<_>>(), [[70]]);
        assert_eq!((waiting.first(), waiting.leaves()), (Some(200), Some(100)));
        assert_eq!(waiting.take(200).iter().map(numbers).collect::<Vec<_>>(), [[120, 180, 100]]);
        assert_eq!((waiting.first(), waiting.leaves()), (None, None));

        let mut waiting = Waiting::new(Ages { is_relation: true, ..ages });
        for (stamp, diff, number) in [(190, 1, 3), (150, 1, 2), (150, -1, 1)] {
            waiting.push(Batch { diff, settled: false, ..batch(&[number]) }, stamp).expect("valid");
        }
        assert_eq!((waiting.first(), waiting.leaves()), (Some(200), Some(200)));
        assert_eq!(waiting.take(200).iter().map(numbers).collect::<Vec<_>>(), [[1], [2], [3]]);
    }
}
