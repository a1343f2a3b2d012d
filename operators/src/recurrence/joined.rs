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
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use differential_dataflow::{Hashable, VecCollection};
use engine::batch::{Batch, Stream, Time};
use engine::contract::exchange::partition;
use engine::contract::{BuildContext, NodeMetrics};

use super::marks::{Key, Keys, windows};
use super::{Columns, Planned};
use crate::relation::waiting::{self, Joining, Piece, Waiting};

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
    let join = Join::new(node, keys, context)?;
    Ok(waiting::joined(rows, known, |(key, _)| key.hashed(), context, join))
}

/// What one worker holds.
struct Join {
    keys: Rc<Keys>,
    columns: Columns,
    schema: SchemaRef,
    waiting: Waiting,
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

impl Join {
    fn new(node: &Planned, keys: Rc<Keys>, context: &BuildContext<'_>) -> Result<Self, ArrowError> {
        let fields = node.input.schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(Self {
            keys,
            columns: node.columns.clone(),
            schema: Arc::clone(&node.joined),
            waiting: Waiting::new(node.ages),
            updates: BTreeMap::new(),
            windows: HashMap::new(),
            converter: RowConverter::new(fields.collect())?,
            open: HashMap::new(),
            max_open: (node.max_rows / context.peers).max(1),
            not_joined: context.metrics.counter("not_joined"),
        })
    }

    /// Takes in what has become of the windows.
    fn take_in(&mut self, due: impl Fn(Time) -> bool) {
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

impl Joining<(Key, i64)> for Join {
    fn waiting(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    fn learn(&mut self, (key, window): (Key, i64), time: Time, diff: isize) {
        self.updates.entry(time).or_default().push((key, window, diff));
    }

    fn advance(&mut self, frontier: Option<Time>, out: &mut Vec<(Time, Batch)>) -> Result<(), ArrowError> {
        let due = |time: Time| frontier.is_none_or(|frontier| time < frontier);
        while let Some(time) = self.waiting.first().filter(|time| due(*time)) {
            self.take_in(|at| at <= time);
            for Piece { leaves, batch, .. } in self.waiting.take(time) {
                let counts = self.counts(&batch)?;
                let columns = batch.rows.columns().iter().cloned().chain([Arc::new(counts) as _]);
                let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())?;
                out.push((leaves, batch.with_rows(rows)));
            }
        }
        self.take_in(due);
        Ok(())
    }

    /// What becomes known moves no row.
    fn next(&self) -> Option<Time> {
        self.waiting.leaves()
    }
}
