//! The tables that a run serves: hot rows in memory, and stored rows in finished Parquet segments or in another place that is
//! asked for them ([`History`]), read as one.
//!
//! A row is in exactly one of the two. The node that stores rows calls [`Table::commit`], which adds segments and forgets the
//! hot rows that are stored now in the same critical section; [`Table::snapshot`] sees either all of that or nothing. Of a
//! history only rows before what was committed are read.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::batch::{Batch, EdgeClass, EdgeType, MAX_ROWS, Time};
use crate::metrics::NodeMetrics;

mod handed;
mod history;
mod segments;
mod settled;

pub use handed::Handed;
use handed::Kept;
pub use history::{History, HistoryError, Stored, Wanted};
use segments::Segments;
use settled::Settled;

/// Every served table of a run, by name.
#[derive(Debug, Default)]
pub struct Catalog {
    tables: RwLock<Vec<Arc<Table>>>,
    graph: RwLock<String>,
}

impl Catalog {
    /// A catalog of these tables.
    pub fn new(tables: Vec<Arc<Table>>) -> Self {
        Self { tables: RwLock::new(tables), graph: RwLock::default() }
    }

    /// The tables in the order of the pipeline's `serve` section.
    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.tables.read().clone()
    }

    /// One table.
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.tables().into_iter().find(|t| t.name == name)
    }

    /// Serves other tables from now on.
    pub fn replace(&self, tables: Vec<Arc<Table>>) {
        *self.tables.write() = tables;
    }

    /// The pipeline that fills the tables, as Mermaid text.
    pub fn graph(&self) -> String {
        self.graph.read().clone()
    }

    /// Notes the pipeline that fills the tables, as Mermaid text.
    pub fn set_graph(&self, graph: String) {
        *self.graph.write() = graph;
    }
}

/// One served table.
#[derive(Debug)]
pub struct Table {
    /// Name in SQL.
    pub name: String,
    /// Columns.
    pub schema: SchemaRef,
    /// Key columns of a relation; empty for a stream.
    pub key: Vec<String>,
    hot_rows: usize,
    history: OnceLock<Arc<dyn History>>,
    keeper: OnceLock<String>,
    /// Who counts segments whose files are gone.
    metrics: OnceLock<Arc<NodeMetrics>>,
    state: Mutex<State>,
    /// Rows that were handed to other processes.
    kept: Mutex<Kept>,
}

/// A Parquet file that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// Rows in it.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Columns of the table that are null in its rows, because what the file has under these names is of another type.
    pub unread: Vec<String>,
    /// Shared by all copies of this value.
    copies: Arc<()>,
}

impl Segment {
    /// A file with so many rows and bytes.
    pub fn new(path: PathBuf, rows: u64, bytes: u64) -> Self {
        Self { path, rows, bytes, unread: Vec::new(), copies: Arc::default() }
    }

    /// Whether there are other copies of this value, such as in the snapshot that a query reads.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.copies) > 1
    }
}

/// A table at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Rows in memory.
    pub hot: Vec<RecordBatch>,
    /// Rows on disk.
    pub segments: Vec<Segment>,
    /// Segments whose files are gone, and their rows.
    pub missing: (usize, u64),
    /// Rows elsewhere, if the table has such.
    pub stored: Option<Stored>,
    /// Hot rows that were forgotten because the table's bound was reached and no sink keeps them.
    pub forgotten: u64,
}

#[derive(Debug, Default)]
struct State {
    settled: Settled,
    /// Live rows of a relation by encoded key.
    live: HashMap<Vec<u8>, (Arc<RecordBatch>, usize)>,
    /// Rows of all batches that came in for `live` since they were last gathered: a bound on what those batches hold.
    live_held: usize,
    /// How often `live` has changed.
    live_changes: u64,
    keys: Option<RowConverter>,
    segments: Segments,
    committed: Time,
    /// The latest message time of rows that were forgotten without being stored.
    gap: Option<Time>,
    forgotten: u64,
}

