//! The port `joined`: each row with the number of other, earlier windows of its key.
//!
//! A row waits until its tick has closed. Then the windows are those of that tick, on whichever worker and in whichever
//! batch they came. What changes later does not change the row: it says what was known when it came. So a stream stays a
//! stream. Of a relation, rows that may be taken back are remembered with their number, to be taken back with it.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use differential_dataflow::{Hashable, VecCollection};
use engine::batch::{Batch, Stream, Time};
use engine::contract::BuildContext;
use engine::contract::NodeMetrics;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator as _;

use super::marks::{Key, Keys, windows};
use super::{Columns, Planned};
use crate::relation::windows::{Ages, millis};
use crate::relation::{hold_until, keep_least};
use engine::contract::exchange::{arrivals, partition};

/// A window of a key that comes or goes.
type WindowUpdate = ((Key, i64), Time, isize);

/// Joins rows with the windows of their keys.
pub(super) fn joined<'s>(
    rows: Stream<'s>,
    known: VecCollection<'s, Time, (Key, i64), isize>,
    context: &BuildContext<'s>,
    node: &Planned,
    keys: Rc<Keys>,
) -> Result<Stream<'s>, ArrowError> {
    let (hashed, fail) = (Rc::clone(&keys), context.failure());
    let rows = partition(rows, context, move |rows, hashes| match hashed.of(rows) {
        Ok(keys) => hashes.extend(keys.iter().map(|key| Key::from(key.data()).hashed())),
        Err(error) => {
            fail(format!("keys cannot be read: {error}"));
            hashes.resize(rows.num_rows(), 0);
        }
    });
    let by_route = Exchange::new(|batch: &Batch| batch.route);
    let by_key = Exchange::new(|((key, _), _, _): &WindowUpdate| key.hashed());
    let (note, fail, name) = (arrivals(context), context.failure(), format!("{} joined", context.id));
    let mut join = Join::new(node, keys, context)?;
    type Builder = CapacityContainerBuilder<Vec<Batch>>;
    let joined =
        rows.binary_frontier::<_, Builder, _, _, _, _>(known.inner, by_route, by_key, &name, |initial, _info| {
            drop(initial);
            let (mut capability, mut out) = (None, Vec::new());
            move |(rows, rows_frontier), (known, known_frontier), output| {
                rows.for_each_stamp(|stamp, data| {
                    keep_least(&mut capability, &stamp);
                    let time = stamp.least().copied().unwrap_or_default();
                    for batches in data {
                        note(batches);
                        for batch in batches.drain(..) {
                            join.push(batch, time)
                                .unwrap_or_else(|error| fail(format!("rows cannot be read: {error}")));
                        }
                    }
                });
                known.for_each_stamp(|_stamp, data| {
                    for ((key, window), time, diff) in data.flat_map(|updates| updates.drain(..)) {
                        join.updates.entry(time).or_default().push((key, window, diff));
                    }
                });
                let frontiers = [rows_frontier, known_frontier].map(|frontier| frontier.frontier().first().copied());
                let frontier = frontiers.into_iter().flatten().min();
                join.advance(frontier, &mut out)
                    .unwrap_or_else(|error| fail(format!("rows cannot be joined: {error}")));
                for (time, batch) in out.drain(..) {
                    if let Some(capability) = &capability {
                        output.session(&capability.delayed(&time)).give(batch);
                    }
                }
                hold_until(&mut capability, join.next());
            }
        });
    Ok(joined)
}

/// What one worker holds.
struct Join {
    keys: Rc<Keys>,
    columns: Columns,
    ages: Ages,
    schema: SchemaRef,
    /// Rows by the time at which they are joined.
    waiting: BTreeMap<Time, Vec<Piece>>,
    updates: BTreeMap<Time, Vec<(Key, i64, isize)>>,
    /// The starts of each key's windows, in order.
    windows: HashMap<Key, Vec<i64>>,
    /// Encodes whole rows, for [`Join::open`].
    converter: RowConverter,
    /// Rows that may be taken back, with their number and how often they are there.
    open: HashMap<Box<[u8]>, (Option<u32>, usize)>,
    max_open: usize,
    not_joined: Arc<AtomicU64>,
}

/// Rows of one batch that are joined at the same time.
struct Piece {
    /// The message's time. A relation's changes are applied in this order.
    stamp: Time,
    /// When they leave: not after the event time of any.
    leaves: Time,
    batch: Batch,
}

