//! From batches to differential-dataflow's collections, and back.
//!
//! [`changes`] reads batches as rows of a collection, [`hold`] keeps each row for a time, in a bounded number, and
//! [`batches`] makes batches of what differential-dataflow computes from them. Between them stand its own operators:
//! `reduce`, `join`, `iterate`.
//!
//! **Time.** A row says itself when it takes effect ([`Row::at`]) and when it ends ([`Row::until`]). Both are functions of
//! the row and of its message, so the collection is the same at any number of workers and with any cut into batches.
//! `hold` applies them in the order of time, once the frontier has passed them.
//!
//! **Ageing without a stall.** A row that ends is taken back at `until`, which may be a week away. Were its negation
//! given at once, every arrangement behind it would carry and sort a week of negations. `hold` keeps one capability, for
//! the earliest end, and gives negations when they are due. The capability lies after the input's frontier, so it holds
//! nothing back. When the input ends, time stands still at the last row of all workers, and what is not over then stays.
//!
//! **Memory.** `hold` has a most of rows. An arrangement that only `reduce` or `join` reads is compacted by them as the
//! frontier moves, so it holds what is in the collection now, and no history. A trace handle that is kept beside them
//! must be advanced by its owner.
//!
//! **Settled rows.** Equal rows are one row for differential-dataflow, whatever mark they came with. So whether a row is
//! settled is asked of the row and of the time at which it leaves.

pub(crate) mod waiting;
pub(crate) mod windows;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use differential_dataflow::consolidation::consolidate;
use differential_dataflow::{AsCollection, Data, ExchangeData, Hashable, VecCollection};
use engine::batch::{Batch, MAX_ROWS, Stream, Time};
use engine::contract::NodeMetrics;
use engine::contract::{BuildContext, Here};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::dataflow::operators::{Capability, InputCapability};

/// When the bound of [`hold`] is met, this share of it ends at once.
const EVICTED_SHARE: usize = 64;

/// What a key or a value of a collection must be: it is ordered, hashed, and sent between workers.
pub(crate) trait Part: ExchangeData + Hash {}
impl<T: ExchangeData + Hash> Part for T {}

/// A change of a row of a collection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row<K, V> {
    /// Rows of one key are on one worker.
    pub key: K,
    /// The rest of the row.
    pub value: V,
    /// When it takes effect; not before its message's time.
    pub at: Time,
    /// When it ends by itself. Equal rows end at the same time.
    pub until: Time,
    /// How many such rows come, or go if it is negative.
    pub diff: isize,
}

/// What [`changes`] sends to [`hold`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Change<K, V> {
    /// A row, for the worker of its key.
    Row(Row<K, V>),
    /// The latest [`Row::at`] so far, for each worker.
    Clock {
        /// To whom it goes.
        worker: u64,
        /// The time.
        at: Time,
    },
}

/// A stream of changes.
pub(crate) type Changes<'s, K, V> = timely::dataflow::Stream<'s, Time, Vec<Change<K, V>>>;

/// Reads batches as changes. `read` is given a batch and its message's time, and adds its rows.
pub(crate) fn changes<'s, K: Part, V: Part>(
    stream: Stream<'s>,
    context: &BuildContext<'s>,
    mut read: impl FnMut(&Batch, Time, &mut Vec<Row<K, V>>) -> Result<(), ArrowError> + 'static,
) -> Changes<'s, K, V> {
    let (peers, fail, shared) = (context.peers, context.failure(), Arc::clone(&context.shared));
    let name = format!("{} changes", context.id);
    stream.unary::<CapacityContainerBuilder<Vec<Change<K, V>>>, _, _, _>(Pipeline, &name, move |_, _| {
        let (mut rows, mut latest) = (Vec::new(), None);
        move |input, output| {
            input.for_each_stamp(|stamp, data| {
                let time = stamp.least().copied().unwrap_or_default();
                let mut session = output.session(&stamp);
                for batch in data.flat_map(|batches| batches.drain(..)) {
                    if let Err(error) = read(&batch, time, &mut rows) {
                        fail(format!("rows cannot be read: {error}"));
                    }
                    let last = rows.iter().map(|row| row.at).max();
                    if let Some(at) = last.filter(|_| last > latest) {
                        latest = last;
                        session.give_iterator((0..peers as u64).map(|worker| Change::Clock { worker, at }));
                    }
                    if peers > 1 {
                        shared.backlog.sent(rows.len());
                    }
                    session.give_iterator(rows.drain(..).map(Change::Row));
                }
            });
        }
    })
}

/// The collection of the rows that have come and not ended. At most `max_rows` different ones are held, all workers
/// together: when a worker has no room left, those that would end first end early, and the counter `evicted` counts
/// them. The counter `too_old` counts rows that had ended before they came.
pub(crate) fn hold<'s, K: Part, V: Part>(
    changes: Changes<'s, K, V>,
    context: &BuildContext<'s>,
    max_rows: usize,
) -> VecCollection<'s, Time, (K, V), isize> {
    let (peers, shared) = (context.peers, Arc::clone(&context.shared));
    let arrived = move |rows| {
        if peers > 1 {
            shared.backlog.arrived(rows);
        }
    };
    let name = format!("{} hold", context.id);
    hold_as(changes, &name, (max_rows / peers).max(1), Arc::clone(&context.metrics), arrived)
}