impl Table {
    /// An empty table that keeps at most about `hot_rows` settled rows, and as many live ones, in memory.
    pub fn new(name: &str, ty: &EdgeType, hot_rows: usize) -> Self {
        let key = match &ty.class {
            EdgeClass::Stream => Vec::new(),
            EdgeClass::Relation { key } => key.clone(),
        };
        Self {
            name: name.to_owned(),
            schema: Arc::clone(&ty.schema),
            key,
            hot_rows: hot_rows.max(1),
            history: OnceLock::new(),
            keeper: OnceLock::new(),
            metrics: OnceLock::new(),
            state: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// About how many settled rows are kept in memory.
    pub fn hot_rows(&self) -> usize {
        self.hot_rows
    }

    /// Takes in a batch that arrived at `time`. A change of a live row is its retraction first, then its insertion.
    ///
    /// # Errors
    /// If a key column cannot be encoded.
    pub fn push(&self, time: Time, batch: &Batch) -> Result<(), ArrowError> {
        let mut state = self.lock();
        let state = &mut *state;
        let is_final = batch.settled && batch.diff > 0;
        if !self.key.is_empty() && !is_final {
            return self.push_live(state, batch);
        }
        if time < state.committed || batch.rows.num_rows() == 0 {
            return Ok(());
        }
        state.settled.push(time, batch.rows.clone());
        let (forgotten, last) = state.settled.shrink(self.hot_rows);
        state.forgotten += forgotten;
        state.gap = state.gap.max(last);
        Ok(())
    }

    fn push_live(&self, state: &mut State, batch: &Batch) -> Result<(), ArrowError> {
        let mut columns = Vec::with_capacity(self.key.len());
        for name in &self.key {
            let column = batch
                .rows
                .column_by_name(name)
                .ok_or_else(|| ArrowError::SchemaError(format!("key column {name} is missing")))?;
            columns.push(Arc::clone(column));
        }
        if state.keys.is_none() {
            let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
            state.keys = Some(RowConverter::new(fields)?);
        }
        let Some(converter) = &state.keys else { return Ok(()) };
        let keys = converter.convert_columns(&columns)?;
        let rows = Arc::new(batch.rows.clone());
        state.live_changes += 1;
        for (index, key) in keys.iter().enumerate() {
            if batch.diff < 0 {
                state.live.remove(key.as_ref());
            } else if state.live.len() < self.hot_rows || state.live.contains_key(key.as_ref()) {
                state.live.insert(key.as_ref().to_vec(), (Arc::clone(&rows), index));
            } else {
                state.forgotten += 1;
            }
        }
        state.live_held += if batch.diff < 0 { 0 } else { batch.rows.num_rows() };
        if state.live_held > 4 * state.live.len() + 8 * MAX_ROWS {
            gather_live(state, &self.schema)?;
        }
        Ok(())
    }

    /// Names the node that stores the table's rows; there is one, else rows would be there twice.
    ///
    /// # Errors
    /// If it is another one already; the message names both.
    pub fn keep(&self, node: &str) -> Result<(), String> {
        let keeper = self.keeper.get_or_init(|| node.to_owned());
        if keeper == node {
            return Ok(());
        }
        Err(format!("the table {} is read from what {keeper} stores; it cannot be read from {node} too", self.name))
    }

    /// Names the place from which stored rows are read. Until the first [`Table::commit`] beyond 0 it is not known which
    /// those are, and nothing is read.
    pub fn set_history(&self, history: Arc<dyn History>) {
        // A table has one keeper, which says so once.
        let _ = self.history.set(history);
    }

    /// Segments that an earlier run left.
    pub fn adopt(&self, segments: Vec<Segment>) {
        self.lock().segments.add(segments);
    }

    /// Adds segments and forgets the hot settled rows of every time before `upto`, all of which the segments now hold.
    pub fn commit(&self, segments: impl IntoIterator<Item = Segment>, upto: Time) {
        let mut state = self.lock();
        let state = &mut *state;
        state.segments.add(segments);
        state.committed = state.committed.max(upto);
        state.settled.forget_before(state.committed);
    }

    /// Takes over the settled rows of before a message time from the table whose place this one takes. Rows that are stored are
    /// read from there, and those of other columns are not the same.
    pub(crate) fn inherit(&self, old: &Table, before: Time) {
        if self.keeper.get().is_some() || old.keeper.get().is_some() || self.schema != old.schema || self.key != old.key
        {
            return;
        }
        let older = old.lock().settled.before(before);
        let mut state = self.lock();
        let state = &mut *state;
        let none = Settled::after(&state.settled);
        let own = std::mem::replace(&mut state.settled, none);
        for (time, rows) in older.into_iter().chain(own.before(Time::MAX)) {
            state.settled.push(time, rows);
        }
        let (forgotten, last) = state.settled.shrink(self.hot_rows);
        state.forgotten += forgotten;
        state.gap = state.gap.max(last);
    }

    /// How many rows that may still change are shown here and not in the table that takes this one's place.
    pub(crate) fn ending_rows(&self, new: Option<&Table>) -> usize {
        let keys: Vec<Vec<u8>> = self.lock().live.keys().cloned().collect();
        let Some(new) = new.filter(|new| new.key == self.key) else { return keys.len() };
        let state = new.lock();
        keys.iter().filter(|key| !state.live.contains_key(*key)).count()
    }

    /// Names who counts segments whose files are gone: the node that has written them.
    pub fn count_missing(&self, metrics: Arc<NodeMetrics>) {
        // A table has one keeper, which says so once.
        let _ = self.metrics.set(metrics);
    }

    /// Leaves out segments whose files are gone, until [`Table::look_for_missing`] finds them again.
    pub fn lose(&self, gone: &BTreeSet<PathBuf>) {
        let mut state = self.lock();
        let lost = state.segments.lose(gone);
        if lost > 0 {
            tracing::warn!(table = self.name, files = lost, first = %gone.first().map_or_else(|| Path::new("").display(), |path| path.display()), "files of the table are gone and are left out");
            if let Some(metrics) = self.metrics.get() {
                NodeMetrics::add(&metrics.counter("missing_segments"), lost);
            }
        }
        self.tell(&state.segments);
    }

    /// Takes back segments whose files are there again, such as when their disk is mounted again. Looks at most every 10 s.
    pub fn look_for_missing(&self) {
        let wanted = self.lock().segments.sought();
        let is_there =
            |segment: &Segment| segment.path.metadata().is_ok_and(|m| m.is_file() && m.len() == segment.bytes);
        let found: BTreeSet<PathBuf> = wanted.into_iter().filter(is_there).map(|segment| segment.path).collect();
        if !found.is_empty() {
            let mut state = self.lock();
            state.segments.restore(&found);
            self.tell(&state.segments);
        }
    }

    /// Forgets segments, whose files are about to be removed.
    pub fn remove(&self, paths: &BTreeSet<&Path>) {
        let mut state = self.lock();
        state.segments.remove(paths);
        self.tell(&state.segments);
    }

    /// Says what is missing.
    fn tell(&self, segments: &Segments) {
        let Some(metrics) = self.metrics.get() else { return };
        let missing = segments.missing();
        let rows: u64 = missing.iter().map(|segment| segment.rows).sum();
        let trouble = missing.first().map(|first| {
            let (files, path) = (missing.len(), first.path.display());
            format!("{files} of its files are gone or damaged, with {rows} rows, such as {path}: queries leave them out. `retain` removes files when they are old")
        });
        metrics.set_trouble(&format!("{} missing", self.name), trouble);
    }

    /// The table now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let mut hot: Vec<RecordBatch> = state.settled.batches().cloned().collect();
        if !state.live.is_empty() {
            hot.push(live_rows(&state).unwrap_or_else(|error| {
                tracing::error!(table = self.name, %error, "live rows cannot be gathered");
                RecordBatch::new_empty(Arc::clone(&self.schema))
            }));
        }
        self.snapshot_of(&state, hot)
    }

    /// What the state says besides the rows in memory.
    fn snapshot_of(&self, state: &State, hot: Vec<RecordBatch>) -> Snapshot {
        let stored = self.history.get().map(|place| Stored {
            place: Arc::clone(place),
            before: Some(state.committed).filter(|time| *time > 0),
            gap: state.gap.is_some_and(|time| time >= state.committed),
        });
        let gone = state.segments.missing();
        let missing = (gone.len(), gone.iter().map(|segment| segment.rows).sum());
        Snapshot { hot, segments: state.segments.present().to_vec(), missing, stored, forgotten: state.forgotten }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// The live rows gathered into one batch.
fn live_rows(state: &State) -> Result<RecordBatch, ArrowError> {
    let mut batches: Vec<&RecordBatch> = Vec::new();
    let mut position: HashMap<*const RecordBatch, usize> = HashMap::new();
    let mut indices = Vec::with_capacity(state.live.len());
    for (batch, row) in state.live.values() {
        let at = *position.entry(Arc::as_ptr(batch)).or_insert_with(|| {
            batches.push(batch);
            batches.len() - 1
        });
        indices.push((at, *row));
    }
    arrow::compute::interleave_record_batch(&batches, &indices)
}

/// Copies the live rows together, so that batches of which little is live are freed.
fn gather_live(state: &mut State, schema: &SchemaRef) -> Result<(), ArrowError> {
    let rows = if state.live.is_empty() { RecordBatch::new_empty(Arc::clone(schema)) } else { live_rows(state)? };
    let rows = Arc::new(rows);
    for (at, entry) in state.live.values_mut().enumerate() {
        *entry = (Arc::clone(&rows), at);
    }
    state.live_held = rows.num_rows();
    Ok(())
}