impl Join {
    fn new(node: &Planned, keys: Rc<Keys>, context: &BuildContext<'_>) -> Result<Self, ArrowError> {
        let fields = node.input.schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(Self {
            keys,
            columns: node.columns.clone(),
            ages: node.ages,
            schema: Arc::clone(&node.joined),
            waiting: BTreeMap::new(),
            updates: BTreeMap::new(),
            windows: HashMap::new(),
            converter: RowConverter::new(fields.collect())?,
            open: HashMap::new(),
            max_open: (node.max_rows / context.peers).max(1),
            not_joined: context.metrics.counter("not_joined"),
        })
    }

    fn push(&mut self, batch: Batch, stamp: Time) -> Result<(), ArrowError> {
        if self.ages.is_relation {
            let at = self.ages.at(stamp, None);
            self.waiting.entry(at).or_default().push(Piece { stamp, leaves: at, batch });
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
            self.waiting.entry(at).or_default().push(Piece { stamp, leaves, batch: batch.with_rows(rows) });
        }
        Ok(())
    }

    /// Joins the rows whose time both inputs have passed.
    fn advance(&mut self, frontier: Option<Time>, out: &mut Vec<(Time, Batch)>) -> Result<(), ArrowError> {
        let due = |time: Time| frontier.is_none_or(|frontier| time < frontier);
        while let Some(first) = self.waiting.first_entry().filter(|first| due(*first.key())) {
            let (time, mut pieces) = first.remove_entry();
            self.learn(|at| at <= time);
            pieces.sort_by_key(|piece| (piece.stamp, piece.batch.diff));
            for Piece { leaves, batch, .. } in pieces {
                let counts = self.counts(&batch)?;
                let columns = batch.rows.columns().iter().cloned().chain([Arc::new(counts) as _]);
                let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())?;
                out.push((leaves, batch.with_rows(rows)));
            }
        }
        self.learn(due);
        Ok(())
    }

    /// The first time at which rows may leave. Rows of a later tick leave later.
    fn next(&self) -> Option<Time> {
        self.waiting.first_key_value().and_then(|(_, pieces)| pieces.iter().map(|piece| piece.leaves).min())
    }

    /// Takes in what has become of the windows.
    fn learn(&mut self, due: impl Fn(Time) -> bool) {
        while let Some(first) = self.updates.first_entry().filter(|first| due(*first.key())) {
            for (key, window, diff) in first.remove() {
                let windows = self.windows.entry(key.clone()).or_default();
                match (windows.binary_search(&window), diff > 0) {
                    (Err(place), true) => windows.insert(place, window),
                    (Ok(place), false) => {
                        windows.remove(place);
                    }
                    _ => {}
                }
                if windows.is_empty() {
                    self.windows.remove(&key);
                }
            }
        }
    }

    fn counts(&mut self, batch: &Batch) -> Result<UInt32Array, ArrowError> {
        let keys = self.keys.of(&batch.rows)?;
        let starts = windows(&batch.rows, &self.columns);
        let earlier = |row: usize| {
            let own = starts.is_valid(row).then(|| starts.value(row))?;
            let known = self.windows.get(keys.row(row).data());
            let count = known.map_or(0, |known| known.partition_point(|window| *window < own));
            Some(u32::try_from(count).unwrap_or(u32::MAX))
        };
        if batch.settled && batch.diff > 0 {
            return Ok((0..batch.rows.num_rows()).map(earlier).collect());
        }
        let encoded = self.converter.convert_columns(batch.rows.columns())?;
        let mut counts = Vec::with_capacity(batch.rows.num_rows());
        for (row, whole) in encoded.iter().enumerate() {
            let whole = whole.data();
            if batch.diff < 0 {
                let known = self.open.get_mut(whole);
                counts.push(known.as_ref().and_then(|known| known.0));
                if let Some(known) = known {
                    known.1 -= 1;
                    if known.1 == 0 {
                        self.open.remove(whole);
                    }
                }
            } else if let Some(known) = self.open.get_mut(whole) {
                known.1 += 1;
                counts.push(known.0);
            } else if self.open.len() < self.max_open {
                let count = earlier(row);
                self.open.insert(whole.into(), (count, 1));
                counts.push(count);
            } else {
                NodeMetrics::add(&self.not_joined, 1);
                counts.push(None);
            }
        }
        Ok(UInt32Array::from(counts))
    }
}