/// [`hold`] on a worker whose share is `max` rows.
pub(crate) fn hold_as<'s, K: Part, V: Part>(
    changes: Changes<'s, K, V>,
    name: &str,
    max: usize,
    metrics: Arc<NodeMetrics>,
    arrived: impl Fn(usize) + 'static,
) -> VecCollection<'s, Time, (K, V), isize> {
    type Builder<K, V> = CapacityContainerBuilder<Vec<Update<K, V>>>;
    let pact = Exchange::new(|change: &Change<K, V>| match change {
        Change::Row(row) => row.key.hashed(),
        Change::Clock { worker, .. } => *worker,
    });
    let rows = changes.unary_frontier::<Builder<K, V>, _, _, _>(pact, name, move |initial, _info| {
        drop(initial);
        let mut held = Held::new(max);
        let (mut capability, mut out, here) = (None, Vec::new(), Here::new(name));
        let (too_old, mut counted) = (metrics.counter("too_old"), 0);
        move |(input, frontier), output| {
            let _here = here.enter();
            input.for_each_stamp(|stamp, data| {
                keep_least(&mut capability, &stamp);
                for change in data.flat_map(|changes| changes.drain(..)) {
                    match change {
                        Change::Row(row) => {
                            arrived(1);
                            held.push(row);
                        }
                        Change::Clock { at, .. } => held.clock = held.clock.max(at),
                    }
                }
            });
            held.advance(frontier.frontier().first().copied(), &mut out);
            if let Some(capability) = capability.as_ref().filter(|_| !out.is_empty()) {
                output.session(capability).give_iterator(out.drain(..));
            }
            NodeMetrics::add(&metrics.evicted, std::mem::take(&mut held.evicted));
            NodeMetrics::add(&too_old, std::mem::take(&mut held.too_old));
            let len = i64::try_from(held.len).unwrap_or(i64::MAX);
            metrics.state_rows.fetch_add(len - counted, Relaxed);
            counted = len;
            hold_until(&mut capability, held.next());
        }
    });
    rows.as_collection()
}

/// The rows of one worker.
struct Held<K, V> {
    /// Changes whose time the frontier has not passed.
    waiting: BTreeMap<Time, Vec<Waiting<K, V>>>,
    /// The rows by their end, with how often each is there.
    rows: BTreeMap<Time, BTreeMap<(K, V), isize>>,
    /// How many different rows there are.
    len: usize,
    max: usize,
    /// The latest time at which a row takes effect, on any worker.
    clock: Time,
    evicted: usize,
    too_old: usize,
}

/// A row with its end before it, and how many come or go.
type Waiting<K, V> = ((Time, (K, V)), isize);

/// A change of a collection.
type Update<K, V> = ((K, V), Time, isize);

impl<K: Part, V: Part> Held<K, V> {
    fn new(max: usize) -> Self {
        Self { waiting: BTreeMap::new(), rows: BTreeMap::new(), len: 0, max, clock: 0, evicted: 0, too_old: 0 }
    }

    fn push(&mut self, row: Row<K, V>) {
        self.waiting.entry(row.at).or_default().push(((row.until, (row.key, row.value)), row.diff));
    }

    /// Does all that is due before the frontier, in the order of time. Without a frontier the input has ended.
    fn advance(&mut self, frontier: Option<Time>, out: &mut Vec<Update<K, V>>) {
        loop {
            let end = self.rows.first_key_value().map(|(time, _)| *time);
            let end = end.filter(|time| frontier.map_or(*time <= self.clock, |frontier| *time < frontier));
            let arrival = self.waiting.first_key_value().map(|(time, _)| *time);
            let arrival = arrival.filter(|time| frontier.is_none_or(|frontier| *time < frontier));
            match (end, arrival) {
                // What ends at a time is not there any more for what comes then.
                (Some(end), arrival) if arrival.is_none_or(|arrival| end <= arrival) => self.end(end, out),
                (_, Some(arrival)) => self.apply(arrival, out),
                (_, None) => break,
            }
        }
        if frontier.is_none() {
            self.rows.clear();
            self.len = 0;
        }
    }

    /// The next time at which something may change.
    fn next(&self) -> Option<Time> {
        let first = self.waiting.first_key_value().map(|(time, _)| *time);
        first.into_iter().chain(self.rows.first_key_value().map(|(time, _)| *time)).min()
    }

    fn end(&mut self, time: Time, out: &mut Vec<Update<K, V>>) {
        let ended = self.rows.remove(&time).unwrap_or_default();
        self.len -= ended.len();
        out.extend(ended.into_iter().map(|(row, count)| (row, time, -count)));
    }

    fn apply(&mut self, time: Time, out: &mut Vec<Update<K, V>>) {
        let mut changes = self.waiting.remove(&time).unwrap_or_default();
        consolidate(&mut changes);
        // First what goes, so that nothing is evicted for want of its place.
        changes.sort_by_key(|(_, diff)| *diff > 0);
        for ((until, row), diff) in changes {
            if until <= time {
                self.too_old += diff.max(0).unsigned_abs();
                continue;
            }
            let held = self.rows.get(&until).and_then(|rows| rows.get(&row)).copied().unwrap_or(0);
            // What was evicted may be taken back later: it is not there twice.
            let left = held.saturating_add(diff).max(0);
            if left == held {
                continue;
            }
            if held == 0 && self.len >= self.max {
                self.evict(time, out);
            }
            let rows = self.rows.entry(until).or_default();
            if left > 0 {
                self.len += usize::from(rows.insert(row.clone(), left).is_none());
            } else {
                self.len -= usize::from(rows.remove(&row).is_some());
            }
            if rows.is_empty() {
                self.rows.remove(&until);
            }
            out.push((row, time, left - held));
        }
    }

    /// Ends those rows early that would end first.
    fn evict(&mut self, time: Time, out: &mut Vec<Update<K, V>>) {
        for _ in 0..(self.max / EVICTED_SHARE).clamp(1, MAX_ROWS) {
            let Some(mut first) = self.rows.first_entry() else { return };
            if let Some((row, count)) = first.get_mut().pop_first() {
                self.len -= 1;
                self.evicted += count.unsigned_abs();
                out.push((row, time, -count));
            }
            if first.get().is_empty() {
                first.remove();
            }
        }
    }
}

/// Batches of a collection's changes, each time's when it is complete: first what is taken back, then what is new, in
/// the order of the rows. `make` gives the rows their columns. `settled` says whether a row that is given at a time will
/// never be taken back.
pub(crate) fn batches<'s, D: Data>(
    collection: VecCollection<'s, Time, D, isize>,
    context: &BuildContext<'s>,
    make: impl FnMut(&[D]) -> Result<RecordBatch, ArrowError> + 'static,
    settled: impl Fn(&D, Time) -> bool + 'static,
) -> Stream<'s> {
    batches_as(collection, &format!("{} batches", context.id), context.failure(), make, settled)
}

/// [`batches`] with the name of the operator and where faults go.
fn batches_as<'s, D: Data>(
    collection: VecCollection<'s, Time, D, isize>,
    name: &str,
    fail: impl Fn(String) + 'static,
    mut make: impl FnMut(&[D]) -> Result<RecordBatch, ArrowError> + 'static,
    settled: impl Fn(&D, Time) -> bool + 'static,
) -> Stream<'s> {
    type Builder = CapacityContainerBuilder<Vec<Batch>>;
    collection.inner.unary_frontier::<Builder, _, _, _>(Pipeline, name, move |initial, _info| {
        drop(initial);
        let mut waiting: BTreeMap<Time, Vec<(D, isize)>> = BTreeMap::new();
        let (mut capability, here) = (None, Here::new(name));
        move |(input, frontier), output| {
            let _here = here.enter();
            input.for_each_stamp(|stamp, data| {
                keep_least(&mut capability, &stamp);
                for (row, time, diff) in data.flat_map(|updates| updates.drain(..)) {
                    waiting.entry(time).or_default().push((row, diff));
                }
            });
            let frontier = frontier.frontier().first().copied();
            while let Some(first) = waiting.first_entry().filter(|e| frontier.is_none_or(|f| *e.key() < f)) {
                let (time, mut changes) = first.remove_entry();
                consolidate(&mut changes);
                let mut parts: [Vec<D>; 3] = Default::default();
                for (row, diff) in changes {
                    let part = if diff < 0 { 0 } else { 1 + usize::from(settled(&row, time)) };
                    parts[part].extend(std::iter::repeat_n(row, diff.unsigned_abs()));
                }
                let Some(capability) = &capability else { continue };
                let capability: Capability<Time> = Capability::delayed(capability, &time);
                for ((diff, settled), rows) in [(-1, false), (1, false), (1, true)].into_iter().zip(parts) {
                    for rows in rows.chunks(MAX_ROWS) {
                        match make(rows) {
                            Ok(rows) => {
                                let batch = Batch { diff, settled, ..Batch::new(rows) };
                                output.session(&capability).give(batch);
                            }
                            Err(error) => fail(format!("rows cannot be made: {error}")),
                        }
                    }
                }
            }
            hold_until(&mut capability, waiting.first_key_value().map(|(time, _)| *time));
        }
    })
}

/// Keeps a message's capability if it is for an earlier time than the one that is held.
pub(crate) fn keep_least(held: &mut Option<Capability<Time>>, stamp: &InputCapability<Time>) {
    if held.as_ref().is_none_or(|held| stamp.least().is_some_and(|time| time < held.time())) {
        *held = stamp.retain_least(0).or(held.take());
    }
}

/// Gives up the right to send before a time, or at all.
pub(crate) fn hold_until(held: &mut Option<Capability<Time>>, time: Option<Time>) {
    match (held.as_mut(), time) {
        (Some(capability), Some(time)) if time > *capability.time() => capability.downgrade(&time),
        (Some(_), None) => *held = None,
        _ => {}
    }
}

#[cfg(test)]
#[path = "relation_tests.rs"]
mod tests;
